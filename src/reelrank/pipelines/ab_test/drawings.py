"""The figures of the A/B test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import polars as pl

from reelrank.pipelines.ab_test.effects import EFFECT, OUTCOMES, PAIRED
from reelrank.pipelines.ab_test.run_options import DesignOptions
from reelrank.reports import theme
from reelrank.reports.panels import (
    LINE,
    facets,
    faded,
    interval_text,
    nothing,
    opacity,
    span,
    titled,
)

TITLES = {
    "watch_time": "WatchTime", "depth_day": "Depth", "follow": "Follow", "comment": "Comment", "depth": "Depth of a session",
    "return_24h": "Return in 24 h", "watch_time_video": "WatchTime per video", "follow_video": "Follow per video", "comment_video": "Comment per video",
}  # fmt: skip
SOURCES: Mapping[str, tuple[str, str, str]] = {
    "world": ("(a) the world", "circle", theme.ACCENT),
    "simulator": ("(b) simulator", "diamond", "#c7833b"),
    "ncis": ("NCIS", "square", "#5a9a76"),
    "dr": ("DR", "triangle-up", "#7d6cb3"),
    "dm": ("DM", "cross", theme.NEUTRAL),
}
"""What says something of an effect: its name, symbol and colour."""
PANEL = 190


def daily_curves(
    results: pl.DataFrame, cell: str, title: str, design: DesignOptions, how: str = PAIRED
) -> go.Figure:
    """Effect of every arm on every day, the A/A period shaded, a panel per outcome.

    Args:
        results: rows of ``tables.Results``.
        cell: where it was lived.
        title: of the figure.
        design: periods.
        how: ``paired`` or ``split``.
    """
    rows = results.filter(
        pl.col("weighting").str.starts_with(f"{how}, day "), cell=cell, metric=EFFECT
    ).with_columns(day=pl.col("weighting").str.extract(r"(\d+)$").cast(pl.Int64))
    outcomes = [name for name in OUTCOMES if name in rows["group"]]
    if not outcomes:
        return nothing(title, "this part of the test was not run: see the text")
    figure = facets([PANEL] * len(outcomes))
    for place, outcome in enumerate(outcomes, start=1):
        own = rows.filter(pl.col("value").is_not_null(), group=outcome)
        for part in own.partition_by("variant", maintain_order=True):
            arm, line = str(part["variant"][0]), part.sort("day")
            figure.add_scatter(
                x=line["day"], y=line["value"], mode="lines+markers", marker={"size": 5},
                line={"color": theme.variant_colour(arm), "width": 2}, name=theme.variant_label(arm),
                legendgroup=arm, showlegend=place == 1, customdata=interval_text(line),
                hovertemplate=f"{theme.variant_label(arm)}, day %{{x}}<br>%{{y:+.2f}} % %{{customdata}}<extra></extra>",
                row=place, col=1,
            )  # fmt: skip
        figure.add_vrect(
            x0=0.5, x1=design.control_days + 0.5, fillcolor=faded(theme.NEUTRAL, 0.18), line_width=0, layer="below",
            annotation={"text": "A/A: LTR serves all", "font": {"size": 11}}, annotation_position="top left", row=place, col=1,
        )  # fmt: skip
        figure.add_hline(y=0, line={"color": theme.NEUTRAL, "width": 1.5}, row=place, col=1)
        figure.update_yaxes(title_text=f"{TITLES[outcome]}, %", nticks=5, row=place, col=1)
    figure.update_xaxes(title_text="day", dtick=1, range=[0.5, design.days + 0.5])
    return titled(figure, title, f"% against LTR on the same day; {span(rows['n'])} users")


def forest(
    results: pl.DataFrame, cells: Sequence[str], title: str, outcomes: Sequence[str] = tuple(OUTCOMES)
) -> go.Figure:  # fmt: skip
    """Effect of every arm with its interval, from several sources side by side, a panel per outcome.

    Args:
        results: rows of ``tables.Results``.
        cells: sources of effects, of ``SOURCES`` or one environment.
        title: of the figure.
        outcomes: panels; those without rows are left out.
    """
    rows = results.filter(
        pl.col("cell").is_in(list(cells)),
        pl.col("value").is_not_null(),
        metric=EFFECT,
        weighting=PAIRED,
    )
    shown = [name for name in outcomes if name in rows["group"]]
    if not shown:
        return nothing(title, "this part of the test was not run: see the text")
    arms = rows["variant"].unique(maintain_order=True).to_list()
    step = 0.8 / len(cells)
    figure = facets([LINE * len(arms) * max(1, len(cells) // 2) + 30] * len(shown))
    named: set[str] = set()
    for place, outcome in enumerate(shown, start=1):
        for number, cell in enumerate(cells):
            part = rows.filter(cell=cell, group=outcome)
            label, symbol, colour = SOURCES.get(cell, (cell, "circle", theme.ACCENT))
            y = [arms.index(a) + (number - (len(cells) - 1) / 2) * step for a in part["variant"]]
            figure.add_scatter(
                x=part["value"], y=y, mode="markers", name=label, legendgroup=cell, showlegend=cell not in named and part.height > 0,
                marker={"color": colour, "size": 8, "symbol": symbol, "opacity": opacity(part)},
                error_x={
                    "type": "data", "symmetric": False, "array": part["ci_high"] - part["value"],
                    "arrayminus": part["value"] - part["ci_low"], "thickness": 1.3, "width": 3, "color": faded(colour, 0.7),
                },
                text=[theme.variant_label(a) for a in part["variant"]], customdata=interval_text(part),
                hovertemplate=f"%{{text}}, {label}<br>%{{x:+.2f}} % %{{customdata}}<extra></extra>", row=place, col=1,
            )  # fmt: skip
            if part.height:
                named.add(cell)
        figure.add_vline(x=0, line={"color": theme.NEUTRAL, "width": 1.5}, row=place, col=1)
        figure.update_xaxes(title_text=f"{TITLES[outcome]}, % against LTR", nticks=7, row=place, col=1)  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(arms))), ticktext=[theme.variant_label(a) for a in arms], range=[len(arms) - 0.5, -0.5],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    return titled(figure, title, "A/B period; 95 % user-cluster intervals; pale = not reliable")


def against_truth(
    results: pl.DataFrame, truth: str, estimators: Sequence[str], title: str
) -> go.Figure:
    """Estimated against true effect, a point per arm, a panel per outcome.

    Args:
        results: rows of ``tables.Results``.
        truth: cell of the true effects.
        estimators: cells of the estimates.
        title: of the figure.
    """
    effects = results.filter(pl.col("value").is_not_null(), metric=EFFECT, weighting=PAIRED)
    true = effects.filter(cell=truth).select("variant", "group", x="value", low="ci_low", high="ci_high")  # fmt: skip
    estimated = effects.filter(pl.col("cell").is_in(list(estimators)), pl.col("group").is_in(list(OUTCOMES)))  # fmt: skip
    pairs = estimated.join(true, on=["variant", "group"])
    shown = [name for name in OUTCOMES if name in pairs["group"]]
    if not shown:
        return nothing(title, "no truth to compare with: see the text")
    figure = facets([300] * len(shown))
    for place, outcome in enumerate(shown, start=1):
        panel = pairs.filter(group=outcome)
        ends = [float(v) for c in ("x", "value") for v in panel[c]]
        figure.add_scatter(
            x=[min(ends), max(ends)], y=[min(ends), max(ends)], mode="lines", hoverinfo="skip", name="as it was",
            line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"}, legendgroup="line", showlegend=place == 1, row=place, col=1,
        )  # fmt: skip
        for cell in estimators:
            part = panel.filter(cell=cell)
            label, symbol, colour = SOURCES[cell]
            figure.add_scatter(
                x=part["x"], y=part["value"], mode="markers", name=label, legendgroup=cell, showlegend=place == 1,
                marker={"color": colour, "size": 9, "symbol": symbol, "opacity": opacity(part)},
                error_y={
                    "type": "data", "symmetric": False, "array": part["ci_high"] - part["value"],
                    "arrayminus": part["value"] - part["ci_low"], "thickness": 1, "width": 0, "color": faded(colour, 0.4),
                },
                text=[theme.variant_label(a) for a in part["variant"]], customdata=interval_text(part),
                hovertemplate=f"%{{text}}, {label}<br>true %{{x:+.2f}} %<br>estimated %{{y:+.2f}} % %{{customdata}}<extra></extra>",
                row=place, col=1,
            )  # fmt: skip
        figure.update_xaxes(title_text=f"true effect on {TITLES[outcome]}, %", row=place, col=1)  # fmt: skip
        figure.update_yaxes(title_text=f"estimated, {TITLES[outcome]} %", row=place, col=1)
    return titled(figure, title, f"one point per policy, {pairs['variant'].n_unique()} policies; bars: 95 % intervals; pale = not reliable")  # fmt: skip
