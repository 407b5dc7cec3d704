"""What ingestion of any source saw: rows at every step, and published counts beside measured ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import polars as pl

from reelrank.sources.ingest import IngestedLogs
from reelrank.sources.manifest import Manifest

logger = logging.getLogger(__name__)


def rows_report(
    manifest: Manifest,
    logs: IngestedLogs,
    quarantine: pl.DataFrame,
    side_rows_read: Mapping[str, int],
    side_duplicates: Mapping[str, int],
) -> dict[str, Any]:
    """Row counts of files and steps as JSON values, and what the interactions span.

    Args:
        manifest: the raw files.
        logs: what became of them.
        quarantine: all rows that could not be used, of logs and side tables.
        side_rows_read: rows of each side table by file name, bad ones and duplicates included.
        side_duplicates: exact duplicates dropped from each side table.

    Source: METHODS §1.2.
    """
    bad = dict(quarantine.group_by("file").len().iter_rows())
    n_read, n_bad = sum(logs.rows_read.values()), sum(bad.get(name, 0) for name in logs.rows_read)
    n_excluded = sum(sum(reasons.values()) for reasons in logs.excluded.values())
    rows_read = {**logs.rows_read, **side_rows_read}
    duplicates = {**logs.duplicates, **side_duplicates}
    spans = logs.interactions.scan().select(
        first_ts_ms=pl.col("ts_ms").min(),
        last_ts_ms=pl.col("ts_ms").max(),
        duration_null=pl.col("duration_ms").null_count(),
        is_rand_rows=(pl.col("is_rand") == 1).sum(),
        # dense ids: as many as the largest says
        requests=pl.col("request_id").max() + 1,
        sessions=pl.col("session_id").max() + 1,
    ).collect(engine="streaming").row(0, named=True)  # fmt: skip
    steps = [
        {"step": "rows read", "rows": n_read},
        {"step": "rows that parse and pass the checks", "rows": n_read - n_bad},
    ]
    if n_excluded:
        steps.append({"step": "rows that are interactions", "rows": n_read - n_bad - n_excluded})
    steps.append(
        {"step": "canonical rows, exact duplicates dropped", "rows": logs.interactions.n_rows}
    )
    n_duplicates = sum(logs.duplicates.values())
    logger.info(
        "%s %s: %d rows read, %d quarantined, %d no interactions, %d exact duplicates dropped, %d canonical rows",
        manifest.source, manifest.variant, n_read, n_bad, n_excluded, n_duplicates, logs.interactions.n_rows,
    )  # fmt: skip
    return {
        "source": manifest.source,
        "variant": manifest.variant,
        "kind": manifest.kind,
        "files": [
            {
                "file": file.path.name,
                "role": file.role,
                "rows_read": rows_read.get(file.path.name),  # null: only its header is read
                "bad": bad.get(file.path.name, 0),
                "duplicates": duplicates.get(file.path.name, 0),
                "excluded": logs.excluded.get(file.path.name, {}),
                "noted": logs.noted.get(file.path.name, {}),
                "checksum": file.checksum,
            }
            for file in manifest.files
        ],
        "steps": steps,
        "users": len(logs.user_ids),
        "items": len(logs.item_ids),
        "unknown_users": logs.unknown_users,
        "unknown_items": logs.unknown_items,
        **spans,
    }


def fact(manifest: Manifest, name: str, published: float, measured: float) -> dict[str, Any]:
    """A published number beside the measured one; more than was published is said aloud."""
    status = "complete" if measured == published else "partial"
    if manifest.kind == "world":
        status = "generated"
    elif measured > published:
        status = "more than published"
        logger.warning("%s %s: %s is %s, published are %s", manifest.source, manifest.variant, name, measured, published)  # fmt: skip
    return {"fact": name, "published": published, "measured": measured, "status": status}
