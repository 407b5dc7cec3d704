"""What RUIE and all its baselines are to training and evaluation: a query per place, and a vector per item.

Source: METHODS §5.6. Shapes: B sequences, L places, I items, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from reelrank.models.sequence_data import PAD, Histories, Sequences, Windows, histories_before
from reelrank.models.tensor_record import TensorRecord
from reelrank.options import Options


class SequenceSpec(Options):
    """Sizes that follow from the data; saved beside a model's options in its checkpoint."""

    n_users: int = Field(ge=1, description="users")
    n_items: int = Field(ge=1, description="items")
    n_scenarios: int = Field(ge=1, description="scenarios")
    length: int = Field(ge=2, description="events of a history")

    @classmethod
    def of(cls, log: Sequences, length: int) -> SequenceSpec:
        """The sizes of a log."""
        return cls(n_users=log.n_users, n_items=log.n_items, n_scenarios=log.n_scenarios, length=length)  # fmt: skip


@dataclass(frozen=True)
class Batch(TensorRecord):
    """Histories, and the event that each place is asked for.

    A place's answer may use the history up to and with that place, the user, and the scenario of the request.

    Attributes:
        history: left-aligned, (B, L).
        user: (B,) int64.
        asked: (B, P) int64 position in the log, ``PAD`` = nothing is asked; P = L, or 1 for the last place alone.
        item: (B, P) int64, the asked item; 0 where nothing is asked.
        scenario: (B, P) int64, of the request; 0 where nothing is asked.
    """

    history: Histories
    user: Tensor
    asked: Tensor
    item: Tensor
    scenario: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, P) bool: something is asked here."""
        return self.asked != PAD


def window_batch(log: Sequences, windows: Windows, rows: Tensor) -> Batch:
    """All places of some windows, as wide as the longest of them."""
    history, asked = windows.batch(log, rows)
    places = max(1, int(history.length.max()))
    history, asked = history.cut(places), asked[:, :places]
    return _batch(log, history, asked, log.user[windows.start[rows]])


def last_batch(log: Sequences, positions: Tensor, length: int) -> Batch:
    """The event at each position (B,), asked for after the ``length`` events before it."""
    history = histories_before(log, positions, length)
    return _batch(log, history, positions[:, None], log.user[positions])


def _batch(log: Sequences, history: Histories, asked: Tensor, user: Tensor) -> Batch:
    place = asked.clamp_min(0)
    none = asked == PAD
    item = log.item[place].masked_fill(none, 0)
    return Batch(history, user, asked, item, log.scenario[place].masked_fill(none, 0))


class SequenceModel(nn.Module, ABC):
    """Base of all: built as ``Model(config, spec)``.

    Attributes:
        all_places: whether it answers at every place of a window in one pass; else at the last alone.
    """

    all_places: ClassVar[bool] = True

    def __init__(self, config: Options, spec: SequenceSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    @abstractmethod
    def losses(
        self, batch: Batch, log: Sequences, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """Losses of a batch of train events; the first is minimised, the others are logged."""

    @abstractmethod
    def queries(self, batch: Batch) -> Tensor:
        """A query for each place, (B, P, d); what is ``asked`` is not read but for the request's scenario."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """(I, d): an item's score is its inner product with the query."""

    def last_queries(self, batch: Batch) -> Tensor:
        """Queries (B, d) of a :func:`last_batch`."""
        if not self.all_places:
            return self.queries(batch).squeeze(1)
        length = batch.history.length
        places = max(1, int(length.max()))  # what is beyond every history's end is not computed
        history = batch.history.cut(places)
        wide = Batch(
            history,
            batch.user,
            batch.asked.expand(-1, places),
            batch.item.expand(-1, places),
            batch.scenario.expand(-1, places),
        )
        every = self.queries(wide)
        last = (length - 1).clamp_min(0)[:, None, None].expand(-1, 1, every.shape[2])
        return every.gather(1, last).squeeze(1)


def item_table(n_items: int, dim: int) -> nn.Embedding:
    """Item vectors with entries of sd d^-½, so that inner products start near 1 in size."""
    table = nn.Embedding(n_items, dim)
    nn.init.normal_(table.weight, std=dim**-0.5)
    return table


def embedded(table: nn.Embedding, history: Histories) -> Tensor:
    """Vectors of a history's items (B, L, d), zero at pads."""
    vectors: Tensor = table(history.item.clamp_min(0))
    return vectors * history.mask.unsqueeze(-1)
