"""From a publisher's server to raw files."""

from reelrank.pipelines.download.pipeline import create_pipeline

__all__ = ["create_pipeline"]
