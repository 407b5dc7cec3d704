"""What ingestion of KuaiRand saw: rows at every step, and the published facts beside the measured ones."""

from __future__ import annotations

from typing import Any

import polars as pl
from scipy import stats

from reelrank.sources.ingest import IngestedLogs
from reelrank.sources.kuairand_attributes import SideTables
from reelrank.sources.kuairand_schema import (
    PUBLISHED_COUNTS,
    RANDOM_LOG,
    STANDARD_LOGS,
)
from reelrank.sources.manifest import Manifest
from reelrank.sources.report import fact, rows_report

MIN_EXPECTED = 5.0  # below, the χ² distribution does not hold (Cochran's rule)


def ingestion_report(
    manifest: Manifest, logs: IngestedLogs, side: SideTables, quarantine: pl.DataFrame
) -> dict[str, Any]:
    """Row counts and data facts as JSON values.

    Args:
        manifest: the raw files.
        logs: what became of the logs.
        side: the side tables as read.
        quarantine: all rows that could not be used.

    Source: METHODS §1.2.
    """
    rows = logs.interactions.scan()
    is_random = pl.col("is_rand") == 1
    totals = rows.select(
        standard_items=pl.col("item_id").filter(~is_random).n_unique(),
        random_items=pl.col("item_id").filter(is_random).n_unique(),
        valid_play_agreement=(pl.col("click") == _plays_through(7_000, strict=True)).mean(),
        long_view_agreement=(pl.col("long_view") == _plays_through(18_000, strict=False)).mean(),
    ).collect(engine="streaming").row(0, named=True)  # fmt: skip
    tabs = rows.group_by("scenario").len().sort("scenario").collect(engine="streaming")
    roles = {file.path.name: file.role for file in manifest.files}
    read = logs.rows_read.items()
    measured = {
        "standard_rows": sum(n for name, n in read if roles[name] in STANDARD_LOGS),
        "random_rows": sum(n for name, n in read if roles[name] == RANDOM_LOG),
        "users": len(logs.user_ids),
        "standard_items": totals.pop("standard_items"),
        "random_items": totals.pop("random_items"),
    }
    published = PUBLISHED_COUNTS[manifest.variant]
    return {
        **rows_report(manifest, logs, quarantine, side.n_read, side.duplicates),
        **totals,
        "rows_per_tab": {str(tab): n for tab, n in tabs.iter_rows()},
        "facts": [fact(manifest, name, n, measured[name]) for name, n in published.items()],
        "random_log_uniformity": uniformity(rows.filter(is_random)),
    }


def _plays_through(limit_ms: int, strict: bool) -> pl.Expr:
    """Whether the documented rule holds: all of a video up to ``limit_ms`` was played, or as much of a longer one."""
    play, duration = pl.col("play_ms"), pl.col("duration_ms")
    long_enough = play > limit_ms if strict else play >= limit_ms
    return pl.when(duration <= limit_ms).then(play >= duration).otherwise(long_enough).cast(pl.Int8)


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
