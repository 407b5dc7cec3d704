"""Mermaid diagram of the lesson, shown by Kedro-Viz."""

from __future__ import annotations

from kedro.pipeline.preview_contract import MermaidPreview


def student() -> MermaidPreview:
    """Teacher and student on the same rows and videos."""
    return MermaidPreview(
        content="""flowchart LR
  R[rows of a batch] & C[videos of the catalogue] --> T[teacher, frozen] & S[student: fewer layers, smaller widths]
  T --> Q[Q, watch · like · share]
  S --> P[Q, watch · like · share]
  Q & P --> L[KL of behaviours + squared error of Q] -.-> S"""
    )
