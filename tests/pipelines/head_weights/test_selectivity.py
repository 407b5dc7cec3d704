import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from scipy.special import expit
from scipy.stats import binom
from support.ranking_sessions import sessions_of

from reelrank.pipelines.head_weights.selectivity import (
    EFFECT,
    PLACEBO,
    partialled_out,
    selectivity_regression,
    session_thresholds,
)

SLOPE, ITEMS = 4.0, 15
NO_COVARIATES = pl.DataFrame()


def population(seed, *, beta=(0.0, 0.0), users=150, each=8, feedback=0.0):
    """Sessions whose skip threshold is moved for good by the residual of each; ``feedback``: the feed answers to past changes."""
    rng = np.random.default_rng(seed)
    n = users * each
    user, place = np.repeat(np.arange(users), each), np.tile(np.arange(each), users)
    d = rng.normal(scale=0.2, size=(users, each, 2))
    tau = np.empty((users, each))
    tau[:, 0] = 0.5 + rng.normal(scale=0.1, size=users)
    for k in range(1, each):
        if feedback and k > 1:
            d[:, k, 0] += feedback * (tau[:, k - 1] - tau[:, k - 2])
        tau[:, k] = tau[:, k - 1] + d[:, k - 1] @ beta + rng.normal(scale=0.03, size=users)
    value = rng.uniform(size=n * ITEMS)
    neg = rng.uniform(size=value.size) < expit(SLOPE * (np.repeat(tau.ravel(), ITEMS) - value))
    sessions = sessions_of(
        np.zeros((value.size, 4)), np.tile(np.arange(1, ITEMS + 1), n), np.arange(n + 1) * ITEMS, user=user,
    )  # fmt: skip
    residuals = pl.DataFrame(
        {
            "user_id": sessions.user_id, "session_id": sessions.session_id, "burst_id": sessions.burst_id,
            "ts_start": sessions.ts_start, "d_mean": d[..., 0].ravel(), "d_sd": d[..., 1].ravel(),
            "expected_d_mean": np.zeros(n), "expected_d_sd": np.zeros(n),
        }
    )  # fmt: skip
    return sessions, value, neg.astype(float), residuals, tau.ravel(), place


def fitted(seed, **kwargs):
    sessions, value, neg, residuals, _, _ = population(seed, **kwargs)
    found = session_thresholds(sessions, value, neg)
    return selectivity_regression(residuals, found.tau, NO_COVARIATES)


def test_thresholds_of_sessions_are_centred_on_the_truth():
    sessions, value, neg, _, tau, _ = population(0)
    found = session_thresholds(sessions, value, neg)
    assert found.slope == pytest.approx(SLOPE, rel=0.06)
    error = found.tau - tau
    assert abs(error.mean()) < 0.02
    slope = np.polyfit(tau, found.tau, 1)[0]
    assert slope == pytest.approx(1, abs=0.25)  # not shrunk


def test_threshold_is_finite_where_all_or_nothing_is_skipped():
    sessions, value, neg, _, _, _ = population(1, users=20)
    neg[:ITEMS], neg[ITEMS : 2 * ITEMS] = 1, 0
    tau = session_thresholds(sessions, value, neg).tau
    assert np.isfinite(tau).all()
    assert tau[0] >= np.quantile(tau, 0.95)
    assert tau[1] <= np.quantile(tau, 0.05)


def test_firth_root_by_hand():
    # no spread in value inside a session: Firth's estimate of a share y of n is that of (y + ½) of (n + 1)
    n, skipped = 10, 3
    rng = np.random.default_rng(0)
    value = np.concatenate([np.zeros(n), rng.uniform(size=400)])
    neg = np.concatenate([np.arange(n) < skipped, rng.uniform(size=400) < expit(1 - 2 * value[n:])])
    sessions = sessions_of(
        np.zeros((410, 4)), np.concatenate([np.arange(1, 11), np.arange(1, 401)]), [0, 10, 410]
    )
    found = session_thresholds(sessions, value, neg.astype(float))
    share = (skipped + 0.5) / (n + 1)
    assert found.tau[0] * found.slope == pytest.approx(np.log(share / (1 - share)), abs=1e-6)


def test_short_sessions_and_unknown_labels_are_counted():
    sessions, value, neg, _, _, _ = population(2, users=20)
    neg[: ITEMS - 4] = np.nan
    found = session_thresholds(sessions, value, neg)
    assert found.n_short == 1
    assert np.isnan(found.tau[0])
    assert np.isfinite(found.tau[1:]).all()


