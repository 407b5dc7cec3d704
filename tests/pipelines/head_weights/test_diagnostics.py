import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from statsmodels.stats.multitest import multipletests
from support.ranking_sessions import WEIGHTS, drawn_sessions

from reelrank.pipelines.head_weights.diagnostics import (
    DISCREPANCY,
    SHOCK,
    DiagnosticOptions,
    SimulationOptions,
    count_alarms,
    design,
    detectable_r2,
    diagnose,
    holm,
    made_up,
    verdict,
)
from reelrank.pipelines.head_weights.residual import fit_temperature, residual_tables

QUICK = DiagnosticOptions(flips=999)


def sessions_made_up(effect=0.0, seed=0, **kwargs):
    return made_up(SimulationOptions(effect=effect, **kwargs), np.random.default_rng(seed))


def test_exogenous_residuals_are_a_shock_and_endogenous_ones_are_not():
    found = diagnose(*sessions_made_up(), QUICK)
    assert found.verdict.word == SHOCK
    assert found.verdict.failed == found.verdict.weak == ()
    found = diagnose(*sessions_made_up(effect=0.3), QUICK)
    assert found.verdict.word == DISCREPANCY
    for name in ("d_mean", "d_sd", "overlap", "mu_1"):
        assert f"covariates: {name}" in found.verdict.failed
        assert f"{name} depends on covariates" in found.verdict.sentence
    assert "lagged outcomes: category shares" in found.verdict.failed
    assert not [name for name in found.verdict.failed if name.startswith("bursts")]


def test_alarms_come_at_most_at_the_level():
    quick = DiagnosticOptions(flips=499, components=1)
    found = count_alarms(SimulationOptions(repetitions=8, users=80, sessions=4, diagnostics=quick))
    assert found.alarms <= found.high
    found = count_alarms(SimulationOptions(repetitions=2, users=80, effect=0.5, diagnostics=quick))
    assert (found.alarms, found.shocks) == (2, 0)


@pytest.mark.parametrize(
    ("column", "reads"),
    [("burst_id", "bursts: d_mean"), ("neg_rate", "lagged outcomes: d_mean")],
)
def test_each_dependence_is_found_by_its_own_test(column, reads):
    residuals, covariates, lagged = sessions_made_up()
    cause = (residuals if column == "burst_id" else lagged)[column].cast(pl.Float64)
    cause = (cause - cause.mean()).fill_null(0) / cause.std()
    moved = residuals.with_columns(d_mean=residuals["d_mean"] + 0.5 * cause)
    assert reads in diagnose(moved, covariates, lagged, QUICK).verdict.failed


def test_regressions_are_those_of_statsmodels_on_the_raw_columns():
    residuals, covariates, lagged = sessions_made_up(users=100)
    covariates = covariates.with_columns(pl.col("hours_since_last").fill_null(7.0))
    tests = diagnose(residuals, covariates, lagged, QUICK).tests
    row = tests.row(by_predicate=(pl.col("test") == "covariates") & (pl.col("residual") == "d_sd"), named=True)  # fmt: skip
    x = sm.add_constant(covariates.drop("user_id", "session_id").to_numpy())
    fit = sm.OLS(residuals["d_sd"].to_numpy(), x).fit(
        cov_type="cluster", cov_kwds={"groups": residuals["user_id"].to_numpy()}, use_t=True
    )
    expected = fit.f_test(np.eye(x.shape[1])[1:])
    assert row["statistic"] == pytest.approx(float(expected.fvalue), rel=1e-6)
    assert row["p_wald"] == pytest.approx(float(expected.pvalue), rel=1e-5)
    assert row["r2"] == pytest.approx(fit.rsquared, rel=1e-9)
    assert (row["df"], row["df_error"], row["n"], row["users"]) == (6, 99, 600, 100)
    np.testing.assert_allclose(
        tests["p_holm"], multipletests(tests["p_value"].to_numpy(), method="holm")[1], rtol=1e-12
    )


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_balance_by_hand():
    # residual 0 … 299, covariate = 1 in the top third only: mean 1 against 0, no variance in either
    residuals, covariates, lagged = sessions_made_up(users=50)
    level = np.arange(300.0)
    flag = (level >= 200) | (np.arange(300) % 4 == 0)
    covariates = covariates.select("user_id", "session_id").with_columns(flag=flag.astype(float))
    residuals = residuals.with_columns(d_mean=level)
    found = diagnose(residuals, covariates, lagged, QUICK)
    row = found.balance.row(by_predicate=pl.col("residual") == "d_mean", named=True)
    z = (flag - flag.mean()) / flag.std()
    assert row["mean_top"] == pytest.approx(z[200:].mean())
    spread = np.sqrt((z[200:].var(ddof=1) + z[:100].var(ddof=1)) / 2)
    assert row["smd"] == pytest.approx((z[200:].mean() - z[:100].mean()) / spread)
    assert row["flagged"]
    assert "balance: d_mean" in found.verdict.failed


