import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from support.feature_logs import HOUR, N_ITEMS, START, log_of, random_log, with_sessions

from reelrank.features.histories import HistoryOptions, histories
from reelrank.tables import Histories

OPTIONS = HistoryOptions()
CATEGORY = np.array([0, 1, 2, -1] * 3, np.int32)
FEATURES = [name for name in Histories.polars_schema() if name not in ("user_id", "row_id")]


def test_hand_computed():
    log = log_of(
        user_id=[1, 1, 1, 1, 2],
        item_id=[0, 0, 1, 0, 0],
        ts_ms=[START, START, START + HOUR, START + 3 * HOUR, START],
        long_view=[1, None, 0, 1, 1],
        click=[1, 0, 1, 1, 0],
        like=[None] * 5,
        watch_ratio=[5.0, 1.0, None, 0.5, 1.0],
    )
    found = histories(log, CATEGORY, OPTIONS)
    Histories.validate(found)
    expected = {
        "n_before": [0, 1, 2, 3, 0],
        "hours_since_last": [None, 0.0, 1.0, 2.0, None],
        "ema_long_view": [None, 1.0, 1.0, 0.9, None],
        "ema_click": [None, 1.0, 0.9, 0.91, None],
        "ema_like": [None] * 5,
        "ema_watch_ratio": [None, 2.0, 1.9, 1.9, None],  # 5 is capped at 2
        "ema_category_long_view": [None, 1.0, None, 1.0, None],
    }
    schema = {name: Histories.polars_schema()[name] for name in expected}
    assert_frame_equal(found.select(FEATURES), pl.DataFrame(expected, schema=schema))


def reference(log: pl.DataFrame, alpha: float) -> pl.DataFrame:
    """The same features as Polars expressions."""

    def before(column, keys):
        mean = column.cast(pl.Float64).ewm_mean(alpha=alpha, adjust=False, ignore_nulls=True)
        return mean.forward_fill().shift().over(keys)

    log = log.with_columns(
        category=pl.col("item_id").replace_strict(dict(enumerate(CATEGORY.tolist())))
    )
    category = before(pl.col("long_view"), ["user_id", "category"])
    return Histories.conform(
        log.select(
            "user_id",
            "row_id",
            pl.int_range(pl.len()).over("user_id").alias("n_before"),
            (pl.col("ts_ms").diff().over("user_id") / HOUR).alias("hours_since_last"),
            *(
                before(pl.col(name), "user_id").alias(f"ema_{name}")
                for name in ("long_view", "click", "like")
            ),
            before(pl.col("watch_ratio").clip(upper_bound=2), "user_id").alias("ema_watch_ratio"),
            pl.when(pl.col("category") >= 0).then(category).alias("ema_category_long_view"),
        )
    )


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_agrees_with_polars(alpha):
    log = random_log(seed=1, n_rows=2000)
    found = histories(log, CATEGORY, HistoryOptions(alpha=alpha))
    assert_frame_equal(found, reference(log, alpha), abs_tol=1e-6, rel_tol=0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(6)))
def test_neither_the_order_of_users_nor_their_buckets_matter(seed, order):
    log = random_log(seed)
    whole = histories(log, CATEGORY, OPTIONS)
    renamed = with_sessions(
        log.with_columns(user_id=pl.col("user_id").replace_strict(dict(enumerate(order))))
    )
    buckets = [renamed.filter(pl.col("user_id") % 2 == b) for b in (0, 1)]
    apart = pl.concat(histories(bucket, CATEGORY, OPTIONS) for bucket in buckets)
    columns = ["row_id", *FEATURES]
    assert_frame_equal(whole.select(columns).sort("row_id"), apart.select(columns).sort("row_id"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), kept=st.integers(0, 300))
def test_later_rows_change_nothing_before_them(seed, kept):
    log = random_log(seed)
    rows = log.sort("ts_ms", "row_id").head(kept)["row_id"].implode()
    early = pl.col("row_id").is_in(rows)
    found = histories(log, CATEGORY, OPTIONS).filter(early)
    assert_frame_equal(found, histories(log.filter(early), CATEGORY, OPTIONS))


def test_unsorted_rows_are_refused():
    log = random_log(0, n_rows=20).reverse()
    with pytest.raises(ValueError, match="sort each bucket by"):
        histories(log, CATEGORY, OPTIONS)


def test_no_rows_and_no_categories():
    log = random_log(0, n_rows=20)
    assert histories(log.clear(), CATEGORY, OPTIONS).height == 0
    none = histories(log, np.full(N_ITEMS, -1, np.int32), OPTIONS)
    assert none["ema_category_long_view"].null_count() == 20
