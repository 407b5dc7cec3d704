"""Mermaid diagram of the simulator, shown by Kedro-Viz on its training node."""

from __future__ import annotations

from kedro.pipeline.preview_contract import MermaidPreview


def feedback_simulator() -> MermaidPreview:
    """State, two predictors, their disagreement, calibration."""
    return MermaidPreview(
        content="""flowchart LR
  H[shown items + answers] --> G[GRU from the user's attributes] --> S[state ŝ]
  S & X[candidate] & C[scenario, hour] --> F1[f¹] & F2[f² under dropout]
  F1 & F2 --> M[mean: seven responses] --> K[isotonic calibration<br/>on val rows]
  F1 & F2 --> U[KL: uncertainty] --> R[simulated reward, Eq. 6]
  M --> R"""
    )
