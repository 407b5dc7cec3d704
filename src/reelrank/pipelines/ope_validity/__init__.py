"""Validity of the evaluation itself: OP-01 … OP-11 (METHODS §7.4)."""

from reelrank.pipelines.ope_validity.pipeline import create_pipeline

__all__ = ["create_pipeline"]
