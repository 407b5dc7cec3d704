"""Figures and page of compression: what every network costs, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.pipelines.compress.options import CACHED, SHARES, STUDENT, WHOLE, LatencyOptions
from reelrank.pipelines.compress.rows import TRAINED, UNTRAINED, quality_of, weighting
from reelrank.reports import figures, theme
from reelrank.reports.page import Cell, Fact, Section, Table, render_page
from reelrank.reports.panels import error_bar, facets, metric_title, titled
from reelrank.reports.result_tables import differences_table, results_table

FIGURES = ("pareto", "quality", "learning_curves")
QUALITY = (("true_ndcg@5", "catalogue", ""), ("ndcg@5", "logged", "binary"), ("f1", "all", "macro"))
SYMBOLS = {WHOLE: "circle", CACHED: "circle-open"}
_PANEL = 280


def draw(
    results: pl.DataFrame,
    student_history: pl.DataFrame,
    pruned_history: pl.DataFrame,
    latency: LatencyOptions,
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    values = results.filter(pl.col("paired_with").is_null(), experiment="MT-06", cell=TRAINED)
    return (
        pareto(results, *reference(latency)),
        figures.metric_bars(values.filter(_judged())),
        figures.learning_curves(pl.concat([student_history, pruned_history], how="diagonal")),
    )


def reference(latency: LatencyOptions) -> tuple[int, int]:
    """Batch and threads that the figure shows: the middle batch, the most threads."""
    return sorted(latency.batches)[len(latency.batches) // 2], max(latency.threads)


def pareto(results: pl.DataFrame, batch: int, threads: int) -> go.Figure:
    """Quality against median latency; those that nothing beats in both are joined.

    Args:
        results: rows of ``tables.Results``.
        batch: rows of a call.
        threads: of the CPU.
    """
    worth = results.filter(
        pl.col("paired_with").is_null(), pl.col("value").is_not_null(), experiment="MT-06", cell=TRAINED
    )  # fmt: skip
    cost = results.filter(
        metric="latency_p50_ms", cell=TRAINED, weighting=weighting(batch, threads)
    ).select("group", "variant", ms="value")
    cost = cost.with_columns(
        judged=pl.col("variant").map_elements(quality_of, return_dtype=pl.String)
    )
    panels = [
        (key, part) for key in QUALITY if (part := worth.filter(metric=key[0], group=key[1], weighting=key[2])).height
    ]  # fmt: skip
    figure = facets([_PANEL] * len(panels))
    for row, (key, part) in enumerate(panels, start=1):
        for group, symbol in SYMBOLS.items():
            points = cost.filter(group=group).join(
                part.drop("group"), left_on="judged", right_on="variant", maintain_order="left"
            )
            best = front(points)
            figure.add_scatter(
                x=best["ms"], y=best["value"], mode="lines", showlegend=False, hoverinfo="skip",
                line={"color": theme.NEUTRAL, "width": 1, "dash": "solid" if group == WHOLE else "dot"}, row=row, col=1,
            )  # fmt: skip
            labels = [theme.variant_label(v) for v in points["variant"]]
            figure.add_scatter(
                x=points["ms"], y=points["value"], mode="markers+text" if group == WHOLE else "markers",
                text=labels, textposition="top center", customdata=labels, error_y=error_bar(points),
                marker={"symbol": symbol, "size": 10, "color": [theme.variant_colour(v) for v in points["variant"]]},
                name="video seen for the first time" if group == WHOLE else "f cached",
                legendgroup=group, showlegend=row == 1,
                hovertemplate="%{customdata}<br>%{x:.3g} ms, %{y:.4f}<extra>" + group + "</extra>",
                row=row, col=1,
            )  # fmt: skip
        figure.update_yaxes(title_text=metric_title(*key), row=row, col=1)
        figure.update_xaxes(type="log", row=row, col=1)
    figure.update_xaxes(title_text=f"median ms of a call of {batch} rows", row=len(panels), col=1)
    return titled(
        figure, "Quality against latency", f"CPU, {weighting(batch, threads)}; 95 % intervals of quality; lines join what nothing beats in both"
    )  # fmt: skip


def front(points: pl.DataFrame) -> pl.DataFrame:
    """The points that no other beats in both ``ms`` (smaller) and ``value`` (larger), by ms."""
    ordered = points.sort("ms", pl.col("value"), descending=[False, True])
    return ordered.filter(
        pl.col("value") > pl.col("value").cum_max().shift(fill_value=float("-inf"))
    )


def write(
    results: pl.DataFrame,
    split_cuts: dict[str, Any],
    raw_manifest: dict[str, Any],
    latency: LatencyOptions,
    command: str,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    worth = results.filter(experiment="MT-06", cell=TRAINED)
    sections = [
        Section("Is the student good enough?", _HEADLINE, facts=_facts(results, latency), figures=[figure["pareto"]]),
        Section("What is left of the teacher", _RETAINED,
                tables=[_retained(worth), differences_table(worth.filter(_headlines()), "MT-DQN minus each smaller network")],
                figures=[figure["quality"]]),
        Section("What a call costs", _LATENCY, tables=[_latencies(results, TRAINED), _sizes(results, TRAINED)]),
        Section("The published widths", _PUBLISHED, tables=[_latencies(results, UNTRAINED), _sizes(results, UNTRAINED)]),
        Section("Everything that was judged", _JUDGED,
                tables=[results_table(worth.filter(_judged()), "Ranking and behaviours on the test part")]),
        Section("How they learnt", _LEARNING, figures=[figure["learning_curves"]]),
    ]  # fmt: skip
    is_world = first["data_kind"] == "world"
    return render_page(
        "MT-DQN compressed",
        f"A distilled student, pruned networks, eight bits and exported graphs on {raw_manifest['source']}, "
        f"split by time ({split_cuts['rule']}).",
        sections,
        {
            "run id": first["run_id"],
            "code version": first["code_version"],
            "config hash": first["config_hash"],
            "command": command,
        },
        "world" if is_world else "real",
    )


_HEADLINE = (
    "A call scores some rows, each a user, a video and a moment. Filled: the videos were never seen, so their modalities are fused first; "
    "open: their fused vectors are cached, as in production. Further left is faster, further up is better."
)
_RETAINED = (
    "Share of the teacher's own value, on the same users and lists; the interval is that of the paired difference. "
    f"Magnitude and structured pruning take {', '.join(map(str, SHARES))} % of the weights, or of the hidden units and attention heads, "
    "and both are followed by a short distillation. Eight bits are taken without any training."
)
_LATENCY = (
    "Median and tail of timed calls on this machine's CPU, all networks in turns. The graph network is looked up event by event and stays eager; "
    "fusion and heads are what is exported. Weights set to zero make no dense product faster: magnitude pruning has the teacher's latency, and is not timed."
)
_PUBLISHED = (
    "Time does not depend on what was learnt: here networks of the published widths carry random weights, on this log's videos. "
    "What such a teacher is worth, and what its student keeps, is measured by “kedro run --pipelines compress --env paper --params "
    "kuairand.raw.kind=world,kuairand.raw.variant=pure”, which trains it on the sample world: minutes on a GPU, hours on two cores."
)
_JUDGED = "Metrics as in MT-DQN's own report."
_LEARNING = (
    "“agreement” chooses the epoch: one minus the squared error of Q inside a row, in variances of the teacher's, on validation rows."
)  # fmt: skip


def _judged() -> pl.Expr:
    return pl.col("metric").str.contains("^(true_ndcg|ndcg|f1|ap)")


def _headlines() -> pl.Expr:
    return pl.any_horizontal(
        *(
            (pl.col("metric") == metric)
            & (pl.col("group") == group)
            & (pl.col("weighting") == weight)
            for metric, group, weight in QUALITY
        )
    )


def _facts(results: pl.DataFrame, latency: LatencyOptions) -> list[Fact]:
    batch, threads = reference(latency)
    where = weighting(batch, threads)
    facts = []
    for metric, group, weight in QUALITY[:2]:
        kept = results.filter(metric=f"retained_{metric}", variant=STUDENT, group=group, weighting=weight)  # fmt: skip
        if kept.height:
            row = kept.row(0, named=True)
            low, high = row["ci_low"], row["ci_high"]
            detail = "" if low is None else f"[{low:.1%}, {high:.1%}], asked ≥ 98 %"
            name = metric_title(metric, group, weight)
            facts.append(Fact(f"Student keeps of {name}", f"{row['value']:.1%}", detail))
    for cell, label in ((TRAINED, "here"), (UNTRAINED, "at the published widths")):
        rows = results.filter(
            pl.col("variant").str.ends_with(STUDENT), metric="latency_ratio", group=WHOLE, cell=cell, weighting=where
        )  # fmt: skip
        if rows.height:
            facts.append(
                Fact(f"Student's speed-up {label}", f"{rows['value'][0]:.1f} ×", f"{where}, video seen for the first time; asked ≥ 10 × at the published widths")
            )  # fmt: skip
    return facts


def _retained(worth: pl.DataFrame) -> Table:
    """Variant × metric: share of the teacher's value that is kept."""
    rows = worth.filter(pl.col("metric").str.starts_with("retained"))
    keys = list(dict.fromkeys(rows.select("metric", "group", "weighting").iter_rows()))
    body = []
    for variant in rows["variant"].unique(maintain_order=True):
        cells = [Cell(theme.variant_label(str(variant)), sort=str(variant))]
        for metric, group, weight in keys:
            own = rows.filter(variant=variant, metric=metric, group=group, weighting=weight)
            cells.append(_percent(own.row(0, named=True)) if own.height else Cell("–", muted=True))
        body.append(cells)
    titles = [metric_title(m.removeprefix("retained_"), g, w) for m, g, w in keys]
    return Table("Kept of the teacher's value", ["network", *titles], body, "In brackets: 95 % interval.")  # fmt: skip


