"""Weibo: Tianchi's posts with counts, or any release that names viewers → canonical tables.

Tianchi's files (``variant: tianchi``) say how often a post was forwarded, commented and liked, never by whom: they give ``AuthorPosts``
and no interactions. A release with viewers (``variant: viewers``) is described by a ``mapping.yml`` beside its files.

What a user does with a post at one time is one interaction [D: METHODS §1.1, one row per user, item and exposure]: a row per
(user, post, time), like, comment and forward being 1 where that action stands in the log at that time, 0 where it is logged at all and
null where the release has no such action; a view alone gives zeros. Everything else (click, play time …) is null.

Source: METHODS §1.1, §8.1; SCHEMAS §4 [R].
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from reelrank.buckets import EngineOptions, map_buckets
from reelrank.provenance import fingerprint
from reelrank.sources import weibo_schema as schema
from reelrank.sources.errors import EmptyFile, MissingRawFiles
from reelrank.sources.ingest import (
    SHOWN_REASONS,
    Ingested,
    LogOptions,
    check_share,
    id_map,
    ingest_logs,
)
from reelrank.sources.log_format import LogFile
from reelrank.sources.manifest import Manifest, RawFile
from reelrank.sources.report import fact, rows_report
from reelrank.sources.text_fields import TextReader
from reelrank.sources.text_log import (
    SideTable,
    TextLog,
    build_items,
    check_columns,
    id_texts,
    known_ids,
    named_files,
    read_mapping,
    read_side_table,
    refuse,
    texts_of,
)
from reelrank.tables import AuthorPosts, Cascades, Interactions, Quarantine, SocialEdges

MAPPING_FILE = "mapping.yml"
SIDE_TABLES: tuple[Literal["posts", "follows", "cascades"], ...] = ("posts", "follows", "cascades")
REQUIRED = {"posts": ["post"], "follows": ["src", "dst"], "cascades": ["post", "user", "time"]}
ACTIONS = ("like", "comment", "forward")
NO_VIEWERS = (
    "Tianchi's Weibo files name authors and count what all readers did; they name no viewer, so there are no interactions. "
    "What they support is text and author-level regression on author_posts (METHODS §8.1). For interactions set "
    "weibo.raw.variant to viewers, with a release that names users, or raw.kind to world."
)

logger = logging.getLogger(__name__)


class NoViewers(ValueError):
    """Interactions were asked of files that name no viewers."""


@dataclass(frozen=True)
class IngestedPosts:
    """What Tianchi's files give; ``authors`` counts each author's posts."""

    author_posts: pl.DataFrame
    items: pl.DataFrame
    authors: pl.DataFrame
    author_map: pl.DataFrame
    item_map: pl.DataFrame
    quarantine: pl.DataFrame
    report: dict[str, Any]


def find_files(
    root: Path, variant: schema.Variant, kind: Literal["world", "files"] = "files"
) -> Manifest:
    """Find the files of a variant and check what can be checked without reading them.

    Args:
        root: folder of Tianchi's folders, or of ``mapping.yml``.
        variant: tianchi or viewers.
        kind: who made the files.

    Raises:
        MissingRawFiles: Tianchi's train file, the mapping, or a file that it names is missing.
        WrongMapping: the mapping is wrong; names file, key and the columns that the file does have.
        WrongHeader: a file is packed, or names a column twice.
        EmptyFile: a required file holds no byte.
    """
    root = root.resolve()
    files = _find_tianchi(root) if variant == "tianchi" else _find_viewers(root)
    return Manifest("weibo", variant, kind, root, tuple(files), schema.LICENCES[variant])


def _find_tianchi(root: Path) -> list[RawFile]:
    files = []
    for part in schema.TIANCHI_COLUMNS:
        places = [
            root / folder.format(part=part) / schema.TIANCHI_FILE.format(part=part)
            for folder in schema.TIANCHI_FOLDERS
        ]
        path = next((path for path in places if path.is_file()), None)
        if path is not None:
            TextReader.of(path, schema.tianchi_layout(part))
            files.append(RawFile(part, path, path.stat().st_size))
        elif part == "train":
            raise MissingRawFiles(
                f"Weibo (tianchi): not found: {' or '.join(map(str, places))}. Download it from {schema.DOWNLOAD} "
                f"({schema.LICENCES['tianchi']}), unpack it there, and set raw_root to {root}."
            )
    _require_bytes(files, "train")
    return files


def _find_viewers(root: Path) -> list[RawFile]:
    path = root / MAPPING_FILE
    mapping = read_mapping(path, schema.WeiboMapping)
    files = [RawFile("mapping", path, path.stat().st_size)]
    actions = named_files(path, "actions.files", mapping.actions.files, "actions")
    _require_bytes(actions, "actions")
    for file in actions:
        reader = TextReader.of(file.path, mapping.layout)
        check_columns(path, "actions.", mapping.log.columns, file.path, reader)
    files += actions
    for table in SIDE_TABLES:
        block = getattr(mapping, table)
        if block is not None:
            (file,) = named_files(path, f"{table}.file", [block.file], table)
            reader = TextReader.of(file.path, mapping.layout)
            check_columns(path, f"{table}.", mapping.side_columns(table), file.path, reader)
            files.append(file)
    return files


def _require_bytes(files: Sequence[RawFile], role: str) -> None:
    for file in files:
        if file.role == role and not file.bytes:
            raise EmptyFile(f"no rows in {file.path}: download or write it again.")


# --- releases with viewers -----------------------------------------------------------------------------------


def ingest(manifest: Manifest, options: LogOptions, engine: EngineOptions) -> Ingested:
    """Read a release with viewers; ``extras`` holds ``social_edges`` and ``cascades``, empty where there is no such file.

    Users are those of actions, follow edges and cascades; posts those of the posts' file and the actions. A row of a cascade whose post is
    in neither is quarantined.

    Raises:
        NoViewers: the manifest is Tianchi's.
        TooManyBadRows: a file's quarantined share exceeds ``options.max_bad_share``.
        WrongMapping: the mapping changed since the manifest was made.
        ValueError: not one row of the actions can be used.

    Source: METHODS §1.1, §8.1.
    """
    if manifest.variant == "tianchi":
        raise NoViewers(NO_VIEWERS)
    mapping = read_mapping(manifest.files_of("mapping")[0].path, schema.WeiboMapping)
    side = _read_side_tables(manifest, mapping, options)
    posts, follows, cascades = (side[table].rows for table in SIDE_TABLES)
    users = (follows["src"], follows["dst"], cascades["user"], cascades["parent"])
    logs = [
        LogFile(file, TextLog(TextReader.of(file.path, mapping.layout), mapping.log))
        for file in manifest.files_of("actions")
    ]
    meta = fingerprint("weibo", manifest.variant, manifest.fingerprint, options)
    ingested = ingest_logs(
        "weibo", logs, known_ids(*users), known_ids(posts["post"]), options, engine, meta
    )
    user_texts = texts_of(follows, "src", "dst"), texts_of(cascades, "user", "parent")
    user_map = id_map(ingested.user_ids, id_texts(ingested.user_text, *user_texts))
    item_map = id_map(ingested.item_ids, id_texts(ingested.item_text, texts_of(posts, "post")))
    cascade_table, orphans = _cascades(cascades, user_map, item_map)
    if len(orphans):
        file = manifest.files_of("cascades")[0]
        side["cascades"] = _without(side["cascades"], orphans, file, mapping, options)
    quarantine = pl.concat([*(t.quarantine for t in side.values()), ingested.quarantine])
    names = {f.role: f.path.name for f in manifest.files if f.role in SIDE_TABLES}
    report = rows_report(
        manifest,
        ingested,
        quarantine,
        {name: side[role].n_read for role, name in names.items()},
        {name: side[role].n_duplicates for role, name in names.items()},
    )
    folded = map_buckets(fold_actions, [ingested.interactions], engine, "weibo-folded", ingested.interactions.meta)  # fmt: skip
    shutil.rmtree(ingested.interactions.path)
    report["steps"][-1]["step"] = "rows without exact duplicates"
    report["steps"].append(
        {"step": "canonical rows, one per user, post and time", "rows": folded.n_rows}
    )
    edges = _social_edges(follows, user_map)
    report["duration_null"] = folded.n_rows
    report |= {"social_edges": edges.height, "cascade_rows": cascade_table.height}
    return Ingested(
        folded,
        build_items(item_map, _post_attributes(posts)),
        user_map.select(user_id="dense_id"),
        user_map,
        item_map,
        quarantine,
        report,
        {"social_edges": edges, "cascades": cascade_table},
    )


def fold_actions(interactions: pl.DataFrame) -> pl.DataFrame:
    """Fold the actions of one (user, item, time) into one row: its flags are the largest, the rest that of the first (bucket function)."""
    keys = ["user_id", "item_id", "ts_ms"]
    others = [name for name in Interactions.polars_schema() if name not in (*keys, *ACTIONS)]
    folded = interactions.group_by(keys, maintain_order=True).agg(
        pl.col(others).first(), pl.col(ACTIONS).max()
    )
    return Interactions.conform(folded)


def _read_side_tables(
    manifest: Manifest, mapping: schema.WeiboMapping, options: LogOptions
) -> dict[str, SideTable]:
    """Posts, follow edges and cascades; empty where there is no such file."""
    tables: dict[str, SideTable] = {}
    for table in SIDE_TABLES:
        files = manifest.files_of(table)
        if not files:
            tables[table] = _no_rows()
            continue
        path = files[0].path
        tables[table] = side = read_side_table(
            path,
            TextReader.of(path, mapping.layout),
            mapping.side_columns(table),
            REQUIRED[table],
            round(options.chunk_mb * 2**20),
            "post" if table == "posts" else None,
        )
        if "parent" not in side.rows.columns and table == "cascades":
            tables[table] = replace(side, rows=side.rows.with_columns(parent=pl.lit(None, pl.Int64)))  # fmt: skip
        _check(side, path.name, options)
    return tables


def _no_rows() -> SideTable:
    ids = dict.fromkeys(("post", "src", "dst", "user", "parent", "time", "line"), pl.Int64())
    return SideTable(pl.DataFrame(schema=ids), pl.DataFrame(schema=Quarantine.polars_schema()), 0, 0)  # fmt: skip


def _check(side: SideTable, name: str, options: LogOptions, block: str = "weibo") -> None:
    bad = side.quarantine
    check_share(block, name, bad.height, side.n_read, bad.head(SHOWN_REASONS), options.max_bad_share)  # fmt: skip


def _without(
    side: SideTable,
    orphans: pl.Series,
    file: RawFile,
    mapping: schema.WeiboMapping,
    options: LogOptions,
) -> SideTable:
    """The cascades with more lines in quarantine, their bad share checked again."""
    reader = TextReader.of(file.path, mapping.layout)
    reason, chunk_bytes = "post is in neither posts nor actions", round(options.chunk_mb * 2**20)
    bad = refuse(file.path, reader, orphans, reason, chunk_bytes)
    bad = Quarantine.conform(bad.with_columns(file=pl.lit(file.path.name)))
    side = replace(side, quarantine=pl.concat([side.quarantine, bad]).sort("line"))
    _check(side, file.path.name, options)
    return side


def _social_edges(follows: pl.DataFrame, user_map: pl.DataFrame) -> pl.DataFrame:
    """``SocialEdges`` by (src, dst), each once: the first in the file."""
    dense = pl.Series(user_map["dense_id"])
    time = pl.col("time") if "time" in follows.columns else pl.lit(None, pl.Int64)
    edges = follows.select(
        *(pl.col(side).replace_strict(user_map["raw_id"], dense) for side in ("src", "dst")),
        ts=time,
    )
    return SocialEdges.conform(
        edges.unique(["src", "dst"], keep="first", maintain_order=True).sort("src", "dst")
    )


def _cascades(
    cascades: pl.DataFrame, user_map: pl.DataFrame, item_map: pl.DataFrame
) -> tuple[pl.DataFrame, pl.Series]:
    """``Cascades`` by (post, time), and the lines whose post no table knows."""
    users, posts = (
        pl.DataFrame({"raw": m["raw_id"], "dense": m["dense_id"]}) for m in (user_map, item_map)
    )
    rows = cascades.with_columns(
        item_id=pl.col("post").replace_strict(posts["raw"], posts["dense"], default=None),
        user_id=pl.col("user").replace_strict(users["raw"], users["dense"]),
        parent_id=pl.col("parent").replace_strict(users["raw"], users["dense"], default=None),
        ts_ms="time",
    )
    is_known = pl.col("item_id").is_not_null()
    known = rows.filter(is_known).sort("item_id", "ts_ms", maintain_order=True)
    return Cascades.conform(known), rows.filter(~is_known)["line"]


def _post_attributes(posts: pl.DataFrame) -> pl.DataFrame:
    """Columns of ``Items`` by raw_id; ``author_id`` is the author's raw id, as in ``user_map`` where the author is a user too."""
    names = {"post": "raw_id", "author": "author_id", "time": "upload_ts", "text": "caption"}
    return posts.select(
        pl.col(key).alias(name) for key, name in names.items() if key in posts.columns
    )


