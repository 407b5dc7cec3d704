"""From lived days and off-policy sums to result rows: effects everywhere, and how far the estimates agree with what really happened.

Source: METHODS §4.8, §7.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import MIN_POSITIVES, Estimate, Ratio, UserBootstrap
from reelrank.pipelines.ab_test.agreement import agreement_rows
from reelrank.pipelines.ab_test.columns import BANDIT, BEST, CHECKS, ESTIMATORS, SOFT
from reelrank.pipelines.ab_test.effects import (
    COUNTS,
    LEVEL,
    OUTCOMES,
    PAIRED,
    Effects,
    effect_row,
    effects_of,
    percent,
)
from reelrank.pipelines.ab_test.run_options import DesignOptions, EvaluationOptions

WORLD, SIMULATOR, MATRIX = "world", "simulator", "matrix"
SOFT_WORLD = "world, softened"
PER_DAY, PER_VIDEO = "really served, per user and day", "served as estimated, per video"
IN_CONTEXT = "in the logged contexts, per video"
"""What an estimate is compared with: what a service would see; the softened policies; and just what off-policy estimators are about."""


@dataclass(frozen=True)
class Evaluated:
    """Rows by cell."""

    effects: dict[str, list[ResultRow]]
    off_policy: dict[str, list[ResultRow]]
    agreement: list[ResultRow]


def evaluate(
    world_days: pl.DataFrame,
    simulator_days: pl.DataFrame,
    off_policy: pl.DataFrame,
    control: str,
    test: DesignOptions,
    options: EvaluationOptions,
) -> Evaluated:
    """Everything about the feed, on one set of resamples of its users.

    Args:
        world_days: of the world, both ways of serving; empty on real rows.
        simulator_days: of the simulator.
        off_policy: of :func:`~reelrank.pipelines.ab_test.off_policy.off_policy_sums`.
        control: the arm that the others are compared with.
        test: periods and shares.
        options: resamples.
    """
    users = pl.concat([t["user_id"] for t in (world_days, simulator_days, off_policy)])
    bootstrap = UserBootstrap(users.to_numpy(), options.replicates, options.seed)
    lived = {
        WORLD: world_days.filter(serving=BEST),
        SOFT_WORLD: world_days.filter(serving=SOFT),
        SIMULATOR: simulator_days,
    }
    found = {cell: effects_of(days, control, test, bootstrap) for cell, days in lived.items()}
    rows, estimated = off_policy_effects(off_policy, control, bootstrap)
    return Evaluated(
        {cell: effects.rows for cell, effects in found.items()}, rows, _agreement(found, estimated)
    )


def evaluate_matrix(
    days: pl.DataFrame, control: str, test: DesignOptions, options: EvaluationOptions
) -> list[ResultRow]:
    """The same of the fully observed matrix, whose users are others; no rows without one."""
    if days.is_empty():
        return []
    bootstrap = UserBootstrap(days["user_id"].to_numpy(), options.replicates, options.seed)
    return effects_of(days, control, test, bootstrap).rows


def off_policy_effects(
    sums: pl.DataFrame, control: str, bootstrap: UserBootstrap
) -> tuple[dict[str, list[ResultRow]], dict[tuple[str, str], dict[str, Estimate]]]:
    """Levels, what they rest on, and effects of every estimator.

    Returns:
        Rows by estimator; effects by (estimator, response) and arm.
    """
    rows: dict[str, list[ResultRow]] = {name: [] for name in (*ESTIMATORS, BANDIT)}
    effects: dict[tuple[str, str], dict[str, Estimate]] = {}
    for (estimator, response), part in sums.group_by("estimator", "response", maintain_order=True):
        levels: dict[str, Estimate] = {}
        own = rows[str(estimator)]
        for arm in part["arm"].unique(maintain_order=True):
            level, checks = _level(part.filter(arm=arm), str(response), bootstrap)
            levels[arm] = level
            own.append(ResultRow.from_estimate(arm, LEVEL, level, group=str(response)))
            if estimator != BANDIT:
                own += [ResultRow(arm, name, value, level.n, group=str(response)) for name, value in checks.items()]  # fmt: skip
        found = {
            arm: percent(level, levels[control]) for arm, level in levels.items() if arm != control
        }
        effects[str(estimator), str(response)] = found
        own += [effect_row(arm, control, str(response), e, PAIRED) for arm, e in found.items()]
    return rows, effects


def temperature_rows(temperatures: pl.DataFrame) -> list[ResultRow]:
    """The equal-entropy temperature of each arm."""
    return [ResultRow(arm, "temperature", value, n) for arm, value, n in temperatures.iter_rows()]


def _level(
    part: pl.DataFrame, response: str, bootstrap: UserBootstrap
) -> tuple[Estimate, Mapping[str, float]]:
    """An arm's value per video; it may not be ranked where METHODS §7.3 says so, or below ten of a rare response."""
    ratio = Ratio(part["numerator"].to_numpy(), part["denominator"].to_numpy())
    n = int(part["rows"].sum())
    (estimate,) = bootstrap.ratios(part["user_id"].to_numpy(), [[ratio]], n=n)
    enough = response not in COUNTS or ratio.numerator.sum() >= MIN_POSITIVES
    is_reliable = bool(estimate.reliable and part["reliable"][0] and enough)
    return replace(estimate, reliable=is_reliable), {name: float(part[name][0]) for name in CHECKS}


def _agreement(
    lived: Mapping[str, Effects], estimated: Mapping[tuple[str, str], Mapping[str, Estimate]]
) -> list[ResultRow]:
    """No rows on real data: nobody knows what would have happened."""
    truth, soft = _by_outcome(lived[WORLD]), _by_outcome(lived[SOFT_WORLD])
    simulated = _by_outcome(lived[SIMULATOR])
    rows: list[ResultRow] = []
    for outcome in OUTCOMES:
        if outcome in truth and outcome in simulated:
            rows += agreement_rows(SIMULATOR, outcome, simulated[outcome], truth[outcome], PER_DAY)
    for (estimator, response), effects in estimated.items():
        if estimator == BANDIT:
            continue
        if response in truth:
            rows += agreement_rows(estimator, response, effects, truth[response], PER_DAY)
        if f"{response}_video" in soft:
            rows += agreement_rows(
                estimator, response, effects, soft[f"{response}_video"], PER_VIDEO
            )
        if (BANDIT, response) in estimated:
            rows += agreement_rows(estimator, response, effects, estimated[BANDIT, response], IN_CONTEXT)  # fmt: skip
    return rows


def _by_outcome(effects: Effects) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[str, Estimate]] = {}
    for (outcome, arm), effect in effects.paired.items():
        found.setdefault(outcome, {})[arm] = effect
    return found
