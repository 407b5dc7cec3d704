"""Metrics by group (user, session, request), averaged with stated weights: what was left out is always reported.

Source: METHODS §2 [S].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from reelrank.evaluation.classification import ordered_pairs
from reelrank.evaluation.columns import finite_floats, require, same_length

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Weighting = Literal["impressions", "positives", "uniform"]

_SPAN = 4  # ids whose range is at most 4 n are counted, others are sorted
_LONG = 64  # NumPy's vector sort pays from about here; shorter runs are sorted where they are read


@dataclass(frozen=True, slots=True)
class GroupMean:
    """A metric averaged over the groups where it is defined.

    Attributes:
        value: Σ ω v / Σ ω; NaN if no group counts.
        weighting: what ω is.
        n_groups: groups that count.
        n_rows: their rows.
        groups_excluded: share of groups where the metric is not defined; NaN without groups.
        rows_excluded: share of rows in those groups.
    """

    value: float
    weighting: Weighting
    n_groups: int
    n_rows: int
    groups_excluded: float
    rows_excluded: float


@dataclass(frozen=True, slots=True)
class GroupValues:
    """A metric of every group, groups ascending.

    Attributes:
        groups: (G,) ids.
        value: (G,) NaN where the metric is not defined.
        n: (G,) rows.
        n_positive: (G,) positive rows; None for labels that are not binary.
    """

    groups: npt.NDArray[Any]
    value: FloatArray
    n: IntArray
    n_positive: IntArray | None

    def weights(self, weighting: Weighting = "impressions") -> FloatArray:
        """ω, (G,): 0 where the metric is not defined.

        Args:
            weighting: ``impressions`` = rows (DIN; the headline), ``positives`` = positive rows, ``uniform`` = 1.

        Raises:
            ValueError: ``positives`` for labels that are not binary, or an unknown name.
        """
        if weighting == "impressions":
            weight = self.n.astype(np.float64)
        elif weighting == "uniform":
            weight = np.ones(self.n.size)
        elif weighting == "positives" and self.n_positive is not None:
            weight = self.n_positive.astype(np.float64)
        else:
            raise ValueError(f"no weighting {weighting!r} for this metric")
        return np.where(np.isnan(self.value), 0.0, weight)

    def mean(self, weighting: Weighting = "impressions") -> GroupMean:
        """The weighted mean with what it leaves out; arguments and errors as :meth:`weights`."""
        weight = self.weights(weighting)
        counts = ~np.isnan(self.value)
        rows, total = int(self.n[counts].sum()), int(self.n.sum())
        n_groups = int(np.count_nonzero(counts))
        return GroupMean(
            value=float((weight[counts] * self.value[counts]).sum() / weight.sum())
            if n_groups
            else math.nan,
            weighting=weighting,
            n_groups=n_groups,
            n_rows=rows,
            groups_excluded=1 - n_groups / self.n.size if self.n.size else math.nan,
            rows_excluded=1 - rows / total if total else math.nan,
        )


def group_auc(y: npt.ArrayLike, p: npt.ArrayLike, groups: npt.ArrayLike) -> GroupValues:
    """AUC of every group; NaN for a group with one class.

    Rows are dealt to their groups by counting, positives to the front and negatives to the back of each; both parts are
    sorted and merged. For an interval give ``value · weights`` and ``weights`` to ``UserBootstrap.ratio``.

    Args:
        y: (n,) labels, 0 or 1.
        p: (n,) scores; float32 is kept as it is.
        groups: (n,) ids; integers from a compact range are the fastest.

    Raises:
        ValueError: lengths differ, a label is not 0/1, a score is not finite, or a group is null; the row is named.

    Source: METHODS §2 [S].
    """
    given = np.asarray(y)
    require("label", given, (given == 0) | (given == 1), "0 or 1: drop rows whose label is null")
    label, score = given.astype(np.int8, copy=False), finite_floats("score", p)
    ids, slot = group_slots(groups)
    same_length(labels=label, scores=score, groups=slot)
    n, n_positive = _count_classes(slot, label, ids.size)
    end = np.cumsum(n)
    start, split = end - n, end - n + n_positive
    dealt = _deal(slot, label, score, start.copy(), end.copy())
    for edges in ((start, split), (split, end)):
        long = edges[1] - edges[0] >= _LONG
        for first, last in zip(edges[0][long].tolist(), edges[1][long].tolist(), strict=True):
            dealt[first:last].sort()  # NumPy's sort is several times faster than a compiled one
    value = _auc_by_group(dealt, start, split, end)
    some = n > 0
    return GroupValues(ids[some], value[some], n[some], n_positive[some])


def gauc(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    groups: npt.ArrayLike,
    weighting: Weighting = "impressions",
) -> GroupMean:
    """GAUC = Σ ω_g AUC_g / Σ ω_g over the groups with both classes, with the shares left out. Arguments as :func:`group_auc`."""
    return group_auc(y, p, groups).mean(weighting)


def group_slots(groups: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Ids in ascending order, which may hold unused ones, and each row's index among them.

    Raises:
        ValueError: a group is null or NaN.
    """
    of_row = np.asarray(groups)
    if np.issubdtype(of_row.dtype, np.integer) and of_row.size:
        low, high = int(of_row.min()), int(of_row.max())
        if high - low < max(_SPAN * of_row.size, 1024):
            ids = np.arange(low, high + 1, dtype=of_row.dtype)
            return ids, of_row if low == 0 else (of_row - low).astype(np.int64)
    fine = of_row == of_row  # noqa: PLR0124 - NaN is the value that differs from itself
    if of_row.dtype == object:
        fine &= np.array([group is not None for group in of_row], dtype=bool)
    require("group", of_row, fine, "an id")
    ids, slot = np.unique(of_row, return_inverse=True)
    return ids, slot


