"""Mermaid diagrams of the test, shown by Kedro-Viz on its nodes."""

from __future__ import annotations

from kedro.pipeline.preview_contract import MermaidPreview


def test() -> MermaidPreview:
    """Two arms of one user."""
    return MermaidPreview(
        content="""flowchart LR
  U[every user, shared chance] --> A[A/A days: LTR serves all] --> T[arm's policy] & C[LTR goes on]
  T & C --> R[responses, returns] --> S[sums by user and day]
  S --> P[paired: both lives of a user] & X[split: half of the users each]"""
    )


def simulator() -> MermaidPreview:
    """Fold and complement."""
    return MermaidPreview(
        content="""flowchart LR
  L[log] --> F[train rows of the fold] --> M[feedback simulator] --> E[environment]
  F --> S[sessions, pauses, returns] --> E
  L --> O[users outside of the fold] --> E"""
    )
