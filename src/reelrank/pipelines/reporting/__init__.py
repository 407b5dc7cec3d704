"""One static site that is drawn from all stored result rows."""

from reelrank.pipelines.reporting.pipeline import create_pipeline

__all__ = ["create_pipeline"]
