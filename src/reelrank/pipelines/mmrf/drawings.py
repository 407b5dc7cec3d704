"""The figures of MMRF that no other report has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from reelrank.reports import theme
from reelrank.reports.panels import (
    LINE,
    TOP,
    error_bar,
    facets,
    faded,
    interval_text,
    nothing,
    opacity,
    titled,
)

PANELS_ACROSS = 2
DAY_COLOURS = (theme.NEUTRAL, theme.ACCENT, "#c7833b", "#5a9a76")
DAY_TITLES = {"gauc_final": "GXAUC of watch time"}


def conflict_matrix(conflicts: pl.DataFrame) -> go.Figure:
    """Mean cosine of each pair of agents' gradients of what they share.

    Args:
        conflicts: agent, other, cosine; may be empty.
    """
    title = "Do the agents pull the same way?"
    if conflicts.is_empty():
        return nothing(title, "conflict_every is 0: no matrix was taken")
    agents = conflicts["agent"].unique(maintain_order=True).to_list()
    matrix = conflicts["cosine"].to_numpy().reshape(len(agents), len(agents))
    figure = go.Figure()
    figure.add_heatmap(
        z=matrix, x=_words(agents), y=_words(agents), zmin=-1, zmax=1, xgap=2, ygap=2, texttemplate="%{z:.2f}",
        colorscale=[[0, "#b4533f"], [0.5, "#f1f4f7"], [1, "#2f5f94"]], showscale=False,
        hovertemplate="%{y} and %{x}: cosine %{z:.3f}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(height=TOP + 60 + 44 * len(agents))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    return titled(
        figure, title, "cosine of ∂Q_i/∂(shared parameters), mean over training; below 0: conflict"
    )


def attention_panels(attention: pl.DataFrame) -> go.Figure:
    """What each agent takes from each other, a panel per head.

    Args:
        attention: head, agent, heard, weight, sd, n; may be empty.
    """
    title = "Whom does each agent listen to?"
    if attention.is_empty():
        return nothing(title, "this model has no attention")
    agents = attention["agent"].unique(maintain_order=True).to_list()
    heads = attention["head"].unique(maintain_order=True).to_list()
    across = min(PANELS_ACROSS, len(heads))
    down = -(-len(heads) // across)
    figure = make_subplots(
        down, across, subplot_titles=[f"head {h + 1}" for h in heads], shared_yaxes=True,
        horizontal_spacing=0.05, vertical_spacing=0.3 / down,
    )  # fmt: skip
    for place, part in enumerate(attention.partition_by("head", maintain_order=True)):
        weight, sd = (part[c].to_numpy().reshape(len(agents), -1) for c in ("weight", "sd"))
        own = _without_diagonal(weight)
        figure.add_heatmap(
            z=own, x=_words(agents), y=_words(agents), coloraxis="coloraxis", xgap=2, ygap=2, texttemplate="%{z:.2f}",
            customdata=sd, hovertemplate="%{y} takes from %{x}: %{z:.3f}, sd %{customdata:.3f}<extra></extra>",
            row=place // across + 1, col=place % across + 1,
        )  # fmt: skip
    top = float(attention["weight"].max())  # type: ignore[arg-type]  # a number column
    figure.update_layout(
        height=TOP + 60 + (90 + 32 * len(agents)) * down,
        coloraxis={"cmin": 0, "cmax": top, "showscale": False, "colorscale": theme.sequential()},
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False)
    equal = 1 / (len(agents) - 1)
    n = int(attention["n"][0])
    return titled(figure, title, f"mean α over {n:,} candidates of test decisions; rows sum to 1, equal shares would be {equal:.2f}")  # fmt: skip


def day_curves(rows: pl.DataFrame) -> go.Figure:
    """Values of each day with their intervals, a panel per metric, a line per cell.

    Args:
        rows: of ``tables.Results``, MM-06: ``weighting`` is ``day 4`` and the like.
    """
    rows = rows.with_columns(day=pl.col("weighting").str.extract(r"(\d+)$").cast(pl.Int64))
    metrics = rows["metric"].unique(maintain_order=True).to_list()
    cells = rows["cell"].unique(maintain_order=True).to_list()
    figure = facets([230] * len(metrics))
    for place, metric in enumerate(metrics, start=1):
        for number, cell in enumerate(cells):
            own = rows.filter(metric=metric, cell=cell).sort("day")
            colour = DAY_COLOURS[number % len(DAY_COLOURS)]
            figure.add_scatter(
                x=own["day"] + 0.12 * number, y=own["value"], mode="lines+markers", marker={"size": 6, "opacity": opacity(own)},
                line={"color": colour, "width": 2}, error_y={**error_bar(own), "color": faded(colour, 0.6)}, name=cell.replace("_", " "),
                legendgroup=cell, showlegend=place == 1, customdata=interval_text(own),
                hovertemplate=f"{cell}, day %{{x:.0f}}<br>%{{y:.4g}} %{{customdata}}<extra></extra>", row=place, col=1,
            )  # fmt: skip
        figure.update_yaxes(title_text=DAY_TITLES.get(metric, "true watch time of the best, s"), row=place, col=1)  # fmt: skip
    figure.update_xaxes(title_text="day after the last train decision of the fixed model", dtick=1)
    return titled(figure, "Days after the last train day", "fixed: trained once; others: anew every so many days; 95 % user-cluster intervals")  # fmt: skip


def value_and_ess(results: pl.DataFrame, response: str) -> go.Figure:
    """NCIS of one response with its interval, the logged mean and, in a world, the true bandit value; below it the ESS.

    Args:
        results: rows of ``tables.Results`` of the main cell.
        response: which.
    """
    own = results.filter(pl.col("paired_with").is_null(), group=response)
    ncis = own.filter(metric="ncis", weighting="")
    title = f"What would each policy have earned: {response.replace('_', ' ')}"
    if ncis.is_empty():
        return nothing(title, "no value was estimated")
    names = [theme.variant_label(v) for v in ncis["variant"]]
    figure = facets([LINE * len(names) + 20, LINE * len(names)])
    low, high = (ncis[c].fill_null(ncis["value"]) for c in ("ci_low", "ci_high"))
    colours = [theme.variant_colour(v) for v in ncis["variant"]]
    figure.add_scatter(
        x=ncis["value"], y=names, mode="markers", name="NCIS",
        marker={"color": colours, "size": 10, "symbol": "square", "opacity": np.where(ncis["reliable"].to_numpy(), 1.0, 0.35)},
        error_x={"type": "data", "symmetric": False, "array": high - ncis["value"], "arrayminus": ncis["value"] - low, "thickness": 1.5, "width": 4, "color": faded(theme.WHISKER, 0.7)},
        hovertemplate="%{y}: NCIS %{x:.4g}<extra></extra>", row=1, col=1,
    )  # fmt: skip
    truth = own.filter(metric="bandit_value").filter(pl.col("variant").is_in(ncis["variant"].implode()))  # fmt: skip
    if truth.height:
        figure.add_scatter(
            x=truth["value"], y=[theme.variant_label(v) for v in truth["variant"]], mode="markers", name="true bandit value",
            marker={"color": theme.NEUTRAL, "size": 12, "symbol": "x-thin-open", "line": {"width": 2}},
            hovertemplate="%{y}: true %{x:.4g}<extra></extra>", row=1, col=1,
        )  # fmt: skip
    logged = own.filter(metric="on_policy")
    if logged.height:
        figure.add_vline(x=logged["value"][0], line={"color": theme.NEUTRAL, "width": 1.5, "dash": "dot"}, row=1, col=1)  # fmt: skip
    ess = own.filter(metric="ess", weighting="ncis")
    figure.add_bar(
        x=ess["value"], y=[theme.variant_label(v) for v in ess["variant"]], orientation="h",
        marker={"color": [theme.variant_colour(v) for v in ess["variant"]]}, showlegend=False,
        hovertemplate="%{y}: ESS %{x:,.0f}<extra></extra>", row=2, col=1,
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    unit = ", s" if response == "watch_time" else ", share of shown rows"
    figure.update_xaxes(title_text=f"NCIS{unit}", row=1, col=1)
    figure.update_xaxes(title_text="effective sample size", rangemode="tozero", row=2, col=1)
    n = int(ncis["n"][0])
    return titled(figure, title, f"{n:,} logged rows; dotted: their own mean; pale = not reliable (METHODS §7.3)")  # fmt: skip


def _without_diagonal(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)


def _words(agents: Sequence[str]) -> list[str]:
    return [agent.replace("_", " ") for agent in agents]
