"""Users' events in time as tensors, cut into windows for training and into histories for prediction.

Every sequence is left-aligned: valid places first, then :data:`PAD`. Source: METHODS §5.2, §1.5 L1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.sequence_options import BEHAVIOURS
from reelrank.models.tensor_record import TensorRecord
from reelrank.tables import SPLITS

PAD = -1


@dataclass(frozen=True)
class Sequences(TensorRecord):
    """N events in (user, ts_ms, row_id) order.

    Attributes:
        user: (N,) int64.
        item: (N,) int64.
        scenario: (N,) int64, dense code 0 … n_scenarios − 1.
        behaviour: (N, 4) bool as :data:`BEHAVIOURS`; null counts as false.
        ts_ms: (N,) int64, UTC epoch ms.
        split: (N,) int8: 0 train, 1 val, 2 test.
        first: (n_users + 1,) int64, a user's events are first[u] … first[u + 1] − 1.
        n_items: items; every id is below it.
        n_scenarios: scenarios.
    """

    user: Tensor
    item: Tensor
    scenario: Tensor
    behaviour: Tensor
    ts_ms: Tensor
    split: Tensor
    first: Tensor
    n_items: int
    n_scenarios: int

    def __len__(self) -> int:
        return len(self.user)

    @property
    def n_users(self) -> int:
        """Users, those without an event included."""
        return len(self.first) - 1

    @classmethod
    def from_frame(cls, events: pl.DataFrame, n_users: int, n_items: int, n_scenarios: int) -> Self:
        """Tensors of ``features.sequences.sequence_events``, sorted here.

        Raises:
            ValueError: no rows, or an id or a scenario out of range.
        """
        if events.is_empty():
            raise ValueError("there is no event to make a sequence of: loosen the filter or k_core")
        rows = events.sort("user_id", "ts_ms", "row_id")
        for column, stop in (("user_id", n_users), ("item", n_items), ("scenario", n_scenarios)):
            outside = rows.filter(~pl.col(column).is_between(0, stop - 1))
            if outside.height:
                value, row_id = outside.row(0, named=True)[column], outside["row_id"][0]
                raise ValueError(f"row_id {row_id}: {column} is {value}, outside 0 … {stop - 1}")
        user = rows["user_id"].to_numpy().astype(np.int64)
        flags = [rows[name].fill_null(0).to_numpy() > 0 for name in BEHAVIOURS]
        split = rows["split"].cast(pl.Enum(SPLITS)).to_physical().to_numpy()

        def tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.array(values)).to(dtype)

        return cls(
            user=tensor(user, torch.int64),
            item=tensor(rows["item"].to_numpy(), torch.int64),
            scenario=tensor(rows["scenario"].to_numpy(), torch.int64),
            behaviour=tensor(np.stack(flags, axis=1), torch.bool),
            ts_ms=tensor(rows["ts_ms"].to_numpy(), torch.int64),
            split=tensor(split, torch.int8),
            first=tensor(np.searchsorted(user, np.arange(n_users + 1)), torch.int64),
            n_items=n_items,
            n_scenarios=n_scenarios,
        )


@dataclass(frozen=True)
class Histories(TensorRecord):
    """B left-aligned sequences of at most L events; a place beyond ``length`` holds :data:`PAD`.

    Attributes:
        position: (B, L) int64, row of :class:`Sequences`; 0 at a pad.
        length: (B,) int64.
        item: (B, L) int64.
        scenario: (B, L) int64; 0 at a pad.
    """

    position: Tensor
    length: Tensor
    item: Tensor
    scenario: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, L) bool: an event stands here."""
        return self.item != PAD

    def cut(self, places: int) -> Histories:
        """The first places of each, which must hold all events."""
        position, item, scenario = (
            x[:, :places] for x in (self.position, self.item, self.scenario)
        )
        return Histories(position, self.length, item, scenario)


def histories_before(log: Sequences, position: Tensor, length: int) -> Histories:
    """The last ``length`` events of the same user before each position (B,), whatever their split (L1)."""
    start = torch.maximum(log.first[log.user[position]], position - length)
    return _slice(log, start, position, length)


def _slice(log: Sequences, start: Tensor, stop: Tensor, length: int) -> Histories:
    place = start[:, None] + torch.arange(length, device=start.device)
    mask = place < stop[:, None]
    place = place.masked_fill(~mask, 0)
    return Histories(
        position=place,
        length=stop - start,
        item=log.item[place].masked_fill(~mask, PAD),
        scenario=log.scenario[place].masked_fill(~mask, 0),
    )


@dataclass(frozen=True)
class Windows(TensorRecord):
    """W windows of train events; in each the event at place t + 1 is what place t is asked for.

    Windows overlap by half: an asked place has at least half a window before it, unless its user has fewer events, and each
    train event but a user's first is asked for once.

    Attributes:
        start: (W,) int64, first event.
        stop: (W,) int64, one past the last event that is asked for.
        ask_from: (W,) int64, first event that is asked for.
        length: places of a window, L.
    """

    start: Tensor
    stop: Tensor
    ask_from: Tensor
    length: int

    @classmethod
    def of(cls, log: Sequences, length: int) -> Self:
        """Windows over the train events, which come before a user's others.

        Raises:
            ValueError: length < 2, or no user has two train events.
        """
        if length < 2:
            raise ValueError(f"length must be at least 2, is {length}")
        n_train = torch.zeros(log.n_users, dtype=torch.int64, device=log.user.device)
        n_train.index_add_(0, log.user, (log.split == 0).long())
        step = length // 2
        # places asked for in the first window, then `step` more in each
        more = ((n_train - 1 - length).clamp_min(0) + step - 1) // step
        per_user = torch.where(n_train >= 2, 1 + more, 0)
        if not int(per_user.sum()):
            raise ValueError("no user has two train events: there is nothing to predict from")
        user = torch.repeat_interleave(torch.arange(log.n_users, device=more.device), per_user)
        before = torch.cumsum(per_user, 0) - per_user
        number = torch.arange(len(user), device=more.device) - before[user]
        start = log.first[user] + number * step
        stop = torch.minimum(start + length + 1, log.first[user] + n_train[user])
        overlap = torch.where(number > 0, length - step, 0)
        return cls(start, stop, start + 1 + overlap, length)

    def __len__(self) -> int:
        return len(self.start)

    def batch(self, log: Sequences, rows: Tensor) -> tuple[Histories, Tensor]:
        """Inputs of the windows ``rows`` (B,), and the event that each place is asked for, (B, L), :data:`PAD` = none."""
        inputs = _slice(log, self.start[rows], self.stop[rows] - 1, self.length)
        asked = inputs.position + 1
        keep = inputs.mask & (asked >= self.ask_from[rows][:, None])
        return inputs, asked.masked_fill(~keep, PAD)
