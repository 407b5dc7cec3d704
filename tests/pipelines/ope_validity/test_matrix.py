"""OP-03 on a small table of cells."""

import numpy as np
import polars as pl
import pytest

from reelrank.evaluation.off_policy import BehaviourOptions
from reelrank.pipelines.ope_validity.matrix import matrix_population, op_03
from reelrank.pipelines.ope_validity.options import MatrixOptions

OPTIONS = MatrixOptions(
    sizes=(60, 120), repetitions=2, repetitions_estimated=2, rows_per_user=10, replicates=20, fit_rows=100,
    max_items=10, behaviour=BehaviourOptions(hidden=(4,), epochs=1),
)  # fmt: skip


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    users, items = np.arange(12), np.arange(10)
    observed = pl.DataFrame(
        {
            "user_id": np.repeat(users + 3, 10),
            "item_id": np.tile(items + 5, 12),
            "watch_ratio": rng.uniform(0, 3, 120).astype(np.float32),
        }
    )
    interactions = pl.DataFrame(
        {"user_id": rng.integers(0, 20, 400), "item_id": rng.integers(0, 20, 400)}
    )
    catalogue = pl.DataFrame({"item_id": np.arange(20), "tags": [[i % 4] for i in range(20)]})
    return observed, interactions, catalogue


def test_rewards_are_the_cells_capped_and_filled(tables):
    observed, interactions, items = tables
    missing = observed.with_row_index().filter(pl.col("index") != 7).drop("index")
    population, taste, popularity = matrix_population(missing, interactions, items, OPTIONS)
    full = np.minimum(observed["watch_ratio"].to_numpy().astype(np.float64).reshape(12, 10), 2)
    expected = full.copy()
    expected[0, 7] = np.delete(full[:, 7], 0).mean()
    assert population.expected == pytest.approx(expected)
    assert taste.shape == (12, 4)
    assert popularity.shape == (10,)
    policy = np.zeros((12, 10))
    policy[:, 3] = 1
    assert population.bandit_value(policy) == pytest.approx(full[:, 3].mean())
    drawn = population.draw_reward(np.random.default_rng(0), np.array([2, 5]), np.array([1, 9]))
    assert drawn == pytest.approx([full[2, 1], full[5, 9]])


def test_every_policy_and_case_has_rows(tables):
    cells = op_03(*tables, OPTIONS)
    assert set(cells) == {"truth", "true propensity", "estimated propensity"}
    groups = {row.group for row in cells["true propensity"]}
    assert groups == {"n=60", "n=120"}
    metrics = {row.metric for row in cells["true propensity"]}
    assert {"relative_ee", "ci_coverage", "bias", "rmse"} <= metrics


def test_a_matrix_with_holes_tells_no_values(tables):
    observed, interactions, items = tables
    assert op_03(observed.sample(60, seed=0), interactions, items, OPTIONS) == {}
