"""RUIE and its baselines: sequential recommendation over several scenarios (arXiv 2506.17682, METHODS §5)."""

from reelrank.models import homes
from reelrank.pipelines.ruie.pipeline import create_pipeline

homes.declare("reelrank.pipelines.ruie.model", "ruie")
homes.declare(
    "reelrank.pipelines.ruie.baselines",
    "nextitnet", "sasrec", "gru4rec", "caser", "din", "pepnet", "star", "popularity_of_items",
)  # fmt: skip

__all__ = ["create_pipeline"]
