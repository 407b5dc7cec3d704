"""Logs of any source → canonical interactions.

Three passes keep memory bounded by a chunk or a bucket per worker: chunks of the logs are parsed, checked and parted by
user; each bucket is put in order, freed of duplicates and counted; with requests and sessions numbered over all buckets, each is stored.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from reelrank.buckets import (
    BucketedTable,
    EngineOptions,
    bucket_path,
    finish_table,
    map_tasks,
    write_bucket,
)
from reelrank.features.sessions import request_and_session_ids
from reelrank.options import Options
from reelrank.sorting import sort_by
from reelrank.sources.errors import TooManyBadRows
from reelrank.sources.log_format import BAD_LINES, RAW_COLUMNS, Chunk, LogFile, LogFormat
from reelrank.sources.spill import read_spill, write_spill
from reelrank.tables import IdMap, Interactions, Quarantine

FILE_ROWS = 2**40  # row_id = file number · FILE_ROWS + line
SHOWN_REASONS = 3
LONG_RUN = 64  # rows of one user at one time beyond which duplicates are looked up by hash
TABLE_IDS = 1 << 26  # raw ids below this are ranked by a table of flags


class LogOptions(Options):
    """How a source's logs become interactions."""

    session_gap_s: int = Field(
        1800, ge=1, le=86_400, description="longest gap inside a session, seconds [METHODS §1.3]"
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
class IngestedLogs:
    """The interactions of a source, and how they came about.

    ``user_ids`` and ``item_ids``: sorted raw ids of side tables and logs together; the dense id is the place.
    """

    interactions: BucketedTable
    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    unknown_users: int
    unknown_items: int
    quarantine: pl.DataFrame
    rows_read: dict[str, int]  # by file name, bad ones and duplicates included
    duplicates: dict[str, int]
    excluded: dict[str, dict[str, int]]  # sound rows that are no interactions, by file and reason
    noted: dict[str, dict[str, int]]  # rows that are kept but odd, by file and what is odd
    user_text: pl.DataFrame | None = None  # raw_id, raw_text, where ids are text
    item_text: pl.DataFrame | None = None

    @property
    def user_map(self) -> pl.DataFrame:
        """``IdMap`` of the users."""
        return id_map(self.user_ids, self.user_text)

    @property
    def item_map(self) -> pl.DataFrame:
        """``IdMap`` of the items."""
        return id_map(self.item_ids, self.item_text)


@dataclass(frozen=True)
class Ingested:
    """The canonical tables of one source, and how they came about; ``extras`` holds what only some sources have."""

    interactions: BucketedTable
    items: pl.DataFrame
    users: pl.DataFrame
    user_map: pl.DataFrame
    item_map: pl.DataFrame
    quarantine: pl.DataFrame
    report: dict[str, Any]
    extras: Mapping[str, pl.DataFrame | BucketedTable] | None = None


def id_map(raw_ids: NDArray[np.int64], text: pl.DataFrame | None = None) -> pl.DataFrame:
    """Dense ids 0 … n−1 of sorted raw ids, shape (n,), with their text where ids are text."""
    ids = pl.DataFrame({"dense_id": np.arange(len(raw_ids)), "raw_id": raw_ids})
    if text is None:
        return IdMap.conform(ids.with_columns(raw_text=pl.lit(None, pl.String)))
    return IdMap.conform(ids.join(text, on="raw_id", how="left", maintain_order="left"))


def ingest_logs(
    source: str,
    logs: Sequence[LogFile],
    known_users: NDArray[np.int64],
    known_items: NDArray[np.int64],
    options: LogOptions,
    engine: EngineOptions,
    meta: Mapping[str, Any],
) -> IngestedLogs:
    """Read logs into one bucketed table of interactions.

    Rows that cannot be used are quarantined with file, line and reason; exact duplicates (equal lines) are dropped, the first
    kept. Dense ids number the sorted raw ids of side tables and logs together. Nothing depends on chunk size, number of
    buckets, workers or engine but the buckets themselves.

    Args:
        source: for messages and the names of staging folders.
        logs: in reading order.
        known_users: sorted raw ids of the side tables.
        known_items: sorted raw ids of the side tables.
        options: session gap, quarantine bound, chunk size.
        engine: who runs chunk and bucket functions.
        meta: stored with the table.

    Raises:
        TooManyBadRows: a file's quarantined share exceeds ``options.max_bad_share``.
        WrongHeader: a file changed since it was found.
        ValueError: not one row of the logs can be used.

    Source: METHODS §1.1–§1.3.
    """
    spill_folder = engine.stage(f"{source}-spill")
    table_folder = engine.stage(f"{source}-interactions")
    gap_ms = options.session_gap_s * 1000
    buckets = range(engine.n_buckets)
    try:
        spill = _spill_logs(logs, spill_folder, options, engine)
        bad_lines = _bad_lines(source, spill, logs, options.max_bad_share)
        _require_rows(spill, bad_lines)
        spill.save(known_items=known_items)
        counts = list(map_tasks(partial(arrange_bucket, spill, gap_ms), buckets, engine))
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
        n_rows = sum(map_tasks(build, buckets, engine))
        texts = {side: spill.text_ids(side) for side in ("user", "item")}
    except BaseException:
        shutil.rmtree(table_folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(spill_folder, ignore_errors=True)
    names = [log.file.path.name for log in logs]
    return IngestedLogs(
        finish_table(table_folder, engine.n_buckets, n_rows, dict(meta)),
        user_ids,
        item_ids,
        len(np.setdiff1d(log_users, known_users)),
        len(item_ids) - len(known_items),
        bad_lines,
        {name: spill.lines_of(number) for number, name in enumerate(names)},
        {name: sum(c.duplicates.get(k, 0) for c in counts) for k, name in enumerate(names)},
        {name: spill.total_of(number, "excluded") for number, name in enumerate(names)},
        {name: spill.total_of(number, "noted") for number, name in enumerate(names)},
        texts["user"],
        texts["item"],
    )


@dataclass(frozen=True)
class ChunkTask:
    """One chunk of one log on its way to the spill folder."""

    chunk: Chunk
    format: LogFormat
    file_number: int
    n_buckets: int
    target: Path


@dataclass(frozen=True)
class SpilledChunk:
    """A chunk parted by bucket; what else it held lies beside it."""

    path: Path
    file_number: int
    n_lines: int
    n_bad: int
    excluded: Mapping[str, int]
    noted: Mapping[str, int]
    sides: tuple[str, ...]  # of user, item: those whose ids are text

    @property
    def bad_path(self) -> Path:
        """Where the chunk's bad lines are: line counted from 0 in the chunk, reason, text."""
        return self.path.with_suffix(".bad.parquet")

    def text_path(self, side: str) -> Path:
        """Where the texts of the chunk's user or item ids are."""
        return self.path.with_suffix(f".{side}.parquet")


def spill_chunk(task: ChunkTask) -> SpilledChunk:
    """Parse and check a chunk, part its rows by ``user_id % n_buckets`` and store good and bad (chunk function)."""
    parsed = task.format.parse(task.chunk)
    bucket = parsed.rows["user_id"].to_numpy() % task.n_buckets
    write_spill(task.target, parsed.rows, bucket, task.n_buckets)
    texts = {"user": parsed.user_text, "item": parsed.item_text}
    sides = tuple(side for side, text in texts.items() if text is not None)
    spilled = SpilledChunk(
        task.target,
        task.file_number,
        parsed.n_lines,
        parsed.bad.height,
        parsed.excluded,
        parsed.noted,
        sides,
    )
    if spilled.n_bad:
        parsed.bad.write_parquet(spilled.bad_path)
    for side, text in texts.items():
        if text is not None:
            text.write_parquet(spilled.text_path(side))
    return spilled


@dataclass(frozen=True)
class Spill:
    """All chunks of all logs in file order, ``first_row_ids[k]`` being the row_id of chunk k's first line."""

    folder: Path
    chunks: tuple[SpilledChunk, ...]
    first_row_ids: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, chunks: Sequence[SpilledChunk], first_lines: Sequence[int]) -> Spill:
        """Number the lines through each file; ``first_lines`` gives the number of each file's first line of data."""
        first, next_line = [], dict(enumerate(first_lines))
        for chunk in chunks:
            first.append(chunk.file_number * FILE_ROWS + next_line[chunk.file_number])
            next_line[chunk.file_number] += chunk.n_lines
        return cls(folder, tuple(chunks), tuple(first))

    def lines_of(self, file_number: int) -> int:
        """Lines of data in a file."""
        return sum(chunk.n_lines for chunk in self.chunks if chunk.file_number == file_number)

    def total_of(self, file_number: int, counts: Literal["excluded", "noted"]) -> dict[str, int]:
        """Rows of a file by the text they were counted by."""
        total: Counter[str] = Counter()
        for chunk in self.chunks:
            if chunk.file_number == file_number:
                total.update(getattr(chunk, counts))
        return dict(sorted(total.items()))

    def bad_lines(self, file_number: int) -> pl.LazyFrame:
        """The bad lines of a file, in order: line, reason, text."""
        return pl.concat(
            [
                pl.LazyFrame(schema=BAD_LINES),
                *(
                    pl.scan_parquet(chunk.bad_path).with_columns(pl.col("line") + first % FILE_ROWS)
                    for chunk, first in zip(self.chunks, self.first_row_ids, strict=True)
                    if chunk.file_number == file_number and chunk.n_bad
                ),
            ]
        )

    def text_ids(self, side: str) -> pl.DataFrame | None:
        """Raw id and text of every user or item whose ids are text.

        Raises:
            ValueError: two texts have one hash.
        """
        paths = [chunk.text_path(side) for chunk in self.chunks if side in chunk.sides]
        if not paths:
            return None
        ids = pl.scan_parquet(paths).unique().collect(engine="streaming")
        twice = ids.filter(pl.col("raw_id").is_duplicated())
        if twice.height:
            raise ValueError(f"{side} ids {twice['raw_text'].head(2).to_list()} have one 63-bit hash; rename one of them")  # fmt: skip
        return ids

    def load(self, name: str) -> NDArray[np.int64]:
        """An array that every bucket needs, mapped and not copied into each worker."""
        array: NDArray[np.int64] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array

    def save(self, **arrays: NDArray[np.integer]) -> None:
        """Store arrays for :meth:`load`."""
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)

    def read(self, bucket: int, columns: list[str] | None = None) -> pl.DataFrame:
        """The rows of a bucket, duplicates included, in file order with ``row_id``; what a log lacks is null."""
        frames = [read_spill(chunk.path, bucket, columns) for chunk in self.chunks]
        first = np.repeat(self.first_row_ids, [frame.height for frame in frames])
        rows = pl.concat(frames, how="diagonal").rechunk()
        return rows.with_columns(row_id=rows["line"].to_numpy() + first).drop("line")


