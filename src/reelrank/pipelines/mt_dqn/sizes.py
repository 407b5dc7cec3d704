"""How large the models are at given input sizes, found on torch's meta device: no data, no memory."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import torch

from reelrank.models import registry
from reelrank.models.event_stream import MESSAGE_DIM
from reelrank.models.inputs import InputSpec
from reelrank.models.policy import RankingModel
from reelrank.options import Options
from reelrank.pipelines.mt_dqn import baselines as _baselines  # noqa: F401 (registers them)
from reelrank.pipelines.mt_dqn import model as _model  # noqa: F401 (registers MT-DQN)
from reelrank.pipelines.mt_dqn.options import SizeOptions

BYTES_PER_PARAMETER = 16  # float32 weight, gradient and Adam's two moments


def module_sizes(options: Mapping[str, Options], sizes: SizeOptions) -> pl.DataFrame:
    """Parameters of each top-level module of each model.

    Args:
        options: registered model name to its options.
        sizes: of the inputs that the model is meant for.

    Returns:
        variant, module, parameters, training_mb (weights, gradients and Adam's moments).
    """
    spec = InputSpec(**sizes.model_dump(), message_dim=MESSAGE_DIM, mean_gap_hours=1.0)
    rows = []
    with torch.device("meta"):
        for variant, option in options.items():
            for name, module in registry.build(
                variant, option, spec, RankingModel
            ).named_children():
                rows.append((variant, name, sum(p.numel() for p in module.parameters())))
    frame = pl.DataFrame(rows, schema=["variant", "module", "parameters"], orient="row")
    return frame.with_columns(training_mb=pl.col("parameters") * BYTES_PER_PARAMETER / 2**20)
