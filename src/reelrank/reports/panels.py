"""What the figures share: stacked panels, titles, error bars and checks."""

from __future__ import annotations

import re
from collections.abc import Sequence, Sized
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from reelrank.reports import theme

LOWER_IS_BETTER = frozenset(
    {
        "mse",
        "true_mse",
        "value_mse",
        "value_mae",
        "reward_mse",
        "log_loss",
        "brier",
        "ece",
        "gini",
        "clip_rate",
    }
)
_ACRONYM = re.compile(
    r"(ndcg|hr|mrr|f1|ap|auc|gauc|xauc|gxauc|mse|rmse|mae|ece|wtg|ncis|dr|ess|ci)(@|$)"
)
_ESTIMATOR = re.compile(r"\b(snipw|ipw|sndr|ncis|mips|dm|dr|rm|sg|os)\b")
TOP, BOTTOM, GAP, LINE = 100, 56, 66, 26  # pixels


def facets(heights: Sequence[int]) -> go.Figure:
    """Panels one under the other, ``heights`` in pixels; the page may fold many of them into two columns."""
    panels = [max(height, 44) for height in heights]
    inner = sum(panels) + GAP * (len(panels) - 1)
    figure = make_subplots(
        len(panels), 1, row_heights=panels, vertical_spacing=GAP / inner if len(panels) > 1 else 0
    )
    figure.update_layout(height=inner + TOP + BOTTOM, meta={"facets": panels, "gap": GAP})
    return figure


def titled(figure: go.Figure, title: str, caption: str) -> go.Figure:
    """The shared finish; the page shows title and caption as text of its own."""
    height = figure.layout.height
    return figure.update_layout(
        template=theme.template(),
        title={"text": title, "subtitle": {"text": caption}, "y": 1 - 22 / height},
        legend={"y": 1 - 58 / height},
        margin={"t": TOP, "b": BOTTOM},
    )


def nothing(title: str, reason: str = "") -> go.Figure:
    """An empty figure that says why."""
    figure = facets([60])
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", text=reason, showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return titled(figure, title, "nothing to draw")


def by_metric(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Title and rows of each (metric, group, weighting), in order of appearance."""
    keys = ["metric", "group", "weighting"]
    return [
        (metric_title(*(str(part[key][0]) for key in keys)), part)
        for part in rows.partition_by(keys, maintain_order=True)
    ]


def metric_title(metric: str, group: str, weighting: str = "") -> str:
    """A metric as a reader sees it: what it is of, how it was averaged, and which way is better."""
    words = [word.upper() if _ACRONYM.match(word) else word for word in metric.split("_")]
    parts = [" ".join(words)]
    parts += [group.replace("_", " ")] if group != "all" else []
    parts += [estimator(weighting)] if weighting else []
    return " · ".join(parts) + (" (lower is better)" if metric in LOWER_IS_BETTER else "")


def estimator(name: str) -> str:
    """An off-policy estimator's name as papers write it; other names as they are."""
    return _ESTIMATOR.sub(lambda m: m[0].upper(), name)


def error_bar(part: pl.DataFrame) -> dict[str, Any]:
    """The 95 % interval around each value; a null end draws none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": part["ci_high"] - part["value"],
        "arrayminus": part["value"] - part["ci_low"],
        "thickness": 1.5,
        "width": 4,
        "color": theme.WHISKER,
    }


def interval_text(part: pl.DataFrame) -> list[str]:
    """Interval, n and reliability of each row, for the hover."""
    return [
        (f"[{low:.4g}, {high:.4g}]" if low is not None and high is not None else "no interval")
        + f"<br>n = {n:,}"
        + ("" if reliable else "<br>not reliable")
        for low, high, n, reliable in part.select("ci_low", "ci_high", "n", "reliable").iter_rows()
    ]


def opacity(part: pl.DataFrame) -> list[float]:
    """Unreliable values are pale."""
    return [1.0 if reliable else 0.4 for reliable in part["reliable"]]


def faded(colour: str, alpha: float = 0.16) -> str:
    """A colour that lets the ground through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def count(n: int, noun: str) -> str:
    """“1 item”, “2,000 items”."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def span(n: pl.Series) -> str:
    """“n = 12” or “n = 12 to 90”."""
    low, high = (int(str(v)) for v in (n.min(), n.max()))
    return f"n = {low:,}" if low == high else f"n = {low:,} to {high:,}"


def require(frame: pl.DataFrame, *columns: str) -> None:
    """Refuse a table that lacks a column."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"columns {missing} are missing; the table has {frame.columns}")


def not_empty(rows: Sized, figure: str, reason: str) -> None:
    """Refuse to draw an empty figure."""
    if not len(rows):
        raise ValueError(f"{figure} has nothing to draw: {reason}")
