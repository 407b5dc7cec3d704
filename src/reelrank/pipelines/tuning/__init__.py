"""A system's own parameters, searched on its validation metric: studies that go on where they stopped, alone or many at once."""

from reelrank.pipelines.tuning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
