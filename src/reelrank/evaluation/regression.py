"""Metrics of continuous labels such as watch time: errors, and the share of pairs in the right order.

Source: METHODS §2 [S].
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from reelrank.draws import stream_key, uniform
from reelrank.evaluation.columns import finite, same_length
from reelrank.evaluation.grouped import (
    GroupMean,
    GroupValues,
    Weighting,
    gauc,
    group_slots,
    rows_by_group,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LARGE_GROUP = 500  # METHODS §2: larger groups are sampled
MAX_PAIRS = 2_000


def mse(t: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Mean squared error; NaN without rows.

    Args:
        t: (n,) observed values.
        prediction: (n,) in the same unit.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    return _mean(_errors(t, prediction) ** 2)


def rmse(t: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Root of :func:`mse`, in the label's unit."""
    return math.sqrt(mse(t, prediction))


def mae(t: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Mean absolute error. Arguments and errors as :func:`mse`."""
    return _mean(np.abs(_errors(t, prediction)))


def xauc(t: npt.ArrayLike, s: npt.ArrayLike) -> float:
    """Share of the pairs with t_i ≠ t_j that the scores order as the labels do, ties of scores ½; NaN without such a pair.

    Every pair counts, in O(n log n): pairs in the wrong order are the inversions of s sorted by t (Knight 1966).

    Args:
        t: (n,) continuous labels.
        s: (n,) scores.

    Raises:
        ValueError: lengths differ, or a value is not finite.

    Source: METHODS §2 [S].
    """
    label, score = _labels_and_scores(t, s)
    return float(_exact(*_sorted_by_label(label, score)))


def group_xauc(
    t: npt.ArrayLike,
    s: npt.ArrayLike,
    groups: npt.ArrayLike,
    max_pairs: int | None = MAX_PAIRS,
    seed: int = 0,
) -> GroupValues:
    """XAUC of every group; NaN for a group whose labels are all equal.

    Args:
        t: (n,) continuous labels.
        s: (n,) scores.
        groups: (n,) ids.
        max_pairs: pairs drawn in a group of more than 500 rows, those with equal labels not counted; None: every pair
            of every group, which costs about as much and has no sampling noise.
        seed: of the draws; they do not depend on the order of rows, and are the same pairs for every model if no labels tie.

    Raises:
        ValueError: lengths differ, a value is not finite, a group is null, or ``max_pairs`` < 1.

    Source: METHODS §2 [S].
    """
    if max_pairs is not None and max_pairs < 1:
        raise ValueError(f"max_pairs must be ≥ 1 or None, not {max_pairs}")
    label, score = _labels_and_scores(t, s)
    ids, slot = group_slots(groups)
    same_length(labels=label, groups=slot)
    rows, end = rows_by_group(slot, ids.size)
    value = _xauc_by_group(label, score, rows, end, max_pairs or 0, seed)
    n = np.diff(end, prepend=0)
    some = n > 0
    return GroupValues(ids[some], value[some], n[some], None)


def gxauc(
    t: npt.ArrayLike,
    s: npt.ArrayLike,
    groups: npt.ArrayLike,
    weighting: Weighting = "impressions",
    max_pairs: int | None = MAX_PAIRS,
    seed: int = 0,
) -> GroupMean:
    """Weighted mean of :func:`group_xauc`, with the shares left out; the headline for watch time."""
    return group_xauc(t, s, groups, max_pairs, seed).mean(weighting)


def above_train_median(
    t: npt.ArrayLike, users: npt.ArrayLike, train_t: npt.ArrayLike, train_users: npt.ArrayLike
) -> FloatArray:
    """Label 1[t > the user's train median], (n,); NaN for a user without train rows.

    Args:
        t: (n,) continuous labels.
        users: (n,) user of each row.
        train_t: (m,) labels of the train rows.
        train_users: (m,) their users.

    Raises:
        ValueError: lengths differ, a value is not finite, or a user is null.
    """
    label, train = finite("label", t), finite("train label", train_t)
    ids, slot = group_slots(train_users)
    of_row = np.asarray(users)
    same_length(labels=label, users=of_row)
    same_length(train_labels=train, train_users=slot)
    if ids.size == 0:
        return np.full(label.size, np.nan)
    rows, end = rows_by_group(slot, ids.size)
    median = _medians(train[rows], end)
    place = np.searchsorted(ids, of_row).clip(max=ids.size - 1)
    threshold = np.where(ids[place] == of_row, median[place], np.nan)
    return np.where(np.isnan(threshold), np.nan, label > threshold)


def gauc_at_median(
    t: npt.ArrayLike,
    s: npt.ArrayLike,
    users: npt.ArrayLike,
    train_t: npt.ArrayLike,
    train_users: npt.ArrayLike,
    weighting: Weighting = "impressions",
) -> GroupMean:
    """``gauc@median``: GAUC of the label of :func:`above_train_median`; a user without train rows is excluded and counted.

    Source: METHODS §2 [D].
    """
    label = above_train_median(t, users, train_t, train_users)
    return gauc(np.nan_to_num(label), s, users, weighting)  # 0 throughout: one class, so excluded


def _errors(t: npt.ArrayLike, prediction: npt.ArrayLike) -> FloatArray:
    label, predicted = _labels_and_scores(t, prediction)
    return predicted - label


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if values.size else math.nan


def _labels_and_scores(t: npt.ArrayLike, s: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    label, score = finite("label", t), finite("score", s)
    same_length(labels=label, scores=score)
    return label, score


@njit(cache=True, nogil=True)
def _xauc_by_group(
    t: FloatArray, s: FloatArray, rows: IntArray, end: IntArray, max_pairs: int, seed: int
) -> FloatArray:
    value = np.full(end.size, np.nan)
    start = 0
    for group in range(end.size):
        of_group = rows[start : end[group]]
        start = end[group]
        label, score = _sorted_by_label(t[of_group], s[of_group])
        if max_pairs and of_group.size > LARGE_GROUP:
            value[group] = _sampled(label, score, max_pairs, seed, group)
        if np.isnan(value[group]):  # small, or no pair of the draw had different labels
            value[group] = _exact(label, score)
    return value


@njit(cache=True, nogil=True)
def _sorted_by_label(t: FloatArray, s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both columns in the order of labels, then of scores."""
    order = np.argsort(t)
    label, score = t[order], s[order]
    start = 0
    for i in range(1, label.size + 1):
        if i == label.size or label[i] != label[start]:
            score[start:i].sort()
            start = i
    return label, score


@njit(cache=True, nogil=True)
def _exact(label: FloatArray, score: FloatArray) -> float:
    """XAUC of rows in the order of :func:`_sorted_by_label`; sorts ``score``."""
    n = label.size
    same_label = same_both = same_score = run_label = run_both = run_score = 0
    for i in range(1, n):  # the k-th row of a tie makes k − 1 tied pairs
        run_label = run_label + 1 if label[i] == label[i - 1] else 0
        run_both = run_both + 1 if run_label and score[i] == score[i - 1] else 0
        same_label += run_label
        same_both += run_both
    inversions = _sort_counting_inversions(score)
    for i in range(1, n):
        run_score = run_score + 1 if score[i] == score[i - 1] else 0
        same_score += run_score
    pairs = n * (n - 1) // 2 - same_label
    tied = same_score - same_both
    return (pairs - inversions - 0.5 * tied) / pairs if pairs else np.nan


@njit(cache=True, nogil=True)
def _sort_counting_inversions(values: FloatArray) -> int:
    """Merge sort in place; pairs i < j with values[i] > values[j]."""
    n = values.size
    inversions = 0
    source, target = values, np.empty_like(values)
    width = 1
    while width < n:
        for start in range(0, n, 2 * width):
            middle, end = min(start + width, n), min(start + 2 * width, n)
            left, right = start, middle
            for place in range(start, end):
                if right == end or (left < middle and source[left] <= source[right]):
                    target[place] = source[left]
                    left += 1
                else:
                    target[place] = source[right]
                    right += 1
                    inversions += middle - left
        source, target = target, source
        width *= 2
    if source is not values:
        values[:] = source
    return inversions


@njit(cache=True, nogil=True)
def _sampled(label: FloatArray, score: FloatArray, n_pairs: int, seed: int, group: int) -> float:
    """XAUC of ``n_pairs`` drawn pairs, less those with equal labels; NaN if none is left."""
    key = stream_key(seed, group)
    used, right = 0, 0.0
    for pair in range(n_pairs):
        low = int(uniform(key, 2 * pair) * label.size)
        high = int(uniform(key, 2 * pair + 1) * (label.size - 1))
        if high >= low:
            high += 1
        if label[low] != label[high]:
            used += 1
            if score[low] == score[high]:
                right += 0.5
            elif (label[low] < label[high]) == (score[low] < score[high]):
                right += 1.0
    return right / used if used else np.nan


@njit(cache=True, nogil=True)
def _medians(values: FloatArray, end: IntArray) -> FloatArray:
    median = np.full(end.size, np.nan)
    start = 0
    for group in range(end.size):
        if end[group] > start:
            median[group] = np.median(values[start : end[group]])
        start = end[group]
    return median
