"""Metrics of binary responses: AUC, average precision, F1 and its threshold.

Source: METHODS §2 [S].
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.float64]


def auc(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Share of (positive, negative) pairs that are ordered rightly, ties ½; NaN with one class.

    Args:
        y: (n,) labels, 0 or 1.
        p: (n,) scores.

    Raises:
        ValueError: lengths differ, a label is not 0/1, or a score is not finite.

    Source: METHODS §2 [S].
    """
    label, score = labels_and_scores(y, p)
    n_positive = int(label.sum())
    n_negative = label.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return math.nan
    rank_sum = float(rankdata(score)[label == 1].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """AP = Σ (R_j − R_{j−1}) P_j over the distinct scores, highest first; NaN without a positive.

    Arguments and errors as :func:`auc`.
    """
    label, score = labels_and_scores(y, p)
    if label.sum() == 0:
        return math.nan
    true_positive, predicted, _ = _cumulated(label, score)
    recall_step = np.diff(true_positive, prepend=0.0) / true_positive[-1]
    return float((recall_step * true_positive / predicted).sum())


def best_f1_threshold(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """The threshold t for which ``p >= t`` has the highest F1 (the highest such t); fit it on validation rows only (L9).

    Without a positive it is +inf: predict none. Arguments and errors as :func:`auc`.
    """
    label, score = labels_and_scores(y, p)
    if label.sum() == 0:
        return math.inf
    true_positive, predicted, threshold = _cumulated(label, score)
    f1 = 2 * true_positive / (label.sum() + predicted)
    return float(threshold[np.argmax(f1)])


def f1_counts(
    y: npt.ArrayLike, p: npt.ArrayLike, threshold: float
) -> tuple[FloatArray, FloatArray]:
    """Numerator 2yŷ and denominator y + ŷ of F1 by row, ŷ = 1[p ≥ threshold]: F1 is the ratio of their sums.

    Arguments and errors as :func:`auc`.
    """
    label, score = labels_and_scores(y, p)
    predicted = (score >= threshold).astype(np.float64)
    return 2 * label * predicted, label + predicted


def labels_and_scores(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both columns as checked float arrays.

    Raises:
        ValueError: lengths differ, a label is not 0/1, or a score is not finite.
    """
    label, score = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if label.shape != score.shape or label.ndim != 1:
        raise ValueError(f"labels {label.shape} and scores {score.shape} must be of one length")
    if not np.isin(label, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1: drop rows whose label is null")
    if not np.isfinite(score).all():
        raise ValueError("scores hold values that are not finite")
    return label, score


def _cumulated(label: FloatArray, score: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """True positives and predicted positives when all rows ≥ each distinct score are predicted positive."""
    order = np.argsort(-score, kind="stable")
    descending = score[order]
    last_of_tie = np.r_[np.flatnonzero(descending[1:] != descending[:-1]), label.size - 1]
    true_positive = np.cumsum(label[order])[last_of_tie]
    return true_positive, (last_of_tie + 1).astype(np.float64), descending[last_of_tie]
