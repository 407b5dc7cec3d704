"""What the weights leave: cross-fitted residuals, whether they may be called shocks, and the two follow-up designs.

Source: METHODS §6.7, §9 GV-08, GV-09, GV-10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap, paired
from reelrank.pipelines.head_weights.debias import (
    DebiasOptions,
    belief_proxies,
    debias,
    rerank,
)
from reelrank.pipelines.head_weights.diagnostics import (
    SHOCK,
    DiagnosticOptions,
    design,
    diagnose,
)
from reelrank.pipelines.head_weights.estimate import SOFT, plain
from reelrank.pipelines.head_weights.evaluate import Found
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.ranked import COVARIATES, LAGGED, Ranked
from reelrank.pipelines.head_weights.residual import ResidualOptions, scores
from reelrank.pipelines.head_weights.selectivity import (
    SelectivityOptions,
    selectivity_regression,
    session_thresholds,
)

Doubles = npt.NDArray[np.float64]
T = TypeVar("T")
DEBIASED = "debiased_heads"


@dataclass(frozen=True)
class Categories:
    """First-level category of items.

    Attributes:
        code: (n_items,), −1 = unknown.
        n: codes.
    """

    code: npt.NDArray[np.int64]
    n: int


def told(work: Callable[[], T]) -> tuple[T | None, str]:
    """The result, or None and the sentence in which the work says what its data lack."""
    try:
        return work(), ""
    except ValueError as error:
        return None, str(error)


def diagnosis(
    residuals: pl.DataFrame, ranked: Ranked, options: DiagnosticOptions
) -> tuple[dict[str, Any], list[Found]]:
    """GV-08: tests, balance, means by burst and the verdict as JSON values, and result rows.

    Args:
        residuals: ``SessionResiduals``.
        ranked: the same sessions, with what was known before them.
        options: level and power.
    """
    keys = ["user_id", "session_id"]
    covariates = ranked.sessions.select(*keys, *COVARIATES)
    lagged = ranked.sessions.select(*keys, *LAGGED)
    found, lacking = told(lambda: diagnose(residuals, covariates, lagged, options))
    if found is None:
        word = {"word": "not tested", "sentence": f"not tested: {lacking}"}
        return {"verdict": word, "tests": [], "balance": [], "bursts": []}, []
    verdict = found.verdict
    rows = [
        Found(
            "GV-08", "diagnostics", "val and test",
            ResultRow(SOFT, "r2", row["r2"], row["n"], reliable=row["passed"], group=row["residual"], weighting=row["test"], p_value=row["p_holm"]),
        )
        for row in found.tests.iter_rows(named=True)
    ]  # fmt: skip
    n = residuals.height
    rows.append(Found("GV-08", "diagnostics", "val and test", ResultRow(SOFT, "shock", float(verdict.word == SHOCK), n)))  # fmt: skip
    return plain(
        {
            "verdict": {
                "word": verdict.word,
                "sentence": verdict.sentence,
                "failed": list(verdict.failed),
                "weak": list(verdict.weak),
                "skipped": list(verdict.skipped),
            },
            "tests": found.tests.to_dicts(),
            "balance": found.balance.to_dicts(),
            "bursts": found.bursts.to_dicts(),
        }
    ), rows


def selectivity(
    problem: RankingSessions,
    residuals: pl.DataFrame,
    ranked: Ranked,
    weights: Doubles,
    exporting: ResidualOptions,
    options: SelectivityOptions,
) -> tuple[dict[str, Any], list[Found]]:
    """GV-09 as JSON values and result rows.

    Args:
        problem: all sessions of ``ranked``.
        residuals: of the same sessions in the same order.
        ranked: with outcomes.
        weights: (5, 4) by fold.
        exporting: seed of the folds.
        options: proxy and regression.
    """

    def with_threshold(n: int) -> Found:  # none: nothing could be estimated, and that is a row
        row = ResultRow(SOFT, "sessions_with_threshold", n, residuals.height, reliable=n > 0)
        return Found("GV-09", "selectivity", "val and test", row)

    def work() -> tuple[dict[str, Any], list[Found]]:
        value = scores(problem, weights, exporting)
        thresholds = session_thresholds(problem, value, ranked.outcomes()[:, 3], options)
        x = design(ranked.sessions.select(COVARIATES))
        known = pl.DataFrame(x.values, schema=list(x.names))
        found = selectivity_regression(residuals, thresholds.tau, known, options)
        rows = [
            with_threshold(int(np.isfinite(thresholds.tau).sum())),
            *(Found(
                "GV-09", "selectivity", "val and test",
                ResultRow(SOFT, "beta", r["estimate"], r["n"], r["ci_low"], r["ci_high"], found.placebo_passed, r["term"], r["role"], p_value=r["p_value"]),
            )
            for r in found.coefficients.iter_rows(named=True)),
        ]  # fmt: skip
        return {
            "sentence": found.sentence,
            "slope": thresholds.slope,
            "sessions_without_threshold": thresholds.n_short,
            "trimmed": found.trimmed,
            "coefficients": found.coefficients.to_dicts(),
        }, rows

    found, lacking = told(work)
    if found is None:
        return {"sentence": f"not estimated: {lacking}", "coefficients": []}, [with_threshold(0)]
    return plain(found[0]), found[1]


def debiased(
    problem: RankingSessions,
    ranked: Ranked,
    weights: Doubles,
    vectors: npt.NDArray[np.float32],
    category: Categories,
    exporting: ResidualOptions,
    options: DebiasOptions,
    replicates: int,
) -> tuple[dict[str, Any], list[Found]]:
    """GV-10: what belief proxies explain of each head, and the ranking without them.

    Args:
        problem: all sessions of ``ranked``.
        ranked: with outcomes.
        weights: (5, 4) by fold.
        vectors: (n_items, H) that sets are compared by.
        category: of items.
        exporting: of the residuals.
        options: memory.
        replicates: resamples of users.
    """

    def work() -> tuple[dict[str, Any], list[Found]]:
        proxies = belief_proxies(problem, category.code, category.n, ranked.outcomes(), options)
        found = debias(problem, proxies, options)
        names = ranked.sessions["split"].cast(pl.String).to_numpy()
        table = rerank(problem, found.sessions, weights, names, vectors, category.code, category.n, exporting)  # fmt: skip
        test = table.filter(pl.col("split") == "test")
        bootstrap = UserBootstrap(test["user_id"], replicates, options.seed)
        rows = [ResultRow(DEBIASED, "r2_beliefs", r2, problem.heads.shape[0], group=head) for head, r2 in found.r2.items()]  # fmt: skip
        for metric in ("overlap", "rbo", "loss"):
            name = "matching_loss" if metric == "loss" else metric
            before, after = (
                bootstrap.mean(test["user_id"], test[column].cast(pl.Float64))
                for column in (metric, f"{metric}_debiased")
            )
            rows += [
                ResultRow.from_estimate(SOFT, name, before),
                ResultRow.from_estimate(DEBIASED, name, after),
                ResultRow.from_difference(DEBIASED, SOFT, name, paired(after, before)),
            ]
        kept = bootstrap.mean(test["user_id"], test["kept"].cast(pl.Float64))
        rows.append(ResultRow.from_estimate(DEBIASED, "kept", kept))
        mean = found.coefficients.group_by("head", "proxy", maintain_order=True).agg(
            pl.mean("estimate")
        )
        return {"r2": found.r2, "coefficients": mean.to_dicts()}, [
            Found("GV-10", "debiased heads", "test", row) for row in rows
        ]

    found, lacking = told(work)
    if found is None:
        return {"sentence": f"not estimated: {lacking}", "r2": {}, "coefficients": []}, []
    return plain(found[0]), found[1]


def category_shares(
    problem: RankingSessions, residuals: pl.DataFrame, category: Categories, items: pl.DataFrame
) -> pl.DataFrame:
    """Mean share of each category over sessions: shown, simulated, and what noisy rankings by the same weights would show.

    Args:
        problem: S sessions.
        residuals: ``SessionResiduals`` of the same sessions in the same order.
        category: of items.
        items: ``Items``, for the categories' own ids.

    Returns:
        category (text, "unknown" last), observed, simulated, expected, se (of observed − simulated).
    """
    shown = problem.rank_shown > 0
    weight = (shown / np.repeat(problem.n_shown, np.diff(problem.first)))[shown]
    code = np.where(category.code < 0, category.n, category.code)[problem.item_id[shown]]
    observed = np.bincount(code, weight, category.n + 1) / len(problem.user_id)
    delta, noise = (
        np.asarray(residuals[name].to_list(), np.float64)
        for name in ("delta_category", "expected_delta_category")
    )
    simulated = observed - delta.mean(axis=0)
    ids = items["category_1"].drop_nulls().unique().sort().cast(pl.String).to_list()
    return pl.DataFrame(
        {
            "category": [*ids, "unknown"],
            "observed": observed,
            "simulated": simulated,
            "expected": simulated + noise.mean(axis=0),
            "se": delta.std(axis=0) / np.sqrt(len(delta)),
        }
    )
