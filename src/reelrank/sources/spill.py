"""Chunks parted by bucket and put on disk between the reading of files and the building of buckets.

One Arrow file per chunk, its record batch ``b`` holding the rows of bucket ``b``: any bucket, and any of its columns,
can be read alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray


def write_spill(
    path: Path,
    columns: Mapping[str, NDArray[np.integer]],
    bucket: NDArray[np.integer],
    n_buckets: int,
) -> None:
    """Write the rows of each bucket as one record batch, keeping their order.

    Args:
        path: file to write.
        columns: arrays of shape (n,).
        bucket: shape (n,), values 0 … n_buckets − 1.
        n_buckets: batches to write; a bucket without rows gets an empty one.
    """
    small = bucket.astype(np.int16)
    order = np.argsort(small, kind="stable")
    ends = np.cumsum(np.bincount(small, minlength=n_buckets))
    parted = {name: values[order] for name, values in columns.items()}
    schema = pa.schema([(name, pa.from_numpy_dtype(v.dtype)) for name, v in parted.items()])
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(str(path), schema, options=options) as writer:
        for start, end in zip(ends - np.diff(ends, prepend=0), ends, strict=True):
            arrays = [pa.array(values[start:end]) for values in parted.values()]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


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
    return frame
