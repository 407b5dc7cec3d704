"""Mermaid diagrams of the networks, shown by Kedro-Viz on the training nodes."""

from __future__ import annotations

from kedro.pipeline.preview_contract import MermaidPreview

SOFTMAX = "Q[query] --> S[sampled softmax<br/>over item vectors]"


def ruie() -> MermaidPreview:
    """Backbone, contextual Q estimator, intent; two networks that are each other's target."""
    return MermaidPreview(
        content="""flowchart LR
  X[last 20 items] --> B[NextItNet] --> H[h]
  T[items + scenarios] --> A[attention of a flag token] --> O[o]
  H & O --> Z[Q of the next scenario<br/>double Q-learning] & P[p of the next scenario]
  H & O --> I[intent ê]; C[scenario of the request] --> I
  P -. no gradient .-> G[gate 1/(1−p)] --> L[gated triplet loss]; I --> L
  H --> S[sampled softmax]"""
    )


def _history(model: str) -> MermaidPreview:
    return MermaidPreview(
        content=f"""flowchart LR
  X[last 20 items] --> M[{model}] --> {SOFTMAX}"""
    )


def nextitnet() -> MermaidPreview:
    """Dilated causal convolutions."""
    return _history("6 blocks of dilated<br/>causal convolutions")


def sasrec() -> MermaidPreview:
    """Causal self-attention."""
    return _history("causal self-attention")


def gru4rec() -> MermaidPreview:
    """A gated recurrent unit."""
    return _history("GRU, dense layer")


def caser() -> MermaidPreview:
    """Convolutions over the whole window."""
    return _history("horizontal and vertical<br/>convolutions, user vector")


def din() -> MermaidPreview:
    """Each candidate by itself."""
    return MermaidPreview(
        content="""flowchart LR
  X[last 20 items] --> A; C[candidate] --> A[attention MLP<br/>h, t, h−t, h⊙t] --> W[weighted sum]
  W & C --> M[MLP with Dice] --> Y[click or random item]"""
    )


def pepnet() -> MermaidPreview:
    """Gates by scenario and user."""
    return MermaidPreview(
        content=f"""flowchart LR
  X[mean of last 20 items] --> E[EPNet gate] --> M[gated layers]
  C[scenario] --> E & P[PPNet gates]; U[user] --> P --> M --> {SOFTMAX}"""
    )


def star() -> MermaidPreview:
    """Weights shared by all scenarios, times those of one."""
    return MermaidPreview(
        content=f"""flowchart LR
  X[mean of last 20 items] --> N[partitioned norm] --> M[W shared ⊙ W scenario] --> {SOFTMAX}
  C[scenario] --> N & M & A[auxiliary network] --> Q"""
    )


PREVIEWS = {
    "ruie": ruie, "nextitnet": nextitnet, "sasrec": sasrec, "gru4rec": gru4rec,
    "caser": caser, "din": din, "pepnet": pepnet, "star": star,
}  # fmt: skip
