"""A feed as tensors: what was shown and answered, the decisions behind it, and the batch that every feed policy reads.

Source: METHODS §4.1 to §4.3. Shapes: B decisions, C candidates, L rows of history, F user attributes, G item attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from reelrank.models.tensor_record import TensorRecord
from reelrank.models.user_features import UserFeatures

RESPONSES = ("click", "like", "follow", "comment", "hate", "long_view", "watch_time")
"""One agent each, the main one (watch time, seconds) last. Source: METHODS §4.1 [S]."""
HATE, WATCH_TIME = RESPONSES.index("hate"), RESPONSES.index("watch_time")
PAD = -1  # no item


@dataclass(frozen=True)
class FeedRows(TensorRecord):
    """R rows that users saw, in (user, ts_ms, row_id) order, so that a history is a slice.

    Attributes:
        item: (R,) int64.
        ts_ms: (R,) int64, UTC epoch ms.
        response: (R, 7) float32 as :data:`RESPONSES`, watch time in seconds; NaN where it was not logged.
        first: (n_users + 1,) int64, a user's rows are first[u] … first[u + 1] − 1.
    """

    item: Tensor
    ts_ms: Tensor
    response: Tensor
    first: Tensor


@dataclass(frozen=True)
class Decisions(TensorRecord):
    """D decisions of what to show, in (user, ts_ms) order: a request, or a single row.

    Attributes:
        user: (D,) int64.
        ts_ms: (D,) int64, UTC epoch ms.
        scenario: (D,) int64.
        row: (D,) int64, the decision's first row in :class:`FeedRows`; the user's rows before it are its history.
        next: (D,) int64, the episode's next decision; −1 = done.
        candidates: (D, C) int64, :data:`PAD` beyond the end.
        shown: (D, C) bool.
        response: (D, C, 7) float32, NaN where not shown or not logged.
        split: (D,) int8: 0 train, 1 val, 2 test.
        is_rand: (D,) bool, uniformly random exposure: never trained on.
    """

    user: Tensor
    ts_ms: Tensor
    scenario: Tensor
    row: Tensor
    next: Tensor
    candidates: Tensor
    shown: Tensor
    response: Tensor
    split: Tensor
    is_rand: Tensor


@dataclass(frozen=True)
class ItemFeatures(TensorRecord):
    """Static attributes of the items as codes; 0 = null or not seen in train (L2).

    Attributes:
        codes: (n_items, G) int64: author, category, duration decile …
        cardinalities: codes of each attribute, the 0 included.
        fields: names of the attributes.
    """

    codes: Tensor
    cardinalities: tuple[int, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True)
class FeedInputs(TensorRecord):
    """All that models of a feed read, on one device."""

    rows: FeedRows
    decisions: Decisions
    users: UserFeatures
    items: ItemFeatures


@dataclass(frozen=True)
class FeedBatch(TensorRecord):
    """States and candidates: all that a policy may see of B decisions, from a log or from a roll-out (L6).

    Attributes:
        user_codes: (B, F) int64.
        scenario: (B,) int64.
        hour: (B,) int64, local hour 0 … 23.
        history: (B, L) int64 items, oldest first, right-aligned; :data:`PAD` = none.
        feedback: (B, L, 7) float32 of the history; NaN where not logged, 0 where there is no row.
        candidates: (B, C) int64, :data:`PAD` beyond the end.
        item_codes: (B, C, G) int64 of the candidates, 0 at a pad.
    """

    user_codes: Tensor
    scenario: Tensor
    hour: Tensor
    history: Tensor
    feedback: Tensor
    candidates: Tensor
    item_codes: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, C) bool: a candidate stands here."""
        return self.candidates != PAD


class FeedPolicy(Protocol):
    """Whatever ranks the candidates of a feed: MMRF, every baseline, and the logging policy of a world."""

    def scores(self, batch: FeedBatch) -> Tensor:
        """(B, C) float32, higher is shown first; −inf at a pad."""
        ...


def scores_of(policy: nn.Module, batch: FeedBatch) -> Tensor:
    """:meth:`FeedPolicy.scores` of a policy that is a module: to type checkers a module's methods may be anything."""
    scores: Callable[[FeedBatch], Tensor] = policy.scores  # type: ignore[assignment]
    return scores(batch)


def probabilities(scores: Tensor, temperature: float) -> Tensor:
    """Softmax of (B, C) scores over the candidates; pads (−inf) get 0.

    Raises:
        ValueError: temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, is {temperature}")
    return torch.softmax(scores.float() / temperature, dim=-1)
