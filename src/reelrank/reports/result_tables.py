"""Tables of result rows: values with interval and n, and paired differences with corrected p values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from reelrank.evaluation.uncertainty import holm
from reelrank.reports import theme
from reelrank.reports.page import Cell, Table, plain_table
from reelrank.reports.panels import metric_title

_KEYS = ["metric", "group", "weighting"]
_ONE_OF = ("source", "split", "track", "seed", "data_kind", "code_version")
JUDGED = "In brackets: 95 % user-cluster bootstrap interval. n: rows or lists judged."
UNRELIABLE = (
    "Grey with †: not reliable (too few users, positives or defined resamples), not to be ranked."
)


def results_table(results: pl.DataFrame, caption: str = "Results") -> Table:
    """Metric × model: value over its 95 % interval, and n.

    Args:
        results: rows of ``tables.Results`` of one source, split, track, seed and code version; paired differences are left out.
        caption: of the table.

    Raises:
        ValueError: rows that may not share a table, or two rows for one cell.
    """
    rows = results.filter(pl.col("paired_with").is_null())
    _check_alike(rows)
    variants = rows["variant"].unique(maintain_order=True).to_list()
    body = []
    for part in rows.partition_by(_KEYS, maintain_order=True) if rows.height else []:
        by_variant = {str(row["variant"]): row for row in part.iter_rows(named=True)}
        if len(by_variant) != part.height:
            raise ValueError(f"two rows for one cell of the table: {part['metric'][0]!r}")
        n = sorted({int(row["n"]) for row in by_variant.values()})
        body.append(
            [
                _metric_cell(part),
                *(_value_cell(by_variant.get(variant)) for variant in variants),
                Cell(" – ".join(f"{v:,}" for v in dict.fromkeys((n[0], n[-1]))), sort=n[-1]),
            ]
        )
    note = JUDGED
    return Table(
        caption,
        ["metric", *map(theme.variant_label, variants), "n"],
        body,
        note if rows["reliable"].all() else f"{note} {UNRELIABLE}",
    )


def differences_table(results: pl.DataFrame, caption: str = "Paired differences") -> Table:
    """Paired differences with interval and p value, Holm-corrected inside this table (METHODS §1.8).

    Arguments and errors as :func:`results_table`; only rows with ``paired_with`` are shown.
    """
    rows = results.filter(pl.col("paired_with").is_not_null())
    _check_alike(rows)
    adjusted = holm(rows["p_value"].cast(pl.Float64).fill_null(float("nan")).to_numpy())
    body = []
    for row, p in zip(rows.iter_rows(named=True), adjusted, strict=True):
        title = metric_title(row["metric"], row["group"], row["weighting"])
        pair = f"{theme.variant_label(row['variant'])} − {theme.variant_label(row['paired_with'])}"
        p_cell = Cell("–", muted=True) if p != p else Cell(f"{p:.3f}", sort=float(p))  # noqa: PLR0124
        n = int(row["n"])
        body.append(
            [
                Cell(title, sort=title),
                Cell(pair, sort=pair),
                _value_cell(row, sign="+"),
                p_cell,
                Cell(f"{n:,}", sort=n),
            ]
        )
    note = "Same rows and same resamples for both models. p: two-sided bootstrap, Holm-corrected over this table."
    return Table(
        caption,
        ["metric", "pair", "difference", "p (Holm)", "n"],
        body,
        note if rows["reliable"].all() else f"{note} {UNRELIABLE}",
    )


def files_table(ingestion_report: Mapping[str, Any]) -> Table:
    """Rows of each raw file: read, dropped as duplicates, quarantined."""
    rows = [
        [f["file"], f["rows_read"], f["duplicates"], f["bad"]] for f in ingestion_report["files"]
    ]
    return plain_table("Files read", ["file", "rows", "duplicates", "quarantined"], rows)


def origin(results: pl.DataFrame, command: str) -> dict[str, str]:
    """What a page says of where its numbers come from.

    Args:
        results: rows of ``tables.Results`` of one run.
        command: that makes them.
    """
    first = results.row(0, named=True)
    named = {name.replace("_", " "): str(first[name]) for name in ("run_id", "code_version", "config_hash")}  # fmt: skip
    return {**named, "command": command}


def _check_alike(rows: pl.DataFrame) -> None:
    for column in _ONE_OF:
        values = rows[column].unique().to_list()
        if len(values) > 1:
            raise ValueError(
                f"rows of different {column} may not share a table: {sorted(map(str, values))}; filter first"
            )


def _metric_cell(part: pl.DataFrame) -> Cell:
    title = metric_title(*(str(part[key][0]) for key in _KEYS))
    return Cell(title, sort=title)


def _value_cell(row: dict[str, object] | None, sign: str = "") -> Cell:
    if row is None or row["value"] is None:
        return Cell("–", muted=True)
    value, low, high = row["value"], row["ci_low"], row["ci_high"]
    reliable = bool(row["reliable"])
    interval = (
        "" if low is None or high is None else f"[{_number(low, sign)}, {_number(high, sign)}]"
    )
    return Cell(
        _number(value, sign) + ("" if reliable else " †"),
        interval or "no interval",
        float(str(value)),
        muted=not reliable,
    )


def _number(value: object, sign: str) -> str:
    return f"{float(str(value)):{sign}.4f}".replace("-", "−")
