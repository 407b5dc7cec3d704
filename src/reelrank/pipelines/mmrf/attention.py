"""Whom each agent of a trained MMRF listens to (MM-11).

Source: METHODS §4.3 Eq. 1.
"""

from __future__ import annotations

import polars as pl
import torch

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_data import batch
from reelrank.models.feed_policies import history_length, load_policy
from reelrank.pipelines.mmrf.actors import MMRFActors, SharedAttention
from reelrank.pipelines.mmrf.run_options import PredictionOptions
from reelrank.pipelines.mmrf.scoring import TEST
from reelrank.training.artifact import ModelCheckpoint

SCHEMA = {
    "head": pl.Int64, "agent": pl.String, "heard": pl.String, "weight": pl.Float64, "sd": pl.Float64, "n": pl.Int64,
}  # fmt: skip


@torch.no_grad()
def attention_map(
    checkpoint: ModelCheckpoint, inputs: FeedInputs, options: PredictionOptions
) -> pl.DataFrame:
    """Mean and sd of α_ij over the candidates of the test decisions, a row per head, agent i and agent j heard.

    The diagonal is 0: an agent hears the others only. Empty for a model without attention.
    """
    policy = load_policy(checkpoint, inputs.rows.item.device)
    if not isinstance(policy, MMRFActors) or not isinstance(policy.exchange, SharedAttention):
        return pl.DataFrame(schema=SCHEMA)
    index = torch.nonzero((inputs.decisions.split == TEST) & ~inputs.decisions.is_rand).squeeze(1)
    length, n = history_length(checkpoint), 0
    total: torch.Tensor | float = 0.0
    square: torch.Tensor | float = 0.0
    for part in torch.split(index, options.block):
        states = batch(inputs, part, length)
        alpha = policy.exchange.weights(policy.hidden(states))[states.mask.flatten()].double()
        total, square, n = total + alpha.sum(0), square + alpha.square().sum(0), n + len(alpha)
    mean = torch.as_tensor(total) / max(n, 1)
    sd = (torch.as_tensor(square) / max(n, 1) - mean.square()).clamp_min(0).sqrt()
    agents = policy.options.agents
    rows = [
        (m, a, b, float(mean[m, i, j]), float(sd[m, i, j]), n)
        for m in range(mean.shape[0])
        for i, a in enumerate(agents)
        for j, b in enumerate(agents)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")
