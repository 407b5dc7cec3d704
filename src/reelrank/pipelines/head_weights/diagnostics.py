"""May a residual be called a shock? Tests of what must hold if it is exogenous, and one rule for the word.

If what the feed did beyond its rule is as good as random, then nothing that was known before the session predicts it: neither
covariates, nor what the user did in the session before; the sessions with the highest and the lowest residual have had the same
users; and its mean is the same in every burst. Each of these is a test with errors clustered by user, all are held to one level
by Holm's correction, and too few sessions to see a dependence are no evidence that there is none.

Source: METHODS §6.7 (follow-up design [A]: "discrepancy", not "shock", unless the diagnostics pass), §9 GV-08.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field
from scipy.linalg import qr
from scipy.optimize import brentq
from scipy.stats import binom, ncf
from scipy.stats import f as f_distribution

from reelrank.options import Options

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

KEYS = ("user_id", "session_id")
SCALARS = ("d_mean", "d_sd", "overlap")
CATEGORIES = "category shares"
SHOCK, DISCREPANCY = "shock", "discrepancy"

_FAILS = {  # what it means that a test is rejected
    "covariates": "depends on covariates",
    "lagged outcomes": "depends on the session before",
    "bursts": "differs between bursts",
    "balance": "was high and low in different circumstances",
}
_FLIPS_AT_ONCE = 256  # bounds memory
_NOTHING = 1e-9  # spread of a column, or share of one that others leave, that counts as none
_TESTS = {
    "test": pl.String, "residual": pl.String, "statistic": pl.Float64, "df": pl.Int64, "df_error": pl.Int64,
    "p_wald": pl.Float64, "p_value": pl.Float64, "p_holm": pl.Float64, "r2": pl.Float64, "r2_detectable": pl.Float64, "n": pl.Int64,
    "users": pl.Int64, "passed": pl.Boolean,
}  # fmt: skip


class DiagnosticOptions(Options):
    """Level, power and what is tested."""

    alpha: float = Field(0.05, gt=0, lt=0.5, description="chance of any false alarm in all tests")
    components: int = Field(
        3, ge=1, le=64, description="principal components of Δμ that are tested [D]"
    )
    flips: int = Field(1999, ge=99, description="random sign flips of users behind p_value [D]")
    power: float = Field(0.8, gt=0, lt=1, description="chance to see r2_detectable")
    max_detectable_r2: float = Field(
        0.05, gt=0, lt=1, description="a shock must have passed tests that would have seen an R² this small with that chance [D]"
    )  # fmt: skip
    smd: float = Field(
        0.1, gt=0, description="|standardised mean difference| flagged in the balance table [R: Austin 2009]"
    )  # fmt: skip
    seed: int = Field(0, ge=0, description="of the sign flips")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word that the residual has earned.

    Attributes:
        word: ``shock`` if every test passed and none was too weak, else ``discrepancy``.
        failed: ``test: residual`` of what was rejected.
        weak: ``test: residual`` of what passed without the power asked for.
        skipped: what could not be tested, and why.
        sentence: all of that for a reader.
    """

    word: str
    failed: tuple[str, ...]
    weak: tuple[str, ...]
    skipped: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Tests, balance table, means by burst, verdict.

    Attributes:
        tests: a row per test and residual: F clustered by user with its df and p_wald (none for category shares, which are tested
            jointly), R² (category shares: mean), p_value of R² under sign flips of users, p_holm of that over all rows, the R² that would
            have been seen (null for category shares), passed.
        balance: a row per covariate and scalar residual: mean in the top and bottom third, smd, whether |smd| exceeds the option.
        bursts: mean of each residual by burst with its clustered standard error.
        verdict: see there.
    """

    tests: pl.DataFrame
    balance: pl.DataFrame
    bursts: pl.DataFrame
    verdict: Verdict


def diagnose(
    residuals: pl.DataFrame,
    covariates: pl.DataFrame,
    lagged: pl.DataFrame,
    options: DiagnosticOptions | None = None,
) -> Diagnostics:
    """Test whether the residuals of sessions depend on anything before them.

    What is tested is the residual minus what noise of the feed alone leaves (``expected_*``; with temperature 0 the raw residual).

    Args:
        residuals: ``SessionResiduals``.
        covariates: user_id, session_id and numeric columns known before the session; a null becomes the mean and a flag.
        lagged: user_id, session_id and outcomes of the user's session before; sessions where all are null are left out of that test.
        options: level, power, what is tested.

    Returns:
        tests, tables and verdict.

    Raises:
        ValueError: a session has no row or two in ``covariates`` or ``lagged``, or there are too few users for the columns.
    """
    o = options or DiagnosticOptions()
    outcome, shares = tested_residuals(residuals, o)
    user = residuals["user_id"].to_numpy().astype(np.int64)
    burst = residuals["burst_id"].to_numpy().astype(np.int64)
    known = design(_aligned(residuals, covariates, "covariates"))
    before = _aligned(residuals, lagged, "lagged")
    has_before = ~before.select(pl.all_horizontal(pl.all().is_null())).to_series().to_numpy()
    everyone = np.ones(len(user), bool)
    blocks = (
        ("covariates", known, everyone),
        ("lagged outcomes", design(before.filter(pl.Series(has_before))), has_before),
        ("bursts", _dummies(burst), everyone),
    )
    skipped: list[str] = []
    rows: list[dict[str, object]] = []
    for test, block, keep in blocks:
        skipped += [f"{test}: {name} (constant or a sum of others)" for name in block.left_out]
        if not block.names:
            skipped.append(f"{test} (no column varies)")
            continue
        found, still = _tests(
            {name: y[keep] for name, y in outcome.items()}, shares[keep], block, user[keep], o
        )
        rows += [{"test": test, **row} for row in found]
        skipped += [f"{test}: {name} (does not vary)" for name in still]
    thirds = {
        name: _thirds(_level(residuals, name, outcome[name])) for name in SCALARS if known.names
    }
    for name, third in thirds.items():
        ends = third != 0
        if len(np.unique(third[ends])) < 2:
            skipped.append(f"balance: {name} (one value fills a third)")
            continue
        x = design(pl.DataFrame(known.values[ends], schema=list(known.names)))
        found, _ = _tests({name: third[ends]}, np.empty((int(ends.sum()), 0)), x, user[ends], o)
        rows += [{"test": "balance", **row} for row in found]
    tests = _held_to_level(rows, o)
    return Diagnostics(
        tests,
        pl.concat([_balance(name, known, third, o) for name, third in thirds.items()])
        if thirds
        else pl.DataFrame(),
        _burst_means(outcome, burst, user),
        verdict(tests, skipped, o),
    )


def verdict(
    tests: pl.DataFrame, skipped: list[str], options: DiagnosticOptions | None = None
) -> Verdict:
    """The one rule: "shock" if no test is rejected and each could have seen a small dependence, else "discrepancy".

    Args:
        tests: as in ``Diagnostics``.
        skipped: what could not be tested.
        options: level and power.
    """
    o = options or DiagnosticOptions()
    name = pl.col("test") + ": " + pl.col("residual")
    failed = tests.filter(~pl.col("passed"))
    weak = tests.filter(pl.col("passed") & (pl.col("r2_detectable") > o.max_detectable_r2))
    passed_all = tests.height > 0 and failed.is_empty() and weak.is_empty()
    if tests.is_empty():
        reason = "nothing could be tested"
    elif failed.height:
        reason = "; ".join(
            f"{row['residual']} {_FAILS[row['test']]} (R² {row['r2']:.2g}, p {row['p_holm']:.2g})"
            for row in failed.sort("p_holm", "test", "residual").iter_rows(named=True)
        )
    elif weak.height:
        worst = weak.select(pl.col("r2_detectable").max()).item()
        reason = (
            f"no test is rejected, but {weak.height} of {tests.height} would not see an R² of {o.max_detectable_r2:g} "
            f"with probability {o.power:g} (the weakest sees {worst:.2g})"
        )
    else:
        reason = f"none of {tests.height} tests is rejected (Holm, {o.alpha:.0%} in all), and each would have seen an R² of {o.max_detectable_r2:g}"
    word = SHOCK if passed_all else DISCREPANCY
    untested = f"; not tested: {', '.join(skipped)}" if skipped else ""
    return Verdict(
        word, tuple(failed.select(name).to_series()), tuple(weak.select(name).to_series()), tuple(skipped),
        f"{word}: {reason}{untested}",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Design:
    """Standardised columns, none of them a sum of others.

    Attributes:
        names: of the columns, with ``…_missing`` flags.
        values: (n, q).
        left_out: names of columns that are constant or follow from others.
    """

    names: tuple[str, ...]
    values: FloatArray
    left_out: tuple[str, ...]


def design(frame: pl.DataFrame) -> Design:
    """Numeric columns as regressors: null and NaN become the mean beside a flag; what carries nothing new is left out by name."""
    if frame.is_empty():
        return Design((), np.empty((frame.height, 0)), tuple(frame.columns))
    filled: dict[str, FloatArray] = {}
    for name in frame.columns:
        value = frame[name].cast(pl.Float64).to_numpy().copy()
        missing = ~np.isfinite(value)
        if missing.any():
            value[missing] = value[~missing].mean() if not missing.all() else 0.0
            filled[f"{name}_missing"] = missing.astype(np.float64)
        filled[name] = value
    names = list(filled)
    values = np.column_stack(list(filled.values()))
    sd = values.std(axis=0)
    varies = sd > _NOTHING * np.maximum(np.abs(values).max(axis=0, initial=0), 1)
    z = (values[:, varies] - values[:, varies].mean(axis=0)) / sd[varies]
    candidates = np.flatnonzero(varies)
    keep = candidates[:0]
    if z.shape[1]:
        _, r, order = qr(z, mode="economic", pivoting=True)
        size = np.abs(np.diag(r))
        keep = np.sort(candidates[order[: len(size)][size > np.sqrt(_NOTHING) * size[0]]])
    kept = tuple(names[k] for k in keep)
    return Design(
        kept, z[:, np.isin(candidates, keep)], tuple(n for n in names if n not in set(kept))
    )


def tested_residuals(
    residuals: pl.DataFrame, options: DiagnosticOptions | None = None
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Residuals minus what is expected under noise: the scalars and leading components of Δμ by name, and category shares.

    Args:
        residuals: ``SessionResiduals``.
        options: number of components.

    Returns:
        columns (n,) by name, and (n, C + 1).
    """
    o = options or DiagnosticOptions()
    columns = {
        name: (residuals[name] - residuals[f"expected_{name}"]).to_numpy().astype(np.float64)
        for name in SCALARS
    }
    mu = _matrix(residuals, "delta_mu")
    if mu.shape[1]:
        centred = mu - mu.mean(axis=0)
        u, size, _ = np.linalg.svd(centred, full_matrices=False)
        rank = int((size > np.sqrt(_NOTHING) * max(size[0], _NOTHING)).sum())
        for k in range(min(o.components, rank)):
            columns[f"mu_{k + 1}"] = u[:, k] * size[k]
    return columns, _matrix(residuals, "delta_category")


