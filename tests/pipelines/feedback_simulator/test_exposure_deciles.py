"""MM-04: how the error depends on how often train shows a video, by hand."""

import numpy as np
import polars as pl
import pytest

from reelrank.models.feed import RESPONSES
from reelrank.models.feedback_accuracy import EXPOSURES
from reelrank.pipelines.feedback_simulator.evaluate import (
    bootstrap_of,
    decile_rows,
    exposure_deciles,
)
from reelrank.pipelines.feedback_simulator.run_options import EvaluationOptions

N_ITEMS, N_USERS = 20, 6
OPTIONS = EvaluationOptions(responses=("click",), headline="click", replicates=40)


@pytest.fixture(scope="module")
def impressions():
    """Video i is shown i times in train, once to everybody at random in test, and once a time in train at random."""
    train = [(i % N_USERS, i, 0, "train") for i in range(N_ITEMS) for _ in range(i)]
    random = [(u, i, 1, part) for part in ("train", "test") for u in range(N_USERS) for i in range(N_ITEMS)]  # fmt: skip
    rows = [*train, *random, (0, 0, 0, None)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "is_rand", "split"], orient="row")
    return frame.with_columns(ts_ms=pl.int_range(pl.len()), row_id=pl.int_range(pl.len()))


@pytest.fixture(scope="module")
def judged(impressions):
    """Test rows whose error is 1 / (1 + exposures) off the truth, 0.5."""
    log = impressions.sort("user_id", "ts_ms", "row_id").with_row_index("row").filter(split="test")
    return log.select(
        pl.col("user_id").cast(pl.Int32),
        pl.col("row").cast(pl.Int64),
        exposure=pl.lit("random", pl.Enum(EXPOSURES)),
        response=pl.lit("click", pl.Enum(RESPONSES)),
        logged=(pl.col("user_id") % 2).cast(pl.Float32),
        predicted=(0.5 + 1 / (1 + pl.col("item_id"))).cast(pl.Float32),
        constant=pl.lit(0.25, pl.Float32),
        expected=pl.lit(0.5, pl.Float32),
    )


def test_only_the_logging_policys_train_rows_count(impressions):
    found = exposure_deciles(impressions)
    assert found.height == impressions.height and found["row"].is_unique().all()
    videos = found.unique("item_id").sort("item_id")
    assert videos["exposures"].to_list() == list(range(N_ITEMS))
    assert videos["decile"].to_list() == [1 + i // 2 for i in range(N_ITEMS)]


def test_errors_by_decile_by_hand(impressions, judged):
    cells = decile_rows(judged, impressions, OPTIONS, bootstrap_of(judged, OPTIONS))
    assert list(cells) == ["main", *(f"decile {d}" for d in range(1, 11))]
    for decile in (1, 10):
        items = np.array([2 * decile - 2, 2 * decile - 1])
        rows = {(r.variant, r.metric): r for r in cells[f"decile {decile}"]["random"]}
        assert rows["feedback_simulator", "train_exposures"].value == items.mean()
        error = rows["feedback_simulator", "true_mse"]
        assert error.value == pytest.approx((1 / (1 + items) ** 2).mean(), rel=1e-5)
        assert error.n == 2 * N_USERS
        assert rows["feedback_simulator", "bias"].value == pytest.approx((1 / (1 + items)).mean(), rel=1e-5)  # fmt: skip
        assert rows["train_mean", "true_mse"].value == pytest.approx(0.0625)
    correlations = {r.metric: r.value for r in cells["main"]["random"]}
    assert correlations["exposure_true_error_spearman"] == pytest.approx(-1)


def test_rows_of_nobody_have_no_value(impressions, judged):
    cells = decile_rows(judged, impressions, OPTIONS, bootstrap_of(judged, OPTIONS))
    standard = [r for r in cells["decile 3"]["standard"] if r.metric == "mse"]
    assert standard and all(np.isnan(r.value) and not r.reliable for r in standard)
