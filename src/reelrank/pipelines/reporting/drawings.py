"""Figures and tables of the site that are made of result rows of any system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.pipelines.reporting.rows import VALUES, listed
from reelrank.reports import figures, theme
from reelrank.reports.page import Cell, Table
from reelrank.reports.panels import (
    LINE,
    by_metric,
    error_bar,
    estimator,
    facets,
    metric_title,
    span,
    titled,
)
from reelrank.reports.result_tables import differences_table, results_table

PARTS = ("cell", "variant", "paired_with", "group", "weighting", "source", "split", "track", "seed")
APART = ("source", "data_kind", "code_version", "experiment", "cell", "track", "split", "seed")
MOST_PANELS = 8
KIND_COLOURS = {"sample": theme.ACCENT, "test": theme.ACCENT, "real": "#c7833b"}


def blocks(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Rows that may share a table, with a name for each such part, in order of appearance."""
    varying = [c for c in APART if rows[c].n_unique() > 1]
    if not varying:
        return [("", rows)] if rows.height else []
    parts = rows.partition_by(list(APART), maintain_order=True)
    return [(_named(part, varying), part) for part in parts]


def tables_of(rows: pl.DataFrame, caption: str, most: int, csv: str) -> list[Table]:
    """A block's metrics by model and its differences; one long table where models and metrics make no grid.

    Args:
        rows: of one block.
        caption: of the tables.
        most: rows of a table.
        csv: address of a file with all rows, for tables that are cut.
    """
    values, pairs = rows.filter(VALUES), rows.filter(~VALUES)
    keys = ["metric", "group", "weighting"]
    grid = values.select(*keys, "variant").is_unique().all()
    if not grid or values.select(keys).n_unique() > most or pairs.height > most:
        return [long_table(rows, caption, most, csv)]
    tables = [results_table(values, caption)] if values.height else []
    return tables + ([differences_table(pairs, f"{caption}: paired differences")] if pairs.height else [])  # fmt: skip


def long_table(rows: pl.DataFrame, caption: str, most: int, csv: str) -> Table:
    """A line per number, without the columns that are the same everywhere."""
    kept = rows.head(most)
    paired = rows["paired_with"].count() > 0
    named = [c for c in ("experiment", *PARTS[:1], "source", "split", "track", "seed", "code_version") if rows[c].n_unique() > 1]  # fmt: skip
    body = []
    for row in kept.iter_rows(named=True):
        metric = metric_title(row["metric"], row["group"], row["weighting"])
        pair = row["paired_with"]
        body.append(
            [
                Cell(theme.variant_label(row["variant"]), sort=row["variant"]),
                *([Cell(theme.variant_label(pair), sort=pair) if pair else Cell("–", muted=True)] if paired else []),
                Cell(metric, sort=metric),
                value_cell(row, "+" if pair else ""),
                Cell(f"{row['n']:,}", sort=row["n"]),
                *(Cell(str(row[c] if row[c] is not None else "–"), sort=str(row[c])) for c in named),
            ]
        )  # fmt: skip
    note = "In brackets: 95 % interval. Grey with †: not reliable."
    cut = f" The first {most:,} of {rows.height:,} numbers; the file has all." if rows.height > most else ""  # fmt: skip
    columns = [
        "model",
        *(["minus"] if paired else []),
        "metric",
        "value",
        "n",
        *(c.replace("_", " ") for c in named),
    ]
    return Table(caption, columns, body, note + cut, csv if cut else "")


def value_cell(row: Mapping[str, Any], sign: str = "") -> Cell:
    """A value over its interval."""
    if row["value"] is None:
        return Cell("–", "not defined", muted=True)
    low, high = row["ci_low"], row["ci_high"]
    return Cell(
        number(row["value"], sign) + ("" if row["reliable"] else " †"),
        "no interval" if low is None or high is None else f"[{number(low, sign)}, {number(high, sign)}]",
        float(row["value"]),
        muted=not row["reliable"],
    )  # fmt: skip


def number(value: float, sign: str = "") -> str:
    """Four significant digits, or whole numbers from 10,000 on, and a true minus sign."""
    text = f"{value:{sign},.0f}" if abs(value) >= 10_000 else f"{value:{sign}.4g}"
    return text.replace("-", "−")


