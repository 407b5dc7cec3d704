"""From canonical tables to features that several systems share."""

from reelrank.pipelines.features.pipeline import create_own_split, create_pipeline

__all__ = ["create_own_split", "create_pipeline"]
