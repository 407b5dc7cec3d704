"""KuaiRand (Pure, 1K, 27K): official files → canonical tables.

Three passes keep memory bounded by a chunk or a bucket per worker: chunks of the logs are parsed, checked and parted by
user; requests and sessions are counted per user; each bucket is then de-duplicated, sorted, numbered and stored.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from reelrank.buckets import BucketedTable, EngineOptions, finish_table, map_local
from reelrank.options import Options
from reelrank.sources import kuairand_schema as schema
from reelrank.sources.errors import EmptyFile, MissingRawFiles, TooManyBadRows
from reelrank.sources.integer_csv import check_header, has_rows, plan_chunks
from reelrank.sources.kuairand_attributes import build_items, build_users, id_map, read_side_tables
from reelrank.sources.kuairand_log import ChunkTask, Spill, build_bucket, count_bucket, spill_chunk
from reelrank.sources.kuairand_report import ingestion_report
from reelrank.sources.manifest import Checksum, Manifest, RawFile
from reelrank.tables import Quarantine

SHOWN_REASONS = 3
NEEDED = (schema.STANDARD_LOGS, ("user_features",), ("video_features_basic",))  # one of each

logger = logging.getLogger(__name__)


class IngestOptions(Options):
    """How KuaiRand's files become tables."""

    session_gap_s: int = Field(
        1800, ge=1, le=86_400, description="longest gap inside a session, seconds [D: METHODS §1.3]"
    )
    max_bad_share: float = Field(
        0.01, ge=0, le=1, description="quarantined share of any one file above which the run stops"
    )
    chunk_mb: float = Field(
        16,
        gt=0,
        le=1024,
        description="bytes of a log parsed at once, MiB; bounds memory, not results",
    )


@dataclass(frozen=True)
class Ingested:
    """The canonical tables of one source, and how they came about."""

    interactions: BucketedTable
    items: pl.DataFrame
    users: pl.DataFrame
    user_map: pl.DataFrame
    item_map: pl.DataFrame
    quarantine: pl.DataFrame
    report: dict[str, Any]


