"""Train labels do not look into val or test (METHODS §3.8): no part's labels depend on rows of a later part."""

import polars as pl
import pytest
from support.feature_logs import (
    DAY,
    cuts_after,
    distort_from,
    random_log,
    random_vectors,
    with_sessions,
)
from support.leaks import honest, leaky

from reelrank.features.rewards import SIGNALS, RewardOptions, rewards
from reelrank.features.splits import assign_split

CUTS = cuts_after(3, 2, 6)
VECTORS = random_vectors(0)


def labels(log):
    return of(log, CUTS)


def of(log, cuts):
    splits = assign_split(log, cuts)
    return rewards(log, splits, VECTORS, terms=list(SIGNALS), cuts=cuts, options=RewardOptions())


def sessions_across_the_cut(log):
    return of(log, cuts_after(6, 0, 6))


def returns_across_the_cut(log):
    next_start = pl.col("ts_ms").shift(-1).over("user_id")
    last = (pl.col("session_id") != pl.col("session_id").shift(-1)).fill_null(True)
    back = last & (next_start - pl.col("ts_ms") <= DAY)
    return log.select("row_id", reward=back.fill_null(False))


def check(subject):
    label_rows, end_ms = subject
    log = random_log(seed=9, n_rows=800)
    early = pl.col("ts_ms") < end_ms
    rows = log.filter(early).select("row_id")
    expected = rows.join(label_rows(log), on="row_id", maintain_order="left")
    distorted = distort_from(log, end_ms, -1, seed=1)
    shifted = log.with_columns(
        ts_ms=pl.when(early).then("ts_ms").otherwise((pl.col("ts_ms") + end_ms) // 2)
    )
    for changed in (distorted, shifted, log.filter(early)):
        found = label_rows(with_sessions(changed))
        found = rows.join(found, on="row_id", maintain_order="left")
        assert found.equals(expected), "labels look beyond the cut"
    assert expected["reward"].null_count() < expected.height / 4


@pytest.mark.parametrize(
    "variant",
    [
        *honest((labels, CUTS.train_end_ms), (labels, CUTS.val_end_ms)),
        *leaky(
            "look beyond the cut",
            (sessions_across_the_cut, CUTS.train_end_ms),
            (returns_across_the_cut, CUTS.train_end_ms),
        ),
    ],
)
def test_labels_do_not_look_beyond_the_cut(variant, judge):
    judge(check, variant)
