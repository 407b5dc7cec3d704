"""KuaiSAR (small and full): official files → canonical tables, search and recommendation as two scenarios."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import polars as pl

from reelrank.buckets import EngineOptions
from reelrank.provenance import fingerprint
from reelrank.sources import kuaisar_schema as schema
from reelrank.sources.errors import EmptyFile, MissingRawFiles
from reelrank.sources.ingest import SHOWN_REASONS, Ingested, LogOptions, check_share, ingest_logs
from reelrank.sources.kuaisar_attributes import (
    build_edges,
    build_item_words,
    build_items,
    build_queries,
    build_rec_searches,
    build_users,
    read_searches,
    read_side_tables,
)
from reelrank.sources.kuaisar_log import log_format
from reelrank.sources.kuaisar_report import ingestion_report
from reelrank.sources.log_csv import has_rows
from reelrank.sources.log_format import LogFile
from reelrank.sources.manifest import Manifest, RawFile

NEEDED = ("rec_inter", "src_inter", "user_features", "item_features")


def find_files(
    root: Path, variant: schema.Variant, kind: Literal["world", "files"] = "files"
) -> Manifest:
    """Find a release's official files and check their headers.

    Args:
        root: folder that holds ``KuaiSAR_v2/``, ``KuaiSAR_final/`` and the like, or is such a folder.
        variant: release.
        kind: who made the files.

    Raises:
        MissingRawFiles: a file other than social_network.csv is missing.
        WrongHeader: a file's columns are not the official ones.
        EmptyFile: a file other than social_network.csv holds no rows.
    """
    root = root.resolve()
    inside = [root / name for name in schema.FOLDERS[variant]]
    folder = next((path for path in inside if path.is_dir()), root)
    paths = {role: folder / f"{role}.csv" for role in schema.ROLES}
    missing = [paths[role].name for role in NEEDED if not paths[role].is_file()]
    if missing:
        raise MissingRawFiles(
            f"KuaiSAR ({variant}): not found in {folder}: {'; '.join(missing)}. Download {schema.DOWNLOADS[variant]} "
            f"({schema.LICENCE}), unpack it so that {inside[0]} exists (or {', '.join(p.name for p in inside[1:])} beside it), "
            f"and set raw_root to {root}."
        )
    files = []
    for role, path in paths.items():
        if path.is_file():
            schema.file_columns(role, variant, path)
            files.append(RawFile(role, path, path.stat().st_size))
    for role in NEEDED:
        if not has_rows(paths[role]):
            raise EmptyFile(f"no rows in {paths[role]}: download or write it again.")
    return Manifest("kuaisar", variant, kind, folder, tuple(files), schema.LICENCE)


def ingest(manifest: Manifest, options: LogOptions, engine: EngineOptions) -> Ingested:
    """Read the files of a manifest into canonical tables: recommendation and search become one table of interactions.

    ``extras``: ``social_edges``, ``queries``, ``item_words``, ``rec_searches``. Users of follow edges are users, whether or not
    they have rows.

    Raises:
        TooManyBadRows: a file's quarantined share exceeds ``options.max_bad_share``.
        WrongHeader: a file changed since the manifest was made.
        ValueError: not one row of the logs can be used.

    Source: METHODS §1.1–§1.3, §5.2.
    """
    chunk_bytes = round(options.chunk_mb * 2**20)
    variant = cast(schema.Variant, manifest.variant)
    side = read_side_tables(manifest, chunk_bytes, engine)
    for name, n_bad in side.quarantine.group_by("file").len().iter_rows():
        first = side.quarantine.filter(file=name).head(SHOWN_REASONS)
        check_share("kuaisar", name, n_bad, side.n_read[name], first, options.max_bad_share)
    logs = [
        LogFile(file, log_format(file.role, variant, file.path))
        for file in manifest.files_of(*schema.LOG_ROLES)
    ]
    users = pl.concat([side.users["user_id"], side.edges["src"], side.edges["dst"]])
    known_users, known_items = (
        ids.unique().sort().to_numpy() for ids in (users, side.items["item_id"])
    )
    meta = fingerprint("kuaisar", manifest.variant, manifest.fingerprint, options)
    ingested = ingest_logs("kuaisar", logs, known_users, known_items, options, engine, meta)
    searches = read_searches(manifest, chunk_bytes, engine)
    quarantine = pl.concat([side.quarantine, ingested.quarantine])
    user_map, item_map = ingested.user_map, ingested.item_map
    return Ingested(
        ingested.interactions,
        build_items(side, item_map, ingested.interactions),
        build_users(side, user_map),
        user_map,
        item_map,
        quarantine,
        ingestion_report(manifest, ingested, side, searches, quarantine),
        {
            "social_edges": build_edges(side, user_map),
            "queries": build_queries(searches, user_map),
            "item_words": build_item_words(side, item_map),
            "rec_searches": build_rec_searches(searches, user_map, item_map),
        },
    )
