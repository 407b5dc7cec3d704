"""User-cluster bootstrap: one set of resamples, shared by every metric and model, so that differences are paired.

Source: METHODS §1.8 [S]. Rows of one user are dependent; users are drawn, with all of their rows. Every statistic is
recomputed in each resample (a ratio is the ratio of resampled sums, never a mean of fixed terms).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from reelrank.evaluation.classification import (
    auc,
    average_precision,
    f1_counts,
    labels_and_scores,
)

FloatArray = npt.NDArray[np.float64]

MIN_USERS = 2  # one cluster has no between-user variance
MIN_POSITIVES = 10  # [D] fewer positives: F1 and AP jump with single rows
MIN_DEFINED = 0.95  # [D] share of resamples in which the statistic must exist
QUANTILES = (0.025, 0.975)
_ROUNDING = 1e-12  # a variance below this share of the mean square is none
_BLOCK = 64  # resamples widened to float64 at a time: bounds memory


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: on the rows as they are; NaN where it is not defined.
        ci_low: lower end of the percentile interval; NaN if fewer than 2 users contribute.
        ci_high: upper end.
        n: rows or lists that the value rests on.
        reliable: false: may be shown, may not be ranked.
        replicates: (B,) the value in each resample; NaN where it is not defined.
    """

    value: float
    ci_low: float
    ci_high: float
    n: int
    reliable: bool
    replicates: FloatArray


@dataclass(frozen=True, slots=True)
class Difference:
    """``a − b`` on the same resamples, with a two-sided bootstrap p value."""

    value: float
    ci_low: float
    ci_high: float
    n: int
    reliable: bool
    p_value: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """Σ numerator / Σ denominator over the rows; with groups, the mean of the groups' ratios, weighted by their rows.

    Attributes:
        numerator: (n,).
        denominator: (n,) ≥ 0.
        group: (n,) group of each row, from 0; None = one group.
    """

    numerator: FloatArray
    denominator: FloatArray
    group: npt.NDArray[np.int64] | None = None