def _percent(row: dict[str, Any]) -> Cell:
    low, high = row["ci_low"], row["ci_high"]
    detail = "" if low is None else f"[{low:.1%}, {high:.1%}]"
    return Cell(f"{row['value']:.1%}", detail, row["value"], muted=not row["reliable"])


def _latencies(results: pl.DataFrame, cell: str) -> Table:
    """Network and module × batch and threads: median over p95 and p99."""
    rows = results.filter(pl.col("metric").str.starts_with("latency_p"), cell=cell)
    return _wide(
        "Latency, ms: median (p95, p99)", rows, ["variant", "group"], "weighting",
        lambda own: (
            f"{own['latency_p50_ms']:.3g}", f"({own['latency_p95_ms']:.3g}, {own['latency_p99_ms']:.3g})", own["latency_p50_ms"]
        ),
    )  # fmt: skip


def _sizes(results: pl.DataFrame, cell: str) -> Table:
    """Network and module × parameters, zeros, megabytes, MFLOPs of one row."""
    names = ["parameters", "zeros", "megabytes", "mflops"]
    rows = results.filter(pl.col("metric").is_in(names), cell=cell)
    return _wide(
        "Sizes by module; MFLOPs of one row, fused anew", rows, ["variant", "group"], "metric",
        _amount,
    )  # fmt: skip


def _amount(own: dict[str, float]) -> tuple[str, str, float]:
    (value,) = own.values()
    return (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}", "", value)


def _wide(caption: str, rows: pl.DataFrame, index: Sequence[str], on: str, show: Any) -> Table:  # noqa: ANN401 (a small function)
    """A row per ``index``, a column per value of ``on``; ``show``: metric to value of a cell, to text, detail and sort."""
    columns = rows[on].unique(maintain_order=True).to_list()
    body = []
    for part in rows.partition_by(index, maintain_order=True) if rows.height else []:
        cells = [Cell(theme.variant_label(part["variant"][0]), sort=part["variant"][0]), Cell(part["group"][0], sort=part["group"][0])]  # fmt: skip
        for column in columns:
            own = dict(part.filter(pl.col(on) == column).select("metric", "value").iter_rows())
            cells.append(Cell(*show(own)) if own else Cell("–", muted=True))
        body.append(cells)
    return Table(caption, ["network", "part", *map(str, columns)], body)
