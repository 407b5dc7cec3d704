"""KuaiRand's logs: what each column may hold, and how a line becomes a raw interaction."""

from __future__ import annotations

import polars as pl

from reelrank.sources.kuairand_schema import (
    DAY_MS,
    FLAGS,
    LOG_COLUMNS,
    N_TABS,
    RANDOM_LOG,
    RELEASE_START_MS,
    RELEASE_STOP_MS,
)
from reelrank.sources.log_csv import Column, CsvFormat

INT32_MAX = 2**31 - 1
EARLIEST_MS = RELEASE_START_MS - DAY_MS
LATEST_MS = RELEASE_STOP_MS + DAY_MS - 1


def log_format(role: str) -> CsvFormat:
    """The format of a log with this role."""
    return CsvFormat(log_columns(is_rand=int(role == RANDOM_LOG)), to_rows)


def log_columns(is_rand: int) -> tuple[Column, ...]:
    """The 19 columns of a log and the values that each may hold; ``is_rand`` is 1 in the random log, else 0."""
    count = (0, INT32_MAX, f"0…{INT32_MAX}")
    flag = (0, 1, "0 or 1")
    limits = {
        "user_id": count,
        "video_id": count,
        "time_ms": (
            EARLIEST_MS,
            LATEST_MS,
            "within a day of 2022-04-08…2022-05-08 Asia/Shanghai, in ms",
        ),
        "play_time_ms": count,
        "duration_ms": count,
        "is_rand": (is_rand, is_rand, f"{is_rand} in this log"),
        "tab": (0, N_TABS - 1, f"0…{N_TABS - 1}"),
        "is_profile_enter": flag,
    } | dict.fromkeys(FLAGS, flag)
    columns = []
    for name, dtype in LOG_COLUMNS.items():
        # the rest is not used and need only fit its type
        bits = 8 * pl.Series([0], dtype=dtype).to_numpy().itemsize - 1
        fits = (-(2**bits), 2**bits - 1, f"an integer of {bits + 1} bits")
        low, high, rule = limits.get(name, fits)
        columns.append(Column(name, "integer", low, high, rule))
    return tuple(columns)


def to_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of a log → columns of ``RAW_COLUMNS``; a duration of 0 is null."""
    return raw.select(
        "user_id",
        item_id="video_id",
        ts_ms="time_ms",
        scenario="tab",
        play_ms="play_time_ms",
        duration_ms=pl.when(pl.col("duration_ms") > 0).then("duration_ms"),
        click="is_click",
        like="is_like",
        follow="is_follow",
        comment="is_comment",
        forward="is_forward",
        hate="is_hate",
        long_view="long_view",
        is_rand="is_rand",
    )
