"""Users' rows cut into windows, so that a recurrent model learns at every position of a sequence in one pass.

Source: METHODS §4.6 [D: warm-up and window length bound memory; the paper names neither].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reelrank.models.feed import FeedInputs
from reelrank.models.tensor_record import TensorRecord

HOUR_MS, LOCAL_OFFSET_H = 3_600_000, 8  # Asia/Shanghai, as all four sources
TRAIN, VAL, TEST, NO_DECISION = 0, 1, 2, -1


@dataclass(frozen=True)
class RowRoles(TensorRecord):
    """What each of R rows may be used for.

    Attributes:
        split: (R,) int8 of the decision that showed it, :data:`NO_DECISION` without one.
        is_rand: (R,) bool, uniformly random exposure.
        state_row: (R,) int64, the decision's first row: what came before it is the state (L6), also for the later rows of a request.
        scenario: (R,) int64, 0 without a decision.
    """

    split: Tensor
    is_rand: Tensor
    state_row: Tensor
    scenario: Tensor

    def in_split(self, split: int, *, is_random: bool = False) -> Tensor:
        """(R,) bool: rows of a split, those that the logging policy showed or those shown at random."""
        return (self.split == split) & (self.is_rand == is_random)


@dataclass(frozen=True)
class Windows(TensorRecord):
    """W windows of T rows at most.

    Attributes:
        user: (W,) int64.
        start: (W,) int64, first row that is read; rows before ``target`` are warm-up.
        target: (W,) int64, first row that is predicted.
        stop: (W,) int64, one past the last.
    """

    user: Tensor
    start: Tensor
    target: Tensor
    stop: Tensor

    def __getitem__(self, chosen: Tensor) -> Windows:
        return Windows(self.user[chosen], self.start[chosen], self.target[chosen], self.stop[chosen])  # fmt: skip


def row_roles(inputs: FeedInputs) -> RowRoles:
    """The decision of every row: decision d showed ``rows.item[d.row : d.row + number shown]``.

    Raises:
        ValueError: two decisions claim one row, or a decision's rows reach beyond the last.
    """
    decisions, n_rows = inputs.decisions, len(inputs.rows.item)
    n_shown = decisions.shown.sum(1)
    owner = torch.repeat_interleave(torch.arange(len(n_shown), device=n_shown.device), n_shown)
    before = n_shown.cumsum(0) - n_shown
    rows = decisions.row[owner] + torch.arange(len(owner), device=owner.device) - before[owner]
    if len(rows) and (int(rows.max()) >= n_rows or int(rows.bincount().max()) > 1):
        raise ValueError(
            f"decisions.row: {len(rows)} shown items do not stand on as many of the {n_rows} rows; "
            "a decision's rows must follow each other from decisions.row on"
        )
    split = torch.full((n_rows,), NO_DECISION, dtype=torch.int8, device=rows.device)
    is_rand = torch.zeros(n_rows, dtype=torch.bool, device=rows.device)
    state_row = torch.arange(n_rows, device=rows.device)
    scenario = torch.zeros_like(state_row)
    split[rows], is_rand[rows] = decisions.split[owner], decisions.is_rand[owner]
    state_row[rows] = decisions.row[owner]
    scenario[rows] = decisions.scenario[owner]
    return RowRoles(split, is_rand, state_row, scenario)


def cut_windows(first: Tensor, length: int, warm_up: int) -> Windows:
    """Windows of ``length`` predicted rows, each after up to ``warm_up`` earlier rows of its user.

    Args:
        first: (n_users + 1,) as ``FeedRows.first``.
        length: rows that a window predicts.
        warm_up: rows that it reads before them.
    """
    count = first.diff()
    pieces = (count + length - 1) // length
    user = torch.repeat_interleave(torch.arange(len(count), device=first.device), pieces)
    number = torch.arange(len(user), device=first.device) - (pieces.cumsum(0) - pieces)[user]
    target = first[user] + number * length
    return Windows(
        user=user,
        start=torch.maximum(target - warm_up, first[user]),
        target=target,
        stop=torch.minimum(target + length, first[user + 1]),
    )


def windows_with(windows: Windows, wanted: Tensor) -> Windows:
    """Those windows that predict at least one of the ``wanted`` rows, (R,) bool."""
    up_to = torch.nn.functional.pad(wanted.long().cumsum(0), (1, 0))
    return windows[(up_to[windows.stop] > up_to[windows.target]).nonzero().squeeze(1)]


def batches_of_like_length(windows: Windows, size: int, generator: torch.Generator) -> Tensor:
    """Places (W,) of the windows such that consecutive ``size`` of them are of like length; batches in random order."""
    *full, last = torch.split((windows.stop - windows.start).argsort(stable=True), size)
    order = torch.randperm(len(full), generator=generator, device=generator.device).tolist()
    return torch.cat([*(full[i] for i in order), last])


def in_batches(windows: Windows, size: int) -> Iterator[Windows]:
    """The windows, ``size`` at a time, those of like length together."""
    for chosen in torch.split((windows.stop - windows.start).argsort(stable=True), size):
        yield windows[chosen]


def local_hour(ts_ms: Tensor) -> Tensor:
    """Local hour 0 … 23 of UTC epoch ms."""
    return (ts_ms // HOUR_MS + LOCAL_OFFSET_H) % 24
