r"""From days that were lived to effects in per cent of the control, with user-cluster intervals.

.. math:: e = 100 \left( \frac{\sum_u n_u^{arm} / \sum_u d_u^{arm}}{\sum_u n_u^{control} / \sum_u d_u^{control}} - 1 \right)

recomputed in every resample of users. Two designs are read from the same days:

*paired*: every user under both arms, chance shared; what the policies alone change. The A/A period is 0 by construction.
*split*: users parted at random, each half under its arm, as an experiment would: the A/A period shows what chance makes of nothing, and the
adjusted effect divides the A/B period's ratio by it.

Source: METHODS §4.8, §1.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import (
    MIN_DEFINED,
    MIN_POSITIVES,
    QUANTILES,
    Estimate,
    FloatArray,
    Ratio,
    UserBootstrap,
)
from reelrank.features.splits import row_uniforms
from reelrank.pipelines.ab_test.run_options import DesignOptions

EFFECT, LEVEL = "effect_percent", "level"
PAIRED, SPLIT, AA, ADJUSTED = "paired", "split", "split, A/A period", "split, adjusted"
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "watch_time": ("watch_time", "lives"),
    "depth_day": ("rows", "lives"),
    "follow": ("follow", "lives"),
    "comment": ("comment", "lives"),
}
"""Numerator and denominator of the table's outcomes, per user and day: WatchTime (s), Depth (videos), Follow, Comment."""
MORE: Mapping[str, tuple[str, str]] = {
    "depth": ("rows", "sessions"),
    "return_24h": ("returned", "ended"),
    "watch_time_video": ("watch_time", "rows"),
    "follow_video": ("follow", "rows"),
    "comment_video": ("comment", "rows"),
}
"""The others: videos of a session, sessions followed by another within 24 hours, and responses per shown video."""
_ASSIGNMENT = 1_000_003  # its chance is not that of a fold of users with the same seed
Key = tuple[str, str, str]
"""Outcome, group of users ('' = all) and period."""
Levels = Mapping[Key, Estimate]
COUNTS = frozenset({"follow", "comment"})  # rare: an effect of few of them says nothing


def percent(arm: Estimate, control: Estimate) -> Estimate:
    """100 (arm / control − 1) on the same resamples; NaN where the control has nothing.

    Raises:
        ValueError: different resamples.
    """
    if arm.replicates.shape != control.replicates.shape:
        raise ValueError(
            f"not comparable: {arm.replicates.size} and {control.replicates.size} resamples"
        )
    ratio = _ratio(arm.replicates, control.replicates)
    value = float(_ratio(np.array([arm.value]), np.array([control.value]))[0])
    return estimate_of(
        100 * (value - 1),
        100 * (ratio - 1),
        min(arm.n, control.n),
        is_reliable=arm.reliable and control.reliable,
    )


def adjusted(after: Estimate, before: Estimate) -> Estimate:
    """An effect in per cent, given what the same users showed before: 100 ((1 + after) / (1 + before) − 1)."""
    ratio = _ratio(1 + after.replicates / 100, 1 + before.replicates / 100)
    value = float(_ratio(np.array([1 + after.value / 100]), np.array([1 + before.value / 100]))[0])
    return estimate_of(
        100 * (value - 1),
        100 * (ratio - 1),
        min(after.n, before.n),
        is_reliable=after.reliable and before.reliable,
    )


def estimate_of(value: float, replicates: FloatArray, n: int, *, is_reliable: bool) -> Estimate:
    """An estimate from its resamples (B,); not reliable where fewer than 95 % of them exist."""
    defined = replicates[~np.isnan(replicates)]
    low, high = np.quantile(defined, QUANTILES) if defined.size else (np.nan, np.nan)
    exists = defined.size >= MIN_DEFINED * replicates.size
    return Estimate(value, float(low), float(high), n, is_reliable and exists, replicates)


def p_value(effect: Estimate) -> float:
    """Two-sided, as :func:`reelrank.evaluation.uncertainty.paired`; NaN without resamples."""
    defined = effect.replicates[~np.isnan(effect.replicates)]
    if not defined.size:
        return float("nan")
    count = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return float(min(1.0, 2 * (1 + count) / (defined.size + 1)))


def effect_row(arm: str, control: str, outcome: str, effect: Estimate, weighting: str) -> ResultRow:
    """The row of one effect."""
    e = effect
    return ResultRow(
        arm, EFFECT, e.value, e.n, e.ci_low, e.ci_high, e.reliable, outcome, weighting, control, p_value(e),
    )  # fmt: skip


@dataclass(frozen=True)
class Effects:
    """What a test found in one environment.

    Attributes:
        rows: levels and effects.
        paired: effect of the A/B period, by (outcome, arm).
    """

    rows: list[ResultRow]
    paired: Mapping[tuple[str, str], Estimate]