# --- Tianchi -------------------------------------------------------------------------------------------------


def ingest_posts(manifest: Manifest, options: LogOptions) -> IngestedPosts:
    """Read Tianchi's posts; held in memory whole (1.4 million posts, about 0.5 GB).

    Raises:
        TooManyBadRows: a file's quarantined share exceeds ``options.max_bad_share``.
        ValueError: the manifest is not Tianchi's, or not one post can be used.
    """
    if manifest.variant != "tianchi":
        raise ValueError(f"author posts are made of variant tianchi, not {manifest.variant}: use ingest")  # fmt: skip
    side: dict[str, SideTable] = {}
    for file in manifest.files_of(*schema.TIANCHI_COLUMNS):
        reader = TextReader.of(file.path, schema.tianchi_layout(file.role))
        columns = schema.tianchi_columns(file.role)
        required = [key for key in columns if key != "text"]
        chunk_bytes = round(options.chunk_mb * 2**20)
        side[file.role] = read_side_table(file.path, reader, columns, required, chunk_bytes, "post")
        _check(side[file.role], file.path.name, options, "weibo_posts")
    parts = [table.rows.with_columns(part=pl.lit(part)) for part, table in side.items()]
    # a post of the predict file that stands in train too is there with less
    posts = pl.concat(parts, how="diagonal").unique("post", keep="first", maintain_order=True)
    if posts.is_empty():
        raise ValueError(f"None of the rows of {manifest.root} can be used: see the quarantine")
    author_map = id_map(known_ids(posts["author"]), texts_of(posts, "author"))
    item_map = id_map(known_ids(posts["post"]), texts_of(posts, "post"))
    rows = posts.with_columns(
        item_id=pl.col("post").replace_strict(item_map["raw_id"], item_map["dense_id"]),
        author_id=pl.col("author").replace_strict(author_map["raw_id"], author_map["dense_id"]),
        ts_ms="time",
    )
    author_posts = AuthorPosts.conform(rows.sort("item_id"))
    quarantine = pl.concat(table.quarantine for table in side.values())
    logger.warning("Weibo: %s", NO_VIEWERS)
    return IngestedPosts(
        author_posts,
        build_items(item_map, _post_attributes(posts)),
        author_posts.group_by("author_id").agg(n_posts=pl.len()).sort("author_id"),
        author_map,
        item_map,
        quarantine,
        _posts_report(manifest, side, author_posts),
    )


