"""Mermaid diagrams of the models, shown by Kedro-Viz on the training nodes."""

from __future__ import annotations

from kedro.pipeline.preview_contract import MermaidPreview

HEADS = "complete · long · rewatch · neg"


def logistic() -> MermaidPreview:
    """Linear in the features."""
    return MermaidPreview(
        content=f"""flowchart LR
  X[64 features<br/>one-hot categories] --> L[4 logistic regressions] --> P[{HEADS}]"""
    )


def edge_mlp() -> MermaidPreview:
    """Features alone."""
    return MermaidPreview(
        content=f"""flowchart LR
  U[user features] --> M; V[video features] --> M; E[session, context, history] --> M
  M[MLP 128-128-64] --> P[{HEADS}]"""
    )


def gnn() -> MermaidPreview:
    """Features and node vectors."""
    return MermaidPreview(
        content=f"""flowchart LR
  G[(train pairs)] --> C; N[learnt embeddings] --> C
  C[3 graph convolutions] --> HU[h_u] & HV[h_v] --> M
  X[features of user, video, edge] --> M[MLP 128-128-64] --> P[{HEADS}]"""
    )


PREVIEWS = {"logistic": logistic, "edge_mlp": edge_mlp, "gnn_64": gnn, "gnn_128": gnn}
