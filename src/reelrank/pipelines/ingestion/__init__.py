"""From raw files to canonical tables."""

from reelrank.pipelines.ingestion.pipeline import create_pipeline, create_posts_pipeline

__all__ = ["create_pipeline", "create_posts_pipeline"]
