"""L1: the value model's features of a row, and of every candidate beside it, use rows before it only."""

import polars as pl
import pytest
from support.feature_logs import (
    DAY,
    N_ITEMS,
    START,
    distort_from,
    items_of,
    random_log,
)
from support.leaks import honest, leaky

from reelrank.features.candidate_features import LogTables, pair_features
from reelrank.features.heads import HeadRule, head_columns
from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.value_features import edge_features
from reelrank.tables import Bursts

ITEMS = items_of(
    N_ITEMS,
    category_1=[i % 3 for i in range(N_ITEMS)],
    category_2=[i % 5 for i in range(N_ITEMS)],
    author_id=[i % 4 for i in range(N_ITEMS)],
    upload_ts=[START + (i - 6) * DAY // 2 for i in range(N_ITEMS)],
)
SPANS = pl.DataFrame({"start_ms": [START, START + 3 * DAY], "end_ms": [START + 3 * DAY, START + 6 * DAY]})  # fmt: skip
BURSTS = Bursts.conform(SPANS.with_columns(burst_id=pl.Series([0, 1]), rows=pl.lit(1)))


def tables(log):
    past = histories(log, ItemCodes.of(ITEMS), HistoryOptions(), BURSTS)
    return LogTables(log, past, ITEMS, HistoryOptions(), BURSTS)


def edges(log):
    t = tables(log)
    return edge_features(log, t.histories, ITEMS, BURSTS).drop("user_id", "item_id")


def every_item(log):
    """Each item as a candidate at each row."""
    pairs = log.select("row_id", position=pl.int_range(pl.len()))
    pairs = pairs.join(pl.DataFrame({"item_id": range(N_ITEMS)}), how="cross")
    return pair_features(tables(log), log["row_id"], pairs).drop("position", "user_id")


def edges_of_the_next_row(log):
    return edges(log).with_columns(pl.col("row_id").shift())


def candidates_of_the_next_row(log):
    """Judged when the row's outcome is known: the user's state is one row too new."""
    ids = log["row_id"].to_list()
    before = dict(zip(ids[1:], ids[:-1], strict=True))
    return every_item(log).with_columns(pl.col("row_id").replace_strict(before, default=None))


def edges_with_the_rows_own_completion(log):
    complete = log.select(head_columns(HeadRule())[0].cast(pl.Float32)).to_series()
    return edges(log).with_columns(ema_category_complete=complete)


def edges_with_the_sessions_length(log):
    return edges(log).with_columns(log.select(session=pl.len().over("session_id")).to_series())


def check(feature):
    log = random_log(seed=6)
    time_order = log.sort("ts_ms", "row_id")
    for position in range(20, log.height, 56):
        ts_ms, row_id = time_order["ts_ms"][position], time_order["row_id"][position]
        known = time_order[: position + 1].select("row_id")
        distorted = distort_from(log, ts_ms, row_id, seed=position)
        truncated = log.join(known, on="row_id", how="semi", maintain_order="left")
        expected = known.join(feature(log), on="row_id", maintain_order="left_right")
        for changed in (distorted, truncated):
            found = known.join(feature(changed), on="row_id", maintain_order="left_right")
            assert found.equals(expected), f"features before row {row_id} look at later rows"


@pytest.mark.parametrize(
    "variant",
    [
        *honest(edges, every_item),
        *leaky(
            "look at later rows",
            edges_of_the_next_row,
            candidates_of_the_next_row,
            edges_with_the_rows_own_completion,
            edges_with_the_sessions_length,
        ),
    ],
)
def test_features_ignore_the_row_and_what_follows(variant, judge):
    judge(check, variant)
