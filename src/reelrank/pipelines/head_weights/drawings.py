"""The figures of the head weights that no other report has."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from reelrank.features.heads import HEADS
from reelrank.pipelines.head_weights.estimate import HARD, SOFT
from reelrank.reports import theme
from reelrank.reports.panels import LINE, facets, faded, titled

COLOURS = {SOFT: theme.ACCENT, HARD: "#c7833b"}
LABELS = {SOFT: "smooth loss", HARD: "hard loss"}


def nothing(title: str, reason: str) -> go.Figure:
    """An empty figure that says why."""
    figure = facets([60])
    figure.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", text=reason, showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return titled(figure, title, "nothing to draw")


def weight_intervals(
    weights: dict[str, Any], published: tuple[float, ...], planted: tuple[float, ...] | None
) -> go.Figure:
    """ŵ of either loss with 95 % intervals beside the poster's w* and, on worlds, what was planted; no number where it is not identified."""
    figure = facets([40 * len(HEADS) + 60])
    for k, loss in enumerate((SOFT, HARD)):
        found = weights[loss]
        if not found["identified"]:
            figure.add_annotation(
                x=0, y=-0.16 - 0.09 * k, xref="paper", yref="paper", xanchor="left", showarrow=False,
                text=f"{LABELS[loss]}: not identified, no numbers",
            )  # fmt: skip
            continue
        w, ci = np.array(found["weights"]), np.array(found["ci"])
        figure.add_scatter(
            x=w, y=list(HEADS), mode="markers", name=LABELS[loss],
            marker={"color": COLOURS[loss], "size": 10, "symbol": "square"},
            error_x={"type": "data", "symmetric": False, "array": ci[:, 1] - w, "arrayminus": w - ci[:, 0], "thickness": 1.5, "width": 4, "color": faded(COLOURS[loss], 0.7)},
            hovertemplate=f"{LABELS[loss]}, %{{y}}: %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    others = {"poster's w*": (published, "diamond-open")}
    if planted is not None:
        others["planted"] = (planted, "x-thin-open")
    for name, (values, symbol) in others.items():
        figure.add_scatter(
            x=list(values), y=list(HEADS), mode="markers", name=name,
            marker={"color": theme.NEUTRAL, "size": 11, "symbol": symbol, "line": {"width": 2}},
            hovertemplate=f"{name}, %{{y}}: %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": theme.NEUTRAL, "width": 1})
    figure.update_xaxes(title_text="weight (Σ|w| = 1)", range=[-1.05, 1.05])
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    n = len(weights[SOFT]["replicates"])
    return titled(figure, "Head weights", f"95 % intervals over {n} resamples of users")


