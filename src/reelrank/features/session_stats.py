"""The sessions that a gap makes of a log, and how long they are.

Source: METHODS §1.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, field_validator

from reelrank.features.bursts import burst_of
from reelrank.features.histories import MS_PER_HOUR
from reelrank.features.sessions import request_and_session_ids
from reelrank.options import Options
from reelrank.tables import Sessions


class SessionOptions(Options):
    """Which gaps are compared; the one that makes ``session_id`` is part of the ingestion."""

    gaps_s: tuple[int, ...] = Field(
        (900, 1800, 3600), min_length=1, description="longest gaps inside a session, seconds [D]"
    )

    @field_validator("gaps_s")
    @classmethod
    def _positive(cls, gaps_s: tuple[int, ...]) -> tuple[int, ...]:
        if min(gaps_s) < 1 or len(set(gaps_s)) < len(gaps_s):
            raise ValueError(f"gaps_s {list(gaps_s)}: each must be ≥ 1 s and stand once")
        return gaps_s


def session_table(
    interactions: pl.DataFrame, options: SessionOptions, bursts: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The sessions of each gap (bucket function).

    A session ends with its burst, however short the gap to the next one.

    Args:
        interactions: every row of some users, as ``Interactions``, sorted by (user_id, ts_ms, row_id).
        options: the gaps.
        bursts: ``Bursts``; None or no rows = the log is one piece.

    Returns:
        ``Sessions``, gap by gap, in order of (user, time).

    Raises:
        ValueError: rows are not in order.
    """
    user, ts_ms = interactions["user_id"].to_numpy(), interactions["ts_ms"].to_numpy()
    burst = burst_of(ts_ms, bursts)
    same_visit = (user[1:] == user[:-1]) & (burst[1:] == burst[:-1])
    tables = [_sessions(interactions, burst, same_visit, gap_s) for gap_s in options.gaps_s]
    return Sessions.conform(pl.concat(tables))


def _sessions(
    interactions: pl.DataFrame,
    burst: npt.NDArray[np.int16],
    same_visit: npt.NDArray[np.bool_],
    gap_s: int,
) -> pl.DataFrame:
    user, ts_ms = interactions["user_id"].to_numpy(), interactions["ts_ms"].to_numpy()
    _, session = request_and_session_ids(user, ts_ms, gap_s * 1000)
    starts = (session[1:] != session[:-1]) | ~same_visit
    first = np.flatnonzero(np.append(True, starts)[: len(user)])
    last = np.append(first[1:], len(user))[: len(first)] - 1
    rows = last - first + 1
    # a session has one before it if nothing but the gap parts them
    follows = np.append(False, same_visit)[first]
    previous = np.append(0, rows)[: len(rows)]
    gap_ms = np.where(follows, ts_ms[first] - np.append(0, ts_ms[last])[: len(first)], 0)
    return pl.DataFrame(
        {
            "user_id": user[first],
            "gap_s": np.full(len(first), gap_s),
            "first_row_id": interactions["row_id"].to_numpy()[first],
            "burst_id": pl.Series(burst[first]).replace(-1, None),
            "start_ms": ts_ms[first],
            "end_ms": ts_ms[last],
            "n_rows": rows,
            "previous_n_rows": pl.Series(np.where(follows, previous, 0)).replace(0, None),
            "gap_hours": gap_ms / MS_PER_HOUR,
        }
    )


def session_report(sessions: pl.LazyFrame) -> dict[str, dict[str, Any]]:
    """For each gap (seconds, as text): sessions, rows, mean_rows, median_rows, max_rows, median_gap_hours.

    The last is over sessions that have one before them in their burst; null without any.
    """
    rows = pl.col("n_rows")
    found = sessions.group_by("gap_s").agg(
        sessions=pl.len(),
        rows=rows.sum().cast(pl.Int64),
        mean_rows=rows.mean(),
        median_rows=rows.median(),
        max_rows=rows.max(),
        median_gap_hours=pl.col("gap_hours")
        .filter(pl.col("previous_n_rows").is_not_null())
        .cast(pl.Float64)
        .median(),
    )
    by_gap = found.sort("gap_s").collect()
    return {str(row.pop("gap_s")): row for row in by_gap.to_dicts()}
