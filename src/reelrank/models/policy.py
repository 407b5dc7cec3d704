"""The one interface of ranking models: state and candidates in, scores and probabilities out.

Source: METHODS §3.7. Shapes: B lists, C candidates, Du and Dv widths of user and item states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.tensor_record import TensorRecord
from reelrank.options import Options


@dataclass(frozen=True)
class Outputs(TensorRecord):
    """What a model says of every candidate.

    Attributes:
        q: (B, C), the ranking score: Q for reinforcement learning, else the model's own.
        behaviour_logits: (B, C, 3), watch, like, share.
        value: (B, C), value of the logging behaviour; its head's input is detached.
        reward: (B, C), expected immediate reward; its head's input is detached.
    """

    q: Tensor
    behaviour_logits: Tensor
    value: Tensor
    reward: Tensor


class Policy(Protocol):
    """Whatever ranks candidates; both answers are float32 of shape (B, C)."""

    def scores(self, inputs: ModelInputs, users: Tensor, items: Tensor, ts: Tensor) -> Tensor:
        """Higher is shown first."""
        ...

    def probabilities(
        self, inputs: ModelInputs, users: Tensor, items: Tensor, ts: Tensor, temperature: float
    ) -> Tensor:
        """Chance of showing each candidate; rows sum to 1."""
        ...


class RankingModel(nn.Module, ABC):
    """Base of the trained models: user state and item state apart, so that each is computed once, then a head.

    A subclass is built as ``Model(config, spec)`` and is a :class:`Policy`. What it keeps about the inputs (item memory,
    vocabularies) is in persistent buffers, filled by :meth:`refresh`.

    Attributes:
        learns_q: false for a supervised ranker, whose ``q`` is no value and gets no DQN loss.
    """

    learns_q: ClassVar[bool] = True

    def __init__(self, config: Options, spec: InputSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.register_buffer("refreshed", torch.tensor(False))
        self.refreshed: Tensor

    @abstractmethod
    def user_state(self, inputs: ModelInputs, users: Tensor, ts: Tensor) -> Tensor:
        """State of users (B,) strictly before ts (B,): (B, Du)."""

    @abstractmethod
    def item_state(self, inputs: ModelInputs, items: Tensor, ts: Tensor) -> Tensor:
        """State of items (M,) strictly before ts (M,): (M, Dv)."""

    @abstractmethod
    def head(self, user_state: Tensor, item_state: Tensor) -> Outputs:
        """Outputs for user states (B, Du) and item states (B or 1, C, Dv)."""

    @torch.no_grad()
    def refresh(self, inputs: ModelInputs) -> None:
        """Recompute what the model keeps about ``inputs``; at each epoch's start and before evaluation."""
        self._refresh(inputs)
        self.refreshed.fill_(True)

    def _refresh(self, inputs: ModelInputs) -> None:
        """Overridden by a model that keeps something."""

    def _require_refreshed(self) -> None:
        if not self.refreshed:
            raise RuntimeError(
                f"{type(self).__name__} has not seen its inputs: call refresh(inputs) before the first batch"
            )

    def states(
        self, inputs: ModelInputs, users: Tensor, items: Tensor, ts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States of users (B,) and of their candidates (B, C), each list at its own time ts (B,): (B, Du), (B, C, Dv)."""
        item_ts = ts.unsqueeze(1).expand_as(items)
        item_state = self.item_state(inputs, items.flatten(), item_ts.flatten())
        return self.user_state(inputs, users, ts), item_state.view(*items.shape, -1)

    def forward(self, inputs: ModelInputs, users: Tensor, items: Tensor, ts: Tensor) -> Outputs:
        """Outputs for users (B,) and candidates (B, C), each list at its own time ts (B,), UTC epoch ms."""
        return self.head(*self.states(inputs, users, items, ts))

    def scores(self, inputs: ModelInputs, users: Tensor, items: Tensor, ts: Tensor) -> Tensor:
        """Ranking score of each candidate, (B, C) float32."""
        outputs: Outputs = self(inputs, users, items, ts)
        return outputs.q.float()

    def probabilities(
        self, inputs: ModelInputs, users: Tensor, items: Tensor, ts: Tensor, temperature: float
    ) -> Tensor:
        """Softmax of scores over the candidates, (B, C) float32.

        Raises:
            ValueError: temperature is not positive.
        """
        if temperature <= 0:
            raise ValueError(f"temperature must be > 0, is {temperature}")
        return torch.softmax(self.scores(inputs, users, items, ts) / temperature, dim=-1)
