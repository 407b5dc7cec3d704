"""The engine of OP-02 and OP-03: many logs, every estimator on each, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from reelrank.evaluation.off_policy import EstimateTable, OffPolicyOptions, estimate_policy_value
from reelrank.evaluation.off_policy.reward_model import action_means
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.pipelines.ope_validity.population import (
    Draw,
    FloatArray,
    Population,
    draw_log,
    greedy,
)

ESTIMATORS = (
    "ipw", "snipw", "sg-ipw", "dm", "dr", "sndr", "switch-dr", "dr-os", "sg-dr", "ncis", "piece-ncis", "mips",
)  # fmt: skip
FOR_GREEDY = ("rm", "switch-dr")  # METHODS §7.2: all that may judge a deterministic policy
GREEDY = "greedy"
COLUMNS = ("estimator", "value", "ci_low", "ci_high", "ess", "mean_weight", "reliable")
TRUE, ESTIMATED = "true propensity", "estimated propensity"


def repeat(
    population: Population,
    policies: Mapping[str, FloatArray],
    propensity: FloatArray,
    *,
    n: int,
    repetitions: int,
    rows_per_user: int,
    replicates: int,
    seed: int,
    estimators: Sequence[str] = ESTIMATORS,
) -> pl.DataFrame:
    """Estimates of every policy from ``repetitions`` logs of n rows, users and contexts drawn anew for each.

    Args:
        population: where logs come from.
        policies: (R, C) each.
        propensity: (R, C) π_b that the estimators are told, true or not.
        n: rows of a log.
        repetitions: logs.
        rows_per_user: contexts of each drawn user.
        replicates: resamples of users.
        seed: of the first log; the others count on.
        estimators: of a stochastic policy; ``greedy`` is judged by replay and switch-DR.

    Returns:
        policy, estimator, value, ci_low, ci_high, ess, mean_weight, reliable; one row per repetition.
    """
    parts = []
    for k in range(repetitions):
        log = draw_log(population, n, rows_per_user, seed + k)
        bootstrap = UserBootstrap(log.user, replicates, seed + k)
        q = reward_model(population, log)
        for name, policy in policies.items():
            asked = FOR_GREEDY if name == GREEDY else estimators
            table = estimate(population, log, policy, propensity, asked, q=q, bootstrap=bootstrap)
            parts.append(table.frame().select(pl.lit(name).alias("policy"), *COLUMNS))
    return pl.concat(parts)


def estimate(
    population: Population,
    log: Draw,
    policy: FloatArray,
    propensity: FloatArray,
    estimators: Sequence[str],
    *,
    q: FloatArray | None = None,
    options: OffPolicyOptions | None = None,
    bootstrap: UserBootstrap | None = None,
) -> EstimateTable:
    """One call of the evaluation as a user makes it.

    Args:
        population: that the log comes from.
        log: drawn rows.
        policy: (R, C).
        propensity: (R, C) or (n,).
        estimators: by name.
        q: (n, C) reward model; the evaluation's default if none is given.
        options: of the estimators; without a cap sweep by default.
        bootstrap: shared resamples.
    """
    marginal = propensity if propensity.ndim == 2 else population.behaviour
    return estimate_policy_value(
        log.frame(population, propensity),
        policy[log.context],
        estimators,
        behaviour=_normalised(marginal[log.context]) if "mips" in estimators else None,
        categories=population.category,
        reward_model=q,
        context_value=_context_value(population, log, q) if "piece-ncis" in estimators else None,
        options=options or OffPolicyOptions(caps=()),
        bootstrap=bootstrap,
    )


def reward_model(population: Population, log: Draw) -> FloatArray:
    """(n, C) the evaluation's default q̂, made once for all policies of a log."""
    return action_means(log.user, log.column, population.action[log.context], log.reward)


def summarise(repeated: pl.DataFrame, truth: Mapping[str, float]) -> pl.DataFrame:
    """Bias, SE, RMSE, coverage and flags by policy and estimator.

    Args:
        repeated: from :func:`repeat`.
        truth: value of each policy.

    Returns:
        policy, estimator, n_repetitions, bias, se, rmse, relative_ee (mean |error| / truth), ci_coverage, reliable_share, ess, mean_weight,
        missed_while_reliable (share of the repetitions flagged reliable whose interval misses the truth; null if none was).
    """
    error = pl.col("value") - pl.col("truth")
    holds = (pl.col("ci_low") <= pl.col("truth")) & (pl.col("truth") <= pl.col("ci_high"))
    covered = holds.fill_null(False)  # an interval that does not exist holds nothing
    return (
        repeated.with_columns(
            pl.col("value", "ci_low", "ci_high").fill_nan(None),
            truth=pl.col("policy").replace_strict(dict(truth), return_dtype=pl.Float64),
        )
        .group_by("policy", "estimator", maintain_order=True)
        .agg(
            n_repetitions=pl.len(),
            bias=error.mean(),
            se=pl.col("value").std(),
            rmse=(error**2).mean().sqrt(),
            relative_ee=(error.abs() / pl.col("truth").abs()).mean(),
            ci_coverage=covered.mean(),
            reliable_share=pl.col("reliable").mean(),
            missed_while_reliable=(~covered).filter("reliable").mean(),
            ess=pl.col("ess").mean(),
            mean_weight=pl.col("mean_weight").mean(),
        )
    )


def summary_rows(summary: pl.DataFrame, n: int) -> Iterator[ResultRow]:
    """A row per number: ``group`` names the log's size, ``weighting`` the estimator, ``n`` counts repetitions.

    The coverage carries the 95 % binomial interval of its share; other intervals are left out.
    """
    metrics = [c for c in summary.columns if c not in {"policy", "estimator", "n_repetitions"}]
    for row in summary.iter_rows(named=True):
        count = row["n_repetitions"]
        for metric in metrics:
            value = row[metric]
            low, high = None, None
            if metric == "ci_coverage":
                low, high = share_interval(round(value * count), count)
            yield ResultRow(
                row["policy"], metric, float("nan") if value is None else value, count, low, high,
                group=f"n={n}", weighting=row["estimator"],
                reliable=True if row["reliable_share"] is None else row["reliable_share"] >= 0.5,
            )  # fmt: skip


def share_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share."""
    from scipy.stats import beta  # noqa: PLC0415 (scipy.stats is slow to import)

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def coverage_bounds(n: int, share: float = 0.95, level: float = 0.99) -> tuple[float, float]:
    """Shares of n repetitions between which the coverage of exact intervals lies with that probability."""
    from scipy.stats import binom  # noqa: PLC0415 (see above)

    tail = (1 - level) / 2
    return float(binom.ppf(tail, n, share)) / n, float(binom.ppf(1 - tail, n, share)) / n


def with_greedy(policies: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The policies, and the greedy form of the last one."""
    return {**policies, GREEDY: greedy(list(policies.values())[-1])}


def _context_value(population: Population, log: Draw, q: FloatArray | None) -> FloatArray:
    """(n,) V(x) for PieceNCIS: mean q̂ of what could have been shown."""
    value: FloatArray = (reward_model(population, log) if q is None else q).mean(axis=1)
    return value


def _normalised(probabilities: FloatArray) -> FloatArray:
    # a floored π̂_b sums to a little more than 1
    normal: FloatArray = probabilities / probabilities.sum(axis=1, keepdims=True)
    return normal