@dataclass(frozen=True)
class BucketCount:
    """What numbering over all buckets needs: users (sorted raw ids) with their requests and sessions, and new items.

    ``duplicates``: dropped rows by file number.
    """

    user: NDArray[np.int64]
    requests: NDArray[np.int64]
    sessions: NDArray[np.int64]
    unknown_items: NDArray[np.int64]
    duplicates: dict[int, int]


def arrange_bucket(spill: Spill, gap_ms: int, bucket: int) -> BucketCount:
    """Find the order (user, time, file order) of a bucket's rows without duplicates, keep it beside the spill, and count (bucket function)."""
    rows = spill.read(bucket, ["user_id", "item_id", "ts_ms", "row_hash", "line"])
    user_id, item_id, ts_ms, row_hash, row_id = (rows[name].to_numpy() for name in rows.columns)
    users, code = ranks(user_id)
    order = _order(code, ts_ms, len(users))
    is_repeated, longest = _repeated(order, code, item_id, ts_ms, row_hash)
    if longest > LONG_RUN:
        same = pl.struct(pl.exclude("row_id"))
        is_repeated = ~rows[order].select(same.is_first_distinct()).to_series().to_numpy()
    dropped = Counter((row_id[order[is_repeated]] // FILE_ROWS).tolist())
    order = order[~is_repeated]
    user, ts_ms = code[order], ts_ms[order]
    request, session = request_and_session_ids(user, ts_ms, gap_ms)
    start = np.flatnonzero(np.diff(user, prepend=-1))
    spill.save(**{f"order-{bucket}": order, f"user-{bucket}": user, f"users-{bucket}": users})
    return BucketCount(
        users,
        np.diff(request[start], append=request[-1] + 1 if len(user) else 0),
        np.diff(session[start], append=session[-1] + 1 if len(user) else 0),
        _unknown(item_id, spill.load("known_items")),
        dict(dropped),
    )


def build_bucket(spill: Spill, gap_ms: int, folder: Path, bucket: int) -> int:
    """Number and store the rows of one bucket in their order (bucket function); answers how many."""
    order, user = spill.load(f"order-{bucket}"), spill.load(f"user-{bucket}")
    dense = np.searchsorted(spill.load("user_ids"), spill.load(f"users-{bucket}"))
    rows = spill.read(bucket)[order]
    request, session = request_and_session_ids(user, rows["ts_ms"].to_numpy(), gap_ms)
    start = np.flatnonzero(np.diff(user, prepend=-1))
    length = np.diff(start, append=len(user))
    first_request, first_session = spill.load("first_request"), spill.load("first_session")
    request += np.repeat(first_request[dense] - request[start], length)
    session += np.repeat(first_session[dense] - session[start], length)
    absent = [
        pl.lit(0 if name in ("scenario", "is_rand") else None, dtype).alias(name)
        for name, dtype in RAW_COLUMNS.items()
        if name not in rows.columns
    ]
    rows = rows.with_columns(
        *absent,
        user_id=np.repeat(dense, length),
        item_id=positions(spill.load("item_ids"), rows["item_id"].to_numpy()),
        request_id=request,
        session_id=session,
    ).with_columns(watch_ratio=pl.col("play_ms") / pl.col("duration_ms"))
    write_bucket(Interactions.conform(rows), bucket_path(folder, bucket))
    return rows.height


def ranks(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sorted distinct values, and the place of each value among them, (n,)."""
    if len(values) and values.min() >= 0 and values.max() < TABLE_IDS:
        is_there = np.zeros(values.max() + 1, bool)
        is_there[values] = True
        return np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[values]
    distinct, place = np.unique(values, return_inverse=True)
    return distinct, place.astype(np.int64)


def positions(sorted_ids: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each value in ``sorted_ids``, which hold it."""
    n = len(sorted_ids)
    if n and sorted_ids[0] == 0 and sorted_ids[-1] == n - 1:  # already dense
        return values
    return np.searchsorted(sorted_ids, values)


def _unknown(item_ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct items that are not among the sorted known ones."""
    n = len(known)
    if n and known[-1] - known[0] == n - 1:
        item_ids = item_ids[(item_ids < known[0]) | (item_ids > known[-1])]
    return np.setdiff1d(pl.Series(item_ids).unique().to_numpy(), known, assume_unique=True)


@njit(cache=True, nogil=True)
def _order(code: NDArray[np.int64], ts_ms: NDArray[np.int64], n_users: int) -> NDArray[np.int64]:
    """Stable order of the rows by (code, ts_ms): a counting sort by user, then by time where a user's rows are not in order yet."""
    start = np.zeros(n_users + 1, np.int64)
    for i in range(len(code)):
        start[code[i] + 1] += 1
    start = np.cumsum(start)
    place = start[:-1].copy()
    order, spare = np.empty(len(code), np.int64), np.empty(len(code), np.int64)
    for i in range(len(code)):
        order[place[code[i]]] = i
        place[code[i]] += 1
    for user in range(n_users):
        own = order[start[user] : start[user + 1]]
        for k in range(1, len(own)):
            if ts_ms[own[k]] < ts_ms[own[k - 1]]:
                sort_by(own, ts_ms, spare[: len(own)])
                break
    return order


@njit(cache=True, nogil=True)
def _repeated(
    order: NDArray[np.int64],
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    row_hash: NDArray[np.uint64],
) -> tuple[NDArray[np.bool_], int]:
    """Which rows, in order, equal an earlier one; and the longest run of one user and time (beyond ``LONG_RUN`` not looked into)."""
    repeated = np.zeros(len(order), np.bool_)
    first, longest = 0, 0
    for k in range(len(order)):
        i = order[k]
        if user[i] != user[order[first]] or ts_ms[i] != ts_ms[order[first]]:
            first = k
        longest = max(longest, k - first + 1)
        for earlier in range(first, k if k - first < LONG_RUN else first):
            j = order[earlier]
            if row_hash[i] == row_hash[j] and item[i] == item[j]:
                repeated[k] = True
                break
    return repeated, longest


def _spill_logs(
    logs: Sequence[LogFile], folder: Path, options: LogOptions, engine: EngineOptions
) -> Spill:
    """Parse every log chunk by chunk into the spill folder."""
    tasks = [
        ChunkTask(chunk, log.format, number, engine.n_buckets, folder / f"{number:03d}-{k:06d}.arrow")
        for number, log in enumerate(logs)
        for k, chunk in enumerate(log.format.plan(log.file.path, round(options.chunk_mb * 2**20)))
    ]  # fmt: skip
    first_lines = [2 if log.format.has_header else 1 for log in logs]
    return Spill.of(folder, list(map_tasks(spill_chunk, tasks, engine)), first_lines)


def _require_rows(spill: Spill, bad_lines: pl.DataFrame) -> None:
    n_lines = sum(chunk.n_lines for chunk in spill.chunks)
    n_sound = n_lines - bad_lines.height - sum(sum(c.excluded.values()) for c in spill.chunks)
    if n_sound == 0:
        shown = bad_lines.select("file", "line", "reason").head(1).iter_rows()
        raise ValueError(
            f"None of the {n_lines:,} rows of the logs can be used"
            + "".join(f"; the first, {name} line {line}: {reason}" for name, line, reason in shown)
        )


def _bad_lines(
    source: str, spill: Spill, logs: Sequence[LogFile], max_share: float
) -> pl.DataFrame:
    """The bad lines of all logs as a quarantine; checked file by file before all of them are read."""
    lines = [pl.DataFrame(schema=Quarantine.polars_schema())]
    for number, log in enumerate(logs):
        bad = spill.bad_lines(number)
        n_bad = bad.select(pl.len()).collect().item()
        name = log.file.path.name
        first = bad.head(SHOWN_REASONS).collect()
        check_share(source, name, n_bad, spill.lines_of(number), first, max_share)
        lines.append(Quarantine.conform(bad.with_columns(file=pl.lit(name)).collect()))
    return pl.concat(lines)


def check_share(
    source: str, name: str, n_bad: int, n_read: int, first: pl.DataFrame, max_share: float
) -> None:
    """Stop where too many rows of a file cannot be used.

    Raises:
        TooManyBadRows: names the file, the share and the first reasons.
    """
    if n_bad > max_share * n_read:
        reasons = "; ".join(f"line {r['line']}: {r['reason']}" for r in first.iter_rows(named=True))
        raise TooManyBadRows(
            f"{name}: {n_bad:,} of {n_read:,} rows ({n_bad / n_read:.2%}) cannot be used, the parameter "
            f"{source}.ingest.max_bad_share allows {max_share:.2%}. First: {reasons}"
        )


def _first_ids(
    user_ids: NDArray[np.int64], log_users: NDArray[np.int64], counts: Sequence[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The first request or session id of each dense user, so that ids follow (user_id, ts_ms) over all buckets."""
    per_user = np.zeros(len(user_ids), np.int64)
    per_user[np.searchsorted(user_ids, log_users)] = np.concatenate(counts)
    return np.cumsum(per_user) - per_user
