"""KuaiSAR beside its interactions: users, items, captions, follow edges, queries, searches from the feed.

Files are read chunk by chunk like the logs. Padding becomes null: author 0, upload time 1970-01-01, category 0 (空, empty).

Source: METHODS §1.1, SCHEMAS §3.1–§3.5 [S].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.buckets import BucketedTable, EngineOptions, map_tasks
from reelrank.sources.kuaisar_log import not_words, word_ids
from reelrank.sources.kuaisar_schema import (
    LEVELS,
    NO_UPLOAD_DAY,
    UTC_OFFSET_MS,
    Variant,
    file_columns,
)
from reelrank.sources.log_csv import MAX_TEXT, Column, has_rows, parse_table, plan_chunks
from reelrank.sources.log_format import Chunk
from reelrank.sources.manifest import Manifest, RawFile
from reelrank.tables import Items, ItemWords, Quarantine, Queries, RecSearches, SocialEdges

T = TypeVar("T")
FIRST_LINE = 2  # the header is line 1
QUERY_KEY = ["user_id", "search_session_id", "search_session_timestamp", "keyword", "search_source"]
LOCAL_TIME = r"^\d{4}-\d\d?-\d\d?( \d\d?:\d\d:\d\d)?$"


@dataclass(frozen=True)
class SideTables:
    """The side tables as read, one row per key, raw ids."""

    users: pl.DataFrame
    items: pl.DataFrame
    edges: pl.DataFrame
    quarantine: pl.DataFrame
    n_read: dict[str, int]  # rows by file name, bad ones and duplicates included
    duplicates: dict[str, int]  # exact duplicates dropped, by file name


@dataclass(frozen=True)
class Searches:
    """What the logs say of searching beside their interactions, raw ids.

    ``queries``: one row per search session and query; ``item_ids`` (n,) sorted: everything that a search showed, of any type;
    ``rec_searches``: the recommended rows from which the user went to search.
    """

    queries: pl.DataFrame
    item_ids: NDArray[np.int64]
    rec_searches: pl.DataFrame


def read_side_tables(manifest: Manifest, chunk_bytes: int, engine: EngineOptions) -> SideTables:
    """Read users, items and, where there is such a file, follow edges."""
    tables = {"social_network": pl.DataFrame(schema={"src": pl.Int64, "dst": pl.Int64})}
    quarantines: list[pl.DataFrame] = []
    n_read: dict[str, int] = {}
    duplicates: dict[str, int] = {}
    for role, (refine, key) in _TABLES.items():
        for file in manifest.files_of(role):
            n_read[file.path.name] = duplicates[file.path.name] = 0
            if not has_rows(file.path):
                continue
            table, bad, n_lines = _read_table(manifest, file, refine, key, chunk_bytes, engine)
            tables[role] = table
            quarantines.append(bad)
            n_read[file.path.name] = n_lines
            duplicates[file.path.name] = n_lines - table.height - bad.height
    users, items, edges = (
        tables[role] for role in ("user_features", "item_features", "social_network")
    )
    return SideTables(users, items, edges, pl.concat(quarantines), n_read, duplicates)


def _read_table(
    manifest: Manifest,
    file: RawFile,
    refine: Callable[[pl.DataFrame], pl.DataFrame],
    key: list[str],
    chunk_bytes: int,
    engine: EngineOptions,
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """A table with one row per key, its quarantine, and the number of lines read.

    Of several rows with one key the first is kept: equal lines are dropped, those with other values quarantined.
    """
    chunks = plan_chunks(file.path, chunk_bytes)
    parse = partial(_refine_chunk, _columns(manifest, file), refine)
    parsed = list(map_tasks(parse, chunks, engine))
    tables, bad_lines, line = [], [], FIRST_LINE
    for table, refused, n_lines in parsed:
        tables.append(table.with_columns(pl.col("line") + line))
        bad_lines.append(refused.with_columns(pl.col("line") + line))
        line += n_lines
    rows, bad = pl.concat(tables), pl.concat(bad_lines)
    repeated = rows.filter(pl.struct(key).is_duplicated())
    others = repeated.unique([*key, "row_hash"], keep="first", maintain_order=True)
    others = others.filter(~pl.struct(key).is_first_distinct())
    twice = pl.format(
        " ".join(f"{name} {{}}" for name in key) + " stands twice with other values", *key
    )
    conflicts = others.select(
        "line", reason=twice, text=pl.Series(_texts(file.path, others["line"]), dtype=pl.String)
    )
    bad = pl.concat([bad, conflicts]).sort("line").with_columns(file=pl.lit(file.path.name))
    kept = rows.unique(key, keep="first", maintain_order=True).drop("line", "row_hash")
    return kept, Quarantine.conform(bad), line - FIRST_LINE


def _refine_chunk(
    columns: Sequence[Column], refine: Callable[[pl.DataFrame], pl.DataFrame], chunk: Chunk
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Rows (with line, row_hash) and bad lines of a chunk, lines counted from 0, and how many there are (chunk function)."""
    table = parse_table(chunk, columns)
    rows = refine(table.rows).with_columns(
        line=pl.Series(table.line).cast(pl.Int64), row_hash=pl.Series(table.row_hash)
    )
    refused = rows.filter(pl.col("reason").is_not_null())
    text = table.text_of(refused["line"].to_numpy()) if refused.height else []
    more = refused.select("line", "reason", text=pl.Series(text, dtype=pl.String))
    good = rows.filter(pl.col("reason").is_null()).drop("reason")
    return good, pl.concat([table.bad, more]), table.n_lines


