"""KuaiRec: official files → canonical tables.

The big matrix is the log; the small matrix, in which some users watched every video, becomes ``observed``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from reelrank.buckets import EngineOptions
from reelrank.provenance import fingerprint
from reelrank.sources import kuairec_schema as schema
from reelrank.sources.checksums import checksum
from reelrank.sources.errors import EmptyFile, MissingRawFiles
from reelrank.sources.ingest import (
    SHOWN_REASONS,
    Ingested,
    IngestedLogs,
    LogOptions,
    check_share,
    ingest_logs,
)
from reelrank.sources.keyed_csv import KeyedTable, read_keyed_table
from reelrank.sources.kuairand_attributes import build_users
from reelrank.sources.kuairec_attributes import (
    SIDE_ROLES,
    build_edges,
    build_items,
    build_topics,
    read_side_tables,
)
from reelrank.sources.kuairec_facts import data_facts
from reelrank.sources.kuairec_matrix import (
    BIG_FORMAT,
    RATIO_DIFFERS,
    daily_rows,
    small_rows,
)
from reelrank.sources.log_csv import check_header, has_rows
from reelrank.sources.log_format import LogFile
from reelrank.sources.manifest import Manifest, RawFile
from reelrank.sources.report import rows_report
from reelrank.tables import Observed

# role → (columns, chunk function, key)
KEYED_TABLES = {
    "small_matrix": (schema.SMALL_COLUMNS, small_rows, ("user_id", "item_id")),
    "item_daily_features": (schema.DAILY_COLUMNS, daily_rows, ("video_id", "date")),
}

logger = logging.getLogger(__name__)


class KuaiRecLogOptions(LogOptions):
    """How KuaiRec's files become tables."""

    session_gap_s: int = Field(
        schema.SESSION_GAP_S,
        ge=1,
        le=86_400,
        description="longest gap inside a session, seconds [A: METHODS §1.3]",
    )


def find_files(
    root: Path, variant: schema.Variant = "v2", kind: Literal["world", "files"] = "files"
) -> Manifest:
    """Find the official files and check their headers and, where they are published, their checksums.

    A file that differs from the published one is logged as a warning and taken: it may be a subset. Files with personal data
    are logged as refused and never opened.

    Args:
        root: folder that holds ``KuaiRec 2.0/`` or ``KuaiRec/``, or is such a folder.
        variant: release.
        kind: who made the files.

    Raises:
        MissingRawFiles: a required file is missing: big_matrix, user_features, item_categories.
        WrongHeader: a file's columns are not the official ones.
        EmptyFile: a required file holds no rows.
    """
    root = root.resolve()
    release = _release(root, schema.FOLDERS[variant])
    folders = (release / "data", release, root)
    files = []
    for role, (stem, columns) in schema.FILES.items():
        path = next((f / f"{stem}.csv" for f in folders if (f / f"{stem}.csv").is_file()), None)
        if path is not None:
            check_header(path, columns)
            known = checksum(path, schema.OFFICIAL_MD5) if kind == "files" else ""
            files.append(RawFile(role, path, path.stat().st_size, known))
    found = {file.role for file in files}
    missing = [f"{schema.FILES[role][0]}.csv" for role in schema.NEEDED if role not in found]
    if missing:
        raise MissingRawFiles(
            f"KuaiRec: not found in {folders[0]} or {release}: {'; '.join(missing)}. Download {schema.DOWNLOADS[variant]} "
            f"({schema.LICENCE}), unpack it so that {root / schema.FOLDERS[variant][0] / 'data'} exists, and set raw_root to {root}. "
            f"Captions (optional): {schema.EXTRA_DOWNLOADS['kuairec_caption_category.csv']}."
        )
    manifest = Manifest("kuairec", variant, kind, release, tuple(files), schema.LICENCE)
    for file in manifest.files_of(*schema.NEEDED):
        if not has_rows(file.path):
            raise EmptyFile(f"no rows in {file.path}: download or write it again.")
    for refused, reason in refused_files(manifest).items():
        logger.warning("%s is refused: %s", refused, reason)
    return manifest


def _release(root: Path, names: Sequence[str]) -> Path:
    """The folder of the release: the one that holds the big matrix, else the one to name in a message."""
    places = [*(root / name for name in names), root]
    for place in places:
        if any((folder / "big_matrix.csv").is_file() for folder in (place / "data", place)):
            return place
    return next((place for place in places[:-1] if place.is_dir()), places[0])


def refused_files(manifest: Manifest) -> dict[str, str]:
    """Files beside the others that are never opened, with the reason."""
    folders = sorted({manifest.root, *(file.path.parent for file in manifest.files)})
    return {
        str(folder / name): reason
        for folder in folders
        for name, reason in schema.REFUSED_FILES.items()
        if (folder / name).exists()
    }


