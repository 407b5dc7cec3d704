"""From canonical tables to features that several systems share."""

from reelrank.pipelines.features.pipeline import create_pipeline

__all__ = ["create_pipeline"]
