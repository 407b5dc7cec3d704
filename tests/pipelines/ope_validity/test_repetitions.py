"""Repetitions: what is made of many estimates, and that the intervals of a planted population hold."""

import numpy as np
import polars as pl
import pytest
from test_population import make_population

from reelrank.pipelines.ope_validity.population import draw_log, greedy
from reelrank.pipelines.ope_validity.repetitions import (
    ESTIMATORS,
    coverage_bounds,
    estimate,
    repeat,
    reward_model,
    share_interval,
    summarise,
    summary_rows,
    with_greedy,
)


def test_summary_of_estimates_by_hand():
    repeated = pl.DataFrame(
        {
            "policy": "p",
            "estimator": "snipw",
            "value": [1.0, 3.0, 2.5, float("nan")],
            "ci_low": [0.5, 2.5, 1.5, float("nan")],
            "ci_high": [2.5, 3.5, 3.0, float("nan")],
            "ess": [10.0, 20.0, 30.0, 0.0],
            "mean_weight": [1.0, 1.0, 1.0, 1.0],
            "reliable": [True, True, False, False],
        }
    )
    row = summarise(repeated, {"p": 2.0}).row(0, named=True)
    assert row["bias"] == pytest.approx((-1 + 1 + 0.5) / 3)
    assert row["rmse"] == pytest.approx(np.sqrt((1 + 1 + 0.25) / 3))
    assert row["relative_ee"] == pytest.approx((1 + 1 + 0.5) / 3 / 2)
    assert (
        row["ci_coverage"] == 0.5
    )  # the second misses, and a value that is not defined counts as a miss
    assert row["reliable_share"] == 0.5
    assert row["missed_while_reliable"] == 0.5
    rows = {r.metric: r for r in summary_rows(summarise(repeated, {"p": 2.0}), 500)}
    assert rows["ci_coverage"].group == "n=500"
    assert rows["ci_coverage"].n == 4
    assert rows["ci_coverage"].ci_low < 0.5 < rows["ci_coverage"].ci_high


def test_coverage_bounds_are_binomial():
    # 0.5 % and 99.5 % quantiles of Binomial(200, 0.95): 181 and 197
    assert coverage_bounds(200) == pytest.approx((181 / 200, 197 / 200))
    assert share_interval(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert share_interval(10, 10) == pytest.approx((0.025**0.1, 1.0))


def test_one_reward_model_for_all_policies_is_the_default():
    population = make_population()
    log = draw_log(population, 400, 10, seed=0)
    policy = np.full((90, 4), 0.25)
    q = reward_model(population, log)
    names = ("dm", "dr")
    shared = estimate(population, log, policy, population.behaviour, names, q=q)
    default = estimate(population, log, policy, population.behaviour, names)
    for name in names:
        assert shared[name].estimate.value == pytest.approx(default[name].estimate.value, abs=1e-12)


def test_greedy_is_judged_by_replay_and_switch_dr_only():
    population = make_population()
    policies = with_greedy({"uniform": np.full((90, 4), 0.25), "best": population.expected})
    assert (policies["greedy"] == greedy(population.expected)).all()
    repeated = repeat(
        population, {"uniform": policies["uniform"], "greedy": policies["greedy"]}, population.behaviour,
        n=200, repetitions=2, rows_per_user=10, replicates=20, seed=0,
    )  # fmt: skip
    of = {p: set(part["estimator"]) for (p,), part in repeated.group_by("policy")}
    assert of == {"uniform": set(ESTIMATORS), "greedy": {"rm", "switch-dr"}}
    assert repeated.height == 2 * (len(ESTIMATORS) + 2)


def test_intervals_of_snipw_and_dr_hold_and_wrong_propensities_break_them():
    population = make_population(n_users=100, sharpness=3.0)
    uniform = np.full((300, 4), 0.25)
    truth = {"uniform": population.bandit_value(uniform)}
    common = {"n": 1_000, "repetitions": 40, "rows_per_user": 10, "replicates": 200, "seed": 0, "estimators": ("snipw", "dr")}  # fmt: skip
    low, _ = coverage_bounds(40, level=0.999)
    good = summarise(
        repeat(population, {"uniform": uniform}, population.behaviour, **common), truth
    )
    assert (good["ci_coverage"] >= low).all(), good
    # told that the uniform policy logged, SNIPW returns the mean of the log: the logging policy's value
    bad = summarise(repeat(population, {"uniform": uniform}, uniform, **common), truth)
    wrong = bad.filter(estimator="snipw").row(0, named=True)
    logging = population.bandit_value(population.behaviour)
    assert wrong["bias"] == pytest.approx(logging - truth["uniform"], abs=0.01)
    assert wrong["ci_coverage"] < 0.5