class UserBootstrap:
    """Resamples of users, drawn once.

    Args:
        users: ids of all users of the evaluated split, repeats allowed (U distinct).
        replicates: number of resamples B; memory is 2·B·U bytes.
        seed: of the draw.

    Raises:
        ValueError: no users, or ``replicates`` < 1.
    """

    def __init__(self, users: npt.ArrayLike, replicates: int = 1000, seed: int = 0) -> None:
        self.users = np.unique(np.asarray(users))
        if self.users.size == 0 or replicates < 1:
            raise ValueError("a bootstrap needs at least one user and one replicate")
        rng = np.random.default_rng(seed)
        size = self.users.size
        self.counts = np.empty((replicates, size), dtype=np.uint16)
        for row in self.counts:  # a row is one multinomial draw of U users
            row[:] = np.bincount(rng.integers(size, size=size), minlength=size)

    def ratio(
        self,
        users: npt.ArrayLike,
        numerator: npt.ArrayLike,
        denominator: npt.ArrayLike,
        n: int | None = None,
    ) -> Estimate:
        """Σ numerator / Σ denominator.

        Args:
            users: (n,) user of each row.
            numerator: (n,).
            denominator: (n,) ≥ 0.
            n: reported size where it is not the number of rows.

        Raises:
            ValueError: lengths differ, a value is not finite, or a user was not drawn.
        """
        terms = (Ratio(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)),)
        return self.ratios(users, [terms], n)[0]

    def ratios(
        self, users: npt.ArrayLike, statistics: Sequence[Sequence[Ratio]], n: int | None = None
    ) -> list[Estimate]:
        """Many statistics in one pass: rows are summed by user, and one matrix product serves all resamples.

        Args:
            users: (rows,) user of each row.
            statistics: each is the sum of its ratios.
            n: reported size where it is not the number of rows.

        Returns:
            an estimate per statistic; its interval needs two users in the denominator of each ratio.

        Raises:
            ValueError: lengths differ, a value is not finite, or a user was not drawn.
        """
        index = self._index(users)
        parts = [part for statistic in statistics for part in statistic]
        sums = [self._sums(index, part) for part in parts]
        if not sums:
            return []
        columns = np.concatenate(sums, axis=1)
        resampled = self._resampled(columns)
        ends = np.cumsum([part.shape[1] for part in sums])[:-1]
        totals = np.split(columns.sum(axis=0, keepdims=True), ends, axis=1)
        replicates = np.split(resampled, ends, axis=1)
        estimates, first = [], 0
        for statistic in statistics:
            own = range(first, first + len(statistic))
            first += len(statistic)
            value = float(np.sum([_quotient(totals[k]) for k in own]))
            drawn = np.sum([_quotient(replicates[k]) for k in own], axis=0)
            n_users = min(int(sums[k][:, 1::3].any(axis=1).sum()) for k in own)
            estimates.append(_estimate(value, drawn, index.size if n is None else n, n_users))
        return estimates

    def mean(self, users: npt.ArrayLike, values: npt.ArrayLike) -> Estimate:
        """Mean over the rows whose value is defined (not NaN); ``n`` counts those. Arguments as :meth:`ratio`."""
        value = np.asarray(values, np.float64)
        defined = ~np.isnan(value)
        return self.ratio(np.asarray(users)[defined], value[defined], np.ones(int(defined.sum())))

    def f1(
        self, users: npt.ArrayLike, y: npt.ArrayLike, p: npt.ArrayLike, threshold: float
    ) -> Estimate:
        """F1 of ``p >= threshold``; not reliable below 10 positives or with one class.

        Args:
            users: (n,) user of each row.
            y: (n,) labels, 0 or 1.
            p: (n,) predictions.
            threshold: fitted on validation rows (L9).

        Raises:
            ValueError: as :meth:`ratio`, or a label is not 0/1.
        """
        estimate = self.ratio(users, *f1_counts(y, p, threshold), n=np.size(y))
        return _mark(estimate, y)

    def average_precision(
        self, users: npt.ArrayLike, y: npt.ArrayLike, p: npt.ArrayLike
    ) -> Estimate:
        """AP under resampled row weights; not reliable below 10 positives or with one class. Arguments as :meth:`f1`."""
        label, score = labels_and_scores(y, p)
        index = self._index(users)
        order = np.argsort(-score, kind="stable")
        descending = score[order]
        tie_ends = np.append(descending[1:] != descending[:-1], True)[: score.size]
        by_user = np.ascontiguousarray(self.counts.T)
        replicates = _weighted_ap(label[order], index[order], tie_ends, by_user)
        value = average_precision(label, score)
        return _mark(_estimate(value, replicates, label.size, np.unique(index).size), label)

    def auc(self, users: npt.ArrayLike, y: npt.ArrayLike, p: npt.ArrayLike) -> Estimate:
        """AUC under resampled row weights, ties ½; not reliable below 10 rows of either class. Arguments as :meth:`f1`."""
        label, score = labels_and_scores(y, p)
        index = self._index(users)
        order = np.argsort(score, kind="stable")
        ascending = score[order]
        tie_ends = np.append(ascending[1:] != ascending[:-1], True)[: score.size]
        by_user = np.ascontiguousarray(self.counts.T)
        replicates = _weighted_auc(label[order], index[order], tie_ends, by_user)
        estimate = _estimate(auc(label, score), replicates, label.size, np.unique(index).size)
        return _mark(_mark(estimate, label), 1 - label)

    def correlation(self, users: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> Estimate:
        """Pearson's correlation; NaN where a column is constant.

        Spearman's is that of the ranks in the sample as it is: a resample repeats rows and so ranks, they are not drawn anew [D].

        Args:
            users: (n,) user of each row.
            a: (n,).
            b: (n,).

        Raises:
            ValueError: as :meth:`ratio`.
        """
        index = self._index(users)
        x, y = (np.asarray(column, np.float64) for column in (a, b))
        if x.shape != index.shape or y.shape != index.shape:
            raise ValueError(
                f"users {index.shape}, a {x.shape} and b {y.shape} must be of one length"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("a or b holds values that are not finite")
        if x.size:
            x, y = x - x.mean(), y - y.mean()  # sums of squares lose digits far from 0
        size = self.users.size
        terms = (None, x, y, x * x, y * y, x * y)
        sums = np.stack([np.bincount(index, term, size) for term in terms], axis=1).astype(
            np.float64
        )
        value = float(_correlation(sums.sum(axis=0, keepdims=True))[0])
        n_users = int(np.count_nonzero(sums[:, 0]))
        return _estimate(value, _correlation(self._resampled(sums)), index.size, n_users)

    def _resampled(self, columns: FloatArray) -> FloatArray:
        """Sums by user (U, C) to sums in each resample (B, C)."""
        resampled = np.empty((len(self.counts), columns.shape[1]))
        for start in range(0, len(self.counts), _BLOCK):
            block = slice(start, start + _BLOCK)
            resampled[block] = self.counts[block].astype(np.float64) @ columns
        return resampled

    def _sums(self, index: npt.NDArray[np.int64], part: Ratio) -> FloatArray:
        """Sums by user (U, 3G): numerator, denominator and rows of each group, group by group."""
        top, bottom, group = part.numerator, part.denominator, part.group
        columns = [top, bottom] if group is None else [top, bottom, group]
        if any(column.shape != index.shape for column in columns):
            raise ValueError(
                f"users {index.shape}, numerator {top.shape} and denominator {bottom.shape} must be of one length"
            )
        if not (np.isfinite(top).all() and np.isfinite(bottom).all()):
            raise ValueError("numerator or denominator holds values that are not finite")
        n_groups = 1 if group is None else int(group.max(initial=0)) + 1
        cell = index if group is None else index * n_groups + group
        size = self.users.size * n_groups
        by_cell = [np.bincount(cell, weights, size) for weights in (top, bottom, None)]
        return np.stack(by_cell, axis=-1).reshape(self.users.size, 3 * n_groups).astype(np.float64)

    def _index(self, users: npt.ArrayLike) -> npt.NDArray[np.int64]:
        ids = np.asarray(users)
        index = np.searchsorted(self.users, ids).clip(max=self.users.size - 1)
        unknown = self.users[index] != ids
        if unknown.any():
            raise ValueError(
                f"user {ids[unknown][0]} was not drawn: give UserBootstrap the users of all rows"
            )
        return index.astype(np.int64)


def macro(estimates: Sequence[Estimate]) -> Estimate:
    """Unweighted mean of estimates from one bootstrap; its ``n`` is the smallest, and it is reliable if all are.

    Raises:
        ValueError: nothing to average.
    """
    if not estimates:
        raise ValueError("a macro average needs at least one estimate")
    replicates = np.mean([e.replicates for e in estimates], axis=0)
    value = float(np.mean([e.value for e in estimates]))
    low, high = _interval(replicates)
    reliable = all(e.reliable for e in estimates)
    return Estimate(value, low, high, min(e.n for e in estimates), reliable, replicates)


def spread(estimates: Sequence[Estimate]) -> Estimate:
    """Standard deviation (n − 1) between estimates from one bootstrap, within each resample; ``n`` and ``reliable`` as of ``macro``.

    Raises:
        ValueError: fewer than two.
    """
    if len(estimates) < 2:
        raise ValueError(f"a spread needs two estimates or more, got {len(estimates)}")
    replicates = np.std([e.replicates for e in estimates], axis=0, ddof=1)
    value = float(np.std([e.value for e in estimates], ddof=1))
    low, high = _interval(replicates)
    reliable = all(e.reliable for e in estimates)
    return Estimate(value, low, high, min(e.n for e in estimates), reliable, replicates)


def paired(a: Estimate, b: Estimate) -> Difference:
    """Difference of two models judged on the same rows with the same resamples.

    p = min(1, 2 (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (B + 1)): never 0, and below 5 % when the 95 % interval excludes 0.

    Raises:
        ValueError: different resamples or different rows.
    """
    if a.replicates.shape != b.replicates.shape or a.n != b.n:
        raise ValueError(
            f"not comparable: n {a.n} and {b.n}, resamples {a.replicates.size} and {b.replicates.size}"
        )
    difference = a.replicates - b.replicates
    low, high = _interval(difference)
    defined = difference[~np.isnan(difference)]
    p_value = np.nan
    if defined.size:
        count = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
        p_value = float(min(1.0, 2 * (1 + count) / (defined.size + 1)))
    return Difference(a.value - b.value, low, high, a.n, a.reliable and b.reliable, p_value)


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm-adjusted p values of one table; NaN stays NaN and is not counted as a test."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    steps = p[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _quotient(sums: FloatArray) -> FloatArray:
    """Σ_g n_g/n · numerator_g/denominator_g of sums (B, 3G); NaN where a group with rows has no denominator."""
    top, bottom, rows = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    quotient: FloatArray = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=quotient, where=bottom > 0)
    if top.shape[1] == 1:
        return quotient[:, 0]
    weighted = np.where(rows > 0, rows * quotient, 0.0).sum(axis=1)
    value: FloatArray = np.full(len(sums), np.nan)
    np.divide(weighted, rows.sum(axis=1), out=value, where=rows.sum(axis=1) > 0)
    return value


def _correlation(sums: FloatArray) -> FloatArray:
    """Of sums (B, 6): rows, x, y, x², y², xy."""
    n, x, y, xx, yy, xy = sums.T
    of_x, of_y = n * xx - x * x, n * yy - y * y
    varies = (of_x > _ROUNDING * n * xx) & (of_y > _ROUNDING * n * yy)
    value: FloatArray = np.full(len(sums), np.nan)
    np.divide(n * xy - x * y, np.sqrt(np.abs(of_x * of_y)), out=value, where=varies)
    return value


def _interval(replicates: FloatArray) -> tuple[float, float]:
    defined = replicates[~np.isnan(replicates)]
    if defined.size == 0:
        return np.nan, np.nan
    low, high = np.quantile(defined, QUANTILES)
    return float(low), float(high)


def _estimate(value: float, replicates: FloatArray, n: int, n_users: int) -> Estimate:
    if n_users < MIN_USERS:
        replicates = np.full_like(replicates, np.nan)
    defined = float(np.mean(~np.isnan(replicates)))
    low, high = _interval(replicates)
    return Estimate(value, low, high, n, defined >= MIN_DEFINED, replicates)


def _mark(estimate: Estimate, y: npt.ArrayLike) -> Estimate:
    """Withdraw `reliable` where a class is too small."""
    n_positive = int(np.sum(np.asarray(y)))
    enough = n_positive >= MIN_POSITIVES and n_positive < np.size(y)
    e = estimate
    return Estimate(e.value, e.ci_low, e.ci_high, e.n, e.reliable and enough, e.replicates)


@njit(cache=True)
def _weighted_ap(
    label: FloatArray,
    user: npt.NDArray[np.int64],
    tie_ends: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.uint16],
) -> FloatArray:
    """AP of rows sorted by falling score, each weighted by the count (U, B) of its user; (B,)."""
    n_replicates = counts.shape[1]
    true_positive, predicted = np.zeros(n_replicates), np.zeros(n_replicates)
    before, area = np.zeros(n_replicates), np.zeros(n_replicates)
    new_positive = False
    for i in range(label.size):
        weight = counts[user[i]]
        for b in range(n_replicates):  # contiguous in memory: vectorised by the compiler
            predicted[b] += weight[b]
        if label[i] == 1:
            new_positive = True
            for b in range(n_replicates):
                true_positive[b] += weight[b]
        if tie_ends[i] and new_positive:
            new_positive = False
            for b in range(n_replicates):
                if true_positive[b] > before[b]:
                    area[b] += (true_positive[b] - before[b]) * true_positive[b] / predicted[b]
                    before[b] = true_positive[b]
    return np.where(true_positive > 0, area / np.maximum(true_positive, 1.0), np.nan)


@njit(cache=True)
def _weighted_auc(
    label: FloatArray,
    user: npt.NDArray[np.int64],
    tie_ends: npt.NDArray[np.bool_],
    counts: npt.NDArray[np.uint16],
) -> FloatArray:
    """AUC of rows sorted by rising score, each weighted by the count (U, B) of its user; (B,)."""
    n_replicates = counts.shape[1]
    pairs, below, above = np.zeros(n_replicates), np.zeros(n_replicates), np.zeros(n_replicates)
    positive, negative = np.zeros(n_replicates), np.zeros(n_replicates)  # of equal scores
    for i in range(label.size):
        weight = counts[user[i]]
        of_class = positive if label[i] == 1 else negative
        for b in range(n_replicates):  # contiguous in memory: vectorised by the compiler
            of_class[b] += weight[b]
        if tie_ends[i]:
            for b in range(n_replicates):
                pairs[b] += positive[b] * (below[b] + 0.5 * negative[b])
                below[b] += negative[b]
                above[b] += positive[b]
                positive[b] = negative[b] = 0.0
    total = below * above
    return np.where(total > 0, pairs / np.maximum(total, 1.0), np.nan)