def _texts(path: Path, lines: pl.Series) -> list[str]:
    """Some lines of a file, in order, cut to what a quarantine keeps."""
    if lines.is_empty():
        return []
    wanted = set(lines)
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        numbered = enumerate(file, start=1)
        return [text.rstrip("\r\n")[:MAX_TEXT] for number, text in numbered if number in wanted]


def _columns(manifest: Manifest, file: RawFile) -> tuple[Column, ...]:
    return file_columns(file.role, cast(Variant, manifest.variant), file.path)


_NO_REASON = pl.lit(None, pl.String).alias("reason")


def refine_users(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of user_features.csv, the activity level of recommendation under its documented name."""
    rows = raw.rename({"reco_active_level": "rec_active_level"}, strict=False)
    return rows.select(
        "user_id",
        pl.col("search_active_level", "rec_active_level", "onehot_feat1", "onehot_feat2").cast(pl.Int32),
        _NO_REASON,
    )  # fmt: skip


def refine_edges(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of social_network.csv as edges follower → followed."""
    return raw.select(pl.col("user_id").alias("src"), pl.col("user_follow_id").alias("dst"), _NO_REASON)  # fmt: skip


def refine_items(raw: pl.DataFrame) -> pl.DataFrame:
    """Columns of item_features.csv under canonical names, padding as null; category names say what the ids say."""
    day = pl.col("upload_time").str.slice(0, 10)
    at = pl.coalesce(
        pl.col("upload_time").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ms", strict=False),
        day.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ms")),
    )
    is_time = pl.col("upload_time").str.contains(LOCAL_TIME) & at.is_not_null()
    not_time = pl.when((pl.col("upload_time") != "") & ~is_time).then(
        pl.format("upload_time is not a time: '{}'", pl.col("upload_time").str.slice(0, 40))
    )
    if "music_id" not in raw.columns:
        raw = raw.with_columns(music_id=pl.lit(None, pl.Int64))
    return raw.select(
        "item_id",
        _positive("author_id"),
        pl.when(~day.str.contains(NO_UPLOAD_DAY, literal=True))
        .then(at.dt.timestamp("ms") - UTC_OFFSET_MS)
        .alias("upload_ts"),
        *(
            _positive(f"{level}_level_category_id").cast(pl.Int32).alias(f"category_{number}")
            for number, level in enumerate(LEVELS, start=1)
        ),
        _positive("music_id"),
        _named("item_type").alias("video_type"),
        _named("upload_type"),
        word_ids("caption").alias("word_ids"),
        reason=pl.coalesce(not_words("caption"), not_time),
    )


def _positive(name: str) -> pl.Expr:
    """The column, null where it is 0 or negative: padding."""
    return pl.when(pl.col(name) > 0).then(pl.col(name)).alias(name)


def _named(name: str) -> pl.Expr:
    """The text, null where it is empty."""
    return pl.when(pl.col(name) != "").then(pl.col(name)).alias(name)


# role → (what its rows become, key)
_TABLES: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], list[str]]] = {
    "user_features": (refine_users, ["user_id"]),
    "item_features": (refine_items, ["item_id"]),
    "social_network": (refine_edges, ["src", "dst"]),
}


def read_searches(manifest: Manifest, chunk_bytes: int, engine: EngineOptions) -> Searches:
    """Read the logs once more, for what is no interaction; their bad lines are in the quarantine already."""
    shown = _map_chunks(manifest, "src_inter", search_chunk, chunk_bytes, engine)
    queries = _distinct_queries(pl.concat([queries for queries, _ in shown]))
    item_ids = pl.concat([items for _, items in shown]).unique().sort().to_numpy()
    from_feed = pl.concat(_map_chunks(manifest, "rec_inter", rec_chunk, chunk_bytes, engine))
    return Searches(queries, item_ids, from_feed.unique(maintain_order=True))


