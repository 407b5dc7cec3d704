"""The figures of a report: pure functions from tables to Plotly figures.

Every figure carries its title, axis titles with units, and what it rests on (n) in the subtitle; facets stand one under the
other, so that a figure reads on a phone too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from reelrank.reports import theme
from reelrank.reports.panels import (
    LINE,
    TOP,
    by_metric,
    count,
    error_bar,
    facets,
    faded,
    interval_text,
    metric_title,
    not_empty,
    opacity,
    require,
    span,
    titled,
)
from reelrank.tables import MODALITIES, SPLITS


def learning_curves(history: pl.DataFrame) -> go.Figure:
    """Losses and validation metrics over training steps, one line per variant.

    Args:
        history: variant, epoch, step and one column per loss or validation metric (``val_…``); nulls are skipped.

    Raises:
        ValueError: a column is missing, or there is nothing to draw.
    """
    require(history, "variant", "epoch", "step")
    curves = [
        name
        for name, dtype in history.schema.items()
        if dtype.is_numeric() and name not in {"epoch", "step"} and history[name].count()
    ]
    not_empty(curves, "learning_curves", "no loss or metric column holds a value")
    variants = history["variant"].unique(maintain_order=True).to_list()
    figure = facets([150] * len(curves))
    for row, name in enumerate(curves, start=1):
        for variant in variants:
            part = history.filter(pl.col("variant") == variant, pl.col(name).is_not_null()).sort(
                "step"
            )
            figure.add_scatter(
                x=part["step"], y=part[name], customdata=part["epoch"],
                mode="lines+markers" if part.height <= 60 else "lines", marker={"size": 5},
                line={"color": theme.variant_colour(variant), "width": 2},
                name=theme.variant_label(variant), legendgroup=variant, showlegend=row == 1,
                hovertemplate=f"{theme.variant_label(variant)}<br>step %{{x:,}}, epoch %{{customdata}}<br>{name} %{{y:.4g}}<extra></extra>",
                row=row, col=1,
            )  # fmt: skip
        title = metric_title(name, "all").replace("val ", "validation ")
        figure.update_yaxes(title_text=title, nticks=4, row=row, col=1)
    figure.update_xaxes(title_text="training step (batches)")
    for row in range(2, len(curves) + 1):
        figure.update_xaxes(matches="x", row=row, col=1)
    epochs = count(history["epoch"].n_unique(), "epoch")
    return titled(figure, "Learning curves", f"{count(len(variants), 'model')}, {epochs}")


def metric_bars(results: pl.DataFrame) -> go.Figure:
    """Each metric's value with its 95 % interval, one bar per variant; unreliable values are pale.

    Args:
        results: rows of ``tables.Results``; paired differences and null values are left out.

    Raises:
        ValueError: no row is left.
    """
    rows = results.filter(pl.col("paired_with").is_null(), pl.col("value").is_not_null())
    not_empty(rows, "metric_bars", "no result has a value")
    metrics = by_metric(rows)
    figure = facets([LINE * part.height for _, part in metrics])
    for index, (title, part) in enumerate(metrics, start=1):
        figure.add_bar(
            x=part["value"], y=[theme.variant_label(v) for v in part["variant"]], orientation="h",
            marker={
                "color": [theme.variant_colour(v) for v in part["variant"]],
                "opacity": opacity(part),
            },
            error_x=error_bar(part),
            customdata=interval_text(part),
            hovertemplate=f"%{{y}}<br>{title}: %{{x:.4g}} %{{customdata}}<extra></extra>",
            showlegend=False, row=index, col=1,
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed", showgrid=False, row=index, col=1)
        figure.update_xaxes(title_text=title, nticks=6, rangemode="tozero", row=index, col=1)
    return titled(
        figure,
        "Metrics by model",
        f"95 % user-cluster bootstrap intervals; {span(rows['n'])}; pale = not reliable",
    )


def paired_differences(results: pl.DataFrame) -> go.Figure:
    """Forest plot of paired differences, with a line at 0.

    Args:
        results: rows of ``tables.Results``; those with ``paired_with`` are drawn.

    Raises:
        ValueError: no paired difference has a value.
    """
    rows = results.filter(pl.col("paired_with").is_not_null(), pl.col("value").is_not_null())
    not_empty(rows, "paired_differences", "no paired difference has a value")
    metrics = by_metric(rows)
    figure = facets([LINE * part.height for _, part in metrics])
    for index, (title, part) in enumerate(metrics, start=1):
        names = [
            f"{theme.variant_label(a)} − {theme.variant_label(b)}"
            for a, b in part.select("variant", "paired_with").iter_rows()
        ]
        figure.add_scatter(
            x=part["value"], y=names, mode="markers",
            marker={
                "color": [theme.variant_colour(v) for v in part["variant"]],
                "size": 9, "symbol": "square",
                "opacity": opacity(part),
            },
            error_x=error_bar(part),
            customdata=interval_text(part),
            hovertemplate=f"%{{y}}<br>{title}: %{{x:+.4g}} %{{customdata}}<extra></extra>",
            showlegend=False, row=index, col=1,
        )  # fmt: skip
        figure.add_vline(x=0, line={"color": theme.NEUTRAL, "width": 1.5}, row=index, col=1)
        figure.update_yaxes(autorange="reversed", showgrid=False, type="category", row=index, col=1)
        figure.update_xaxes(title_text=f"difference in {title}", nticks=6, row=index, col=1)
    return titled(
        figure,
        "Paired differences",
        f"same rows, same resamples; 95 % intervals; {span(rows['n'])}; pale = not reliable",
    )


def cell_intervals(
    results: pl.DataFrame, title: str, axis: str, *, zero: bool = False
) -> go.Figure:
    """Each cell of an experiment's grid: value or paired difference with its 95 % interval.

    Args:
        results: rows of ``tables.Results`` of one metric, a row per cell (and variant).
        title: of the figure.
        axis: what the values are, with unit.
        zero: draw a line at 0.

    Raises:
        ValueError: no cell has a value.
    """
    rows = results.filter(pl.col("value").is_not_null())
    not_empty(rows, "cell_intervals", "no cell has a value")
    figure = facets([LINE * rows.height])
    figure.add_scatter(
        x=rows["value"], y=rows["cell"], mode="markers",
        marker={
            "color": [theme.variant_colour(v) for v in rows["variant"]],
            "size": 9, "symbol": "square", "opacity": opacity(rows),
        },
        error_x=error_bar(rows), customdata=interval_text(rows), showlegend=False,
        hovertemplate=f"%{{y}}<br>{axis}: %{{x:+.4g}} %{{customdata}}<extra></extra>",
    )  # fmt: skip
    if zero:
        figure.add_vline(x=0, line={"color": theme.NEUTRAL, "width": 1.5})
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    figure.update_xaxes(title_text=axis, nticks=6)
    models = ", ".join(map(theme.variant_label, rows["variant"].unique(maintain_order=True)))
    return titled(
        figure, title, f"{models}; 95 % user-cluster bootstrap intervals; {span(rows['n'])}"
    )


def reliability_curves(table: pl.DataFrame) -> go.Figure:
    """Observed against predicted rate in bins of equal mass, a panel per response.

    Args:
        table: variant, group (the response), n, predicted, observed, a row per bin.

    Raises:
        ValueError: a column is missing or there is no bin.
    """
    require(table, "variant", "group", "n", "predicted", "observed")
    not_empty(table, "reliability_curves", "no bins")
    groups = table["group"].unique(maintain_order=True).to_list()
    figure = facets([230] * len(groups))
    for row, group in enumerate(groups, start=1):
        own = table.filter(group=group)
        end = float(own.select(pl.max_horizontal(pl.col("predicted", "observed").max())).item())
        figure.add_scatter(
            x=[0, end], y=[0, end], mode="lines", name="perfect", hoverinfo="skip",
            line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"}, showlegend=row == 1, row=row, col=1,
        )  # fmt: skip
        for part in own.partition_by("variant", maintain_order=True):
            variant = str(part["variant"][0])
            label = theme.variant_label(variant)
            figure.add_scatter(
                x=part["predicted"], y=part["observed"], mode="lines+markers", marker={"size": 5},
                line={"color": theme.variant_colour(variant), "width": 2},
                name=label, legendgroup=variant, showlegend=row == 1, customdata=part["n"],
                hovertemplate=f"{label}, {group}<br>predicted %{{x:.3f}}, observed %{{y:.3f}}<br>n = %{{customdata:,}}<extra></extra>",
                row=row, col=1,
            )  # fmt: skip
        figure.update_xaxes(title_text=f"predicted P({group})", rangemode="tozero", row=row, col=1)
        figure.update_yaxes(title_text="observed rate", rangemode="tozero", row=row, col=1)
    n = table.group_by("variant", "group").agg(pl.col("n").sum())["n"]
    return titled(figure, "Calibration", f"bins of equal size; {span(n)} rows; dotted: perfect")


def gate_weights(gates: pl.DataFrame) -> go.Figure:
    """Distribution of the fusion gate over items, per modality (MT-DQN Eq. 6).

    Args:
        gates: item_id, gate_visual, gate_audio, gate_text, each in [0, 1].

    Raises:
        ValueError: a column is missing or there is no item.
    """
    require(gates, "item_id", *(f"gate_{m}" for m in MODALITIES))
    not_empty(gates, "gate_weights", "no items")
    edges = np.linspace(0, 1, 51)
    figure = facets([260])
    for modality in MODALITIES:
        weight = gates[f"gate_{modality}"].drop_nulls().to_numpy()
        share = 100 * np.histogram(weight, edges)[0] / max(weight.size, 1)
        colour = theme.MODALITY_COLOURS[modality]
        figure.add_scatter(
            x=(edges[1:] + edges[:-1]) / 2, y=share, mode="lines", fill="tozeroy",
            fillcolor=faded(colour), line={"color": colour, "width": 2, "shape": "hvh"},
            name=f"{modality}, mean {weight.mean():.2f}" if weight.size else modality,
            hovertemplate=f"{modality} gate %{{x:.2f}} ± 0.01<br>%{{y:.1f}} % of items<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=1 / 3, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="gate weight (dotted: 1/3, all modalities alike)", range=[0, 1])
    figure.update_yaxes(title_text="share of items (%)", rangemode="tozero")
    return titled(figure, "Gate weight by modality", count(gates.height, "item"))


def attention_heatmap(mass: npt.ArrayLike) -> go.Figure:
    """Attention mass from modality to modality, one panel per layer, mean over heads.

    Args:
        mass: (layers, heads, 3, 3); entry [l, h, q, k] is the mass that queries of modality q put on keys of modality k,
            in the order of ``tables.MODALITIES``; rows sum to 1.

    Raises:
        ValueError: another shape.
    """
    array = np.asarray(mass, dtype=np.float64)
    size = len(MODALITIES)
    if array.ndim != 4 or array.shape[2:] != (size, size) or 0 in array.shape:
        raise ValueError(
            f"attention mass must be (layers, heads, {size}, {size}), not {array.shape}"
        )
    layers, heads = array.shape[:2]
    columns = min(layers, 3)
    rows = -(-layers // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[f"layer {i + 1}" for i in range(layers)],
        shared_yaxes=True, horizontal_spacing=0.04, vertical_spacing=0.34 / rows,
    )  # fmt: skip
    for layer in range(layers):
        mean = array[layer].mean(axis=0)
        spread = np.stack([array[layer].min(axis=0), array[layer].max(axis=0)], axis=-1)
        figure.add_heatmap(
            z=mean, x=MODALITIES, y=MODALITIES, zmin=0, zmax=1, coloraxis="coloraxis",
            texttemplate="%{z:.2f}", customdata=spread, xgap=2, ygap=2,
            hovertemplate="from %{y} to %{x}: %{z:.3f}<br>heads %{customdata[0]:.2f} to %{customdata[1]:.2f}<extra></extra>",
            row=layer // columns + 1, col=layer % columns + 1,
        )  # fmt: skip
    figure.update_layout(
        height=TOP + 40 + 230 * rows,
        margin={"t": TOP + 20},
        coloraxis={"cmin": 0, "cmax": 1, "showscale": False},
    )
    figure.update_annotations(font_size=13)  # the panels' titles
    figure.update_xaxes(showgrid=False, title_text="to (keys)", tickangle=0)
    figure.update_yaxes(showgrid=False, autorange="reversed")
    figure.update_yaxes(title_text="from (queries)", col=1)
    return titled(
        figure,
        "Attention between modalities",
        f"share of attention, mean of {count(heads, 'head')}; each row sums to 1",
    )


def q_against_returns(frame: pl.DataFrame, bins: int = 20) -> go.Figure:
    """Calibration of Q̂ and of the on-policy head: mean logged return in equal-mass bins of the prediction.

    Args:
        frame: q, value, return (discounted; null = censored, left out), in reward units.
        bins: of equal mass.

    Raises:
        ValueError: a column is missing or every return is null.
    """
    require(frame, "q", "value", "return")
    rows = frame.drop_nulls()
    not_empty(rows, "q_against_returns", "every return is censored")
    figure = facets([340])
    ends: list[float] = []
    for name, label, colour in (
        ("value", "on-policy head", theme.ACCENT),
        ("q", "Q̂ (greedy)", theme.VARIANT_COLOURS["concat_modal"]),
    ):
        binned = (
            rows.with_columns(
                bin=pl.col(name).rank("ordinal").sub(1).floordiv(-(-rows.height // bins))
            )
            .group_by("bin")
            .agg(
                pl.col(name).mean().alias("x"),
                pl.col("return").mean().alias("y"),
                pl.col("return").quantile(0.25).alias("low"),
                pl.col("return").quantile(0.75).alias("high"),
                pl.len().alias("n"),
            )
            .sort("bin")
        )
        ends += [float(v) for v in (*binned["x"], *binned["y"])]
        figure.add_scatter(
            x=binned["x"], y=binned["y"], mode="lines+markers", name=label,
            line={"color": colour, "width": 2}, marker={"size": 7},
            error_y={
                "array": binned["high"] - binned["y"], "arrayminus": binned["y"] - binned["low"],
                "thickness": 1, "width": 0, "color": faded(colour, 0.45),
            },
            customdata=binned["n"],
            hovertemplate=f"{label} %{{x:.3f}}<br>mean return %{{y:.3f}}<br>n = %{{customdata:,}}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=[min(ends), max(ends)], y=[min(ends), max(ends)], mode="lines", name="perfect",
        line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"}, hoverinfo="skip",
    )  # fmt: skip
    figure.update_xaxes(title_text="predicted return (reward units)")
    figure.update_yaxes(title_text="logged return (reward units)")
    censored = frame.height - rows.height
    return titled(
        figure,
        "Predicted against logged return",
        f"{count(rows.height, 'row')} in bins of equal size, {censored:,} censored left out; thin lines: middle half of the returns",
    )


def reward_parts(
    rewards: pl.DataFrame, lambda_retention: float, lambda_interest: float
) -> go.Figure:
    """Mean of the reward's parts by split, and how often each is not zero (MT-DQN Eq. 15).

    Args:
        rewards: split, r_immediate, r_retention (null = censored), r_interest, one row per interaction.
        lambda_retention: λ1.
        lambda_interest: λ2.

    Raises:
        ValueError: a column is missing or there is no row.
    """
    require(rewards, "split", "r_immediate", "r_retention", "r_interest")
    not_empty(rewards, "reward_parts", "no rows")
    weights = {"immediate": 1.0, "retention": lambda_retention, "interest": lambda_interest}
    columns = [f"r_{part}" for part in weights]
    summary = (
        rewards.with_columns(pl.col("split").cast(pl.String))
        .group_by("split")
        .agg(
            pl.len().alias("n"),
            *(pl.col(c).mean().alias(f"mean_{c}") for c in columns),
            *((pl.col(c) != 0).mean().alias(f"share_{c}") for c in columns),
        )
        .sort(pl.col("split").replace_strict(dict(zip(SPLITS, range(3), strict=True))))
    )
    figure = facets([150, 210])
    formulas = ("r_immediate", "λ1 r_retention", "λ2 r_interest")
    for (part, weight), formula in zip(weights.items(), formulas, strict=True):
        shared: dict[str, Any] = {
            "y": summary["split"], "orientation": "h", "name": formula, "legendgroup": part,
            "customdata": summary["n"], "marker": {"color": theme.REWARD_COLOURS[part]},
        }  # fmt: skip
        figure.add_bar(
            x=summary[f"mean_r_{part}"] * weight, **shared, offsetgroup="stack",
            hovertemplate=f"%{{y}}: {formula}, mean %{{x:.4f}}<br>n = %{{customdata:,}}<extra></extra>",
            row=1, col=1,
        )  # fmt: skip
        figure.add_bar(
            x=summary[f"share_r_{part}"] * 100, **shared, showlegend=False, offsetgroup=part,
            hovertemplate=f"%{{y}}: {formula} ≠ 0 in %{{x:.2f}} % of n = %{{customdata:,}}<extra></extra>",
            row=2, col=1,
        )  # fmt: skip
    figure.update_layout(
        barmode="relative"
    )  # bars of one offsetgroup stack, others stand side by side
    figure.update_xaxes(title_text="mean reward (reward units)", row=1, col=1)
    figure.update_xaxes(title_text="share of rows (%)", rangemode="tozero", row=2, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    censored = rewards["r_retention"].null_count()
    return titled(
        figure,
        "Parts of the reward",
        f"λ1 = {lambda_retention:g}, λ2 = {lambda_interest:g}; {count(rewards.height, 'row')}, retention censored in {censored:,}",
    )


def ingestion_steps(report: Mapping[str, Any]) -> go.Figure:
    """Rows that are left after each step from the raw files to the canonical table.

    Args:
        report: ``steps``: a list of {step, rows} in order.

    Raises:
        ValueError: no steps.
    """
    steps: Sequence[Mapping[str, Any]] = report["steps"]
    not_empty(steps, "ingestion_steps", "the report has no steps")
    rows = [int(step["rows"]) for step in steps]
    changes = [0, *np.diff(rows).tolist()]
    text = [
        f"{n:,}" + (f" ({change:+,})".replace("-", "−") if change else "")
        for n, change in zip(rows, changes, strict=True)
    ]
    figure = facets([34 * len(steps)])
    figure.add_bar(
        x=rows, y=[str(step["step"]) for step in steps], orientation="h", text=text,
        textposition="auto", constraintext="none", textfont_size=12, cliponaxis=False, marker={"color": theme.ACCENT}, showlegend=False,
        hovertemplate="%{y}: %{x:,} rows<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="rows", rangemode="tozero", nticks=5)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return titled(figure, "Rows after each step", f"{rows[0]:,} rows in, {rows[-1]:,} rows out")


def split_sizes(sizes: pl.DataFrame) -> go.Figure:
    """Counts by split, one facet per counted thing.

    Args:
        sizes: split and one integer column per thing (rows, users, items, sessions …).

    Raises:
        ValueError: no split or nothing counted.
    """
    require(sizes, "split")
    things = [name for name, dtype in sizes.schema.items() if dtype.is_integer()]
    not_empty(things, "split_sizes", "no integer column")
    not_empty(sizes, "split_sizes", "no split")
    splits = sizes["split"].cast(pl.String).to_list()
    figure = facets([LINE * sizes.height] * len(things))
    for index, thing in enumerate(things, start=1):
        figure.add_bar(
            x=sizes[thing], y=splits, orientation="h", showlegend=False,
            marker={"color": [theme.SPLIT_COLOURS.get(s, theme.NEUTRAL) for s in splits]},
            text=[f"{n:,}" for n in sizes[thing]], textposition="auto", constraintext="none", textfont_size=12, cliponaxis=False,
            hovertemplate=f"%{{y}}: %{{x:,}} {thing}<extra></extra>", row=index, col=1,
        )  # fmt: skip
        figure.update_xaxes(title_text=thing, rangemode="tozero", nticks=5, row=index, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return titled(figure, "Size of the splits", f"{', '.join(things)} in {', '.join(splits)}")
