"""KuaiRec's big and small matrix and its daily statistics: how a chunk of each becomes rows."""

from __future__ import annotations

import polars as pl

from reelrank.sources.kuairec_schema import (
    BIG_COLUMNS,
    DAILY_COUNTS,
    DURATION_SUMS,
    RATIO_SCALE,
    RATIO_UNIT,
)
from reelrank.sources.log_csv import CsvFormat

RATIO_DIFFERS = "watch_ratio is not play_duration / video_duration"
RATIO_TOLERANCE = 1e-6  # of the ratio: the files print some 16 digits


def big_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of the big matrix → columns of ``RAW_COLUMNS``; a duration of 0 is null, and a row whose printed ratio is another one is noted."""
    return _plays(raw).with_columns(
        raw.select(noted=pl.when(_ratio_differs()).then(pl.lit(RATIO_DIFFERS)))
    )


def _plays(raw: pl.DataFrame) -> pl.DataFrame:
    return raw.select(
        "user_id",
        item_id="video_id",
        ts_ms="timestamp",
        play_ms="play_duration",
        duration_ms=_positive("video_duration"),
    )


BIG_FORMAT = CsvFormat(BIG_COLUMNS, big_rows)


def small_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of the small matrix → raw ids, time (null where there is none), play, duration, and whether the printed ratio is another one."""
    rows = _plays(raw).with_columns(raw.select(ratio_differs=_ratio_differs()))
    return rows.cast(dict.fromkeys(("user_id", "item_id", "play_ms", "duration_ms"), pl.Int32))


def daily_rows(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of the daily statistics → raw id, day, what is known of the video itself, and the counts."""
    date = pl.col("date").cast(pl.String).str.to_date("%Y%m%d", strict=False)
    upload = pl.col("upload_dt").str.to_date("%Y-%m-%d", strict=False)
    is_wrong = upload.is_null() & (pl.col("upload_dt") != "")
    return raw.select(
        pl.col("video_id").cast(pl.Int32),
        date,
        "author_id",
        *(pl.col(name).replace("", None) for name in ("video_type", "upload_type")),
        upload,
        *(_positive(name).cast(pl.Int32) for name in ("video_duration", "video_width", "video_height")),
        _positive("music_id"),
        *(_count(name) for name in DAILY_COUNTS),
        reason=pl.when(date.is_null())
        .then(pl.format("date is no day: {}", "date"))
        .when(is_wrong)
        .then(pl.format("upload_dt is not a date YYYY-MM-DD: '{}'", "upload_dt")),
    )  # fmt: skip


def _count(name: str) -> pl.Expr:
    if name == "play_progress":
        return (pl.col(name) / RATIO_UNIT).round(RATIO_SCALE)
    return pl.col(name).cast(pl.Int64 if name in DURATION_SUMS else pl.Int32)


def _positive(name: str) -> pl.Expr:
    """The column, null where it is 0: no length, no size, no music."""
    return pl.when(pl.col(name) > 0).then(pl.col(name)).alias(name)


def _ratio_differs() -> pl.Expr:
    """Whether the printed watch ratio is not play / duration; rows without either agree."""
    expected = pl.col("play_duration") / pl.col("video_duration")
    off = (pl.col("watch_ratio") / RATIO_UNIT - expected).abs()
    has_both = (pl.col("video_duration") > 0) & pl.col("watch_ratio").is_not_null()
    return has_both & (off > RATIO_TOLERANCE * (1 + expected))
