"""Chunks parted by bucket and put on disk between the reading of files and the building of buckets.

One Arrow file per chunk, its record batch ``b`` holding the rows of bucket ``b``: any bucket, and any of its columns,
can be read alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray


def write_spill(
    path: Path, rows: pl.DataFrame, bucket: NDArray[np.integer], n_buckets: int
) -> None:
    """Write the rows of each bucket as one record batch, keeping their order.

    Args:
        path: file to write.
        rows: (n,) rows.
        bucket: shape (n,), values 0 … n_buckets − 1.
        n_buckets: batches to write; a bucket without rows gets an empty one.
    """
    order, ends = _part(bucket, n_buckets)
    table = rows[order].rechunk().to_arrow()
    with pa.ipc.new_file(str(path), table.schema) as writer:
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            batch = table.slice(start, end - start).to_batches()
            writer.write_batch(batch[0] if batch else pa.RecordBatch.from_pylist([], table.schema))


def read_spill(path: Path, bucket: int, columns: list[str] | None = None) -> pl.DataFrame:
    """The rows of one bucket; ``columns`` limits what is read."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        if columns is not None:
            included = [reader.schema.get_field_index(name) for name in columns]
            reader = pa.ipc.open_file(
                source, options=pa.ipc.IpcReadOptions(included_fields=included)
            )
        frame = pl.from_arrow(reader.get_batch(bucket))
    assert isinstance(frame, pl.DataFrame)
    return frame if columns is None else frame.select(columns)


@njit(cache=True, nogil=True)
def _part(
    bucket: NDArray[np.integer], n_buckets: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stable order of the rows by bucket, and where each bucket starts and ends in it (n_buckets + 1)."""
    ends = np.zeros(n_buckets + 1, np.int64)
    for i in range(len(bucket)):
        ends[bucket[i] + 1] += 1
    ends = np.cumsum(ends)
    place = ends[:-1].copy()
    order = np.empty(len(bucket), np.int64)
    for i in range(len(bucket)):
        order[place[bucket[i]]] = i
        place[bucket[i]] += 1
    return order, ends
