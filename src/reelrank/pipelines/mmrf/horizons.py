"""MM-06: what a fixed model loses as days go by, and what training it anew keeps.

Days are local ones, counted from that of the last train decision. A model that is trained anew for a block of test days learns from all rows
before them with the same distances as the fixed one: its train part ends, and its val part begins, as many days before its first day.

Source: METHODS §9 MM-06. Shapes: D test decisions of the logging policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.grouped import group_auc
from reelrank.evaluation.regression import group_xauc
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import MIN_DEFINED, QUANTILES, Estimate, UserBootstrap, paired
from reelrank.features.local_time import LOCAL_OFFSET
from reelrank.models.feed import RESPONSES, WATCH_TIME, FeedInputs
from reelrank.pipelines.mmrf.evaluate import Judge
from reelrank.pipelines.mmrf.feed_tables import FeedTables
from reelrank.pipelines.mmrf.logged import IntArray, LoggedPart
from reelrank.pipelines.mmrf.scoring import TEST
from reelrank.tables import SplitName

HORIZONS, FIXED = "MM-06", "fixed"
DAY_MS = 86_400_000
LOCAL_OFFSET_MS = int(LOCAL_OFFSET.total_seconds() * 1000)
ORDERED = (WATCH_TIME, RESPONSES.index("long_view"))
SLOPE, MEAN = "slope", "mean"
ByDay = dict[tuple[str, str], list[tuple[int, Estimate]]]
"""Metric and response to (day, estimate)."""


@dataclass(frozen=True)
class Block:
    """Test days that one model serves.

    Attributes:
        first: its first day.
        stop: the first day that is no longer its own.
        train_end: its train part ends before this midnight, UTC epoch ms.
        val_end: its val part ends before this one.
    """

    first: int
    stop: int
    train_end: int
    val_end: int

    def tables(self, tables: FeedTables) -> FeedTables:
        """The tables with the split as of the block's first day; rows without a split stay so."""
        ts = pl.col("ts_ms")
        split = pl.when(ts < self.train_end).then(pl.lit("train")).when(ts < self.val_end).then(pl.lit("val")).otherwise(pl.lit("test"))  # fmt: skip
        known = pl.when(pl.col("split").is_not_null()).then(split).cast(SplitName)
        return replace(tables, log=tables.log.with_columns(split=known))


def decision_days(inputs: FeedInputs) -> tuple[IntArray, int]:
    """Day of every decision, 0 = that of the last train decision; and that day's first moment, UTC epoch ms."""
    decisions = inputs.decisions
    date = (decisions.ts_ms.cpu().numpy() + LOCAL_OFFSET_MS) // DAY_MS
    last_train = int(date[(decisions.split == 0).cpu().numpy()].max())
    return date - last_train, last_train * DAY_MS - LOCAL_OFFSET_MS


def later_blocks(inputs: FeedInputs, every: int) -> Iterator[Block]:
    """Blocks of ``every`` test days but the first, which the fixed model serves."""
    day, start_ms = decision_days(inputs)
    of_test = day[(inputs.decisions.split == TEST).cpu().numpy()]
    first, last = int(of_test.min()), int(of_test.max())
    for start in range(first + every, last + 1, every):
        train_end = start_ms + (1 + start - first) * DAY_MS
        yield Block(start, start + every, train_end, start_ms + start * DAY_MS)


def day_values(
    frame: pl.DataFrame, judge: Judge, inputs: FeedInputs, bootstrap: UserBootstrap
) -> ByDay:
    """GXAUC of watch time and GAUC of long view on each test day; in a world also the true watch time of the best K, s.

    Args:
        frame: of ``scoring.predictions``.
        judge: of the feed.
        inputs: the same feed.
        bootstrap: of ``judge``.
    """
    part = judge.test
    day = decision_days(inputs)[0][part.decision]
    at = np.searchsorted(frame["decision"].to_numpy(), part.decision)
    scores = frame["scores"].gather(at).to_numpy()
    shown, of_row = part.of_shown(scores), day[part.of_row]
    found: ByDay = {}
    for d in np.unique(day):
        for k in ORDERED:
            estimate = _ordering(part, shown, of_row == d, k, bootstrap)
            if estimate is not None:
                found.setdefault(("gauc_final", RESPONSES[k]), []).append((int(d), estimate))
    if judge.truth is not None:
        best = np.argsort(-scores, axis=1, kind="stable")[:, : judge.k]
        value = np.take_along_axis(judge.truth[:, :, WATCH_TIME], best, axis=1).mean(axis=1)
        metric = f"true_value@{judge.k}", RESPONSES[WATCH_TIME]
        found[metric] = [
            (int(d), bootstrap.mean(part.user[day == d], value[day == d].astype(np.float64)))
            for d in np.unique(day)
        ]
    return found