def find_files(
    root: Path, variant: schema.Variant, kind: Literal["world", "files"] = "files"
) -> Manifest:
    """Find a release's official files and check their headers and, where they are published, their checksums.

    A file that differs from the published one is logged as a warning and taken: it may be a subset. Optional files
    may hold no rows.

    Args:
        root: folder that holds ``KuaiRand-Pure/`` and the like, or is such a folder.
        variant: release.
        kind: who made the files.

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
            checksum = _checksum(path) if kind == "files" else ""
            files.append(RawFile(role, path, path.stat().st_size, checksum))
    found = {file.role for file in files}
    missing = [
        schema.FILES[role][0].format(variant=variant) + ".csv"
        for role in ("user_features", "video_features_basic")
        if role not in found
    ]
    if not found & set(schema.STANDARD_LOGS):
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
        if not any(has_rows(path) for path in paths):
            empty = " and ".join(str(path) for path in paths)
            raise EmptyFile(f"no rows in {empty}: download or write it again.")
    return manifest


def _checksum(path: Path) -> Checksum:
    """Whether a file is the published one; empty where its checksum is not known."""
    published = schema.OFFICIAL_MD5.get(path.name)
    if published is None:
        return ""
    with path.open("rb") as file:
        measured = hashlib.file_digest(
            file, partial(hashlib.md5, usedforsecurity=False)
        ).hexdigest()
    if measured == published:
        return "official"
    logger.warning("%s is not the published file: md5 %s, not %s", path, measured, published)
    return "differs"


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


def ingest(manifest: Manifest, options: IngestOptions, engine: EngineOptions) -> Ingested:
    """Read the files of a manifest into canonical tables.

    Rows that cannot be used are quarantined with file, line and reason; exact duplicates (all 19 columns equal) are
    dropped, the first kept. Standard and random logs become one table. Dense ids number the sorted raw ids of side
    tables and logs together. Nothing depends on chunk size, number of buckets or workers but the buckets themselves.

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
        _check_share(name, n_bad, side.n_read[name], first, options.max_bad_share)
    logs = manifest.files_of(*schema.LOG_ROLES)
    spill_folder = engine.stage("kuairand-spill")
    table_folder = engine.stage("kuairand-interactions")
    gap_ms = options.session_gap_s * 1000
    buckets = range(engine.n_buckets)
    try:
        spill = _spill_logs(logs, spill_folder, options, engine)
        bad_lines = _bad_lines(spill, logs, options.max_bad_share)
        n_lines = sum(chunk.n_lines for chunk in spill.chunks)
        if bad_lines.height == n_lines:
            shown = bad_lines.select("file", "line", "reason").head(1).iter_rows()
            raise ValueError(
                f"None of the {n_lines:,} rows of the logs can be used"
                + "".join(
                    f"; the first, {name} line {line}: {reason}" for name, line, reason in shown
                )
            )
        spill.save(known_items=known_items)
        counts = list(map_local(partial(count_bucket, spill, gap_ms), buckets, engine.workers))
        log_users = np.concatenate([count.user for count in counts])
        user_ids = np.union1d(known_users, log_users)
        item_ids = np.union1d(known_items, np.concatenate([c.unknown_items for c in counts]))
        spill.save(
            user_ids=user_ids,
            item_ids=item_ids,
            first_request=_first_ids(user_ids, log_users, [count.requests for count in counts]),
            first_session=_first_ids(user_ids, log_users, [count.sessions for count in counts]),
        )
        build = partial(build_bucket, spill, gap_ms, table_folder)
        built = list(map_local(build, buckets, engine.workers))
    except BaseException:
        shutil.rmtree(table_folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(spill_folder, ignore_errors=True)
    n_rows = sum(bucket.n_rows for bucket in built)
    meta = {"source": "kuairand", "variant": manifest.variant, "fingerprint": manifest.fingerprint}
    interactions = finish_table(table_folder, engine.n_buckets, n_rows, meta)
    quarantine = pl.concat([side.quarantine, bad_lines])
    user_map, item_map = id_map(user_ids), id_map(item_ids)
    report = ingestion_report(
        manifest,
        interactions,
        rows_read={file.path.name: spill.lines_of(number) for number, file in enumerate(logs)},
        side_rows_read=side.n_read,
        duplicates=side.duplicates
        | {
            file.path.name: sum(bucket.duplicates.get(number, 0) for bucket in built)
            for number, file in enumerate(logs)
        },
        quarantine=quarantine,
        n_users=len(user_ids),
        n_items=len(item_ids),
        unknown_users=len(np.setdiff1d(log_users, known_users)),
        unknown_items=len(item_ids) - len(known_items),
    )
    read, sound, canonical = (step["rows"] for step in report["steps"])
    logger.info(
        "KuaiRand %s: %d rows read, %d exact duplicates dropped, %d rows quarantined, %d canonical rows",
        manifest.variant, read, sound - canonical, read - sound, canonical,
    )  # fmt: skip
    return Ingested(
        interactions,
        build_items(side, item_map),
        build_users(side, user_map),
        user_map,
        item_map,
        quarantine,
        report,
    )


def _spill_logs(
    logs: Sequence[RawFile], folder: Path, options: IngestOptions, engine: EngineOptions
) -> Spill:
    """Parse every log chunk by chunk into the spill folder."""
    tasks = []
    for number, file in enumerate(logs):
        header = tuple(check_header(file.path, schema.LOG_COLUMNS))
        is_rand = int(file.role == schema.RANDOM_LOG)
        for k, chunk in enumerate(plan_chunks(file.path, round(options.chunk_mb * 2**20))):
            target = folder / f"{number:03d}-{k:06d}.arrow"
            tasks.append(ChunkTask(chunk, number, header, is_rand, engine.n_buckets, target))
    return Spill.of(folder, list(map_local(spill_chunk, tasks, engine.workers)))


def _bad_lines(spill: Spill, logs: Sequence[RawFile], max_share: float) -> pl.DataFrame:
    """The bad lines of all logs as a quarantine; checked file by file before all of them are read."""
    lines = [pl.DataFrame(schema=Quarantine.polars_schema())]
    for number, file in enumerate(logs):
        bad = spill.bad_lines(number)
        n_bad = bad.select(pl.len()).collect().item()
        name = file.path.name
        _check_share(
            name, n_bad, spill.lines_of(number), bad.head(SHOWN_REASONS).collect(), max_share
        )
        lines.append(Quarantine.conform(bad.with_columns(file=pl.lit(name)).collect()))
    return pl.concat(lines)


def _check_share(name: str, n_bad: int, n_read: int, first: pl.DataFrame, max_share: float) -> None:
    if n_bad > max_share * n_read:
        reasons = "; ".join(f"line {r['line']}: {r['reason']}" for r in first.iter_rows(named=True))
        raise TooManyBadRows(
            f"{name}: {n_bad:,} of {n_read:,} rows ({n_bad / n_read:.2%}) cannot be used, the parameter "
            f"kuairand.ingest.max_bad_share allows {max_share:.2%}. First: {reasons}"
        )


def _first_ids(
    user_ids: NDArray[np.int64], log_users: NDArray[np.int64], counts: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The first request or session id of each dense user, so that ids follow (user_id, ts_ms) over all buckets."""
    per_user = np.zeros(len(user_ids), np.int64)
    per_user[np.searchsorted(user_ids, log_users)] = np.concatenate(counts)
    return np.cumsum(per_user) - per_user
