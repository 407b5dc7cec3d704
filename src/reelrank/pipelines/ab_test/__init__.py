"""An A/B test of trained policies that has a truth: in the world itself, in a fitted simulator, and in KuaiRec's full matrix. Source: METHODS §4.8."""

from reelrank.pipelines.ab_test.pipeline import create_pipeline
from reelrank.pipelines.ab_test.run_options import METHODS

__all__ = ["METHODS", "create_pipeline"]
