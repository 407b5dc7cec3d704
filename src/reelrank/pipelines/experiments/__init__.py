"""METHODS §9 as a registry: every question is a few cells, every cell one run of a system, every verdict read by a rule."""

from reelrank.pipelines.experiments.pipeline import create_pipeline

__all__ = ["create_pipeline"]
