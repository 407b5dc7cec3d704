"""Metrics of binary responses: AUC, average precision, F1 and its threshold.

Source: METHODS §2 [S].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from reelrank.evaluation.columns import finite, require, same_length

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
    positive, negative = np.sort(score[label == 1]), np.sort(score[label == 0])
    if positive.size == 0 or negative.size == 0:
        return math.nan
    return float(ordered_pairs(positive, negative) / (positive.size * negative.size))


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


@dataclass(frozen=True, slots=True)
class F1Scores:
    """F1 of several behaviours.

    Attributes:
        by_behaviour: F1 of each; NaN where there is neither a positive nor a predicted positive.
        macro: mean over the behaviours where F1 is defined; NaN if it is nowhere.
        micro: F1 of all rows of all behaviours together.
        undefined: behaviours left out of ``macro``.
    """

    by_behaviour: dict[str, float]
    macro: float
    micro: float
    undefined: tuple[str, ...]


def f1_thresholds(
    labels: Mapping[str, npt.ArrayLike], scores: Mapping[str, npt.ArrayLike]
) -> dict[str, float]:
    """The best threshold of every behaviour, see :func:`best_f1_threshold`; give it validation rows only (L9).

    Args:
        labels: behaviour → (n,) labels, 0 or 1; rows with a null label left out, so lengths may differ.
        scores: behaviour → (n,) scores of the same rows.

    Raises:
        ValueError: the behaviours differ, or as :func:`auc`.
    """
    _same_behaviours(labels, scores=scores)
    return {name: best_f1_threshold(labels[name], scores[name]) for name in labels}


def f1_scores(
    labels: Mapping[str, npt.ArrayLike],
    scores: Mapping[str, npt.ArrayLike],
    thresholds: Mapping[str, float],
) -> F1Scores:
    """F1 by behaviour, macro and micro, at thresholds that validation rows chose.

    Args:
        labels: behaviour → (n,) labels, 0 or 1.
        scores: behaviour → (n,) scores.
        thresholds: behaviour → threshold, from :func:`f1_thresholds`.

    Raises:
        ValueError: the behaviours differ, or as :func:`auc`.

    Source: METHODS §2 [S].
    """
    _same_behaviours(labels, scores=scores, thresholds=thresholds)
    sums = {}
    for name in labels:
        top, bottom = f1_counts(labels[name], scores[name], thresholds[name])
        sums[name] = float(top.sum()), float(bottom.sum())
    each = {name: _ratio(top, bottom) for name, (top, bottom) in sums.items()}
    defined = [value for value in each.values() if not math.isnan(value)]
    return F1Scores(
        by_behaviour=each,
        macro=_ratio(sum(defined), len(defined)),
        micro=_ratio(sum(top for top, _ in sums.values()), sum(low for _, low in sums.values())),
        undefined=tuple(name for name, value in each.items() if math.isnan(value)),
    )


def labels_and_scores(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both columns as checked float arrays.

    Raises:
        ValueError: lengths differ, a label is not 0/1, or a score is not finite.
    """
    label, score = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    same_length(labels=label, scores=score)
    require("label", label, (label == 0) | (label == 1), "0 or 1: drop rows whose label is null")
    return label, finite("score", score)


@njit(cache=True, nogil=True)
def ordered_pairs(
    positive: npt.NDArray[np.floating[Any]], negative: npt.NDArray[np.floating[Any]]
) -> float:
    """Pairs (positive, negative) whose positive score is the higher one, ties ½; both arrays ascending."""
    below = up_to = twice = 0
    for score in positive:
        while below < negative.size and negative[below] < score:
            below += 1
        up_to = max(up_to, below)
        while up_to < negative.size and negative[up_to] == score:
            up_to += 1
        twice += below + up_to
    return 0.5 * twice


def _same_behaviours(labels: Mapping[str, Any], **others: Mapping[str, Any]) -> None:
    for name, other in others.items():
        if labels.keys() != other.keys():
            raise ValueError(
                f"{name} and labels must have the same behaviours: {sorted(labels.keys() ^ other.keys())}"
            )


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else math.nan


def _cumulated(label: FloatArray, score: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """True positives and predicted positives when all rows ≥ each distinct score are predicted positive."""
    order = np.argsort(-score, kind="stable")
    descending = score[order]
    last_of_tie = np.r_[np.flatnonzero(descending[1:] != descending[:-1]), label.size - 1]
    true_positive = np.cumsum(label[order])[last_of_tie]
    return true_positive, (last_of_tie + 1).astype(np.float64), descending[last_of_tie]
