"""L8: rows of val and test are standardised with the moments of train."""

import numpy as np
import polars as pl
import pytest
from support.feature_logs import N_ITEMS, cuts_after, items_of, random_log
from support.leaks import honest, leaky

from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.moments import Moments
from reelrank.features.splits import assign_split

CUTS = cuts_after(3, 1, 6)
COLUMNS = ["n_before", "ema_watch_ratio", "hours_since_last"]


def features(log):
    return histories(log, ItemCodes.of(items_of(N_ITEMS)), HistoryOptions()).with_columns(
        assign_split(log, CUTS)["split"]
    )


def with_train_moments(rows):
    return Moments.fit(rows.filter(pl.col("split") == "train"), COLUMNS).apply(rows)


def with_moments_of_all_rows(rows):
    return Moments.fit(rows, COLUMNS).apply(rows)


def with_their_own_moments(rows):
    """TSCAC's: the test buffer by its own."""
    return rows.with_columns(
        ((pl.col(c) - pl.col(c).mean()) / pl.col(c).std(ddof=0)).over("split").cast(pl.Float32)
        for c in COLUMNS
    )


def check(standardised):
    rows = features(random_log(seed=11, n_rows=600))
    found = standardised(rows)
    train = found.filter(pl.col("split") == "train").select(COLUMNS)
    assert np.allclose(train.mean().row(0), 0, atol=1e-5), (
        "train is not standardised with its own moments"
    )
    # one test row by itself, and a test part with other values, come out as before
    test = pl.col("split") == "test"
    few = rows.filter(~test | (pl.int_range(pl.len()) % 5 == 0))
    far = rows.with_columns(
        pl.when(test & (pl.col("row_id") % 2 == 0)).then(pl.col(c) + 9).otherwise(c)
        for c in COLUMNS
    )
    for changed, kept in ((few, pl.lit(True)), (far, pl.col("row_id") % 2 == 1)):
        again = standardised(changed).filter(kept)
        expected = again.select("row_id").join(found, on="row_id", maintain_order="left")
        assert again.select(COLUMNS).equals(expected.select(COLUMNS)), (
            "the moments depend on test rows"
        )


@pytest.mark.parametrize(
    "variant",
    [
        *honest(with_train_moments),
        *leaky("own moments|depend on test rows", with_moments_of_all_rows, with_their_own_moments),
    ],
)
def test_all_parts_are_standardised_with_train_moments(variant, judge):
    judge(check, variant)