def effects_of(
    days: pl.DataFrame, control: str, test: DesignOptions, bootstrap: UserBootstrap
) -> Effects:
    """Levels and effects of every arm of one environment and one way of serving.

    Args:
        days: of :func:`~reelrank.pipelines.ab_test.arms.run_arms`; empty: no rows.
        control: the arm that the others are compared with.
        test: periods and shares.
        bootstrap: of the users of all that is compared.
    """
    rows: list[ResultRow] = []
    found: dict[tuple[str, str], Estimate] = {}
    if days.is_empty():
        return Effects(rows, found)
    every = {**OUTCOMES, **MORE}
    known = {name: pair for name, pair in every.items() if not days[pair[0]].null_count()}
    is_treated = _treated(days, test)
    groups = {"": pl.col("day") >= 0, "treated": is_treated, "others": ~is_treated}
    times = {
        "after": pl.col("day") >= test.control_days,
        "before": pl.col("day") < test.control_days,
        **{f"day {day + 1}": pl.col("day") == day for day in range(test.days)},
    }
    asked = [
        (outcome, group, time)
        for outcome in known
        for group in groups
        for time in times
        if outcome in OUTCOMES or not time.startswith("day")
    ]
    parts = {str(part["arm"][0]): part for part in days.partition_by("arm", maintain_order=True)}
    levels = {
        arm: _levels(part, [(key, known[key[0]]) for key in asked], groups, times, bootstrap)
        for arm, part in parts.items()
    }
    for arm, own in levels.items():
        for outcome in known:
            level = own[outcome, "", "after"]
            rows.append(ResultRow.from_estimate(arm, LEVEL, level, group=outcome))
            if arm != control:
                named = _named_effects(own, levels[control], outcome, test.days)
                found[outcome, arm] = named[PAIRED]
                rows += [effect_row(arm, control, outcome, e, how) for how, e in named.items()]
    return Effects(rows, found)


def _named_effects(own: Levels, control: Levels, outcome: str, n_days: int) -> dict[str, Estimate]:
    """Effects of both designs, by design and day."""

    def effect(group: str, rival: str, time: str) -> Estimate:
        return percent(own[outcome, group, time], control[outcome, rival, time])

    ab, aa = (effect("treated", "others", time) for time in ("after", "before"))
    named = {PAIRED: effect("", "", "after"), SPLIT: ab, AA: aa, ADJUSTED: adjusted(ab, aa)}
    for day in range(1, n_days + 1) if outcome in OUTCOMES else ():
        named[f"{PAIRED}, day {day}"] = effect("", "", f"day {day}")
        named[f"{SPLIT}, day {day}"] = effect("treated", "others", f"day {day}")
    return named


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    out: FloatArray = np.full(np.broadcast(top, bottom).shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out


def _treated(days: pl.DataFrame, test: DesignOptions) -> pl.Expr:
    """Whether a row's user is treated, in all lives."""
    users = days["user_id"].unique().sort()
    chosen = row_uniforms(users.to_numpy().astype(np.int64), test.seed + _ASSIGNMENT) < test.treated_share  # fmt: skip
    return pl.col("user_id").is_in(users.filter(pl.Series(chosen)).implode())


def _levels(
    part: pl.DataFrame,
    asked: Sequence[tuple[Key, tuple[str, str]]],
    groups: Mapping[str, pl.Expr],
    times: Mapping[str, pl.Expr],
    bootstrap: UserBootstrap,
) -> Levels:
    """Σ numerator / Σ denominator of what is asked, over the rows of its group and period; ``n`` counts users.

    A response that is rare is not reliable below ten.
    """
    users = part["user_id"].to_numpy()
    of_group, of_time = (
        {name: part.select(when.alias("chosen"))["chosen"].to_numpy() for name, when in some.items()}
        for some in (groups, times)
    )  # fmt: skip
    values = {name: part[name].to_numpy().astype(np.float64) for _, pair in asked for name in pair}
    terms, enough, n = [], [], []
    for (_, group, time), (top, bottom) in asked:
        chosen = of_group[group] & of_time[time]
        terms.append([Ratio(values[top] * chosen, values[bottom] * chosen)])
        enough.append(top not in COUNTS or (values[top] * chosen).sum() >= MIN_POSITIVES)
        n.append(len(np.unique(users[chosen])))
    found = bootstrap.ratios(users, terms)
    return {
        key: replace(e, n=own_n, reliable=bool(e.reliable and is_enough))
        for (key, _), e, own_n, is_enough in zip(asked, found, n, enough, strict=True)
    }
