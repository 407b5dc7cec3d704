"""Local days: the data sets' own calendar is Asia/Shanghai's.

Source: METHODS §1.3.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl

LOCAL_OFFSET = timedelta(hours=8)  # Asia/Shanghai has had no summer time since 1991
LOCAL_TIME = timezone(LOCAL_OFFSET)


def local_day(ts_ms: int) -> date:
    """The local day of a time, UTC epoch ms."""
    return datetime.fromtimestamp(ts_ms / 1000, LOCAL_TIME).date()


def local_days(column: str) -> pl.Expr:
    """The local days of a column of UTC epoch ms, as pl.Date."""
    return (pl.from_epoch(pl.col(column), "ms") + LOCAL_OFFSET).dt.date()


def day_start_ms(day: date) -> int:
    """Midnight at which a local day starts, UTC epoch ms."""
    start = datetime(day.year, day.month, day.day, tzinfo=LOCAL_TIME).astimezone(UTC)
    return int(start.timestamp() * 1000)
