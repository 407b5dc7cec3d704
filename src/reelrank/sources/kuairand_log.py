"""KuaiRand's logs: the chunk and bucket functions that make canonical interactions of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.buckets import bucket_path
from reelrank.features.sessions import request_and_session_ids
from reelrank.sources.integer_csv import Chunk, IntegerColumn, parse_chunk
from reelrank.sources.kuairand_schema import (
    DAY_MS,
    FLAGS,
    LOG_COLUMNS,
    N_TABS,
    RELEASE_START_MS,
    RELEASE_STOP_MS,
)
from reelrank.sources.spill import read_spill, write_spill
from reelrank.tables import Interactions

INT32_MAX = 2**31 - 1
FILE_ROWS = 2**40  # row_id = file number · FILE_ROWS + line
EARLIEST_MS = RELEASE_START_MS - DAY_MS
LATEST_MS = RELEASE_STOP_MS + DAY_MS - 1


def log_columns(is_rand: int) -> list[IntegerColumn]:
    """The 19 columns of a log and the values that each may hold; ``is_rand`` is 1 in the random log, else 0."""
    count = (0, INT32_MAX, f"0…{INT32_MAX}")
    flag = (0, 1, "0 or 1")
    limits = {
        "user_id": count,
        "video_id": count,
        "time_ms": (
            EARLIEST_MS,
            LATEST_MS,
            "within a day of 2022-04-08…2022-05-08 Asia/Shanghai, in ms",
        ),
        "play_time_ms": count,
        "duration_ms": count,
        "is_rand": (is_rand, is_rand, f"{is_rand} in this log"),
        "tab": (0, N_TABS - 1, f"0…{N_TABS - 1}"),
        "is_profile_enter": flag,
    } | dict.fromkeys(FLAGS, flag)
    columns = []
    for name, dtype in LOG_COLUMNS.items():
        # the rest is not used and need only fit its type
        bits = 8 * pl.Series([0], dtype=dtype).to_numpy().itemsize - 1
        fits = (-(2**bits), 2**bits - 1, f"an integer of {bits + 1} bits")
        columns.append(IntegerColumn(name, dtype, *limits.get(name, fits)))
    return columns


@dataclass(frozen=True)
class ChunkTask:
    """One chunk of one log on its way to the spill folder."""

    chunk: Chunk
    file_number: int
    header: tuple[str, ...]
    is_rand: int
    n_buckets: int
    target: Path


@dataclass(frozen=True)
class SpilledChunk:
    """A chunk parted by bucket; ``bad_lines`` says how many lie beside it in ``bad_path``."""

    path: Path
    file_number: int
    n_lines: int
    bad_lines: int

    @property
    def bad_path(self) -> Path:
        """Where the chunk's bad lines are: line counted from 0 in the chunk, reason, text."""
        return self.path.with_suffix(".bad.parquet")


def spill_chunk(task: ChunkTask) -> SpilledChunk:
    """Parse and check a chunk, part its rows by ``user_id % n_buckets`` and store both good and bad."""
    parsed = parse_chunk(task.chunk, task.header, log_columns(task.is_rand))
    bucket = parsed.columns["user_id"] % task.n_buckets
    columns = parsed.columns | {"line": parsed.line}
    write_spill(task.target, columns, bucket, task.n_buckets)
    spilled = SpilledChunk(task.target, task.file_number, parsed.n_lines, parsed.bad.height)
    if spilled.bad_lines:
        parsed.bad.write_parquet(spilled.bad_path)
    return spilled


@dataclass(frozen=True)
class Spill:
    """All chunks of all logs in file order, ``first_row_ids[k]`` being the row_id of chunk k's first line."""

    folder: Path
    chunks: tuple[SpilledChunk, ...]
    first_row_ids: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path, chunks: Sequence[SpilledChunk]) -> Spill:
        """Number the lines through each file; its header is line 1."""
        first, next_line = [], dict.fromkeys((chunk.file_number for chunk in chunks), 2)
        for chunk in chunks:
            first.append(chunk.file_number * FILE_ROWS + next_line[chunk.file_number])
            next_line[chunk.file_number] += chunk.n_lines
        return cls(folder, tuple(chunks), tuple(first))

    def lines_of(self, file_number: int) -> int:
        """Lines of a file after its header."""
        return sum(chunk.n_lines for chunk in self.chunks if chunk.file_number == file_number)

    def bad_lines(self, file_number: int) -> pl.LazyFrame:
        """The bad lines of a file, in order: line, reason, text."""
        return pl.concat(
            [
                pl.LazyFrame(schema={"line": pl.Int64, "reason": pl.String, "text": pl.String}),
                *(
                    pl.scan_parquet(chunk.bad_path).with_columns(pl.col("line") + first % FILE_ROWS)
                    for chunk, first in zip(self.chunks, self.first_row_ids, strict=True)
                    if chunk.file_number == file_number and chunk.bad_lines
                ),
            ]
        )

    def load(self, name: str) -> NDArray[np.int64]:
        """An array that every bucket needs, mapped and not copied into each process."""
        array: NDArray[np.int64] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array

    def save(self, **arrays: NDArray[np.int64]) -> None:
        """Store arrays for :meth:`load`."""
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)

    def read(self, bucket: int, columns: list[str] | None = None) -> pl.DataFrame:
        """The rows of a bucket, duplicates included, in row_id order; ``row_id`` is there unless columns are chosen."""
        if columns is not None:
            return pl.concat([read_spill(chunk.path, bucket, columns) for chunk in self.chunks])
        return pl.concat(
            read_spill(chunk.path, bucket).with_columns(
                (pl.col("line").cast(pl.Int64) + first).alias("row_id")
            )
            for chunk, first in zip(self.chunks, self.first_row_ids, strict=True)
        ).drop("line")


