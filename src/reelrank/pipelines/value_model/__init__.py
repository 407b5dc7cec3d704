"""The multi-head value model (METHODS §6.1–6.5)."""

from reelrank.models import homes
from reelrank.pipelines.value_model.pipeline import create_pipeline

homes.declare("reelrank.pipelines.value_model.model", "edge_mlp", "gnn")
homes.declare("reelrank.pipelines.value_model.logistic", "logistic")

__all__ = ["create_pipeline"]
