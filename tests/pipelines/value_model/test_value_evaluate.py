import math

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from reelrank.evaluation.grouped import gauc
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.features.heads import HEADS
from reelrank.pipelines.value_model.evaluate import (
    Key,
    best_baseline,
    estimates,
    reliability,
    result_rows,
    warmth_estimates,
)


def predictions(seed, signal, n=600):
    """Predictions of val and test with some unknown labels."""
    rng = np.random.default_rng(0)  # the same rows for all
    users, y = rng.integers(0, 20, n), rng.integers(0, 2, (n, 4))
    unknown = rng.random(n) < 0.1
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-(signal * (2 * y - 1) + rng.normal(size=(n, 4)))))
    table = pl.DataFrame({"user_id": users, "item_id": np.arange(n) % 30, "split": ["val", "test"] * (n // 2)})  # fmt: skip
    labels = {h: pl.Series(h, y[:, j], dtype=pl.Int8).set(pl.Series(unknown), None) for j, h in enumerate(HEADS)}  # fmt: skip
    return table.with_columns(**labels, **{f"p_{h}": pl.Series(p[:, j], dtype=pl.Float32) for j, h in enumerate(HEADS)})  # fmt: skip


GOOD, POOR = predictions(1, 0.8), predictions(2, 0.1)
TEST = GOOD.filter(split="test")
BOOTSTRAP = UserBootstrap(TEST["user_id"], 50)


def test_numbers_agree_with_a_reference_library():
    found = estimates(TEST, BOOTSTRAP, 15)
    known = TEST.drop_nulls("long")
    y, p = known["long"], known["p_long"].cast(pl.Float64)
    assert found[Key("auc", "long")].value == pytest.approx(roc_auc_score(y, p))
    assert found[Key("log_loss", "long")].value == pytest.approx(log_loss(y, p))
    of_users = gauc(y, known["p_long"], known["user_id"], "positives").value
    assert found[Key("gauc", "long", "positives")].value == pytest.approx(of_users)
    rows = [TEST.drop_nulls(h) for h in HEADS]
    pooled = roc_auc_score(np.concatenate([r[h] for r, h in zip(rows, HEADS, strict=True)]),
                           np.concatenate([r[f"p_{h}"] for r, h in zip(rows, HEADS, strict=True)]))  # fmt: skip
    assert found[Key("auc", "all", "micro")].value == pytest.approx(pooled)
    mean = np.mean([found[Key("auc", h)].value for h in HEADS])
    assert found[Key("auc", "mean")].value == pytest.approx(mean)
    assert math.isnan(found[Key("ece", "long")].ci_low)


def test_warm_and_cold_rows_are_told_apart():
    found = warmth_estimates(TEST, np.arange(20), BOOTSTRAP)
    warm = TEST.filter(pl.col("item_id") < 20).drop_nulls("neg")
    cold = TEST.filter(pl.col("item_id") >= 20).drop_nulls("neg")
    assert found[Key("auc", "warm items")].n == warm.height
    assert found[Key("auc", "cold items")].n == cold.height
    assert list(warmth_estimates(TEST, np.arange(30), BOOTSTRAP)) == [Key("auc", "warm items")]


def test_the_baseline_is_chosen_on_val():
    worse_on_test = GOOD.with_columns(p_neg=pl.when(split="test").then(1 - pl.col("p_neg")).otherwise("p_neg"))  # fmt: skip
    tables = {"logistic": POOR, "edge_mlp": worse_on_test, "gnn_64": GOOD}
    assert best_baseline(tables) == "edge_mlp"


def test_differences_are_paired_and_leave_out_what_has_no_interval():
    tables = {
        name: estimates(table.filter(split="test"), BOOTSTRAP, 15)
        for name, table in {"logistic": POOR, "gnn_64": GOOD}.items()
    }
    rows = [r for r in result_rows(tables, "logistic") if r.paired_with]
    assert {r.variant for r in rows} == {"gnn_64"} and {r.paired_with for r in rows} == {"logistic"}
    assert "ece" not in {r.metric for r in rows}
    (auc,) = [r for r in rows if (r.metric, r.group) == ("auc", "mean")]
    assert auc.ci_low > 0 and auc.p_value < 0.05
    assert not [r for r in result_rows(tables) if r.paired_with]


def test_the_reliability_table_holds_every_known_row():
    table = reliability({"gnn_64": GOOD}, 5)
    for head in HEADS:
        assert table.filter(group=head)["n"].sum() == TEST[head].count()
