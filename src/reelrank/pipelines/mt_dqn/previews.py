"""Mermaid diagrams of the networks, shown by Kedro-Viz on the training nodes."""

from __future__ import annotations

from kedro.pipeline.preview_contract import MermaidPreview


def mt_dqn() -> MermaidPreview:
    """Fusion, temporal graph network, state, Q-network."""
    return MermaidPreview(
        content="""flowchart LR
  V[visual tokens] --> T; A[audio tokens] --> T; X[text tokens] --> T
  T[cross-modal transformer<br/>Eq. 4–5] --> G[gate, Eq. 6] --> F[f_v]
  E[(events before t)] --> N[temporal attention<br/>Eq. 11] --> HU[h_u] & HV[h_v]
  F -. item memory .-> N
  F & HU & HV --> S[LayerNorm state s] --> Q3[3 fully connected layers]
  Q3 --> Q[Q: which video, Eq. 14]
  Q3 --> B[watch · like · share]
  Q3 -. no gradient .-> R[immediate reward]
  S -. no gradient .-> P[value of the logging policy]"""
    )


def concat_modal() -> MermaidPreview:
    """Pooled modalities, concatenated."""
    return MermaidPreview(
        content="""flowchart LR
  V[mean visual] --> C; A[mean audio] --> C; X[mean text] --> C
  C[concatenate] --> M[MLP] --> F[f_v]
  U[user attributes] --> S[state]; F --> S --> L[fully connected layers] --> B[watch · like · share]
  B --> O[score = p_watch + 0.5 p_like + 0.5 p_share]"""
    )


def vanilla_dqn() -> MermaidPreview:
    """Ids only."""
    return MermaidPreview(
        content="""flowchart LR
  U[user id] --> S; H[mean of the last 20 items] --> S; I[item id] --> S
  S[state] --> L[3 fully connected layers] --> Q[Q from the immediate reward]"""
    )


PREVIEWS = {"mt_dqn": mt_dqn, "concat_modal": concat_modal, "vanilla_dqn": vanilla_dqn}