def test_intervals_cover_a_planted_response_and_the_placebo_passes():
    beta = (0.4, -0.3)
    covered = passed = 0
    for seed in range(20):
        found = fitted(seed, beta=beta)
        effect = found.coefficients.filter(pl.col("role") == EFFECT)
        for term, truth in zip(("d_mean", "d_sd"), beta, strict=True):
            row = effect.row(by_predicate=pl.col("term") == term, named=True)
            covered += row["ci_low"] <= truth <= row["ci_high"]
        passed += found.placebo_passed
        assert found.p_joint[EFFECT] < 1e-3
    assert covered >= binom.ppf(0.005, 40, 0.95)
    assert passed >= binom.ppf(0.005, 20, 0.95)


def test_no_response_is_found_where_there_is_none():
    found = [fitted(seed) for seed in range(20)]
    seen = sum(one.p_joint[EFFECT] < 0.05 for one in found)
    assert seen <= binom.ppf(0.995, 20, 0.05)
    unseen = [one for one in found if one.placebo_passed and one.p_joint[EFFECT] >= 0.05]
    assert unseen
    assert all("no change of selectivity is seen" in one.sentence for one in unseen)


def test_a_feed_that_answers_the_user_fails_the_placebo():
    _, _, _, residuals, tau, _ = population(0, users=300, feedback=4.0)
    found = selectivity_regression(residuals, tau, NO_COVARIATES)
    assert not found.placebo_passed
    assert "no effect" in found.sentence


def test_timing_trimming_and_errors_by_hand():
    _, _, _, residuals, tau, place = population(5, users=60)
    found = selectivity_regression(residuals, tau, NO_COVARIATES)
    inner = (place > 0) & (place < 7)
    rows = np.flatnonzero(inner)
    d = residuals.select("d_mean", "d_sd").to_numpy()[rows]
    low, high = np.quantile(d, [0.01, 0.99], axis=0)
    inside = ((d >= low) & (d <= high)).all(axis=1)
    y = tau[rows + 1] - tau[rows - 1]
    fit = sm.OLS(y[inside], sm.add_constant(d[inside])).fit(
        cov_type="cluster", cov_kwds={"groups": residuals["user_id"].to_numpy()[rows][inside]}, use_t=True
    )  # fmt: skip
    effect = found.coefficients.filter(pl.col("role") == EFFECT)
    assert found.trimmed[EFFECT] == (~inside).sum() > 0
    assert effect["n"][0] == inside.sum()
    # without covariates only the folds' means are taken out
    np.testing.assert_allclose(effect["estimate"][1:], fit.params[1:], atol=0.2 * fit.bse[1])
    np.testing.assert_allclose(effect["se"][1:], fit.bse[1:], rtol=0.1)
    lead = found.coefficients.filter(pl.col("role") == PLACEBO)
    assert (
        lead["n"][0] + found.trimmed[PLACEBO] == 60 * 5
    )  # sessions 1 … 5 of 0 … 7 have one two later


def test_order_of_rows_does_not_matter():
    _, _, _, residuals, tau, _ = population(6, users=60)
    shuffled = np.random.default_rng(0).permutation(len(tau))
    one = selectivity_regression(residuals, tau, NO_COVARIATES).coefficients
    other = selectivity_regression(residuals[shuffled], tau[shuffled], NO_COVARIATES).coefficients
    np.testing.assert_allclose(one["estimate"], other["estimate"], atol=1e-10)


def test_covariates_are_taken_out_of_both_sides():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2))
    y = x @ np.array([[1.0, 3.0], [-2.0, 0.5]]) + rng.normal(size=(2000, 2))
    net = partialled_out(y, x, np.arange(2000) % 5)
    assert np.abs(np.corrcoef(np.hstack([net, x]).T)[:2, 2:]).max() < 0.02
    assert net.std() == pytest.approx(1, rel=0.05)


def test_what_cannot_be_fitted_is_named():
    sessions, value, neg, residuals, tau, _ = population(0, users=20)
    with pytest.raises(ValueError, match="neg rises"):
        session_thresholds(sessions, -value, neg)
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        session_thresholds(sessions, value, neg * 2)
    with pytest.raises(ValueError, match="thresholds"):
        selectivity_regression(residuals, tau[1:], NO_COVARIATES)
    with pytest.raises(ValueError, match="30 are needed"):
        selectivity_regression(residuals[:16], tau[:16], NO_COVARIATES)
