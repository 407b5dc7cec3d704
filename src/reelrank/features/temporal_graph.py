"""The temporal graph of users and items: the last events of a node strictly before each row, and who follows whom.

Source: METHODS §3.6, §1.5 L1.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field
from scipy.sparse import csr_array

from reelrank.buckets import (
    BucketedTable,
    EngineOptions,
    bucket_path,
    finish_table,
    map_tasks,
    write_bucket,
)
from reelrank.options import Options
from reelrank.sources.spill import read_spill, write_spill
from reelrank.tables import LastNeighbours

NodeColumn = Literal["user_id", "item_id"]
EVENT_COLUMNS = ["user_id", "item_id", "ts_ms", "row_id"]
NO_NEIGHBOUR = -1


class NeighbourOptions(Options):
    """How far back a node looks."""

    k: int = Field(10, ge=1, le=1000, description="last events kept per row and node [D]")


def last_k_neighbours(
    node: npt.NDArray[np.integer], ts_ms: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.int64]:
    """The last k events of each row's node strictly before the row; equal times are not past.

    Args:
        node: (n,) node of each event, ≥ 0; rings take k values for each id up to the largest.
        ts_ms: (n,) times, not decreasing inside a node.
        k: events kept, ≥ 1.

    Returns:
        (n, k) positions of events, newest first, padded with −1.

    Raises:
        ValueError: a node is negative, its times decrease, or k < 1.

    Source: METHODS §3.6 [D: k = 10].
    """
    if k < 1:
        raise ValueError(f"k must be ≥ 1, got {k}")
    if len(node) and int(node.min()) < 0:
        raise ValueError(f"node is {int(node.min())} at row {int(node.argmin())}; ids start at 0")
    positions = np.empty((len(node), k), np.int64)
    n_nodes = int(node.max()) + 1 if len(node) else 0
    backwards = _scan(node, ts_ms, n_nodes, positions)
    if backwards >= 0:
        raise ValueError(
            f"row {backwards} of node {node[backwards]} is earlier than the node's row before it; sort by (ts_ms, row_id)"
        )
    return positions


def last_neighbours(rows: pl.DataFrame, node: NodeColumn, k: int) -> pl.DataFrame:
    """The last k rows of the same user or item before each row (bucket function).

    Args:
        rows: every row of some users (or items, see ``bucket_by_item``), sorted by (``node``, ts_ms, row_id).
        node: which of the two a neighbour must share.
        k: rows kept.

    Returns:
        One row of ``LastNeighbours`` per row, in the same order.

    Raises:
        ValueError: the rows are not sorted.
    """
    if not rows[node].is_sorted():
        raise ValueError(
            f"rows are not grouped by {node}: sort each bucket by ({node}, ts_ms, row_id)"
        )
    row_id = rows["row_id"].to_numpy()
    # ids of one bucket are far apart: number its nodes
    positions = last_k_neighbours(rows[node].rle_id().to_numpy(), rows["ts_ms"].to_numpy(), k)
    neighbours = np.where(positions < 0, NO_NEIGHBOUR, row_id[positions])
    return LastNeighbours.conform(
        rows.select(pl.col(node).alias("node_id"), "row_id", pl.Series("neighbours", neighbours))
    )


def bucket_by_item(interactions: BucketedTable, engine: EngineOptions) -> BucketedTable:
    """Put a table that is bucketed by user into buckets of whole items (``item_id % n_buckets``).

    Memory is bounded by one bucket of either side per worker; the rows wait on disk in between.

    Args:
        interactions: as ``Interactions``; ``EVENT_COLUMNS`` are kept.
        engine: workers, number of item buckets, staging folder.

    Returns:
        A staged table, each bucket sorted by (item_id, ts_ms, row_id).
    """
    parts, folder = engine.stage("item_parts"), engine.stage("by_item")
    try:
        part = partial(_part_bucket, interactions, parts, engine.n_buckets)
        files = list(map_tasks(part, range(interactions.n_buckets), engine))
        gather = _Gather(tuple(files), folder)
        heights = list(map_tasks(gather, range(engine.n_buckets), engine))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return finish_table(folder, engine.n_buckets, sum(heights), interactions.meta)


def follow_matrix(
    social_edges: pl.DataFrame, n_users: int, before_ts: int | None = None
) -> csr_array:
    """Who follows whom as a sparse matrix; a repeated edge counts once.

    Args:
        social_edges: ``SocialEdges``.
        n_users: ids are 0 … n_users − 1.
        before_ts: keep edges strictly before this time (UTC epoch ms) and those without one; None keeps all.

    Returns:
        (n_users, n_users) CSR of int8 ones, row = follower, columns in order.

    Raises:
        ValueError: an id is out of range.
    """
    wrong = social_edges.filter(~pl.all_horizontal(pl.col("src", "dst").is_between(0, n_users - 1)))
    if wrong.height:
        src, dst, _ = wrong.select("src", "dst", "ts").row(0)
        raise ValueError(f"social_edges: edge {src} → {dst} is outside 0 … {n_users - 1}")
    if before_ts is not None:
        social_edges = social_edges.filter(pl.col("ts").is_null() | (pl.col("ts") < before_ts))
    edges = social_edges.select("src", "dst").unique().sort("src", "dst")
    ones = np.ones(edges.height, np.int8)
    pair = (edges["src"].to_numpy(), edges["dst"].to_numpy())
    return csr_array((ones, pair), shape=(n_users, n_users))


def _part_bucket(interactions: BucketedTable, folder: Path, n_buckets: int, bucket: int) -> Path:
    """Spill one user bucket, parted by item."""
    rows = interactions.read(bucket, EVENT_COLUMNS)
    file = folder / f"users={bucket:05d}.arrow"
    write_spill(file, rows, rows["item_id"].to_numpy() % n_buckets, n_buckets)
    return file


@dataclass(frozen=True)
class _Gather:
    """Collects one item bucket from all spills."""

    files: tuple[Path, ...]
    folder: Path

    def __call__(self, bucket: int) -> int:
        rows = pl.concat(read_spill(file, bucket) for file in self.files)
        write_bucket(rows.sort("item_id", "ts_ms", "row_id"), bucket_path(self.folder, bucket))
        return rows.height


@njit(cache=True, nogil=True)
def _scan(
    node: npt.NDArray[np.integer],
    ts_ms: npt.NDArray[np.int64],
    n_nodes: int,
    positions: npt.NDArray[np.int64],
) -> int:
    """Fill ``positions`` (n, k) from one ring of k per node; answer the first row that goes back in time, or −1."""
    k = positions.shape[1]
    ring = np.full((n_nodes, k), -1, np.int64)
    head = np.zeros(n_nodes, np.int64)  # the slot that is written next
    for i in range(len(node)):
        v = node[i]
        slot = head[v]
        before = ring[v, slot - 1 if slot > 0 else k - 1]
        if before >= 0 and ts_ms[before] == ts_ms[i]:
            positions[i] = positions[before]  # rows of one time have the same past
        elif before >= 0 and ts_ms[before] > ts_ms[i]:
            return i
        else:
            for j in range(k):
                slot = slot - 1 if slot > 0 else k - 1
                positions[i, j] = ring[v, slot]
        ring[v, head[v]] = i
        head[v] = head[v] + 1 if head[v] + 1 < k else 0
    return -1
