"""L5: no edge feature tells how long a session is, where in it a row stands, or how long it was watched."""

import polars as pl
import pytest
from support.feature_logs import DAY, N_ITEMS, START, items_of, random_log
from support.leaks import honest, leaky

from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.value_features import (  # fmt: skip
    FEATURE_NAMES,
    NodeFeatures,
    edge_features,
    value_features,
)

LOG = random_log(seed=4, n_rows=3000, n_users=20)
ITEMS = items_of(
    N_ITEMS,
    category_1=[i % 3 for i in range(N_ITEMS)],
    category_2=[i % 5 for i in range(N_ITEMS)],
    author_id=list(range(N_ITEMS)),
    upload_ts=[START - i * DAY for i in range(N_ITEMS)],
    duration_ms=[1000 * (i + 1) for i in range(N_ITEMS)],
)
USERS = pl.DataFrame({"user_id": pl.Series(range(20), dtype=pl.Int32), "register_days": range(20)})
TOLD = {
    "the row's place in its session": pl.int_range(pl.len()).over("session_id"),
    "the length of the session": pl.len().over("session_id"),
    "the time watched": pl.col("play_ms"),
    "the watch ratio": pl.col("watch_ratio"),
}


def all_64(log):
    past = histories(log, ItemCodes.of(ITEMS), HistoryOptions())
    return value_features(edge_features(log, past, ITEMS), NodeFeatures.of(USERS, ITEMS))


def in_place_of_session(what):
    """A harmless name for what must not be told."""

    def made(log):
        return all_64(log).with_columns(log.select(session=TOLD[what] * 2 + 1).to_series())

    return made


def check(feature):
    found = feature(LOG)
    assert tuple(found.columns) == FEATURE_NAMES
    for what, value in TOLD.items():
        told = LOG.select(value.cast(pl.Float64)).to_series()
        for column in found.select(pl.exclude(pl.String)).iter_columns():
            pair = pl.DataFrame([told.alias("x"), column.cast(pl.Float64).alias("y")]).drop_nulls()
            correlation = pair.select(pl.corr("x", "y", method="spearman")).item()
            assert correlation is None or not abs(correlation) > 0.9, f"{column.name} tells {what}"


@pytest.mark.parametrize(
    "variant",
    [
        *honest(all_64),
        *leaky("session tells the row's place", in_place_of_session("the row's place in its session")),
        *leaky("session tells the length", in_place_of_session("the length of the session")),
        *leaky("session tells the time watched", in_place_of_session("the time watched")),
        *leaky("session tells the watch ratio", in_place_of_session("the watch ratio")),
    ],
)  # fmt: skip
def test_no_feature_tells_an_outcome_or_the_place_in_the_session(variant, judge):
    judge(check, variant)
