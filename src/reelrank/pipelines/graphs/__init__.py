"""From canonical tables to what graph models and candidate rankers read."""

from reelrank.pipelines.graphs.pipeline import create_pipeline

__all__ = ["create_pipeline"]