def landscape(weights: dict[str, Any]) -> go.Figure:
    """Hard loss over the first two angles of the direction, the third as in ŵ; ŵ is marked."""
    profiles = weights["profiles"]
    first, second = (np.degrees(axis) for axis in profiles["landscape_angles"])
    at = np.degrees(profiles["at"])
    values = np.array(profiles["landscape"], np.float64)
    figure = facets([380])
    figure.add_heatmap(
        x=second, y=first, z=values, colorscale=theme.sequential(), reversescale=True,
        colorbar={"title": {"text": "L"}, "thickness": 12},
        hovertemplate="angle 1 %{y:.0f}°, angle 2 %{x:.0f}°<br>L = %{z:.4f}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[at[1]], y=[at[0]], mode="markers", name="ŵ", showlegend=False,
        marker={"symbol": "cross-thin", "size": 16, "line": {"width": 3, "color": "#c7833b"}},
        hovertemplate="ŵ<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="angle 2 (°): long against rewatch and neg")
    figure.update_yaxes(title_text="angle 1 (°): complete against the others")
    return titled(figure, "Loss landscape", "hard matching loss; darker = lower; the cross is ŵ")


def profile_lines(weights: dict[str, Any]) -> go.Figure:
    """Smallest hard loss with one angle held."""
    profiles = weights["profiles"]
    figure = facets([140] * 3)
    for j in range(3):
        angle = np.degrees(np.array(profiles["angles"][j]))
        figure.add_scatter(
            x=angle, y=profiles["losses"][j], mode="lines+markers", marker={"size": 4}, showlegend=False,
            line={"color": theme.ACCENT, "width": 2}, row=j + 1, col=1,
            hovertemplate="%{x:.0f}°: L = %{y:.4f}<extra></extra>",
        )  # fmt: skip
        at = float(np.degrees(profiles["at"][j]))
        figure.add_vline(x=at, line={"color": theme.NEUTRAL, "dash": "dot"}, row=j + 1, col=1)
        figure.update_xaxes(title_text=f"angle {j + 1} (°)", row=j + 1, col=1)
        figure.update_yaxes(title_text="L", nticks=4, row=j + 1, col=1)
    return titled(figure, "Profiles", "smallest hard loss with one angle held; dotted: ŵ; flat = not identified")  # fmt: skip


def sign_frequencies(weights: dict[str, Any]) -> go.Figure:
    """Share of resamples in which each weight keeps its sign, and the cosines between resamples and estimate."""
    figure = facets([36 * len(HEADS), 180])
    for loss in (SOFT, HARD):
        found = weights[loss]
        figure.add_bar(
            x=found["sign_frequency"], y=list(HEADS), orientation="h", name=LABELS[loss], legendgroup=loss,
            marker={"color": COLOURS[loss]}, row=1, col=1,
            hovertemplate=f"{LABELS[loss]}, %{{y}}: %{{x:.2f}}<extra></extra>",
        )  # fmt: skip
        drawn, own = np.array(found["replicates"]), np.array(found["weights"])
        cosines = drawn @ own / np.linalg.norm(drawn, axis=1) / np.linalg.norm(own)
        figure.add_histogram(
            x=cosines, xbins={"start": -1, "end": 1.001, "size": 0.02}, name=LABELS[loss], legendgroup=loss, showlegend=False,
            marker={"color": faded(COLOURS[loss], 0.6)}, row=2, col=1,
        )  # fmt: skip
    figure.update_layout(barmode="group")
    figure.update_xaxes(title_text="share of resamples with ŵ's sign", range=[0, 1], row=1, col=1)
    figure.update_xaxes(title_text="cosine between resample and ŵ", range=[None, 1.01], row=2, col=1)  # fmt: skip
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", row=1, col=1)
    figure.update_yaxes(title_text="resamples", row=2, col=1)
    return titled(figure, "How stable?", "resamples of users")


def category_bars(shares: pl.DataFrame, most: int = 25) -> go.Figure:
    """Share of each category per session: shown, simulated, and what noisy rankings by the same weights show."""
    rows = shares.sort(pl.max_horizontal("observed", "simulated"), descending=True).head(most)
    figure = facets([LINE * rows.height])
    for name, label, colour, symbol in (
        ("observed", "observed", "#1f2328", "circle"),
        ("simulated", "simulated: the K highest", "#c7833b", "square-open"),
        ("expected", "simulated with noise", theme.ACCENT, "diamond-open"),
    ):
        figure.add_scatter(
            x=100 * rows[name], y=rows["category"], mode="markers", name=label,
            marker={"color": colour, "size": 9, "symbol": symbol},
            hovertemplate=f"{label}, category %{{y}}: %{{x:.2f}} %<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="mean share of a session (%)", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return titled(figure, "Category shares", f"the {rows.height} most frequent categories")


def balance_dots(balance: list[dict[str, Any]]) -> go.Figure:
    """Standardised differences of covariates between sessions with the highest and the lowest residual."""
    if not balance:
        return nothing("Balance", "the diagnostics could not be run")
    rows = pl.DataFrame(balance)
    names = rows["residual"].unique(maintain_order=True).to_list()
    figure = facets([LINE * rows["covariate"].n_unique()])
    colours = (theme.ACCENT, "#c7833b", "#5a9a76")
    for name, colour in zip(names, colours, strict=False):
        own = rows.filter(residual=name)
        figure.add_scatter(
            x=own["smd"], y=own["covariate"], mode="markers", name=name, marker={"color": colour, "size": 9},
            hovertemplate=f"{name}, %{{y}}: %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
    for x in (-0.1, 0.1):
        figure.add_vline(x=x, line={"color": theme.NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="standardised mean difference, top against bottom third")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return titled(figure, "Balance", "dotted: 0.1, beyond which a covariate is called unbalanced")
