"""L1: features at row t use rows before t only."""

import numpy as np
import polars as pl
import pytest
from support.feature_logs import N_ITEMS, cuts_after, distort_from, random_log, random_vectors

from reelrank.features.histories import HistoryOptions, histories
from reelrank.features.rewards import SIGNALS, RewardOptions, rewards
from reelrank.features.splits import assign_split

CATEGORY = np.arange(N_ITEMS, dtype=np.int32) % 3
CUTS = cuts_after(4, 1, 6)


def history(log):
    return histories(log, CATEGORY, HistoryOptions()).drop("user_id")


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


@pytest.mark.parametrize("feature", [history, interest])
def test_features_ignore_the_row_and_what_follows(feature):
    check(feature)


@pytest.mark.parametrize("leaky", [history_with_the_row_itself, interest_of_the_next_row])
def test_the_check_finds_a_leak(leaky):
    with pytest.raises(AssertionError, match="look at later rows"):
        check(leaky)