def search_chunk(columns: Sequence[Column], chunk: Chunk) -> tuple[pl.DataFrame, pl.Series]:
    """Queries and shown items of a chunk of src_inter.csv (chunk function)."""
    rows = parse_table(chunk, columns).rows.filter(not_words("keyword").is_null())
    clicked = (pl.col("click_cnt") >= 1).cast(pl.Int8)
    queries = _distinct_queries(rows.select(*QUERY_KEY, clicked=clicked))
    return queries, rows["item_id"].unique()


def rec_chunk(columns: Sequence[Column], chunk: Chunk) -> pl.DataFrame:
    """The rows of a chunk of rec_inter.csv from which the user went to search (chunk function)."""
    rows = parse_table(chunk, columns).rows.filter(pl.col("search") == 1)
    return rows.select("user_id", "item_id", ts_ms="timestamp", related="search_item_related")


def _distinct_queries(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per search session and query: its rows need not stand together in the file [A]."""
    return rows.group_by(QUERY_KEY, maintain_order=True).agg(pl.col("clicked").max())


def _map_chunks(
    manifest: Manifest,
    role: str,
    function: Callable[[Sequence[Column], Chunk], T],
    chunk_bytes: int,
    engine: EngineOptions,
) -> list[T]:
    """A chunk function over all files of a role."""
    out: list[T] = []
    for file in manifest.files_of(role):
        chunks = plan_chunks(file.path, chunk_bytes)
        out += map_tasks(partial(function, _columns(manifest, file)), chunks, engine)
    return out


def build_users(side: SideTables, user_map: pl.DataFrame) -> pl.DataFrame:
    """One row per user of the map; a user without attributes has nulls."""
    raw = user_map.select(dense="dense_id", user_id="raw_id")
    users = raw.join(side.users, on="user_id", how="left", maintain_order="left")
    return users.drop("user_id").rename({"dense": "user_id"})


def build_items(
    side: SideTables, item_map: pl.DataFrame, interactions: BucketedTable
) -> pl.DataFrame:
    """One row per item of the map; a length is the longest that a recommended row gives, as no side table has it."""
    lengths = interactions.scan().group_by("item_id").agg(pl.col("duration_ms").max())
    raw = item_map.select(pl.col("dense_id").alias("dense"), pl.col("raw_id").alias("item_id"))
    items = (
        raw.join(side.items.drop("word_ids"), on="item_id", how="left", maintain_order="left")
        .drop("item_id")
        .rename({"dense": "item_id"})
        .join(lengths.collect(engine="streaming"), on="item_id", how="left", maintain_order="left")
    )
    absent = [
        pl.lit(None, dtype).alias(name)
        for name, dtype in Items.polars_schema().items()
        if name not in items.columns
    ]
    return Items.conform(items.with_columns(absent))


def build_item_words(side: SideTables, item_map: pl.DataFrame) -> pl.DataFrame:
    """Captions as word ids, one row per item that has one."""
    captions = side.items.select("item_id", "word_ids").drop_nulls()
    return ItemWords.conform(_dense(captions, item_map, "item_id").sort("item_id"))


def build_edges(side: SideTables, user_map: pl.DataFrame) -> pl.DataFrame:
    """Follow edges; the release gives them no time."""
    edges = _dense(_dense(side.edges, user_map, "src"), user_map, "dst")
    return SocialEdges.conform(edges.with_columns(ts=pl.lit(None, pl.Int64)).sort("src", "dst"))


def build_queries(searches: Searches, user_map: pl.DataFrame) -> pl.DataFrame:
    """Queries in order of user and time."""
    queries = _dense(searches.queries, user_map, "user_id").with_columns(
        pl.col("search_session_timestamp").alias("ts_ms"),
        _named("search_source"),
        word_ids("keyword").alias("word_ids"),
    )
    return Queries.conform(queries.sort("user_id", "ts_ms", "search_session_id", maintain_order=True))  # fmt: skip


def build_rec_searches(
    searches: Searches, user_map: pl.DataFrame, item_map: pl.DataFrame
) -> pl.DataFrame:
    """Recommended rows from which the user went to search, in order of user and time."""
    rows = _dense(_dense(searches.rec_searches, user_map, "user_id"), item_map, "item_id")
    return RecSearches.conform(rows.sort("user_id", "ts_ms", "item_id", maintain_order=True))


def _dense(rows: pl.DataFrame, ids: pl.DataFrame, name: str) -> pl.DataFrame:
    """The column of raw ids as dense ids; a row whose id the map does not have is left out."""
    to_dense = ids.select(dense="dense_id", raw_id="raw_id")
    joined = rows.join(to_dense, left_on=name, right_on="raw_id", maintain_order="left")
    return joined.drop(name).rename({"dense": name})
