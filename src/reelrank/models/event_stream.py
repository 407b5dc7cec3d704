"""The chronological events as tensors, and the last k events of a node strictly before a time.

Source: METHODS §3.6 (window TGNN), §1.5 L1 and L6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.behaviours import BEHAVIOURS, behaviour_labels, watch_rule
from reelrank.models.tensor_record import TensorRecord
from reelrank.tables import SPLITS

WATCH_BUCKETS = 5
_MESSAGE_FEEDBACKS = ("like", "forward", "follow", "comment", "hate")
MESSAGE_DIM = WATCH_BUCKETS + len(_MESSAGE_FEEDBACKS) + 1
REQUIRED_COLUMNS = (
    "user_id", "item_id", "ts_ms", "split", "is_rand", "play_ms", "watch_ratio", "long_view",
    *_MESSAGE_FEEDBACKS, "r_immediate", "reward", "return", "next_pos",
)  # fmt: skip


@dataclass(frozen=True)
class EventStream(TensorRecord):
    """N events in (ts_ms, row_id) order; ``position`` below is a row of these tensors.

    A node is a user (0 … n_users−1) or an item (n_users + item). An event touches its user and its item.

    Attributes:
        user: (N,) int64.
        item: (N,) int64.
        ts_ms: (N,) int64, UTC epoch ms, not decreasing.
        message: (N, 11) float32: one-hot watch bucket (0, (0, .3], (.3, .7], (.7, 1], > 1 of watch_ratio; all zeros
            when null), like, forward, follow, comment, hate (null is 0), log1p(play seconds) (null is 0).
        labels: (N, 3) float32: watch (by ``watch_rule``), like, share (forward); NaN = null.
        r_immediate: (N,) float32.
        reward: (N,) float32, NaN = censored.
        value_return: (N,) float32, discounted return, NaN = censored.
        next_pos: (N,) int64, position of the user's next row in session and split; −1 = done.
        split: (N,) int8, 0 train, 1 val, 2 test.
        is_rand: (N,) bool, uniformly random exposure: seen by the user, never trained on.
        entry_key: (2N,) int64, ascending key of (node, time) of every (event, endpoint).
        entry_position: (2N,) int64, the event of each entry.
        node_offset: (n_users + n_items + 1,) int64, first entry of each node.
        n_users: number of users.
        n_items: number of items.
        t0: time of the first event, ms.
        span: number of distinct time keys of one node.
    """

    user: Tensor
    item: Tensor
    ts_ms: Tensor
    message: Tensor
    labels: Tensor
    r_immediate: Tensor
    reward: Tensor
    value_return: Tensor
    next_pos: Tensor
    split: Tensor
    is_rand: Tensor
    entry_key: Tensor
    entry_position: Tensor
    node_offset: Tensor
    n_users: int
    n_items: int
    t0: int
    span: int

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def from_frame(
        cls, events: pl.DataFrame, n_users: int, n_items: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Tensors of the events table.

        Args:
            events: sorted by (ts_ms, row_id), with ``REQUIRED_COLUMNS``.
            n_users: number of users; ids are 0 … n_users−1.
            n_items: number of items; ids are 0 … n_items−1.
            device: where the tensors go.

        Returns:
            The stream with its (node, time) index.

        Raises:
            ValueError: a column is missing, no rows, rows not chronological, or an id or next_pos out of range.
        """
        _check(events, n_users, n_items)
        ts = events["ts_ms"].to_numpy()
        user = events["user_id"].to_numpy().astype(np.int64)
        item = events["item_id"].to_numpy().astype(np.int64)
        t0, span = int(ts[0]), int(ts[-1] - ts[0]) + 2
        if (n_users + n_items) * span >= 2**63:
            raise ValueError(
                f"{n_users + n_items} nodes × {span} ms do not fit a 64-bit key: take fewer days"
            )
        # a stable sort keeps rows of one node and time in their original order
        node = np.concatenate([user, n_users + item])
        key = node * span + np.tile(ts - t0, 2)
        order = np.argsort(key, kind="stable")
        counts = np.bincount(node, minlength=n_users + n_items)

        label = behaviour_labels(watch_rule(events.lazy()))

        def floats(column: str | pl.Expr) -> Tensor:
            values = events.select(column).to_series().cast(pl.Float32)
            return _tensor(values.fill_null(float("nan")).to_numpy())

        stream = cls(
            user=_tensor(user),
            item=_tensor(item),
            ts_ms=_tensor(ts.astype(np.int64)),
            message=_tensor(messages(events)),
            labels=torch.stack([floats(label[b]) for b in BEHAVIOURS], dim=1),
            r_immediate=floats("r_immediate"),
            reward=floats("reward"),
            value_return=floats("return"),
            next_pos=_tensor(events["next_pos"].to_numpy().astype(np.int64)),
            split=_tensor(
                events["split"].cast(pl.Enum(SPLITS)).to_physical().to_numpy().astype(np.int8)
            ),
            is_rand=_tensor(events["is_rand"].to_numpy().astype(bool)),
            entry_key=_tensor(key[order]),
            entry_position=_tensor(order % len(events)),
            node_offset=_tensor(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)),
            n_users=n_users,
            n_items=n_items,
            t0=t0,
            span=span,
        )
        return stream.to(device)

    def last_k(self, nodes: Tensor, ts: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The last k events that touch each node strictly before a time; rows of the same ms do not see each other.

        Args:
            nodes: (…,) int64 node ids; item v is n_users + v.
            ts: (…,) int64, UTC epoch ms.
            k: how many.

        Returns:
            positions (…, k) int64, newest first, 0 where there is none, and mask (…, k) bool.
        """
        rank = (ts - self.t0).clamp(0, self.span - 1)
        end = torch.searchsorted(self.entry_key, nodes * self.span + rank)
        entry = end.unsqueeze(-1) - torch.arange(1, k + 1, device=nodes.device)
        mask = entry >= self.node_offset[nodes].unsqueeze(-1)
        positions = self.entry_position[entry.clamp_min(0)]
        return positions.masked_fill(~mask, 0), mask

    def td_reward(self, rows: Tensor) -> Tensor:
        """Composite reward of rows (B,), NaN in every row of a censored session.

        Only a session's last row is censored itself. But if the rows before it stayed, the last days before a cut would
        train on unfinished sessions alone, and values would drift up.
        """
        return self.reward[rows].masked_fill(self.value_return[rows].isnan(), float("nan"))

    def trained_rows(self) -> Tensor:
        """(N,) bool: train rows that were not random exposures, the ones that a model may learn from."""
        return (self.split == 0) & ~self.is_rand


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values))


def messages(events: pl.DataFrame) -> np.ndarray:
    """What an event tells the graph, (n, 11) float32: watch bucket one-hot, five feedbacks, log1p of seconds played.

    Source: METHODS §3.6.
    """
    ratio = pl.col("watch_ratio")
    bucket = (
        pl.when(ratio <= 0).then(0).when(ratio <= 0.3).then(1).when(ratio <= 0.7).then(2)
        .when(ratio <= 1).then(3).when(ratio > 1).then(4).otherwise(None)
    )  # fmt: skip
    columns = [
        *((bucket == b).fill_null(False).alias(f"bucket_{b}") for b in range(WATCH_BUCKETS)),
        *(pl.col(f).fill_null(0) for f in _MESSAGE_FEEDBACKS),
        (pl.col("play_ms").fill_null(0) / 1000).log1p(),
    ]
    return events.select(c.cast(pl.Float32) for c in columns).to_numpy()


def _check(events: pl.DataFrame, n_users: int, n_items: int) -> None:
    if missing := [c for c in REQUIRED_COLUMNS if c not in events.columns]:
        raise ValueError(f"events lacks the columns {missing}: build it with the features pipeline")
    if events.is_empty():
        raise ValueError("events has no rows: nothing to model")
    backwards = events.select((pl.col("ts_ms").diff() < 0).arg_true())["ts_ms"]
    if len(backwards):
        raise ValueError(
            f"events is not chronological: ts_ms falls at row {backwards[0]}; sort it by (ts_ms, row_id)"
        )
    for column, low, size in (
        ("user_id", 0, n_users), ("item_id", 0, n_items), ("next_pos", -1, len(events)),
    ):  # fmt: skip
        outside = events.select((~pl.col(column).is_between(low, size - 1)).arg_true())[column]
        if len(outside):
            value = events[column][outside[0]]
            raise ValueError(
                f"events.{column} is {value} at row {outside[0]}, outside {low} … {size - 1}"
            )
