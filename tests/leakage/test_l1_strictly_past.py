"""L1: features at row t use rows before t only."""

from functools import partial

import polars as pl
import pytest
from support.feature_logs import (
    DAY,
    N_ITEMS,
    START,
    cuts_after,
    distort_from,
    items_of,
    random_log,
    random_vectors,
)
from support.leaks import honest, leaky

from reelrank.features.histories import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    HistoryOptions,
    ItemCodes,
    histories,
)
from reelrank.features.rewards import SIGNALS, RewardOptions, rewards
from reelrank.features.splits import assign_split

ITEMS = ItemCodes.of(
    items_of(
        N_ITEMS,
        category_1=[i % 3 for i in range(N_ITEMS)],
        category_2=[i % 5 for i in range(N_ITEMS)],
        author_id=[i % 4 for i in range(N_ITEMS)],
    )
)
BURSTS = pl.DataFrame(
    {"start_ms": [START, START + 3 * DAY], "end_ms": [START + 3 * DAY, START + 6 * DAY]}
)
CUTS = cuts_after(4, 1, 6)


def history(log):
    return histories(log, ITEMS, HistoryOptions()).drop("user_id")


def history_in_bursts(log):
    return histories(log, ITEMS, HistoryOptions(), BURSTS).drop("user_id")


def interest(log):
    splits = assign_split(log, CUTS)
    found = rewards(
        log, splits, random_vectors(0), terms=list(SIGNALS), cuts=CUTS, options=RewardOptions()
    )
    return found.select("row_id", "r_interest")


def history_with_the_row_itself(log):
    keys = ["row_id", pl.col("long_view").cast(pl.Float64).ewm_mean(alpha=0.1).over("user_id")]
    return log.select(keys)


def interest_of_the_next_row(log):
    return interest(log).with_columns(pl.col("r_interest").shift(-1))


def of_the_next_row(column, log):
    """One history column, a row too early."""
    found = histories(log, ITEMS, HistoryOptions())
    return found.select("row_id", pl.col(column).shift(-1).over("user_id"))


def check(feature):
    log = random_log(seed=5)
    time_order = log.sort("ts_ms", "row_id")
    for position in range(20, log.height, 40):
        ts_ms, row_id = time_order["ts_ms"][position], time_order["row_id"][position]
        known = time_order[: position + 1].select("row_id")
        distorted = distort_from(log, ts_ms, row_id, seed=position)
        truncated = log.join(known, on="row_id", how="semi", maintain_order="left")
        expected = known.join(feature(log), on="row_id", maintain_order="left")
        for changed in (distorted, truncated):
            found = known.join(feature(changed), on="row_id", maintain_order="left")
            assert found.equals(expected), f"features before row {row_id} look at later rows"


COLUMNS = [*USER_COLUMNS, *ITEM_COLUMNS]


@pytest.mark.parametrize(
    "variant",
    [
        *honest(history, history_in_bursts, interest),
        *leaky("look at later rows", history_with_the_row_itself, interest_of_the_next_row),
        # each column of its own is seen to leak
        *leaky("look at later rows", *(partial(of_the_next_row, name) for name in COLUMNS)),
    ],
)
def test_features_ignore_the_row_and_what_follows(variant, judge):
    judge(check, variant)
