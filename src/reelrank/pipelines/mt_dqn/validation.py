"""What is watched while a model learns: the headline metric on val lists, and the signatures of known failures.

Source: METHODS §3.9, §3.11.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from reelrank.evaluation.ranking import ndcg
from reelrank.models.inputs import ModelInputs
from reelrank.models.policy import RankingModel
from reelrank.pipelines.mt_dqn.lists import ListBatch, score_lists
from reelrank.pipelines.mt_dqn.losses import behaviour_losses
from reelrank.pipelines.mt_dqn.model import MTDQN

HEADLINE = (
    "ndcg@5"  # [D] chooses the epoch, not F1: an F1 threshold would be fitted on the same rows
)
COLLAPSED_ENTROPY = 0.98  # METHODS §3.11
EXPLODED_FACTOR = 10  # METHODS §3.11: |Q| > 10·r_max/(1−γ)
FLAT_EPOCHS = 3  # METHODS §3.11
FLAT_RANGE = 0.001  # NDCG@5 that moved less than this is flat [D: below its standard error]
_MONITORED_ITEMS = 512


def validate(
    model: RankingModel, inputs: ModelInputs, lists: ListBatch, block_rows: int
) -> dict[str, float]:
    """NDCG@5 over the lists, their behaviour loss, and how even gate and attention are.

    Args:
        model: in evaluation mode; what it keeps about the inputs is recomputed.
        inputs: events, items, users.
        lists: val lists.
        block_rows: rows scored at once.
    """
    model.refresh(inputs)
    outputs = score_lists(model, inputs, lists, block_rows)
    _, per_list = ndcg(
        outputs.q.cpu().numpy(), lists.relevance.cpu().numpy(), lists.list_of_row.cpu().numpy(), 5
    )
    losses = behaviour_losses(outputs.behaviour_logits, inputs.stream.labels[lists.position])
    metrics = {HEADLINE: float(np.mean(per_list)), "loss": float(losses.sum())}
    return metrics | (fusion_evenness(model, inputs) if isinstance(model, MTDQN) else {})


def fusion_evenness(model: MTDQN, inputs: ModelInputs) -> dict[str, float]:
    """Normalised entropy of gate and of cross-modal attention over evenly spaced items: 1 = all modalities alike."""
    stride = max(1, inputs.stream.n_items // _MONITORED_ITEMS)
    items = torch.arange(0, inputs.stream.n_items, stride, device=inputs.device)
    gate = model.fuse(inputs, items).gate
    weights = gate if gate.dim() == 2 else gate.mean(2)
    mass = model.fusion.attention_per_token(inputs.items.select(items))
    return {
        "gate_entropy": _normalised_entropy(weights),
        "attention_entropy": _normalised_entropy(mass.flatten(0, -2)),
    }


def failure_warnings(history: Sequence[Mapping[str, float]], limit: float) -> list[str]:
    """A sentence for every failure signature that the newest epoch shows.

    Args:
        history: a row per epoch.
        limit: r_max/(1−γ).
    """
    now = history[-1]
    found = [
        f"modality collapse: {name} is {now[f'val_{name}']:.3f} of its maximum, above {COLLAPSED_ENTROPY}"
        for name in ("gate_entropy", "attention_entropy")
        if now.get(f"val_{name}", 0.0) > COLLAPSED_ENTROPY
    ]
    if now.get("train_q_abs_max", 0.0) > EXPLODED_FACTOR * limit:
        found.append(
            f"Q explosion: |Q| reaches {now['train_q_abs_max']:.3g}, above {EXPLODED_FACTOR}·r_max/(1−γ)"
        )
    recent = history[-FLAT_EPOCHS - 1 :]
    if len(recent) > FLAT_EPOCHS:
        loss = [row["val_loss"] for row in recent]
        score = [row[f"val_{HEADLINE}"] for row in recent]
        if all(np.diff(loss) < 0) and max(score) - min(score) < FLAT_RANGE:
            found.append(
                f"temporal disconnect: val loss falls while {HEADLINE} is flat for {FLAT_EPOCHS} epochs"
            )
    return found


def _normalised_entropy(weights: Tensor) -> float:
    """Mean entropy of rows over the modalities that carry weight, as a share of its maximum; NaN if no row has two."""
    total = weights.sum(1, keepdim=True)
    p = weights / total.clamp_min(torch.finfo(weights.dtype).tiny)
    entropy = torch.special.entr(p).sum(1)
    n = (weights > 0).sum(1)
    share = entropy / n.clamp_min(2).float().log()
    return float(share[n > 1].mean()) if bool((n > 1).any()) else math.nan