def order_by_time(user_id: NDArray[np.int64], ts_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """One integer per row that sorts as (user_id, ts_ms) does: checked logs span less than 2³² ms."""
    return (user_id << 32) | (ts_ms - EARLIEST_MS)


@dataclass(frozen=True)
class BucketCount:
    """What numbering over all buckets needs: users (sorted raw ids) with their requests and sessions, and new videos."""

    user: NDArray[np.int64]
    requests: NDArray[np.int64]
    sessions: NDArray[np.int64]
    unknown_items: NDArray[np.int64]


def count_bucket(spill: Spill, gap_ms: int, bucket: int) -> BucketCount:
    """Count requests and sessions per user; duplicates change neither."""
    rows = spill.read(bucket, ["user_id", "video_id", "time_ms"])
    key = np.sort(order_by_time(rows["user_id"].to_numpy(), rows["time_ms"].to_numpy()))
    user = key >> 32
    request, session = request_and_session_ids(user, key & (2**32 - 1), gap_ms)
    start = np.flatnonzero(np.diff(user, prepend=-1))
    items = rows["video_id"].unique().to_numpy()
    return BucketCount(
        user[start],
        np.diff(request[start], append=request[-1] + 1 if len(user) else 0),
        np.diff(session[start], append=session[-1] + 1 if len(user) else 0),
        np.setdiff1d(items, spill.load("known_items"), assume_unique=True),
    )


@dataclass(frozen=True)
class BucketBuilt:
    """Rows stored and duplicates dropped, the latter by file number."""

    n_rows: int
    duplicates: dict[int, int]


def build_bucket(spill: Spill, gap_ms: int, folder: Path, bucket: int) -> BucketBuilt:
    """Drop exact duplicates, sort, number and store one bucket of canonical interactions."""
    raw = spill.read(bucket)
    repeated = _repeated(raw.drop("row_id"))
    dropped = raw.filter(repeated)["row_id"] // FILE_ROWS
    raw = raw.filter(~repeated)
    key = order_by_time(raw["user_id"].to_numpy(), raw["time_ms"].to_numpy())
    rows = raw.with_columns(key=key).sort("key", maintain_order=True)
    user = np.searchsorted(spill.load("user_ids"), rows["user_id"].to_numpy())
    request, session = request_and_session_ids(user, rows["time_ms"].to_numpy(), gap_ms)
    start = np.flatnonzero(np.diff(user, prepend=-1))
    length = np.diff(start, append=len(user))
    first = user[start]
    duration = pl.when(pl.col("duration_ms") > 0).then("duration_ms")
    interactions = rows.select(
        user_id=user,
        item_id=np.searchsorted(spill.load("item_ids"), rows["video_id"].to_numpy()),
        ts_ms="time_ms",
        row_id="row_id",
        scenario="tab",
        request_id=request + np.repeat(spill.load("first_request")[first] - request[start], length),
        session_id=session + np.repeat(spill.load("first_session")[first] - session[start], length),
        play_ms="play_time_ms",
        duration_ms=duration,
        watch_ratio=pl.col("play_time_ms") / duration,
        click="is_click",
        like="is_like",
        follow="is_follow",
        comment="is_comment",
        forward="is_forward",
        hate="is_hate",
        long_view="long_view",
        is_rand="is_rand",
    )
    Interactions.conform(interactions).write_parquet(
        bucket_path(folder, bucket), compression="zstd", compression_level=1
    )
    by_file = dropped.value_counts()
    return BucketBuilt(interactions.height, dict(by_file.iter_rows()))


def _repeated(rows: pl.DataFrame) -> pl.Series:
    """True for every row that equals an earlier one in all columns."""
    # hashes sort out the few candidates, which are then compared exactly
    suspect = rows.hash_rows().is_duplicated()
    repeated = ~rows.filter(suspect).select(pl.struct(pl.all()).is_first_distinct()).to_series()
    answer = np.zeros(rows.height, bool)
    answer[suspect.arg_true().to_numpy()] = repeated.to_numpy()
    return pl.Series(answer)
