"""Bursts: the stretches of days in which a log was collected.

KuaiRec's big matrix is three of them, weeks apart. A session, and what is known of an author, never spans two.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from reelrank.features.local_time import day_start_ms, local_days
from reelrank.options import Options
from reelrank.tables import Bursts

KUAIREC_BURSTS = (
    (date(2020, 7, 5), date(2020, 7, 12)),
    (date(2020, 8, 1), date(2020, 8, 10)),
    (date(2020, 8, 27), date(2020, 9, 5)),
)  # first and last local day, METHODS §6.1 [A]


class BurstOptions(Options):
    """Which stretches of days are bursts."""

    rule: Literal["none", "fitted", "kuairec"] = Field(
        "none",
        description="none: the log is one piece; fitted: maximal runs of days with rows; kuairec: its three published bursts [A]",
    )
    min_day_rows: int = Field(
        1, ge=1, description="rows that make a day part of a burst (fitted); stray rows make none"
    )


def day_rows(interactions: pl.LazyFrame) -> pl.DataFrame:
    """Rows on each local day that has any: columns day, rows, in order of time."""
    days = interactions.group_by(local_days("ts_ms").alias("day")).agg(rows=pl.len())
    return days.sort("day").collect()


def find_bursts(days: pl.DataFrame, options: BurstOptions) -> pl.DataFrame:
    """The bursts of a log.

    Args:
        days: from ``day_rows``.
        options: the rule.

    Returns:
        ``Bursts`` in order of time; no rows under rule none. Published bursts without a row are left out.

    Raises:
        ValueError: the rule finds no burst in the log.

    Source: METHODS §1.3, §6.1 [A].
    """
    if options.rule == "none":
        return Bursts.conform(pl.DataFrame(schema=Bursts.polars_schema()))
    if options.rule == "kuairec":
        spans = list(KUAIREC_BURSTS)
    else:
        spans = _runs(days.filter(pl.col("rows") >= options.min_day_rows)["day"].to_list())
    found = [
        (day_start_ms(first), day_start_ms(last + timedelta(days=1)), rows)
        for first, last in spans
        if (rows := days.filter(pl.col("day").is_between(first, last))["rows"].sum())
    ]
    if not found:
        raise ValueError(
            f"bursts: rule {options.rule} finds none on the log's local days, {_shown(days)}; "
            "use another rule or a smaller min_day_rows"
        )
    frame = pl.DataFrame(found, schema=["start_ms", "end_ms", "rows"], orient="row")
    return Bursts.conform(frame.with_row_index("burst_id"))


def burst_edges(bursts: pl.DataFrame | None) -> npt.NDArray[np.int64]:
    """Starts and ends of ``Bursts`` in turn, UTC epoch ms, ascending; none without bursts."""
    if bursts is None:
        return np.empty(0, np.int64)
    return bursts.select("start_ms", "end_ms").to_numpy().astype(np.int64).ravel()


def burst_of(ts_ms: npt.NDArray[np.int64], bursts: pl.DataFrame | None) -> npt.NDArray[np.int16]:
    """(n,) position of each time's burst in ``Bursts``, −1 outside of all."""
    edges_passed = np.searchsorted(burst_edges(bursts), ts_ms, side="right")
    return np.where(edges_passed % 2 == 1, edges_passed // 2, -1).astype(np.int16)


def _shown(days: pl.DataFrame) -> str:
    """First and last of the days."""
    found = days["day"].to_list()
    return f"{found[0]} to {found[-1]}" if found else "of which it has none"


def _runs(days: list[date]) -> list[tuple[date, date]]:
    """First and last day of each maximal run of consecutive days."""
    runs: list[tuple[date, date]] = []
    for day in days:
        if runs and runs[-1][1] + timedelta(days=1) == day:
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs
