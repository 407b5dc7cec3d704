"""KuaiRand's users and videos: side tables → canonical ``users`` and ``items``.

Source: METHODS §1.1, §1.2 (−124 is missing), SCHEMAS §2.2, §2.3, §2.5 [S].
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from reelrank.sources.kuairand_schema import (
    CAPTION_COLUMNS,
    CATEGORY_COLUMNS,
    DAY_MS,
    LEVELS,
    MISSING_CODE,
    USER_COLUMNS,
    UTC_OFFSET_MS,
    VIDEO_BASIC_COLUMNS,
)
from reelrank.sources.log_csv import check_header
from reelrank.sources.manifest import Manifest
from reelrank.sources.text_csv import read_text_table
from reelrank.tables import Items, Quarantine

# role → (columns with types, key, may text hold line ends)
_TABLES: dict[str, tuple[dict[str, pl.DataType], str, bool]] = {
    "user_features": (USER_COLUMNS, "user_id", False),
    "video_features_basic": (
        VIDEO_BASIC_COLUMNS | {"upload_dt": pl.Date(), "tag": pl.List(pl.Int32)},
        "video_id",
        False,
    ),
    "captions": (CAPTION_COLUMNS, "final_video_id", True),
    "categories": (CATEGORY_COLUMNS, "final_video_id", False),
}


@dataclass(frozen=True)
class SideTables:
    """The side tables as read, raw ids in their first column; optional ones are empty where there is no file."""

    tables: dict[str, pl.DataFrame]
    quarantine: pl.DataFrame
    n_read: dict[str, int]  # records by file name, bad ones and duplicates included
    duplicates: dict[str, int]  # exact duplicates dropped, by file name


def read_side_tables(manifest: Manifest) -> SideTables:
    """Read users, videos and, where there are such files, captions and categories."""
    tables, n_read, duplicates = {}, {}, {}
    quarantines = [pl.DataFrame(schema=Quarantine.polars_schema())]
    for role, (columns, key, multiline) in _TABLES.items():
        tables[role] = pl.DataFrame(schema=columns)
        for file in manifest.files_of(role):
            header = check_header(file.path, columns)
            table, bad, n_duplicates = read_text_table(
                file.path, header, columns, key, missing_code=MISSING_CODE, multiline=multiline
            )
            tables[role] = table
            quarantines.append(bad)
            n_read[file.path.name] = table.height + bad.height + n_duplicates
            duplicates[file.path.name] = n_duplicates
    return SideTables(tables, pl.concat(quarantines), n_read, duplicates)


def build_users(side: SideTables, user_map: pl.DataFrame) -> pl.DataFrame:
    """One row per user of the map; a user without attributes has nulls."""
    raw = side.tables["user_features"]
    users = user_map.select(dense="dense_id", user_id="raw_id").join(
        raw, on="user_id", how="left", maintain_order="left"
    )
    return users.drop("user_id").rename({"dense": "user_id"})


def build_items(side: SideTables, item_map: pl.DataFrame) -> pl.DataFrame:
    """One row per item of the map; an item without attributes has nulls."""
    basic, captions, categories = (
        side.tables[role].rename({_TABLES[role][1]: "raw_id"})
        for role in ("video_features_basic", "captions", "categories")
    )
    joined = item_map.drop("raw_text")
    for table in (basic, captions.drop("duration"), categories):
        joined = joined.join(table, on="raw_id", how="left", maintain_order="left")
    items = joined.select(
        pl.col("dense_id").alias("item_id"),
        "author_id",
        _positive("video_duration").alias("duration_ms"),
        (pl.col("upload_dt").cast(pl.Int32).cast(pl.Int64) * DAY_MS - UTC_OFFSET_MS).alias(
            "upload_ts"
        ),
        *(
            pl.col(f"{level}_level_category_id").alias(f"category_{number}")
            for number, level in enumerate(LEVELS, start=1)
        ),
        pl.col("tag").alias("tags"),
        _positive("music_id"),
        "music_type",
        _positive("server_width").alias("width"),
        _positive("server_height").alias("height"),
        "video_type",
        "upload_type",
        "caption",
        pl.col("show_cover_text").alias("cover_text"),
    )
    return Items.conform(items)


def _positive(name: str) -> pl.Expr:
    """The column, null where it is 0 or negative: no length, no size, no music."""
    return pl.when(pl.col(name) > 0).then(pl.col(name)).alias(name)
