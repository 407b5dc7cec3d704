"""MMRF: seven agents, one per response, that share what helps them all. Source: METHODS §4, arXiv 2405.01847."""

from reelrank.models import homes
from reelrank.pipelines.mmrf.pipeline import create_pipeline

homes.declare("reelrank.pipelines.mmrf.actors", "mmrf", "mmrf_co", "mmrf_da", "mmrf_ns")
homes.declare("reelrank.pipelines.mmrf.baselines.supervised", "bc", "ltr")
homes.declare("reelrank.pipelines.mmrf.baselines.fields", "wide_deep", "deepfm")
homes.declare("reelrank.pipelines.mmrf.baselines.pareto", "pareto")
homes.declare("reelrank.pipelines.mmrf.baselines.tscac", "tscac")
homes.declare("reelrank.pipelines.mmrf.baselines.massa", "massa")

__all__ = ["create_pipeline"]
