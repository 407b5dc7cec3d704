"""Paper against ours: every printed number beside the result row that answers it (METHODS §7.5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from reelrank.evaluation.verdicts import matching
from reelrank.pipelines.reporting.options import PublishedOptions

AGAINST: dict[str, type[pl.DataType]] = {
    "model": pl.String, "column": pl.String, "printed": pl.Float64, "bound_low": pl.Float64, "bound_high": pl.Float64, "note": pl.String,
    "ours": pl.Float64, "ci_low": pl.Float64, "ci_high": pl.Float64, "n": pl.Int64, "reliable": pl.Boolean, "answers": pl.Int64,
    "difference": pl.Float64, "relative": pl.Float64, "code_version": pl.String,
}  # fmt: skip
"""Columns of :func:`against`; ``answers`` counts the rows of ours that fit, and only one may be shown."""


def against(rows: pl.DataFrame, table: PublishedOptions) -> pl.DataFrame:
    """One row per printed cell, in the unit of our rows.

    Args:
        rows: result rows of one system and source, one version of the code per cell.
        table: what was printed.

    Returns:
        Columns ``AGAINST``: ``difference`` is ours minus printed, ``relative`` that in percent of the printed number (null for relative changes).
    """
    found = _relative(rows, table) if table.baseline else _values(rows, table)
    ours = {key: part for key, part in found}
    out = []
    for model, printed in table.rows.items():
        for k, column in enumerate(table.columns):
            lost = next((c for c in table.lost if (c.method, c.response, c.metric) == (model, column, table.quantity)), None)  # fmt: skip
            value = None if printed is None or printed[k] is None else table.scale * float(printed[k] or 0)  # fmt: skip
            answers = ours.get((model, column), [])
            row = answers[0] if len(answers) == 1 else {}
            got = row.get("value")
            gap = None if got is None or value is None else got - value
            out.append(
                {
                    "model": model,
                    "column": column,
                    "printed": value,
                    "bound_low": None if lost is None else table.scale * lost.low,
                    "bound_high": None if lost is None else table.scale * lost.high,
                    "note": "" if lost is None else lost.note,
                    "ours": got,
                    **{name: row.get(name) for name in ("ci_low", "ci_high", "n", "reliable", "code_version")},
                    "answers": len(answers),
                    "difference": gap,
                    "relative": None if gap is None or not value or table.baseline else 100 * gap / abs(value),
                }
            )  # fmt: skip
    return pl.DataFrame(out, schema=AGAINST)


Answers = Iterator[tuple[tuple[str, str], list[dict[str, Any]]]]


def _values(rows: pl.DataFrame, table: PublishedOptions) -> Answers:
    """(model, column) → rows that answer it."""
    if table.where is None:
        return
    own = matching(rows, {table.along: table.columns, **table.where})
    for (model, column), part in own.group_by("variant", table.along, maintain_order=True):
        yield (str(model), str(column)), part.to_dicts()


def _relative(rows: pl.DataFrame, table: PublishedOptions) -> Answers:
    """Paired differences in percent of the baseline's value, which counts as known."""
    if table.where is None or table.baseline is None:
        return
    wanted = {table.along: table.columns, **table.where}
    base = matching(rows, {**wanted, "variant": table.baseline})
    pairs = matching(rows, {**wanted, "paired_with": table.baseline})
    keys = [c for c in ("metric", "group", "weighting", "cell", "source", "split", "track", "seed", "code_version") if c in rows.columns]  # fmt: skip
    joined = pairs.join(base.select(*keys, base="value"), on=keys, how="left", nulls_equal=True)
    scaled = joined.with_columns(
        pl.col(c) * 100 / pl.col("base").abs() for c in ("value", "ci_low", "ci_high")
    )
    for (model, column), part in scaled.group_by("variant", table.along, maintain_order=True):
        yield (str(model), str(column)), part.to_dicts()
