"""Result rows of what networks cost, and of what is left of the teacher. Source: METHODS §9 MT-05, MT-06."""

from __future__ import annotations

from typing import Any

import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.pipelines.compress.options import EXPORTED, TEACHER

TRAINED = "trained"  # cell: networks of this run
UNTRAINED = "published widths, untrained"  # cell: time only
UNTRAINED_TEACHER, UNTRAINED_STUDENT = "published_teacher", "published_student"
RELIABLE_CALLS = 100  # below, p99 is the slowest call
RETAINED = "true_ndcg@5", "ndcg@5", "f1"
Rows = dict[tuple[str, str], list[ResultRow]]


def all_rows(quality: pl.DataFrame, latencies: pl.DataFrame, sizes: pl.DataFrame) -> Rows:
    """Rows by (experiment, cell).

    Args:
        quality: of ``variant_quality``.
        latencies: ``latency.SCHEMA``.
        sizes: ``latency.SIZE_SCHEMA``.
    """
    found: Rows = {}
    for cell in (TRAINED, UNTRAINED):
        own = pl.col("variant").is_in([UNTRAINED_TEACHER, UNTRAINED_STUDENT])
        mine = own if cell == UNTRAINED else ~own
        timed, sized = latencies.filter(mine), sizes.filter(mine)
        if timed.height:
            teacher = UNTRAINED_TEACHER if cell == UNTRAINED else TEACHER
            found["MT-05", cell] = latency_rows(timed, teacher) + size_rows(sized)
    found["MT-06", TRAINED] = retained_rows(quality)
    return found


def latency_rows(latencies: pl.DataFrame, teacher: str) -> list[ResultRow]:
    """Percentiles in ms, and ``latency_ratio``: the teacher's median over a variant's."""
    place = ["module", "batch", "threads"]
    reference = latencies.filter(variant=teacher).select(*place, reference="p50_ms")
    rows = []
    for row in latencies.join(reference, on=place, how="left", maintain_order="left").iter_rows(named=True):  # fmt: skip
        group, how = row["module"], weighting(row["batch"], row["threads"])
        enough = row["n"] >= RELIABLE_CALLS
        rows += [
            ResultRow(row["variant"], f"latency_{p}_ms", row[f"{p}_ms"], row["n"], reliable=enough or p == "p50", group=group, weighting=how)
            for p in ("p50", "p95", "p99")
        ]  # fmt: skip
        if row["variant"] != teacher:
            ratio = row["reference"] / row["p50_ms"]
            rows.append(
                ResultRow(
                    row["variant"], "latency_ratio", ratio, row["n"], group=group, weighting=how
                )
            )
    return rows


def size_rows(sizes: pl.DataFrame) -> list[ResultRow]:
    """Parameters, zeros among them, megabytes and MFLOPs of one row."""
    return [
        ResultRow(row["variant"], metric, float(row[metric]), 1, group=row["module"])
        for row in sizes.iter_rows(named=True)
        for metric in ("parameters", "zeros", "megabytes", "mflops")
    ]


def retained_rows(quality: pl.DataFrame) -> list[ResultRow]:
    """Share of the teacher's quality that each variant keeps; the interval is that of the paired difference over the teacher's value."""
    pairs = quality.filter(
        pl.col("metric").is_in(RETAINED), pl.col("paired_with").is_not_null(), variant=TEACHER
    )
    own = quality.filter(pl.col("paired_with").is_null(), variant=TEACHER)
    key = ["metric", "group", "weighting"]
    joined = pairs.join(own.select(*key, teacher="value"), on=key, maintain_order="left")
    return [
        ResultRow(
            row["paired_with"],
            f"retained_{row['metric']}",
            _kept(row, "value"),
            row["n"],
            None if row["ci_high"] is None else _kept(row, "ci_high"),
            None if row["ci_low"] is None else _kept(row, "ci_low"),
            row["reliable"],
            row["group"],
            row["weighting"],
        )
        for row in joined.iter_rows(named=True)
        if row["teacher"] and row["value"] is not None
    ]


def _kept(row: dict[str, Any], lost: str) -> float:
    return float(1 - row[lost] / row["teacher"])


def weighting(batch: int, threads: int) -> str:
    """How a latency was taken."""
    return f"batch {batch}, {threads} thread" + ("" if threads == 1 else "s")


def quality_of(variant: str) -> str:
    """Whose quality a variant has: an exported graph computes what it was exported from."""
    return EXPORTED.get(variant, variant)