def test_tests_too_weak_to_see_anything_earn_no_shock():
    frames = sessions_made_up()
    assert diagnose(*frames, QUICK).verdict.word == SHOCK
    found = diagnose(*frames, DiagnosticOptions(flips=999, max_detectable_r2=0.01)).verdict
    assert not found.failed
    assert "covariates: d_mean" in found.weak
    assert found.word == DISCREPANCY
    assert "would not see an R² of 0.01" in found.sentence


def test_detectable_r2_is_the_power_of_an_f_test():
    rng = np.random.default_rng(0)
    n, q = 400, 3
    r2 = detectable_r2(n, q, n - q - 1, 0.05, 0.8)
    seen = 0
    for _ in range(200):
        x = rng.normal(size=(n, q))
        y = x[:, 0] * np.sqrt(r2 / (1 - r2)) + rng.normal(size=n)
        seen += sm.OLS(y, sm.add_constant(x)).fit().f_pvalue < 0.05
    assert 0.68 < seen / 200 < 0.92  # four standard errors


def test_nothing_is_left_out_in_silence():
    residuals, covariates, lagged = sessions_made_up(users=60)
    covariates = covariates.with_columns(same=pl.lit(3), twice=2 * pl.col("activity"))
    x = design(covariates.drop("user_id", "session_id"))
    assert x.values.shape[1] == len(x.names) == 7
    assert len(x.left_out) == 2
    assert "same" in x.left_out
    assert "hours_since_last_missing" in x.names
    alone = residuals.with_columns(burst_id=pl.lit(0))
    none = lagged.with_columns(pl.lit(None, pl.Float64).alias(c) for c in ("rows", "neg_rate"))
    found = diagnose(alone, covariates, none, QUICK).verdict
    assert any("same" in one for one in found.skipped)
    assert "bursts (no column varies)" in found.skipped
    assert "lagged outcomes (no column varies)" in found.skipped
    assert all(one in found.sentence for one in found.skipped)


def test_nothing_tested_is_no_shock():
    empty = diagnose(*sessions_made_up(users=60), QUICK).tests.clear()
    assert verdict(empty, []).word == DISCREPANCY


def test_frames_that_do_not_fit_are_named():
    residuals, covariates, lagged = sessions_made_up(users=60)
    with pytest.raises(ValueError, match="covariates: 1 of 360"):
        diagnose(residuals, covariates[1:], lagged)
    with pytest.raises(ValueError, match="lagged: some"):
        diagnose(residuals, covariates, pl.concat([lagged, lagged[:1]]))
    few = residuals["user_id"] < 10
    with pytest.raises(ValueError, match="10 users for 7 columns"):
        diagnose(residuals.filter(few), covariates.filter(few), lagged.filter(few))


@pytest.fixture(scope="module")
def ranked():
    """Sessions of a noisy feed whose noise has one temperature, but whose p̂ spread differs by session, as the covariate says."""
    sessions = drawn_sessions(1200, users=300, candidates=20, shown=5, temperature=0.0, seed=3)
    rng = np.random.default_rng(4)
    spread = rng.uniform(0.2, 1, 1200)
    sessions.heads[:] = (sessions.heads - 0.5) * np.repeat(spread, 20)[:, None] + 0.5
    return sessions, spread, rng


def order_by(sessions, value):
    order = np.argsort(-value.reshape(1200, 20), axis=1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(1, 21)[None], axis=1)
    sessions.rank_shown[:] = np.where(rank <= 5, rank, 0).ravel()


def frames_for(sessions, spread, temperature):
    residuals, _ = residual_tables(
        sessions, WEIGHTS, ["test"] * 1200, np.eye(200, 4), np.arange(200) % 5, 5, temperature
    )
    keys = residuals.select("user_id", "session_id")
    noise = np.random.default_rng(9).normal(size=1200)
    return residuals, keys.with_columns(spread=pl.Series(spread)), keys.with_columns(x=pl.Series(noise))  # fmt: skip


def test_noise_of_the_feed_is_a_shock_only_beside_what_it_leaves_by_itself(ranked):
    sessions, spread, rng = ranked
    value = sessions.heads @ WEIGHTS
    order_by(sessions, value + 0.1 * rng.gumbel(size=value.size))
    fitted = fit_temperature(sessions, WEIGHTS)
    assert diagnose(*frames_for(sessions, spread, fitted), QUICK).verdict.failed == ()
    # against the noise-free order the same shocks are larger where scores are close: a known covariate predicts them
    raw = diagnose(*frames_for(sessions, spread, 0.0), QUICK).verdict
    assert "covariates: d_mean" in raw.failed
    assert "covariates: overlap" in raw.failed


def test_a_boost_that_follows_the_user_is_no_shock(ranked):
    sessions, spread, rng = ranked
    value = sessions.heads @ WEIGHTS
    boost = (sessions.item_id % 5 == 0) * np.repeat(spread - spread.mean(), 20)
    order_by(sessions, value + 0.1 * rng.gumbel(size=value.size) + boost)
    found = diagnose(*frames_for(sessions, spread, fit_temperature(sessions, WEIGHTS)), QUICK)
    assert "covariates: category shares" in found.verdict.failed
    assert found.verdict.word == DISCREPANCY
