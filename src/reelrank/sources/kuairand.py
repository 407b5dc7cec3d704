"""KuaiRand (Pure, 1K, 27K): official files → canonical tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from reelrank.buckets import EngineOptions
from reelrank.provenance import fingerprint
from reelrank.sources import kuairand_schema as schema
from reelrank.sources.checksums import checksum
from reelrank.sources.errors import EmptyFile, MissingRawFiles
from reelrank.sources.ingest import SHOWN_REASONS, Ingested, LogOptions, check_share, ingest_logs
from reelrank.sources.kuairand_attributes import build_items, build_users, read_side_tables
from reelrank.sources.kuairand_log import log_format
from reelrank.sources.kuairand_report import ingestion_report
from reelrank.sources.log_csv import check_header, has_rows
from reelrank.sources.log_format import LogFile
from reelrank.sources.manifest import Manifest, RawFile

NEEDED = (schema.STANDARD_LOGS, ("user_features",), ("video_features_basic",))  # one of each


def find_files(
    root: Path,
    variant: schema.Variant,
    kind: Literal["world", "files"] = "files",
    *,
    partial: bool = False,
) -> Manifest:
    """Find a release's official files and check their headers and, where they are published, their checksums.

    A file that differs from the published one is logged as a warning and taken: it may be a subset. Optional files
    may hold no rows.

    Args:
        root: folder that holds ``KuaiRand-Pure/`` and the like, or is such a folder.
        variant: release.
        kind: who made the files.
        partial: take what there is: any one log will do, and users and videos may lack attributes.

    Raises:
        MissingRawFiles: a required file is missing: one standard log, user_features, video_features_basic.
        WrongHeader: a file's columns are not the official ones.
        EmptyFile: a required file holds no rows.
    """
    root = root.resolve()
    inside = root / schema.FOLDERS[variant]
    release = inside if inside.is_dir() or not (root / "data").is_dir() else root
    folders = (release / "data", release)
    files = []
    for role, (pattern, columns) in schema.FILES.items():
        for path in _parts(folders, pattern.format(variant=variant)):
            check_header(path, columns)
            known = checksum(path, schema.OFFICIAL_MD5) if kind == "files" else ""
            files.append(RawFile(role, path, path.stat().st_size, known))
    found = {file.role for file in files}
    missing = [
        schema.FILES[role][0].format(variant=variant) + ".csv"
        for role in ("user_features", "video_features_basic")
        if role not in found
    ]
    if partial:
        missing = []
    if not found & set(schema.LOG_ROLES if partial else schema.STANDARD_LOGS):
        names = (schema.FILES[role][0].format(variant=variant) for role in schema.STANDARD_LOGS)
        missing.append(" or ".join(f"{name}.csv (or its parts …_part1.csv, …)" for name in names))
    if missing:
        raise MissingRawFiles(
            f"KuaiRand ({variant}): not found in {folders[0]} or {folders[1]}: {'; '.join(missing)}. "
            f"Download {schema.DOWNLOADS[variant]} ({schema.LICENCE}), unpack it so that {inside / 'data'} exists, "
            f"and set raw_root to {root}. Captions and categories (optional): {schema.EXTRA_DOWNLOADS}."
        )
    manifest = Manifest("kuairand", variant, kind, release, tuple(files), schema.LICENCE)
    for roles in NEEDED:
        paths = [file.path for file in manifest.files_of(*roles)]
        if paths and not any(has_rows(path) for path in paths):
            empty = " and ".join(str(path) for path in paths)
            raise EmptyFile(f"no rows in {empty}: download or write it again.")
    return manifest


def _parts(folders: Sequence[Path], stem: str) -> list[Path]:
    """``stem.csv``, or its parts in order, in the first folder that has any.

    Raises:
        MissingRawFiles: a part is missing between others.
    """
    for folder in folders:
        if (folder / f"{stem}.csv").is_file():
            return [folder / f"{stem}.csv"]
        parts = {
            int(p.stem.rpartition("_part")[2]): p for p in folder.glob(f"{stem}_part[0-9]*.csv")
        }
        if parts:
            absent = sorted(set(range(1, max(parts) + 1)) - set(parts))
            if absent:
                names = ", ".join(f"{stem}_part{number}.csv" for number in absent)
                raise MissingRawFiles(f"{folder} has other parts of {stem} but not {names}")
            return [parts[number] for number in sorted(parts)]
    return []


def ingest(manifest: Manifest, options: LogOptions, engine: EngineOptions) -> Ingested:
    """Read the files of a manifest into canonical tables: standard and random logs become one table.

    Raises:
        TooManyBadRows: a file's quarantined share exceeds ``options.max_bad_share``.
        WrongHeader: a file changed since the manifest was made.
        ValueError: not one row of the logs can be used.

    Source: METHODS §1.1–§1.3.
    """
    side = read_side_tables(manifest)
    known_users = side.tables["user_features"]["user_id"].sort().to_numpy()
    known_items = side.tables["video_features_basic"]["video_id"].sort().to_numpy()
    for name, n_bad in side.quarantine.group_by("file").len().iter_rows():
        first = side.quarantine.filter(file=name).head(SHOWN_REASONS)
        check_share("kuairand", name, n_bad, side.n_read[name], first, options.max_bad_share)
    logs = [LogFile(file, log_format(file.role)) for file in manifest.files_of(*schema.LOG_ROLES)]
    meta = fingerprint("kuairand", manifest.variant, manifest.fingerprint, options)
    ingested = ingest_logs("kuairand", logs, known_users, known_items, options, engine, meta)
    quarantine = pl.concat([side.quarantine, ingested.quarantine])
    return Ingested(
        ingested.interactions,
        build_items(side, ingested.item_map),
        build_users(side, ingested.user_map),
        ingested.user_map,
        ingested.item_map,
        quarantine,
        ingestion_report(manifest, ingested, side, quarantine),
    )
