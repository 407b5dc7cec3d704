"""The chronological stream of events that the models learn from, and which of its columns a model may see.

Source: METHODS §3.8 (event stream), §1.5 L5.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.tables import FEEDBACKS, Events, Interactions

REWARD_COLUMNS = ("r_immediate", "r_retention", "r_interest", "reward", "return")
# What is known of a row when it is ranked: a model may read these of the current row (L5) …
STATE_COLUMNS = ("user_id", "item_id", "ts_ms", "scenario", "duration_ms")
# … these are its outcomes: targets at the row itself, inputs only for later rows …
LABEL_COLUMNS = ("play_ms", "watch_ratio", *FEEDBACKS, *REWARD_COLUMNS)
# … and these keep the books: masks, groups and links, never inputs.
KEY_COLUMNS = ("row_id", "session_id", "request_id", "split", "is_rand", "next_pos")


def assemble_events(
    interactions: BucketedTable | pl.LazyFrame,
    splits: BucketedTable | pl.LazyFrame,
    rewards: BucketedTable | pl.LazyFrame,
) -> pl.DataFrame:
    """Join the three tables on ``row_id`` into one stream.

    Args:
        interactions: as ``Interactions``.
        splits: as ``Splits``.
        rewards: as ``Rewards``.

    Returns:
        ``Events``, sorted by (ts_ms, row_id).

    Raises:
        ValueError: ``splits`` or ``rewards`` lack rows of ``interactions``.
    """
    columns = [name for name in Interactions.polars_schema() if name in Events.polars_schema()]
    events = (
        _scan(interactions)
        .select(columns)
        .join(_scan(splits).select("row_id", "split"), on="row_id", how="left")
        .join(
            _scan(rewards).select("row_id", *REWARD_COLUMNS, "next_row_id"), on="row_id", how="left"
        )
        .sort("ts_ms", "row_id")
        .collect()
    )
    for table, column in (("splits", "split"), ("rewards", "r_immediate")):
        missing = events[column].null_count()
        if missing:
            raise ValueError(f"{table}: {missing} rows of interactions are missing; rebuild it")
    return Events.conform(events.with_columns(_positions(events)))


def shuffle_labels(events: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Permute the outcomes of the train rows, all label columns of a row together.

    What a model gains from such a stream it cannot have learned from the labels.

    Args:
        events: as ``Events``.
        seed: of the permutation.
    """
    train = np.flatnonzero((events["split"] == "train").to_numpy())
    source = np.arange(events.height)
    source[train] = np.random.default_rng(seed).permutation(train)
    return events.with_columns(events.select(LABEL_COLUMNS)[source])


def _scan(table: BucketedTable | pl.LazyFrame) -> pl.LazyFrame:
    return table.scan() if isinstance(table, BucketedTable) else table


def _positions(events: pl.DataFrame) -> pl.Series:
    """Position of each row's ``next_row_id``, −1 where there is none."""
    row_id = events["row_id"].to_numpy()
    next_row_id = events["next_row_id"].fill_null(-1).to_numpy()
    order = np.argsort(row_id)
    slot = np.searchsorted(row_id, next_row_id, sorter=order)
    return pl.Series("next_pos", np.where(next_row_id < 0, -1, order[slot]))