def interval_figures(rows: pl.DataFrame, title: str, most: int) -> list[go.Figure]:
    """One figure per metric, values and differences apart: every number with its interval.

    Args:
        rows: of one version of the code.
        title: of the figures, before the metric.
        most: numbers of one figure; of more the first are drawn, and the subtitle says so.
    """
    drawn = []
    known = rows.filter(pl.col("value").is_not_null())
    for metric in known["metric"].unique(maintain_order=True):
        for paired in (False, True):
            part = known.filter(pl.col("metric") == metric, VALUES if not paired else ~VALUES)
            if part.is_empty():
                continue
            cut = part.head(most)
            name = metric_title(str(metric), "all")
            axis = f"difference in {name}" if paired else name
            figure = figures.cell_intervals(labelled(cut), f"{title}: {axis}", axis, zero=paired)
            of = f" (first {most} of {part.height})" if part.height > most else ""
            models = listed(part["variant"].map_elements(theme.variant_label, return_dtype=pl.String))  # fmt: skip
            caption = f"{models}; 95 % intervals where there are any; {span(cut['n'])}; pale = not reliable{of}"
            drawn.append(figure.update_layout(title_subtitle_text=caption))
    return drawn[:MOST_PANELS]


def labelled(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with ``cell`` replaced by what tells each from the others."""
    varying = [c for c in PARTS if rows[c].n_unique() > 1] or ["variant"]
    names = [_label(row, varying) for row in rows.iter_rows(named=True)]
    return rows.with_columns(cell=pl.Series(names, dtype=pl.String))


def headline_figures(rows: pl.DataFrame, most: int) -> list[go.Figure]:
    """Values and paired differences of a block, a panel per metric."""
    drawn = []
    for part, draw in ((rows.filter(VALUES), figures.metric_bars), (rows.filter(~VALUES), figures.paired_differences)):  # fmt: skip
        known = part.filter(pl.col("value").is_not_null())
        panels = [panel.head(most) for _, panel in by_metric(known)[:MOST_PANELS]] if known.height else []  # fmt: skip
        if panels:
            figure = draw(pl.concat(panels))
            n = span(known["n"])
            drawn.append(figure.update_layout(title_subtitle_text=f"95 % intervals where there are any; {n}; pale = not reliable"))  # fmt: skip
    return drawn


def feedback_rates(parts: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> go.Figure:
    """Share of exposures that got each feedback, kinds of data side by side.

    Args:
        parts: (kind, its ``rates``).
    """
    names = list(dict.fromkeys(row["feedback"] for _, rates in parts for row in rates))
    figure = facets([LINE * max(len(names) * len(parts), 2)])
    for kind, rates in parts:
        frame = pl.DataFrame(rates, infer_schema_length=None)
        figure.add_scatter(
            x=frame["value"], y=[f.replace("_", " ") for f in frame["feedback"]], mode="markers",
            marker={"color": KIND_COLOURS.get(kind, theme.NEUTRAL), "size": 9, "symbol": "square" if kind == "real" else "circle"},
            error_x=error_bar(frame), name=kind, showlegend=len(parts) > 1,
            hovertemplate=f"{kind}<br>%{{y}}: %{{x:.4g}} of exposures<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(title_text="share of exposures", rangemode="tozero", nticks=6)
    counts = "; ".join(f"{kind}: n = {max(r['n'] for r in rates):,}" for kind, rates in parts)
    return titled(figure, "How often each feedback is given", f"95 % intervals, users as clusters; {counts}")  # fmt: skip


def _label(row: Mapping[str, Any], varying: Sequence[str]) -> str:
    words = []
    for column in varying:
        value = row[column]
        if value in (None, "", "all"):
            continue
        match column:
            case "variant":
                words.append(theme.variant_label(value))
            case "paired_with":
                words.append(f"− {theme.variant_label(value)}")
            case "seed":
                words.append(f"seed {value}")
            case "weighting":
                words.append(estimator(value))
            case _:
                words.append(str(value).replace("_", " "))
    return " · ".join(words) or theme.variant_label(row["variant"])


def _named(part: pl.DataFrame, varying: Sequence[str]) -> str:
    row = part.row(0, named=True)
    words = [
        f"seed {row[c]}" if c == "seed" else str(row[c]).replace("_", " ")
        for c in varying
        if row[c] is not None
    ]
    return ", ".join(words)
