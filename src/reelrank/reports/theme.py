"""One look for every figure: a Plotly template, and a colour fixed per model variant and per modality."""

from __future__ import annotations

from zlib import crc32

import plotly.graph_objects as go

FONT = 'Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
ACCENT = "#3f78b5"
NEUTRAL = "#8b919a"
WHISKER = "#6b7380"

VARIANT_COLOURS = {
    "mt_dqn": ACCENT,
    "concat_modal": "#c7833b",
    "vanilla_dqn": "#5a9a76",
    "popularity": NEUTRAL,
    "random": "#948a80",
    "logistic": NEUTRAL,
    "edge_mlp": "#c7833b",
    "gnn_64": "#5a9a76",
    "gnn_128": ACCENT,
    "ruie": ACCENT,
    "nextitnet": "#5f94c9",
    "sasrec": "#c7833b",
    "gru4rec": "#5a9a76",
    "caser": "#7d6cb3",
    "din": "#c0637b",
    "pepnet": "#3f97a3",
    "star": "#a8903a",
    "feedback_simulator": ACCENT,
    "train_mean": NEUTRAL,
    "planted_truth": "#948a80",
    "mmrf": ACCENT,
    "mmrf_co": "#5f94c9",
    "mmrf_da": "#5a64ad",
    "mmrf_ns": "#7a93b0",
    "bc": "#7f7566",
    "wide_deep": "#c7833b",
    "deepfm": "#a8903a",
    "pareto": "#5a9a76",
    "tscac": "#7d6cb3",
    "massa": "#c0637b",
    "ltr": NEUTRAL,
}
MODALITY_COLOURS = {"visual": "#7d6cb3", "audio": "#c0637b", "text": "#3f97a3"}
SPLIT_COLOURS = {"train": NEUTRAL, "val": "#7796b8", "test": ACCENT}
REWARD_COLOURS = {"immediate": ACCENT, "retention": "#c7833b", "interest": "#5a9a76"}
OTHERS = ("#9c6b98", "#b5884f", "#4f8f9e", "#a3615b", "#6f8a4a", "#6a7fb5", "#b07aa1", "#7f7566")

LABELS = {
    "mt_dqn": "MT-DQN",
    "mt_dqn_without_graph": "MT-DQN without graph",
    "concat_modal": "Concat-Modal",
    "vanilla_dqn": "Vanilla-DQN",
    "popularity": "Popularity",
    "random": "Random order",
    "logistic": "Logistic",
    "edge_mlp": "EdgeMLP",
    "gnn_64": "GNN-64",
    "gnn_128": "GNN-128",
    "ruie": "RUIE",
    "nextitnet": "NextItNet",
    "sasrec": "SASRec",
    "gru4rec": "GRU4Rec",
    "caser": "Caser",
    "din": "DIN",
    "pepnet": "PEPNet",
    "star": "STAR",
    "feedback_simulator": "Feedback simulator",
    "train_mean": "Train mean",
    "planted_truth": "Planted truth",
    "mmrf": "MMRF",
    "mmrf_co": "MMRF-CO",
    "mmrf_da": "MMRF-DA",
    "mmrf_ns": "MMRF-NS",
    "bc": "BC",
    "wide_deep": "Wide & Deep",
    "deepfm": "DeepFM",
    "pareto": "Pareto",
    "tscac": "TSCAC",
    "massa": "MASSA",
    "ltr": "LTR",
}


def variant_colour(variant: str) -> str:
    """The colour of a model, the same in every figure and run."""
    return VARIANT_COLOURS.get(variant) or OTHERS[crc32(variant.encode()) % len(OTHERS)]


def variant_label(variant: str) -> str:
    """The name of a model as readers know it."""
    return LABELS.get(variant, variant.replace("_", " "))


def template(*, dark: bool = False) -> go.layout.Template:
    """The Plotly template. Figures carry the light one; the page swaps it for the dark one where the reader's system is dark."""
    ink, muted, grid, zero = (
        ("#e6e8eb", "#a2a9b3", "#2c323a", "#4a525d")
        if dark
        else ("#1f2328", "#5f6773", "#e7e9ec", "#bfc5cd")
    )
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": zero,
        "zerolinewidth": 1,
        "ticks": "outside",
        "ticklen": 5,
        "tickcolor": "rgba(0,0,0,0)",  # a gap between labels and axis
        "tickfont": {"color": muted, "size": 12},
        "title": {"font": {"color": muted, "size": 12}, "standoff": 8},
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": ink},
            "title": {
                "x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 16, "weight": 600},
                "subtitle": {"font": {"size": 12, "color": muted}},
            },
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": [ACCENT, *OTHERS],
            "colorscale": {"sequential": sequential(dark=dark)},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {
                "orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yref": "container",
                "yanchor": "top", "font": {"size": 12}, "title": {"text": ""},
            },
            "margin": {"l": 56, "r": 16, "t": 96, "b": 48},
            "hoverlabel": {
                "font": {"family": FONT, "size": 12, "color": ink},
                "bgcolor": "#1b2026" if dark else "#ffffff",
                "bordercolor": grid,
                "align": "left",
            },
            "bargap": 0.35,
        }
    )  # fmt: skip


def sequential(*, dark: bool = False) -> list[list[float | str]]:
    """One hue, from the page's ground to the accent."""
    ground = "#20262d" if dark else "#f1f4f7"
    return [[0.0, ground], [1.0, "#6fa3d8" if dark else "#2f5f94"]]
