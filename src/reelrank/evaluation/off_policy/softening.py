"""Scores to probabilities: softened until the policy is as random as the one that logged.

Source: METHODS §7.2 [S: equal-entropy softening].
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import entr, softmax

from reelrank.evaluation.off_policy.estimators import FloatArray

GRID = (0.5, 1.0, 2.0)  # METHODS §7.2: multiples of the equal-entropy temperature
_LOG_RANGE = (-30.0, 30.0)  # of τ over the spread of the scores


def softened(scores: npt.ArrayLike, temperature: float) -> FloatArray:
    """softmax(scores / τ) over the last axis.

    Args:
        scores: (n, C), for σ outputs their logits; −∞ = no candidate.
        temperature: τ > 0.

    Raises:
        ValueError: τ is not positive, a score is NaN or +∞, or a row has no candidate.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, is {temperature}")
    score = _checked(scores)
    # shifted first: a tiny τ must not overflow
    return np.asarray(softmax((score - score.max(axis=-1, keepdims=True)) / temperature, axis=-1))


def mean_entropy(probabilities: npt.ArrayLike) -> float:
    """Mean over the rows of −Σ p log p, in nats; ``probabilities`` (n, C)."""
    return float(entr(np.asarray(probabilities, np.float64)).sum(axis=-1).mean())


def equal_entropy_temperature(scores: npt.ArrayLike, entropy: float) -> float:
    """The τ at which :func:`softened` scores have that mean entropy.

    Args:
        scores: (n, C) on validation rows; −∞ = no candidate.
        entropy: nats, e.g. :func:`mean_entropy` of the behaviour policy on the same rows.

    Raises:
        ValueError: no τ reaches it: it is not between that of the greedy policy (ties share) and that of equal chances; or as
            :func:`softened`.
    """
    score = _checked(scores)
    finite = np.isfinite(score)
    spread = float(np.ptp(score[finite]))

    def excess(log_ratio: float) -> float:
        return mean_entropy(softened(score, spread * math.exp(log_ratio))) - entropy

    low, high = _LOG_RANGE
    if spread == 0 or not excess(low) <= 0 <= excess(high):
        uniform = float(np.log(finite.sum(axis=-1)).mean())
        greedy = mean_entropy(softened(score, spread * math.exp(low))) if spread > 0 else uniform
        raise ValueError(
            f"no temperature gives a mean entropy of {entropy:.4g}: these scores reach {greedy:.4g} … {uniform:.4g}"
        )
    return spread * math.exp(float(brentq(excess, low, high, xtol=1e-12)))


def _checked(scores: npt.ArrayLike) -> FloatArray:
    score = np.asarray(scores, np.float64)
    bad = np.isnan(score).any(axis=-1) | (score == np.inf).any(axis=-1)
    bad |= ~np.isfinite(score).any(axis=-1)
    if np.any(bad):
        raise ValueError(f"row {np.flatnonzero(bad)[0]}: a score is NaN or +∞, or there is no candidate")  # fmt: skip
    return score
