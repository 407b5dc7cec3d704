"""KuaiRec's published facts beside the measured ones."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.buckets import BucketedTable
from reelrank.sources import kuairec_schema as schema
from reelrank.sources.ingest import IngestedLogs
from reelrank.sources.manifest import Manifest
from reelrank.sources.report import fact

logger = logging.getLogger(__name__)


def data_facts(
    manifest: Manifest,
    logs: IngestedLogs,
    observed: pl.DataFrame,
    rows_read: dict[str, int],
    session_gap_s: int,
) -> dict[str, Any]:
    """What METHODS §1.2 says of KuaiRec, measured: published counts, and that the two matrices are apart.

    On the full release every count must be the published one; where one is not, it is logged as a warning and its status is ``differs``. Sessions
    are compared only if they were cut at the published gap.

    Args:
        manifest: the raw files.
        logs: what became of the big matrix.
        observed: ``Observed``.
        rows_read: rows of every file by its name, bad ones and duplicates included.
        session_gap_s: gap of the session ids.

    Source: METHODS §1.2.
    """
    read = {file.role: rows_read.get(file.path.name, 0) for file in manifest.files}
    counts: dict[str, tuple[float, float]] = {
        f"{role}_rows": (n, read[role]) for role, n in schema.PUBLISHED_ROWS.items() if role in read
    }
    frames = {"big_matrix": logs.interactions.scan(), "small_matrix": observed.lazy()}
    for role in frames.keys() & read.keys():
        users, items = frames[role].select(pl.n_unique("user_id", "item_id")).collect().row(0)
        counts[f"{role}_users"] = (schema.PUBLISHED_USERS[role], users)
        counts[f"{role}_items"] = (schema.PUBLISHED_ITEMS[role], items)
    burst_rows, session_rows = burst_lengths(logs.interactions)
    pairs = zip(schema.PUBLISHED_BURST_ROWS, burst_rows, strict=True)
    counts |= {f"burst_{number}_rows": pair for number, pair in enumerate(pairs, start=1)}
    facts = [fact(manifest, name, *pair) for name, pair in sorted(counts.items())]
    if session_gap_s == schema.SESSION_GAP_S and len(session_rows):
        facts += [
            {
                "fact": name,
                "published": schema.PUBLISHED_SESSIONS[name],
                "measured": measured,
                "status": "generated" if manifest.kind == "world" else "partial",
            }
            for name, measured in _session_facts(session_rows).items()
        ]
    matrices = ("big_matrix", "small_matrix")
    if manifest.kind == "files" and all(read.get(m) == schema.PUBLISHED_ROWS[m] for m in matrices):
        _assert_published(facts)
    shared_rows, shared_pairs = shared_with(logs.interactions, observed)
    if shared_rows:
        logger.warning(
            "kuairec: %d rows stand in both matrices; take them out before the small one serves as a test environment",
            shared_rows,
        )
    n_cells = observed["user_id"].n_unique() * observed["item_id"].n_unique()
    return {
        "facts": facts,
        "rows_outside_bursts": logs.interactions.n_rows - sum(burst_rows),
        "observed_rows": observed.height,
        "observed_density": observed.height / n_cells if n_cells else None,
        "observed_untimed": observed["ts_ms"].null_count(),
        "shared_rows": shared_rows,
        "shared_pairs": shared_pairs,
    }


def _session_facts(session_rows: NDArray[np.integer]) -> dict[str, float]:
    """The published statistics of rows per session, (n,)."""
    return {
        "sessions": len(session_rows),
        "session_rows_mean": round(float(session_rows.mean()), 4),
        "session_rows_median": float(np.median(session_rows)),
        "session_rows_max": int(session_rows.max()),
    }


def _assert_published(facts: list[dict[str, Any]]) -> None:
    """On the full release every measured number is the published one, or said not to be."""
    for found in facts:
        agrees = found["measured"] == found["published"]
        found["status"] = "complete" if agrees else "differs"
        if not agrees:
            logger.warning("kuairec: %s is %s on the full release, published are %s", found["fact"], found["measured"], found["published"])  # fmt: skip


def burst_lengths(interactions: BucketedTable) -> tuple[list[int], NDArray[np.integer]]:
    """Rows in each burst, and rows of each session inside the bursts (none spans two), (n_sessions,)."""
    inside = pl.coalesce(
        pl.when((pl.col("ts_ms") >= start) & (pl.col("ts_ms") < stop)).then(pl.lit(number))
        for number, (start, stop) in enumerate(schema.BURSTS)
    )
    lengths = (
        interactions.scan()
        .select("session_id", burst=inside)
        .drop_nulls()
        .group_by("session_id", "burst")
        .len()
        .collect(engine="streaming")
    )
    rows = dict(lengths.group_by("burst").agg(pl.sum("len")).iter_rows())
    return [rows.get(number, 0) for number in range(len(schema.BURSTS))], lengths["len"].to_numpy()


def shared_with(interactions: BucketedTable, observed: pl.DataFrame) -> tuple[int, int]:
    """Rows of the log that stand in ``observed`` with the same time, and (user, item) pairs that stand in both."""
    n_rows = n_pairs = 0
    for bucket in range(interactions.n_buckets):
        rows = interactions.read(bucket, ["user_id", "item_id", "ts_ms"])
        own = observed.join(rows.select("user_id").unique(), on="user_id", how="semi")
        both = rows.join(own.select("user_id", "item_id", at="ts_ms"), on=["user_id", "item_id"])
        n_rows += both.filter(pl.col("ts_ms") == pl.col("at")).height
        n_pairs += both.select("user_id", "item_id").n_unique()
    return n_rows, n_pairs
