"""Lists of logged impressions that a model is judged on, scored from the state at each list's start.

Source: METHODS §3.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.inputs import ModelInputs
from reelrank.models.policy import Outputs, RankingModel
from reelrank.models.tensor_record import TensorRecord
from reelrank.pipelines.mt_dqn.options import ListOptions

LOCAL_OFFSET_MS = 8 * 3_600_000  # Asia/Shanghai, no daylight saving time
DAY_MS = 24 * 3_600_000

KEPT = "kept"
RANDOM = "random exposure"
REPEATED = "item shown again in its list"
TOO_SHORT = "fewer than 2 items"
ONE_LEVEL = "no item above the median"


@dataclass(frozen=True)
class Lists:
    """Evaluation lists of val and test.

    Attributes:
        rows: one row per list and item, sorted by (list_id, position): list_id, split, user_id, item_id, position (row of
            the events table), start_ts (ms), scenario (of the list's first row), relevance (1 where r_immediate is above
            the list's median), graded (r_immediate).
        counts: split, list_by, reason, lists, rows; every val and test row is counted under one reason.
    """

    rows: pl.DataFrame
    counts: pl.DataFrame


def build_lists(events: pl.DataFrame, options: ListOptions) -> Lists:
    """Group the val and test impressions into lists and leave out those that cannot be ranked.

    A list is a session, or a user's local day; it starts at its first standard row. An item shown again in its list
    counts once, by its first showing [D: a ranking holds an item once].

    Args:
        events: the chronological table with user_id, item_id, ts_ms, scenario, session_id, split, is_rand, r_immediate.
        options: what a list is.

    Returns:
        The lists, and how many lists and rows each reason left out.

    Source: METHODS §3.9 [S: relevance and exclusions; D: 2 rows as the limit of ``auto``].
    """
    part = events.with_row_index("position").filter(pl.col("split") != "train")
    standard = part.filter(pl.col("is_rand") == 0)
    by = _list_by(standard, options)
    day = (pl.col("ts_ms") + LOCAL_OFFSET_MS) // DAY_MS
    keyed = standard.join(by, on="split").with_columns(
        key=pl.when(pl.col("list_by") == "user_day").then(day).otherwise("session_id")
    )
    group = ["split", "user_id", "key"]
    lists = (
        keyed.group_by(group, maintain_order=True)
        .agg(start_ts=pl.col("ts_ms").first(), first_scenario=pl.col("scenario").first())
        .with_row_index("list_id")
    )
    graded = pl.col("r_immediate")
    judged = (
        keyed.join(lists, on=group, maintain_order="left")
        .with_columns(repeated=~pl.struct("list_id", "item_id").is_first_distinct())
        .with_columns(
            n_items=(~pl.col("repeated")).sum().over("list_id"),
            median=graded.filter(~pl.col("repeated")).median().over("list_id"),
        )
        .with_columns(relevance=graded > pl.col("median"))
        .with_columns(
            reason=pl.when("repeated").then(pl.lit(REPEATED))
            .when(pl.col("n_items") < 2).then(pl.lit(TOO_SHORT))
            # a median is never above all: the lower level is always there
            .when(~(pl.col("relevance") & ~pl.col("repeated")).any().over("list_id")).then(pl.lit(ONE_LEVEL))
            .otherwise(pl.lit(KEPT))
        )
    )  # fmt: skip
    rows = (
        judged.filter(pl.col("reason") == KEPT)
        .select(
            pl.col("list_id", "position").cast(pl.Int64), "split", "user_id", "item_id", "start_ts",
            pl.col("first_scenario").alias("scenario"), pl.col("relevance").cast(pl.Int8),
            graded.alias("graded"),
        )
        .sort("list_id", "position")
    )  # fmt: skip
    random = part.filter(pl.col("is_rand") == 1).join(by, on="split")
    counts = pl.concat(
        [
            judged.group_by("split", "list_by", "reason").agg(
                # a list is counted with its rows that are not repeats
                lists=pl.col("list_id").filter(~pl.col("repeated")).n_unique(),
                rows=pl.len(),
            ),
            random.group_by("split", "list_by", reason=pl.lit(RANDOM)).agg(
                lists=pl.lit(0, pl.UInt32), rows=pl.len()
            ),
        ]
    ).sort("split", "reason")
    return Lists(rows, counts.with_columns(pl.col("lists", "rows").cast(pl.Int64)))


def _list_by(standard: pl.DataFrame, options: ListOptions) -> pl.DataFrame:
    """``list_by`` of each part."""
    median = (
        standard.group_by("split", "session_id").len().group_by("split").agg(pl.col("len").median())
    )
    auto = pl.when(pl.col("len") < 2).then(pl.lit("user_day")).otherwise(pl.lit("session"))
    chosen = auto if options.list_by == "auto" else pl.lit(options.list_by)
    return median.select("split", list_by=chosen)


@dataclass(frozen=True)
class ListBatch(TensorRecord):
    """Lists as tensors: L lists, R rows, the rows of a list together.

    Attributes:
        user: (L,) int64.
        start_ts: (L,) int64, UTC epoch ms.
        offset: (L + 1,) int64, first row of each list.
        item: (R,) int64.
        list_of_row: (R,) int64, 0 … L−1.
        position: (R,) int64, row of the events.
        relevance: (R,) float32.
    """

    user: Tensor
    start_ts: Tensor
    offset: Tensor
    item: Tensor
    list_of_row: Tensor
    position: Tensor
    relevance: Tensor

    @classmethod
    def from_rows(cls, rows: pl.DataFrame, device: torch.device | str = "cpu") -> Self:
        """Tensors of ``Lists.rows``, or of some whole lists of it."""
        lists = rows.group_by("list_id", maintain_order=True).agg(
            pl.col("user_id", "start_ts").first(), pl.len()
        )
        size = lists["len"].to_numpy().astype(np.int64)

        def longs(column: pl.Series) -> Tensor:
            return torch.from_numpy(column.to_numpy().astype(np.int64))

        return cls(
            user=longs(lists["user_id"]),
            start_ts=longs(lists["start_ts"]),
            offset=torch.from_numpy(np.concatenate([[0], np.cumsum(size)])),
            item=longs(rows["item_id"]),
            list_of_row=torch.from_numpy(np.repeat(np.arange(len(size)), size)),
            position=longs(rows["position"]),
            relevance=torch.from_numpy(rows["relevance"].to_numpy().astype(np.float32)),
        ).to(device)

    def blocks(self, block_rows: int) -> Iterator[tuple[slice, slice]]:
        """Slices of lists and of rows, whole lists with about ``block_rows`` rows together."""
        block = (self.offset[:-1] // block_rows).cpu().numpy()
        edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
        at = self.offset[edges].tolist()
        for i in range(len(edges) - 1):
            yield slice(edges[i], edges[i + 1]), slice(at[i], at[i + 1])


@torch.no_grad()
def score_lists(
    model: RankingModel, inputs: ModelInputs, lists: ListBatch, block_rows: int
) -> Outputs:
    """Outputs of every row of the lists, all items of a list seen from its start.

    A row scored at its own time would know the feedback on the rows before it (METHODS §3.9).

    Returns:
        Outputs with q, value and reward (R,) and behaviour_logits (R, 3).
    """
    blocks = []
    for of_list, of_row in lists.blocks(block_rows):
        row_list = lists.list_of_row[of_row]
        state = model.user_state(inputs, lists.user[of_list], lists.start_ts[of_list])
        item_state = model.item_state(inputs, lists.item[of_row], lists.start_ts[row_list])
        blocks.append(model.head(state[row_list - of_list.start], item_state.unsqueeze(1)))
    return Outputs(
        q=torch.cat([b.q for b in blocks]).squeeze(1),
        behaviour_logits=torch.cat([b.behaviour_logits for b in blocks]).squeeze(1),
        value=torch.cat([b.value for b in blocks]).squeeze(1),
        reward=torch.cat([b.reward for b in blocks]).squeeze(1),
    )
