"""KuaiRec's users, videos, topics and friends: side tables → canonical tables.

Source: METHODS §1.1, §1.2 (−124 is missing), SCHEMAS §1.2–§1.6 [S].
"""

from __future__ import annotations

import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.sources.kuairand_attributes import SideTables
from reelrank.sources.kuairand_schema import USER_COLUMNS
from reelrank.sources.kuairec_schema import (
    CAPTION_COLUMNS,
    CATEGORY_COLUMNS,
    DAY_MS,
    LEVELS,
    MISSING_CODE,
    MISSING_TEXT,
    SOCIAL_COLUMNS,
    UTC_OFFSET_MS,
)
from reelrank.sources.log_csv import check_header
from reelrank.sources.manifest import Manifest
from reelrank.sources.text_csv import read_text_table
from reelrank.tables import Items, ItemTopics, SocialEdges

_TABLES: dict[str, tuple[dict[str, pl.DataType], str]] = {
    "user_features": (USER_COLUMNS, "user_id"),
    "item_categories": (CATEGORY_COLUMNS, "video_id"),
    "social_network": (SOCIAL_COLUMNS, "user_id"),
    "captions": (CAPTION_COLUMNS, "video_id"),
}
SIDE_ROLES = tuple(_TABLES)


def read_side_tables(manifest: Manifest) -> SideTables:
    """Read users, tags and, where there are such files, friends and captions."""
    tables, quarantines, n_read, duplicates = {}, [], {}, {}
    for role, (columns, key) in _TABLES.items():
        tables[role] = pl.DataFrame(schema=columns)
        for file in manifest.files_of(role):
            header = check_header(file.path, columns)
            table, bad, n_duplicates = read_text_table(
                file.path, header, columns, key, missing_code=MISSING_CODE
            )
            tables[role] = table
            quarantines.append(bad)
            n_read[file.path.name] = table.height + bad.height + n_duplicates
            duplicates[file.path.name] = n_duplicates
    return SideTables(tables, pl.concat(quarantines), n_read, duplicates)


def build_items(
    side: SideTables, daily: pl.DataFrame, item_map: pl.DataFrame, interactions: BucketedTable
) -> pl.DataFrame:
    """One row per item of the map; an item without attributes has nulls.

    What the daily statistics say of the video itself is taken from its first day; a duration that they lack from the log.

    Args:
        side: tags and captions by raw id.
        daily: daily statistics by raw id.
        item_map: ``IdMap`` of the items.
        interactions: the log, for durations.
    """
    first_day = daily.sort("video_id", "date").unique("video_id", keep="first", maintain_order=True)
    logged = interactions.scan().group_by(dense_id="item_id").agg(logged_ms=pl.max("duration_ms"))
    items = (
        item_map.select("dense_id", video_id="raw_id")
        .join(logged.collect(engine="streaming"), on="dense_id", how="left", maintain_order="left")
        .join(first_day.cast({"video_id": pl.Int64}), on="video_id", how="left", maintain_order="left")
        .join(side.tables["item_categories"], on="video_id", how="left", maintain_order="left")
        .join(side.tables["captions"], on="video_id", how="left", maintain_order="left")
    )  # fmt: skip
    return Items.conform(
        items.select(
            "author_id",
            "music_id",
            "video_type",
            "upload_type",
            "caption",
            *(
                pl.col(f"{level}_level_category_id").alias(f"category_{number}")
                for number, level in enumerate(LEVELS, start=1)
            ),
            item_id="dense_id",
            duration_ms=pl.coalesce("video_duration", "logged_ms"),
            upload_ts=pl.col("upload_dt").cast(pl.Int32).cast(pl.Int64) * DAY_MS - UTC_OFFSET_MS,
            category_4=pl.lit(None, pl.Int32),
            tags="feat",
            music_type=pl.lit(None, pl.Int16),
            width="video_width",
            height="video_height",
            cover_text=pl.col("manual_cover_text").replace(MISSING_TEXT, None),
        )
    )


def build_topics(side: SideTables, item_map: pl.DataFrame) -> pl.DataFrame:
    """The topics of each video, in the author's order; a video without any has no rows."""
    inside = pl.col("topic_tag").str.strip_prefix("[").str.strip_suffix("]")
    topics = (
        item_map.select(item_id="dense_id", video_id="raw_id")
        .join(side.tables["captions"], on="video_id", maintain_order="left")
        .filter(inside != "")
        .select("item_id", topic=inside.str.split(","))
        .with_columns(place=pl.int_ranges(pl.col("topic").list.len()))
    )
    return ItemTopics.conform(topics.explode("topic", "place"))


def build_edges(side: SideTables, user_map: pl.DataFrame) -> pl.DataFrame:
    """One edge from each user to each of their friends, in order of (src, dst); no times are known."""
    dense = user_map.select("dense_id", raw_id="raw_id")
    edges = (
        side.tables["social_network"]
        .explode("friend_list")
        .drop_nulls()
        .select("user_id", friend=pl.col("friend_list").cast(pl.Int64))
        .join(dense.rename({"dense_id": "src"}), left_on="user_id", right_on="raw_id")
        .join(dense.rename({"dense_id": "dst"}), left_on="friend", right_on="raw_id")
    )
    return SocialEdges.conform(edges.with_columns(ts=pl.lit(None, pl.Int64)).sort("src", "dst"))