def ingest(manifest: Manifest, options: LogOptions, engine: EngineOptions) -> Ingested:
    """Read the files of a manifest into canonical tables.

    Dense ids number the sorted raw ids of all files together. There are no likes or other feedback: those columns are null. ``extras``
    holds :class:`Observed`, :class:`SocialEdges`, :class:`ItemDaily` and :class:`ItemTopics`, empty where there is no file.

    Raises:
        TooManyBadRows: a file's quarantined share exceeds ``options.max_bad_share``.
        WrongHeader: a file changed since the manifest was made.
        ValueError: not one row of the big matrix can be used.

    Source: METHODS §1.1–§1.3.
    """
    side = read_side_tables(manifest)
    small, daily = (
        _read_keyed(manifest, role, options, engine)
        for role in ("small_matrix", "item_daily_features")
    )
    quarantine = pl.concat([side.quarantine, small.quarantine, daily.quarantine])
    keyed = {
        file.path.name: table
        for role, table in (("small_matrix", small), ("item_daily_features", daily))
        for file in manifest.files_of(role)
    }
    n_read = side.n_read | {name: table.n_read for name, table in keyed.items()}
    duplicates = side.duplicates | {name: table.n_duplicates for name, table in keyed.items()}
    for name, n_bad in quarantine.group_by("file", maintain_order=True).len().iter_rows():
        first = quarantine.filter(file=name).head(SHOWN_REASONS)
        check_share("kuairec", name, n_bad, n_read[name], first, options.max_bad_share)

    users, tags, social, captions = (side.tables[role] for role in SIDE_ROLES)
    with_user = _distinct(users["user_id"])
    with_item = _distinct(tags["video_id"], captions["video_id"], daily.rows["video_id"])
    friends = social["friend_list"].explode()
    known_users = _distinct(users["user_id"], social["user_id"], friends, small.rows["user_id"])
    known_items = np.union1d(with_item, _distinct(small.rows["item_id"]))
    big = [LogFile(file, BIG_FORMAT) for file in manifest.files_of("big_matrix")]
    meta = fingerprint("kuairec", manifest.variant, manifest.fingerprint, options)
    logs = ingest_logs("kuairec", big, known_users, known_items, options, engine, meta)
    logs = replace(
        logs,
        unknown_users=len(np.setdiff1d(logs.user_ids, with_user)),
        unknown_items=len(np.setdiff1d(logs.item_ids, with_item)),
    )
    quarantine = pl.concat([quarantine, logs.quarantine])
    observed = _observed(small.rows, logs)
    report = {
        **rows_report(manifest, logs, quarantine, n_read, duplicates),
        **data_facts(manifest, logs, observed, logs.rows_read | n_read, options.session_gap_s),
        "watch_ratio_differs": {
            "big_matrix": sum(noted.get(RATIO_DIFFERS, 0) for noted in logs.noted.values()),
            "small_matrix": int(small.rows["ratio_differs"].sum()),
        },
        "refused_files": refused_files(manifest),
    }
    return Ingested(
        logs.interactions,
        build_items(side, daily.rows, logs.item_map, logs.interactions),
        build_users(side, logs.user_map),
        logs.user_map,
        logs.item_map,
        quarantine,
        report,
        {
            "observed": observed,
            "social_edges": build_edges(side, logs.user_map),
            "item_daily": _item_daily(daily.rows, logs),
            "item_topics": build_topics(side, logs.item_map),
        },
    )


def _read_keyed(
    manifest: Manifest, role: str, options: LogOptions, engine: EngineOptions
) -> KeyedTable:
    columns, to_rows, key = KEYED_TABLES[role]
    file = next(iter(manifest.files_of(role)), None)
    return read_keyed_table(file, columns, to_rows, key, _chunk_bytes(options), engine)


def _chunk_bytes(options: LogOptions) -> int:
    return round(options.chunk_mb * 2**20)


def _distinct(*columns: pl.Series) -> NDArray[np.int64]:
    """Sorted distinct values of all columns."""
    values = pl.concat([column.cast(pl.Int64).rename("id") for column in columns])
    return values.drop_nulls().unique().sort().to_numpy()


def _observed(rows: pl.DataFrame, logs: IngestedLogs) -> pl.DataFrame:
    """The small matrix with dense ids, in order of (user, item)."""
    dense = rows.with_columns(
        user_id=pl.Series(np.searchsorted(logs.user_ids, rows["user_id"])),
        item_id=pl.Series(np.searchsorted(logs.item_ids, rows["item_id"])),
        watch_ratio=pl.col("play_ms") / pl.col("duration_ms"),
    )
    return Observed.conform(dense).sort("user_id", "item_id")


def _item_daily(rows: pl.DataFrame, logs: IngestedLogs) -> pl.DataFrame:
    """The daily counts with dense ids, in order of (item, date)."""
    item_id = pl.Series(np.searchsorted(logs.item_ids, rows["video_id"]), dtype=pl.Int32)
    return rows.select(item_id.alias("item_id"), "date", *schema.DAILY_COUNTS).sort("item_id", "date")  # fmt: skip
