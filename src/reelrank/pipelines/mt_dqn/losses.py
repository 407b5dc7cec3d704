"""Temporal-difference targets and losses as functions of tensors.

Source: MT-DQN (arXiv 2509.12269) Eq. 14, METHODS §3.8. Shapes: B rows of a batch, C candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def td_target(reward: Tensor, next_value: Tensor, gamma: float, limit: float) -> Tensor:
    """Y = r + γ V(s'), cut to ±limit; MT-DQN Eq. 14.

    Args:
        reward: (B,); NaN (censored) stays NaN.
        next_value: (B,), 0 where the row is done.
        gamma: discount.
        limit: largest |y|.
    """
    return (reward + gamma * next_value).clamp(-limit, limit)


def best_next(q_target: Tensor, available: Tensor, q_main: Tensor | None = None) -> Tensor:
    """Max over v' of Q_θ⁻(s', v'), or Q_θ⁻ at the best of ``q_main`` (double Q).

    Args:
        q_target: (B, C), of the target network.
        available: (B, C) bool, at least one true in each row.
        q_main: (B, C), of the trained network.

    Returns:
        (B,).
    """
    chooser = q_target if q_main is None else q_main
    best = chooser.masked_fill(~available, -torch.inf).argmax(1, keepdim=True)
    return q_target.gather(1, best).squeeze(1)


def masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """Mean over the first dimension of the values that are kept; 0 where none is."""
    return values.masked_fill(~keep, 0).sum(0) / keep.sum(0).clamp_min(1)


def behaviour_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of each behaviour over its non-null labels.

    Args:
        logits: (B, 3).
        labels: (B, 3), NaN = null.

    Returns:
        (3,).
    """
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0), reduction="none")
    return masked_mean(losses, ~labels.isnan())