def rows_by_group(
    slot: npt.NDArray[Any], n_slots: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows (n,) ordered by group, their order inside a group kept; and the groups' ends (G,)."""
    end = np.cumsum(np.bincount(slot, minlength=n_slots))
    return _order(slot, np.append(0, end)[:-1].copy()), end


@njit(cache=True, nogil=True)
def _order(slot: npt.NDArray[Any], place: IntArray) -> IntArray:
    rows = np.empty(slot.size, np.int64)
    for row, group in enumerate(slot):
        rows[place[group]] = row
        place[group] += 1
    return rows


@njit(cache=True, nogil=True)
def _count_classes(
    slot: npt.NDArray[Any], label: npt.NDArray[np.int8], n_slots: int
) -> tuple[IntArray, IntArray]:
    """Rows and positive rows of each group."""
    n, n_positive = np.zeros(n_slots, np.int64), np.zeros(n_slots, np.int64)
    for row, group in enumerate(slot):
        n[group] += 1
        n_positive[group] += label[row]
    return n, n_positive


@njit(cache=True, nogil=True)
def _deal(
    slot: npt.NDArray[Any],
    label: npt.NDArray[np.int8],
    score: npt.NDArray[Any],
    front: IntArray,
    back: IntArray,
) -> npt.NDArray[Any]:
    """Scores by group, those of positives before those of negatives; ``front`` and ``back`` are used up."""
    dealt = np.empty_like(score)
    for row, group in enumerate(slot):
        if label[row]:
            dealt[front[group]] = score[row]
            front[group] += 1
        else:
            back[group] -= 1
            dealt[back[group]] = score[row]
    return dealt


@njit(cache=True, nogil=True)
def _auc_by_group(
    dealt: npt.NDArray[Any], start: IntArray, split: IntArray, end: IntArray
) -> FloatArray:
    value = np.full(end.size, np.nan)
    for group in range(end.size):
        positive, negative = dealt[start[group] : split[group]], dealt[split[group] : end[group]]
        if positive.size and negative.size:
            if positive.size < _LONG:
                positive.sort()
            if negative.size < _LONG:
                negative.sort()
            pairs = positive.size * negative.size
            value[group] = ordered_pairs(positive, negative) / pairs
    return value
