"""Tables kept as one Parquet file per bucket of users, and the engine that maps pure functions over them.

Two kinds of pure function do all the work on large tables (ARCHITECTURE choice 4): a *chunk* function is row-local,
a *bucket* function sees every row of its users. Neither knows which engine runs it.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from reelrank.options import Options

T = TypeVar("T")
R = TypeVar("R")
META_FILE = "_table.json"


class SparkOptions(Options):
    """Where Spark runs."""

    master: str = Field("local[2]", description="address of the cluster, or local[n]")
    settings: dict[str, str] = Field({}, description="Spark properties")


class EngineOptions(Options):
    """How bucket and chunk functions are run."""

    engine: Literal["local", "spark"] = Field(
        "local", description="local: threads on this machine; spark: a cluster (extra [spark])"
    )
    workers: int = Field(1, ge=1, le=256, description="threads of the local engine")
    spark: SparkOptions = Field(SparkOptions(), description="of the spark engine")
    n_buckets: int = Field(
        8, ge=1, le=4096, description="user buckets; memory is bounded by one bucket per worker"
    )
    staging: Path = Field(
        description="folder for unfinished outputs, on the same file system as the data"
    )

    def stage(self, name: str) -> Path:
        """Make and return a new empty folder for an output that is not finished."""
        folder = self.staging / f"{name}-{uuid.uuid4().hex[:12]}"
        folder.mkdir(parents=True)
        return folder


@dataclass(frozen=True)
class BucketedTable:
    """A folder of ``bucket=00000.parquet`` files, each with every row of its users (``user_id % n_buckets`` of the raw id)."""

    path: Path
    n_buckets: int
    n_rows: int
    meta: dict[str, Any] = field(default_factory=dict)  # fingerprint, counts

    @classmethod
    def open(cls, path: Path) -> BucketedTable:
        """Open a stored table.

        Raises:
            FileNotFoundError: no finished table lies at ``path``.
        """
        file = path / META_FILE
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} holds no finished bucketed table ({META_FILE} is missing)"
            )
        stored = json.loads(file.read_text(encoding="utf-8"))
        return cls(path, stored["n_buckets"], stored["n_rows"], stored["meta"])

    def bucket_file(self, bucket: int) -> Path:
        """Path of one bucket's Parquet file."""
        return bucket_path(self.path, bucket)

    def read(self, bucket: int, columns: list[str] | None = None) -> pl.DataFrame:
        """All rows of one bucket."""
        return pl.read_parquet(self.bucket_file(bucket), columns=columns)

    def iter_buckets(self) -> Iterator[pl.DataFrame]:
        """The buckets one after the other."""
        return (self.read(bucket) for bucket in range(self.n_buckets))

    def scan(self) -> pl.LazyFrame:
        """All buckets as one lazy frame."""
        return pl.scan_parquet([self.bucket_file(bucket) for bucket in range(self.n_buckets)])


def bucket_path(folder: Path, bucket: int) -> Path:
    """Where a bucket's file lies inside a table's folder."""
    return folder / f"bucket={bucket:05d}.parquet"


def map_tasks(
    function: Callable[[T], R], tasks: Iterable[T], options: EngineOptions
) -> Iterator[R]:
    """Apply a chunk or bucket function to every task, in order, on the engine of the options."""
    if options.engine == "spark":
        from reelrank.spark import map_spark  # noqa: PLC0415 (an extra)

        yield from map_spark(function, tasks, options)
    elif options.workers == 1:
        yield from map(function, tasks)
    else:
        # Polars, Arrow and our kernels work outside the interpreter lock: threads share memory and start at once
        with ThreadPoolExecutor(options.workers) as pool:
            yield from pool.map(function, tasks)


def write_bucket(frame: pl.DataFrame, path: Path) -> None:
    """Store one bucket's rows. Sorted keys and small numbers: differences take a third of the time of a general codec, and less room."""
    table = frame.to_arrow()
    wide = [f.name for f in table.schema if f.type in (pa.int64(), pa.int32())]
    rest = [name for name in table.column_names if name not in wide]
    encoding = dict.fromkeys(wide, "DELTA_BINARY_PACKED")
    pq.write_table(table, path, compression="lz4", use_dictionary=rest, column_encoding=encoding)


def finish_table(
    folder: Path, n_buckets: int, n_rows: int, meta: dict[str, Any] | None = None
) -> BucketedTable:
    """Mark a staged folder as complete by writing its metadata last."""
    stored: dict[str, Any] = {"n_buckets": n_buckets, "n_rows": n_rows, "meta": meta or {}}
    (folder / META_FILE).write_text(json.dumps(stored, indent=1, default=str), encoding="utf-8")
    return BucketedTable(folder, n_buckets, n_rows, stored["meta"])


@dataclass(frozen=True)
class _BucketTask:
    function: Callable[..., pl.DataFrame]
    inputs: tuple[BucketedTable, ...]
    folder: Path

    def __call__(self, bucket: int) -> int:
        frame = self.function(*(table.read(bucket) for table in self.inputs))
        write_bucket(frame, bucket_path(self.folder, bucket))
        return frame.height


def map_buckets(
    function: Callable[..., pl.DataFrame],
    inputs: Sequence[BucketedTable],
    options: EngineOptions,
    name: str,
    meta: dict[str, Any] | None = None,
) -> BucketedTable:
    """Run a bucket function over co-bucketed tables into a new staged table.

    Args:
        function: pure and picklable; takes one frame per input (the same bucket of each), returns a frame.
        inputs: tables with equal ``n_buckets``.
        options: engine.
        name: shown in the staging folder's name.
        meta: stored beside the table.

    Raises:
        ValueError: the inputs are bucketed differently.
    """
    counts = {table.n_buckets for table in inputs}
    if len(counts) != 1:
        raise ValueError(
            f"{name}: inputs are bucketed differently ({sorted(counts)} buckets); rebuild them with one n_buckets"
        )
    folder = options.stage(name)
    n_buckets = counts.pop()
    try:
        heights = list(
            map_tasks(_BucketTask(function, tuple(inputs), folder), range(n_buckets), options)
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return finish_table(folder, n_buckets, sum(heights), meta)