def _matrix(residuals: pl.DataFrame, name: str) -> FloatArray:
    parts = [
        residuals[column].list.to_array(len(residuals[column][0])).to_numpy().astype(np.float64)
        for column in (name, f"expected_{name}")
    ]
    gap: FloatArray = parts[0] - parts[1]
    return gap


def _aligned(residuals: pl.DataFrame, frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """The columns of ``frame`` in the order of the sessions."""
    keys = list(KEYS)
    if frame.select(keys).is_duplicated().any():
        raise ValueError(f"{name}: some (user_id, session_id) stand twice; give one row a session")
    cast = frame.with_columns(pl.col(key).cast(residuals.schema[key]) for key in keys)
    missing = residuals.join(cast, on=keys, how="anti").height
    if missing:
        raise ValueError(f"{name}: {missing} of {residuals.height} sessions have no row; give nulls where a value is not known")  # fmt: skip
    joined = residuals.select(keys).join(cast, on=keys, how="left", maintain_order="left")
    return joined.drop(keys)


def _dummies(code: IntArray) -> Design:
    levels = np.unique(code)[1:]
    return Design(
        tuple(map(str, levels.tolist())), (code[:, None] == levels).astype(np.float64), ()
    )


def _tests(
    outcome: dict[str, FloatArray], shares: FloatArray, x: Design, user: IntArray, options: DiagnosticOptions,
) -> tuple[list[dict[str, object]], list[str]]:  # fmt: skip
    """A row for each residual and one for all category shares, and the names of residuals that do not vary."""
    ids, of_row = np.unique(user, return_inverse=True)
    q = len(x.names)
    if len(ids) <= 2 * (q + 1):
        raise ValueError(f"{len(ids)} users for {q} columns ({', '.join(x.names)}): clustered errors need more than twice as many")  # fmt: skip
    moving = [name for name, y in outcome.items() if y.std() > _NOTHING]
    still = [name for name in outcome if name not in moving]
    kept = shares[:, shares.std(axis=0) > _NOTHING]
    names = [*moving, CATEGORIES] if kept.shape[1] else moving
    if shares.shape[1] and not kept.shape[1]:
        still.append(CATEGORIES)
    if not names:
        return [], still
    group = np.append(np.arange(len(moving)), np.full(kept.shape[1], len(moving)))
    y = np.column_stack([*(outcome[name] for name in moving), kept])
    r2, p_value = _flip_tests(y, group, x, of_row, options)
    rows: list[dict[str, object]] = []
    for k, name in enumerate(names):
        row: dict[str, object] = {
            "residual": name, "df": q, "df_error": len(ids) - 1, "p_value": p_value[k], "r2": r2[k],
            "n": len(user), "users": len(ids), "statistic": None, "p_wald": None,
        }  # fmt: skip
        if name != CATEGORIES:
            row |= _wald(outcome[name], x, of_row)
        rows.append(row)
    return rows, still


def _wald(y: FloatArray, x: Design, cluster: IntArray) -> dict[str, object]:
    """F that all slopes are 0, covariance clustered by user."""
    import statsmodels.api as sm  # noqa: PLC0415 (slow to import)

    fit = sm.OLS(y, sm.add_constant(x.values, has_constant="add")).fit(
        cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True
    )
    test = fit.f_test(np.eye(len(x.names) + 1)[1:])
    return {"statistic": float(test.fvalue), "p_wald": float(test.pvalue)}


def _flip_tests(
    y: FloatArray, group: IntArray, x: Design, cluster: IntArray, options: DiagnosticOptions
) -> tuple[FloatArray, FloatArray]:
    """Mean R² of the columns of each group, and p of it under sign flips.

    A user's residuals change sign as one, at random: their dependence among themselves stays and that on x goes (a wild cluster
    bootstrap with the null imposed [R: Cameron, Gelbach and Miller 2008]). Covariates with long tails make the F of a few hundred
    users reject too often; this does not.
    """
    z = (y - y.mean(axis=0)) / y.std(axis=0)
    basis = np.linalg.qr(x.values - x.values.mean(axis=0))[0]
    n_groups = int(group[-1]) + 1
    member = (group[:, None] == np.arange(n_groups)).astype(np.float64)
    n_columns = member.sum(axis=0)
    products = np.zeros((int(cluster.max()) + 1, basis.shape[1] * z.shape[1]))
    np.add.at(products, cluster, (basis[:, :, None] * z[:, None, :]).reshape(len(z), -1))

    def r2(sums: npt.NDArray[np.floating]) -> FloatArray:
        by_column = (sums.reshape(len(sums), -1, z.shape[1]) ** 2).sum(axis=1)
        mean: FloatArray = by_column @ member / n_columns / len(z)
        return mean

    actual = r2(np.ones((1, len(products))) @ products)
    rng = np.random.default_rng(options.seed)
    beyond = np.zeros(n_groups)
    for start in range(0, options.flips, _FLIPS_AT_ONCE):
        size = min(_FLIPS_AT_ONCE, options.flips - start)
        signs = rng.integers(2, size=(size, len(products))) * 2.0 - 1
        beyond += (r2(signs @ products) >= actual * (1 - 1e-12)).sum(axis=0)
    return actual[0], (beyond + 1) / (options.flips + 1)


def _level(residuals: pl.DataFrame, name: str, surprise: FloatArray) -> FloatArray:
    """How high a residual is beside what noise leaves: its spread there differs by session, and would sort them into thirds."""
    quantile = residuals[f"noise_quantile_{name}"]
    return surprise if quantile.has_nulls() else quantile.to_numpy().astype(np.float64)


def _thirds(y: FloatArray) -> FloatArray:
    """1 in the top third, −1 in the bottom third, else 0; 0 everywhere if one value fills a third and more at both cuts."""
    low, high = np.quantile(y, [1 / 3, 2 / 3])
    third: FloatArray = (y >= high).astype(np.float64) - (y <= low)
    return third


def _balance(name: str, x: Design, third: FloatArray, options: DiagnosticOptions) -> pl.DataFrame:
    top, bottom = x.values[third > 0], x.values[third < 0]
    spread = np.sqrt((top.var(axis=0, ddof=1) + bottom.var(axis=0, ddof=1)) / 2)
    gap = top.mean(axis=0) - bottom.mean(axis=0)
    smd = np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
    return pl.DataFrame(
        {
            "residual": [name] * len(x.names),
            "covariate": list(x.names),
            "mean_top": top.mean(axis=0),
            "mean_bottom": bottom.mean(axis=0),
            "smd": smd,
            "flagged": np.abs(smd) > options.smd,
        }
    )


def _burst_means(outcome: dict[str, FloatArray], burst: IntArray, user: IntArray) -> pl.DataFrame:
    rows = []
    for name, y in outcome.items():
        for one in np.unique(burst):
            own = burst == one
            gap = y[own] - y[own].mean()
            sums = np.bincount(np.unique(user[own], return_inverse=True)[1], weights=gap)
            scale = len(sums) / max(len(sums) - 1, 1)
            se = float(np.sqrt(scale * (sums**2).sum())) / own.sum()
            rows.append((name, int(one), float(y[own].mean()), se if len(sums) > 1 else None, int(own.sum())))  # fmt: skip
    schema = {"residual": pl.String, "burst_id": pl.Int16, "mean": pl.Float64, "se": pl.Float64, "n": pl.Int64}  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def _held_to_level(rows: list[dict[str, object]], options: DiagnosticOptions) -> pl.DataFrame:
    """Holm's p, whether it passes, and the R² that would have been seen at the strictest of Holm's levels."""
    if not rows:
        return pl.DataFrame(schema=_TESTS)
    frame = pl.DataFrame(rows)
    p_holm = holm(frame["p_value"].to_numpy())
    level = options.alpha / len(rows)
    seen = [
        None if residual == CATEGORIES else detectable_r2(n, df, df_error, level, options.power)
        for residual, n, df, df_error in frame.select("residual", "n", "df", "df_error").iter_rows()
    ]
    return frame.with_columns(
        p_holm=pl.Series(p_holm),
        r2_detectable=pl.Series(seen, dtype=pl.Float64),
        passed=pl.Series(p_holm >= options.alpha),
    ).select(pl.col(name).cast(kind) for name, kind in _TESTS.items())


def holm(p: npt.ArrayLike) -> FloatArray:
    """(m,) p values that hold the chance of any false rejection (Holm 1979)."""
    value = np.asarray(p, np.float64)
    order = np.argsort(value, kind="stable")
    stepped = np.maximum.accumulate(value[order] * np.arange(len(value), 0, -1))
    adjusted = np.empty_like(value)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


@lru_cache(maxsize=256)
def detectable_r2(n: int, df: int, df_error: int, level: float, power: float) -> float:
    """The smallest R² that an F test sees with probability ``power``, sessions of a user taken for as good as independent.

    λ = n·R² / (1 − R²) of the noncentral F [R: Cohen 1988, ch. 9].

    Args:
        n: sessions.
        df: slopes tested.
        df_error: users − 1.
        level: of the test.
        power: chance to reject.
    """
    critical = f_distribution.isf(level, df, df_error)

    def lack(noncentrality: float) -> float:
        return float(ncf.sf(critical, df, df_error, noncentrality)) - power

    upper = 10.0
    while lack(upper) < 0:
        upper *= 2
    found = brentq(lack, 1e-9, upper)
    return float(found / (found + n))


class SimulationOptions(Options):
    """Made-up sessions on which the tests themselves are judged."""

    repetitions: int = Field(200, ge=2, description="sets of sessions")
    users: int = Field(200, ge=20, description="users of a set")
    sessions: int = Field(6, ge=2, description="sessions of each user")
    effect: float = Field(
        0.0, description="sd of each residual per sd of a covariate; 0 = exogenous shocks"
    )
    diagnostics: DiagnosticOptions = Field(DiagnosticOptions(), description="what is judged")
    seed: int = Field(0, ge=0, description="of the draws")


@dataclass(frozen=True, slots=True)
class Alarms:
    """How often the diagnostics rejected.

    Attributes:
        repetitions: sets of sessions.
        alarms: sets in which any test was rejected.
        shocks: sets whose residual was called a shock.
        low: fewest alarms that a test of exact level gives in 99 % of the cases.
        high: most alarms, likewise.
    """

    repetitions: int
    alarms: int
    shocks: int
    low: int
    high: int


def count_alarms(options: SimulationOptions | None = None) -> Alarms:
    """Diagnose many sets of made-up sessions; without an effect the alarms should not exceed ``high`` (Holm may give fewer than ``low``).

    Residuals are dependent within a user and have unequal variances, covariates are skewed, partly constant within a user and
    partly missing: what clustered errors are for.

    Args:
        options: sizes, effect.
    """
    o = options or SimulationOptions()
    alarms = shocks = 0
    for repetition in range(o.repetitions):
        frames = made_up(o, np.random.default_rng([o.seed, repetition]))
        found = diagnose(*frames, o.diagnostics).verdict
        alarms += bool(found.failed)
        shocks += found.word == SHOCK
    low, high = binom.interval(0.99, o.repetitions, o.diagnostics.alpha)
    return Alarms(o.repetitions, alarms, shocks, int(low), int(high))


def made_up(
    options: SimulationOptions, rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Residuals, covariates and lagged outcomes of one set of sessions, for ``diagnose``.

    Args:
        options: sizes, effect.
        rng: draws.
    """
    n_users, each = options.users, options.sessions
    n = n_users * each
    user = np.repeat(np.arange(n_users), each)
    place = np.tile(np.arange(each), n_users)
    activity = rng.lognormal(size=n_users)[user]
    gap = rng.exponential(size=n) * 24 / activity
    previous = rng.poisson(5 + 5 * rng.uniform(size=n_users)[user]).astype(np.float64)
    hour = rng.uniform(0, 2 * np.pi, n)
    cause = (np.log(activity) + previous - previous.mean()) / np.sqrt(1 + previous.var())

    def noise(width: int) -> FloatArray:
        own = 0.5 * rng.normal(size=(n_users, width))[user] + rng.normal(size=(n, width))
        return own * np.exp(0.3 * rng.normal(size=n))[:, None]

    moved = noise(3) + options.effect * cause[:, None]
    mu = noise(8) + options.effect * cause[:, None]
    share = rng.dirichlet(np.ones(6), n) - rng.dirichlet(np.ones(6), n)
    share[:, 0] += 0.1 * options.effect * cause
    share[:, 1] -= 0.1 * options.effect * cause
    keys = {"user_id": user, "session_id": np.arange(n)}
    residuals = pl.DataFrame(
        {
            **keys,
            "burst_id": np.minimum(place * 3 // each, 2),
            **dict(zip(SCALARS, moved.T, strict=True)),
            **{f"expected_{name}": np.zeros(n) for name in SCALARS},
            **{f"noise_quantile_{name}": [None] * n for name in SCALARS},
            "delta_mu": mu, "expected_delta_mu": np.zeros_like(mu),
            "delta_category": share, "expected_delta_category": np.zeros_like(share),
        }
    ).with_columns(pl.selectors.array().arr.to_list())  # fmt: skip
    first = pl.lit(pl.Series(place == 0))
    covariates = pl.DataFrame(
        {
            **keys,
            "hours_since_last": gap,
            "previous_rows": previous,
            "hour_sin": np.sin(hour),
            "hour_cos": np.cos(hour),
            "weekend": (rng.uniform(size=n) < 2 / 7).astype(np.int64),
            "activity": activity,
        }
    ).with_columns(hours_since_last=pl.when(~first).then("hours_since_last"))
    lagged = pl.DataFrame(
        {**keys, "rows": previous, "neg_rate": rng.beta(2 * activity, 8, n)}
    ).with_columns(pl.when(~first).then(pl.col("rows", "neg_rate")))
    return residuals, covariates, lagged
