"""What ingestion of KuaiRand saw: rows at every step, and the published facts beside the measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from scipy import stats

from reelrank.buckets import BucketedTable
from reelrank.sources.kuairand_schema import (
    PUBLISHED_COUNTS,
    RANDOM_LOG,
    STANDARD_LOGS,
)
from reelrank.sources.manifest import Manifest

MIN_EXPECTED = 5.0  # below, the χ² distribution does not hold (Cochran's rule)


def ingestion_report(
    manifest: Manifest,
    interactions: BucketedTable,
    *,
    rows_read: Mapping[str, int],
    side_rows_read: Mapping[str, int],
    duplicates: Mapping[str, int],
    quarantine: pl.DataFrame,
    n_users: int,
    n_items: int,
    unknown_users: int,
    unknown_items: int,
) -> dict[str, Any]:
    """Row counts and data facts as JSON values.

    Args:
        manifest: the raw files.
        interactions: the finished table.
        rows_read: rows of each log by file name, bad ones and duplicates included.
        side_rows_read: the same of each side table.
        duplicates: exact duplicates dropped, by file name.
        quarantine: all rows that could not be used.
        n_users: users of side table and logs together.
        n_items: videos of side table and logs together.
        unknown_users: users of the logs that the side table does not have.
        unknown_items: videos of the logs that the side table does not have.

    Source: METHODS §1.2.
    """
    bad = dict(quarantine.group_by("file").len().iter_rows())
    n_read, n_bad = sum(rows_read.values()), sum(bad.get(name, 0) for name in rows_read)
    all_rows_read = {**rows_read, **side_rows_read}
    rows = interactions.scan()
    is_random = pl.col("is_rand") == 1
    totals = rows.select(
        first_ts_ms=pl.col("ts_ms").min(),
        last_ts_ms=pl.col("ts_ms").max(),
        duration_null=pl.col("duration_ms").null_count(),
        is_rand_rows=is_random.sum(),
        requests=pl.col("request_id").n_unique(),
        sessions=pl.col("session_id").n_unique(),
        standard_items=pl.col("item_id").filter(~is_random).n_unique(),
        random_items=pl.col("item_id").filter(is_random).n_unique(),
        valid_play_agreement=(pl.col("click") == _plays_through(7_000, strict=True)).mean(),
        long_view_agreement=(pl.col("long_view") == _plays_through(18_000, strict=False)).mean(),
    ).collect(engine="streaming").row(0, named=True)  # fmt: skip
    tabs = rows.group_by("scenario").len().sort("scenario").collect(engine="streaming")
    roles = {file.path.name: file.role for file in manifest.files}
    measured = {
        "standard_rows": sum(n for name, n in rows_read.items() if roles[name] in STANDARD_LOGS),
        "random_rows": sum(n for name, n in rows_read.items() if roles[name] == RANDOM_LOG),
        "users": n_users,
        "standard_items": totals.pop("standard_items"),
        "random_items": totals.pop("random_items"),
    }
    return {
        "source": manifest.source,
        "variant": manifest.variant,
        "kind": manifest.kind,
        "files": [
            {
                "file": file.path.name,
                "role": file.role,
                "rows_read": all_rows_read.get(file.path.name),  # null: only its header is read
                "bad": bad.get(file.path.name, 0),
                "duplicates": duplicates.get(file.path.name, 0),
                "checksum": file.checksum,
            }
            for file in manifest.files
        ],
        "steps": [
            {"step": "rows read", "rows": n_read},
            {"step": "rows that parse and pass the checks", "rows": n_read - n_bad},
            {"step": "canonical rows, exact duplicates dropped", "rows": interactions.n_rows},
        ],
        "users": n_users,
        "items": n_items,
        "unknown_users": unknown_users,
        "unknown_items": unknown_items,
        **totals,
        "rows_per_tab": {str(tab): n for tab, n in tabs.iter_rows()},
        "facts": [
            {
                "fact": name,
                "published": published,
                "measured": measured[name],
                "status": _status(manifest, measured[name], published),
            }
            for name, published in PUBLISHED_COUNTS[manifest.variant].items()
        ],
        "random_log_uniformity": uniformity(rows.filter(is_random)),
    }


def _plays_through(limit_ms: int, strict: bool) -> pl.Expr:
    """Whether the documented rule holds: all of a video up to ``limit_ms`` was played, or as much of a longer one."""
    play, duration = pl.col("play_ms"), pl.col("duration_ms")
    long_enough = play > limit_ms if strict else play >= limit_ms
    return pl.when(duration <= limit_ms).then(play >= duration).otherwise(long_enough).cast(pl.Int8)


def _status(manifest: Manifest, measured: int, published: int) -> str:
    if manifest.kind == "world":
        return "generated"
    if measured == published:
        return "complete"
    return "partial" if measured < published else "more than published"


def uniformity(random_rows: pl.LazyFrame) -> dict[str, Any] | None:
    """χ² test that the random log shows each of its items equally often; None where it shows fewer than two.

    The pool is the items that the log shows; where ``expected`` (rows per item) is below 5 the p-value means nothing.

    Source: METHODS §1.2 (propensities 1/|pool| rest on it).
    """
    counts = random_rows.group_by("item_id").len().collect(engine="streaming")["len"]
    if len(counts) < 2:
        return None
    test = stats.chisquare(counts.to_numpy())
    expected = counts.sum() / len(counts)
    return {
        "rows": int(counts.sum()),
        "items": len(counts),
        "expected": expected,
        "chi2": float(test.statistic),
        "dof": len(counts) - 1,
        "p_value": float(test.pvalue),
        "reliable": expected >= MIN_EXPECTED,
    }