def _posts_report(
    manifest: Manifest, side: Mapping[str, SideTable], author_posts: pl.DataFrame
) -> dict[str, Any]:
    """Row counts, published facts and the note that nobody can read past."""
    train = author_posts.filter(pl.col("part") == "train")
    measured = {
        "train_posts": side["train"].n_read,
        "train_authors": train["author_id"].n_unique(),
        "predict_posts": side["predict"].n_read if "predict" in side else 0,
    }
    n_read = sum(table.n_read for table in side.values())
    n_bad = sum(table.quarantine.height for table in side.values())
    return {
        "source": manifest.source,
        "variant": manifest.variant,
        "kind": manifest.kind,
        "note": NO_VIEWERS,
        "files": [
            {
                "file": file.path.name,
                "role": file.role,
                "rows_read": side[file.role].n_read,
                "bad": side[file.role].quarantine.height,
                "duplicates": side[file.role].n_duplicates,
                "excluded": {},
                "checksum": file.checksum,
            }
            for file in manifest.files
        ],
        "steps": [
            {"step": "rows read", "rows": n_read},
            {"step": "rows that parse and pass the checks", "rows": n_read - n_bad},
            {"step": "posts, each once", "rows": author_posts.height},
        ],
        "authors": author_posts["author_id"].n_unique(),
        "items": author_posts.height,
        "first_ts_ms": author_posts["ts_ms"].min(),
        "last_ts_ms": author_posts["ts_ms"].max(),
        "facts": [
            fact(manifest, name, n, measured[name]) for name, n in schema.TIANCHI_PUBLISHED.items()
        ],
    }