def horizon_rows(
    frames: Mapping[str, pl.DataFrame],
    judge: Judge,
    inputs: FeedInputs,
    bootstrap: UserBootstrap,
) -> list[ResultRow]:
    """Values of each day, and their mean and slope on the day, each day alike; intervals resample users."""
    rows: list[ResultRow] = []
    for name, frame in frames.items():
        rows += _value_rows(name, day_values(frame, judge, inputs, bootstrap))
    return rows


def retrained_rows(name: str, own: ByDay, fixed: ByDay) -> list[ResultRow]:
    """The same of a model that is trained again and again, and what it is better than the fixed one: day by day, in the mean, in the slope."""
    rows = _value_rows(name, own)
    for (metric, response), by_day in own.items():
        other = fixed[metric, response]
        pairs = [(f"day {d}", metric, e, o) for (d, e), (_, o) in zip(by_day, other, strict=True)]
        if len(by_day) > 1:
            pairs += [("", f"{metric} {what}", mine, theirs) for (what, mine), theirs in zip(_summaries(by_day).items(), _summaries(other).values(), strict=True)]  # fmt: skip
        rows += [
            ResultRow.from_difference(name, f"{name}, {FIXED}", m, paired(e, o), group=response, weighting=when)
            for when, m, e, o in pairs
        ]  # fmt: skip
    return rows


def _value_rows(name: str, values: ByDay) -> list[ResultRow]:
    rows: list[ResultRow] = []
    for (metric, response), by_day in values.items():
        rows += [
            ResultRow.from_estimate(name, metric, e, group=response, weighting=f"day {d}")
            for d, e in by_day
        ]
        if len(by_day) > 1:
            rows += [
                ResultRow.from_estimate(name, f"{metric} {what}", e, group=response)
                for what, e in _summaries(by_day).items()
            ]
    return rows


def _ordering(
    part: LoggedPart,
    score: npt.NDArray[np.float64],
    here: npt.NDArray[np.bool_],
    k: int,
    bootstrap: UserBootstrap,
) -> Estimate | None:
    """GAUC of a response among some rows; None where no user's rows can be ordered."""
    own = here & ~np.isnan(part.response[:, k])
    of = group_xauc if k == WATCH_TIME else group_auc
    groups = of(part.response[own, k], score[own], part.row_user[own])
    weight = groups.weights()
    if not weight.any():
        return None
    return bootstrap.ratio(
        groups.groups, np.nan_to_num(groups.value) * weight, weight, n=int(own.sum())
    )


def _summaries(by_day: list[tuple[int, Estimate]]) -> dict[str, Estimate]:
    """Mean of the daily values and their slope on the day; ``n`` counts days."""
    days = np.array([d for d, _ in by_day], np.float64)
    centred = days - days.mean()
    levers = {SLOPE: centred / (centred**2).sum(), MEAN: np.full(len(days), 1 / len(days))}
    return {what: _combined(lever, [e for _, e in by_day]) for what, lever in levers.items()}


def _combined(lever: npt.NDArray[np.float64], estimates: list[Estimate]) -> Estimate:
    """Σ lever · estimate on common resamples."""
    drawn = lever @ np.stack([e.replicates for e in estimates])
    value = float(lever @ np.array([e.value for e in estimates]))
    defined = drawn[~np.isnan(drawn)]
    low, high = np.quantile(defined, QUANTILES) if defined.size else (np.nan, np.nan)
    is_reliable = defined.size >= MIN_DEFINED * drawn.size and all(e.reliable for e in estimates)
    return Estimate(value, float(low), float(high), len(estimates), is_reliable, drawn)
