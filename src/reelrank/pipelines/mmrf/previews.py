"""Mermaid diagrams of the networks, shown by Kedro-Viz on the training nodes."""

from __future__ import annotations

from kedro.pipeline.preview_contract import MermaidPreview

STATE = "U[user, last rows, context] --> B[state b]"


def _agents(exchange: str, food: str) -> MermaidPreview:
    return MermaidPreview(
        content=f"""flowchart LR
  {STATE}; X[candidate] --> H
  B --> H[h of 7 agents] --> E[{exchange}] --> A[6 auxiliary actors] --> M[main actor<br/>watch time]
  H --> A & M; E --> M
  C[7 critics, own encoder] -. gradients, routed .-> A & M
  R[{food}] --> C"""
    )


def mmrf() -> MermaidPreview:
    """Attention between agents, simulated feedback to non-impressions."""
    return _agents("attention between agents", "log + simulated feedback<br/>to non-impressions")


def mmrf_co() -> MermaidPreview:
    """Concatenation for attention."""
    return _agents("concatenation", "log + simulated feedback<br/>to non-impressions")


def mmrf_da() -> MermaidPreview:
    """Without non-impressions."""
    return _agents("attention between agents", "log")


def mmrf_ns() -> MermaidPreview:
    """Non-impressions as negatives."""
    return _agents("attention between agents", "log + non-impressions<br/>as negatives")


def _supervised(model: str, loss: str) -> MermaidPreview:
    return MermaidPreview(
        content=f"""flowchart LR
  {STATE}; B & X[candidates] --> M[{model}] --> S[scores] --> L[{loss}]"""
    )


def bc() -> MermaidPreview:
    """Behaviour cloning."""
    return _supervised("MLP 512-256-256", "cross-entropy of what was shown")


def wide_deep() -> MermaidPreview:
    """Wide & Deep."""
    return _supervised("crossed codes + MLP", "weighted cross-entropy")


def deepfm() -> MermaidPreview:
    """DeepFM."""
    return _supervised("factorisation machine + MLP", "weighted cross-entropy")


def ltr() -> MermaidPreview:
    """RankNet."""
    return _supervised("MLP", "pairs of shown items")


def _critics(actors: str, objective: str) -> MermaidPreview:
    return MermaidPreview(
        content=f"""flowchart LR
  {STATE}; B & X[candidates] --> A[{actors}] --> O[{objective}]
  C[critic per response] --> O"""
    )


def pareto() -> MermaidPreview:
    """Policy gradient towards Pareto stationarity."""
    return _critics("one actor", "min-norm mix of<br/>the responses' gradients")


def tscac() -> MermaidPreview:
    """Two stages."""
    return _critics(
        "actor per response, then main", "main advantage, near<br/>the auxiliary policies"
    )


def massa() -> MermaidPreview:
    """A shared signal."""
    return _critics("actors that read<br/>a sampled signal", "sum of own values")


PREVIEWS = {
    "mmrf": mmrf, "mmrf_co": mmrf_co, "mmrf_da": mmrf_da, "mmrf_ns": mmrf_ns, "bc": bc, "wide_deep": wide_deep,
    "deepfm": deepfm, "ltr": ltr, "pareto": pareto, "tscac": tscac, "massa": massa,
}  # fmt: skip
