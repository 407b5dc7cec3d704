"""Rewards of a feed: the seven responses in units of their train standard deviation, hate negated, watch time winsorised.

Source: METHODS §4.2.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from reelrank.models.feed import HATE, RESPONSES, WATCH_TIME, FeedInputs
from reelrank.models.feed_data import trained_decisions
from reelrank.models.feed_options import WATCH_CAP_S
from reelrank.models.tensor_record import TensorRecord

log = logging.getLogger(__name__)


def raw_rewards(response: Tensor) -> Tensor:
    """Responses (…, 7) as rewards in their own units: −hate, watch time at most 180 s; NaN stays."""
    reward = response.clone()
    reward[..., HATE].neg_()
    reward[..., WATCH_TIME].clamp_(max=WATCH_CAP_S)
    return reward


@dataclass(frozen=True)
class RewardScale(TensorRecord):
    """Units of the rewards of N agents, fitted on train.

    Attributes:
        columns: (N,) int64, the agents' places in :data:`RESPONSES`.
        sd: (N,) float32, of the shown items of train.
        largest: (N,) float32, the largest |reward| of train in these units.
    """

    columns: Tensor
    sd: Tensor
    largest: Tensor

    @classmethod
    def fit(cls, inputs: FeedInputs, agents: Sequence[str] = RESPONSES) -> Self:
        """Fit on the train decisions that were no random exposures (L2, L8).

        A response that never varies in train keeps its own unit, with a warning.

        Raises:
            ValueError: an agent is no response, or its response was never logged.
        """
        if unknown := [a for a in agents if a not in RESPONSES]:
            raise ValueError(f"unknown responses {unknown}: choose from {', '.join(RESPONSES)}")
        decisions = inputs.decisions
        index = trained_decisions(decisions)
        columns = torch.tensor([RESPONSES.index(a) for a in agents], device=index.device)
        shown = decisions.response[index][decisions.shown[index]]
        reward = raw_rewards(shown)[:, columns].double()
        logged = ~reward.isnan()
        if absent := [a for a, n in zip(agents, logged.sum(0).tolist(), strict=True) if not n]:
            raise ValueError(f"train logs no {', '.join(absent)}: leave the agents out")
        mean = reward.nanmean(0)
        sd = (reward - mean).square().nanmean(0).sqrt()
        constant = sd < 1e-6
        if constant.any():
            names = [a for a, c in zip(agents, constant.tolist(), strict=True) if c]
            log.warning("%s never vary in train: these agents learn nothing", ", ".join(names))
        sd = torch.where(constant, torch.ones_like(sd), sd)
        largest = (reward / sd).nan_to_num(0.0).abs().amax(0)
        return cls(columns, sd.float(), largest.float())

    def rewards(self, response: Tensor) -> Tensor:
        """Rewards (…, N) of responses (…, 7); NaN where not logged."""
        return raw_rewards(response)[..., self.columns] / self.sd
