r"""The agents' critics: functions of the state and of an exposure e, a distribution over the candidates.

.. math:: Q_i(s, e) = \sum_c e_c \tilde q_i(s, x_c) + V_i(s)

with q̃ centred over the candidates, else q + c, V − c would be the same critic. The logged action is the share of each shown item.

Source: METHODS §4.4 [D: the paper gives no form]. Shapes: N agents, B decisions, C candidates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch
from reelrank.models.feed_encoder import FeedEncoder, FeedSpec
from reelrank.models.tensor_record import TensorRecord
from reelrank.pipelines.mmrf.agent_layers import AgentMLP, StateItemLinear
from reelrank.pipelines.mmrf.options import CriticOptions


@dataclass(frozen=True)
class CriticState(TensorRecord):
    """What critics know of B decisions before an exposure is named.

    Attributes:
        candidates: linear: q̃ (N, B, C), 0 at a pad; set: first layer (N, B, C, H) without the exposure's share.
        value: V_i(s), (N, B).
        mask: (B, C), where a candidate stands.
    """

    candidates: Tensor
    value: Tensor
    mask: Tensor

    def detach(self) -> CriticState:
        """The same numbers without gradients."""
        return CriticState(self.candidates.detach(), self.value.detach(), self.mask)


class FeedCritics(nn.Module, ABC):
    """Base: own encoder, trained by TD only, so that no actor can move it."""

    def __init__(self, agents: int, options: CriticOptions, spec: FeedSpec) -> None:
        super().__init__()
        encoder = options.encoder
        self.encoder = FeedEncoder(encoder, spec)
        self.first = StateItemLinear(agents, encoder.d_state, encoder.d_item, options.hidden[0])
        self.baseline = AgentMLP(agents, [encoder.d_state, options.value_hidden])
        self.credit = options.credit

    @abstractmethod
    def forward(self, batch: FeedBatch) -> CriticState:
        """All that does not depend on the exposure."""

    @abstractmethod
    def value(self, state: CriticState, exposure: Tensor) -> Tensor:
        """Q_i (N, B) of exposures (N or 1, B, C) that sum to 1 over the candidates and are 0 at a pad."""


class LinearCritics(FeedCritics):
    """Linear in the exposure: Q of one item shown is q̃ of it plus V."""

    def __init__(self, agents: int, options: CriticOptions, spec: FeedSpec) -> None:
        super().__init__(agents, options, spec)
        self.rest = AgentMLP(agents, options.hidden)

    def forward(self, batch: FeedBatch) -> CriticState:
        """q̃ and V."""
        b, x = self.encoder(batch)
        q = self.rest(F.leaky_relu(self.first(b, x)).flatten(1, 2)).view(-1, *batch.mask.shape)
        return CriticState(centred(q, batch.mask), self.baseline(b), batch.mask)

    def value(self, state: CriticState, exposure: Tensor) -> Tensor:
        """Σ_c e_c q̃_c + V."""
        return (exposure * state.candidates).sum(-1) + state.value


class SetCritics(FeedCritics):
    """``mlp_set``: V + ρ_i(mean_c φ_i(b, x_c, C·e_c)), whatever the order of the candidates."""

    def __init__(self, agents: int, options: CriticOptions, spec: FeedSpec) -> None:
        super().__init__(agents, options, spec)
        self.of_exposure = nn.Parameter(torch.randn(agents, 1, 1, options.hidden[0]) * 0.1)
        self.rest = AgentMLP(agents, options.hidden)

    def forward(self, batch: FeedBatch) -> CriticState:
        """φ's first layer without the exposure, and V."""
        b, x = self.encoder(batch)
        return CriticState(self.first(b, x), self.baseline(b), batch.mask)

    def value(self, state: CriticState, exposure: Tensor) -> Tensor:
        """Differentiable in the exposure."""
        n = state.mask.sum(-1).clamp_min(1)
        relative = (exposure * n.unsqueeze(-1)).unsqueeze(-1)  # 1 where all are shown alike
        phi = F.leaky_relu(state.candidates + relative * self.of_exposure)
        pooled = (phi * state.mask.unsqueeze(-1)).sum(2) / n.unsqueeze(-1)
        answer: Tensor = self.rest(pooled) + state.value
        return answer


def centred(q: Tensor, mask: Tensor) -> Tensor:
    """Values (N, B, C) less their mean over the candidates; 0 at a pad."""
    q = q.masked_fill(~mask, 0.0)
    mean = q.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp_min(1)
    return (q - mean).masked_fill(~mask, 0.0)


def build_critics(agents: int, options: CriticOptions, spec: FeedSpec) -> FeedCritics:
    """The critics that ``options.kind`` names."""
    kinds: dict[str, Any] = {"linear": LinearCritics, "mlp_set": SetCritics}
    critics: FeedCritics = kinds[options.kind](agents, options, spec)
    return critics


def td_target(reward: Tensor, next_value: Tensor, goes_on: Tensor, gamma: float) -> Tensor:
    """Targets r + γ (1 − done) Q⁻(s', a'(s')), (N, B); NaN where the reward was not logged."""
    return reward + gamma * goes_on * next_value


def td_loss(value: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_i of the mean of δ_i² over the rows with a target, and those means, (N,); both arguments (N, B)."""
    known = ~target.isnan()
    squared = (target.nan_to_num(0.0) - value).square() * known
    per_agent = squared.sum(1) / known.sum(1).clamp_min(1)
    return per_agent.sum(), per_agent.detach()


def td_loss_of_items(value: Tensor, target: Tensor, logged: Tensor) -> tuple[Tensor, Tensor]:
    """The same where each item of a row is a step, value and target (N, B, C).

    Items count alike, but the ``logged`` rows (B,) and the simulated ones keep their shares of the batch (METHODS §4.6).
    """
    known = ~target.isnan()
    squared = (target.nan_to_num(0.0) - value).square() * known
    rows = known.any(-1)
    total = value.new_zeros(len(value))
    for part in (logged, ~logged):
        n = known[:, part].sum((1, 2)).clamp_min(1)
        total = total + squared[:, part].sum((1, 2)) / n * rows[:, part].sum(1)
    per_agent = total / rows.sum(1).clamp_min(1)
    return per_agent.sum(), per_agent.detach()
