"""The feedback simulator of MMRF by itself: how well it answers for users, and whether it knows where it errs (METHODS §4.6)."""

from reelrank.pipelines.feedback_simulator.pipeline import create_pipeline

__all__ = ["create_pipeline"]
