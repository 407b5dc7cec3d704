"""Ranking metrics per list, for ragged lists whose rows may stand in any order.

Source: METHODS §2 [S]. Every function returns the list ids (ascending) and one value per list; averaging, with its
uncertainty, is left to :mod:`reelrank.evaluation.uncertainty`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.stats import rankdata

from reelrank.evaluation.columns import finite, require, same_length
from reelrank.sorting import sort_by

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Gain = Literal["linear", "exponential"]


def ndcg(
    scores: npt.ArrayLike,
    relevance: npt.ArrayLike,
    list_ids: npt.ArrayLike,
    k: int,
    gain: Gain = "linear",
) -> tuple[npt.NDArray[Any], FloatArray]:
    r"""NDCG@K of every list.

    $DCG = \sum_{\rho \le K} gain_\rho / \log_2(\rho + 1)$, divided by the DCG of the best order. Rows with equal scores
    share the mean discount of the places they occupy: the expected DCG over their orders (McSherry & Najork 2008), so
    the value depends neither on row order nor on luck.

    Args:
        scores: (n,) finite, higher is better.
        relevance: (n,) ≥ 0; 0/1 for the binary metric.
        list_ids: (n,) list of each row.
        k: cut-off.
        gain: ``linear`` = relevance (binary metric for 0/1), ``exponential`` = 2^relevance − 1.

    Returns:
        list ids (L,) and NDCG (L,); NaN for a list without a relevant row: exclude and count those.

    Raises:
        ValueError: lengths differ, a score is not finite, a relevance is negative or not finite, or k < 1.

    Source: METHODS §2 [S]; the treatment of ties is ours [D: §2, "ties always count ½"].
    """
    rel = finite("relevance", relevance)
    require("relevance", rel, rel >= 0, "≥ 0 (NDCG has no negative gains): shift or clip it")
    gains = np.exp2(rel) - 1 if gain == "exponential" else rel
    ids, score, of_rows, ends = _by_list(scores, gains, list_ids, k)
    return ids, _ndcg_by_list(score, of_rows, ends, _discount(np.arange(1, k + 1), k))


def dcg(
    scores: npt.ArrayLike, gains: npt.ArrayLike, list_ids: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[Any], FloatArray]:
    r"""DCG@K of every list, $\sum_{\rho \le K} gain_\rho / \log_2(\rho + 1)$, for gains that may be negative (watch-time gain).

    Rows with equal scores share the mean discount of their places, as in :func:`ndcg`.

    Args:
        scores: (n,) finite, higher is better.
        gains: (n,) finite.
        list_ids: (n,) list of each row.
        k: cut-off.

    Returns:
        list ids (L,) and DCG (L,).

    Raises:
        ValueError: lengths differ, a value is not finite, or k < 1.

    Source: METHODS §2 [S].
    """
    ids, score, of_rows, ends = _by_list(scores, gains, list_ids, k)
    return ids, _dcg_by_list(score, of_rows, ends, _discount(np.arange(1, k + 1), k))


def ranks_in_lists(scores: npt.ArrayLike, list_ids: npt.ArrayLike) -> FloatArray:
    """Place of each row in its list, (n,): 1 = highest score, equal scores share their mean place.

    Those of the relevant rows go into :func:`ndcg_from_ranks`, :func:`hit_rate` and :func:`mrr`.

    Args:
        scores: (n,) finite.
        list_ids: (n,) list of each row.

    Raises:
        ValueError: lengths differ, or a score is not finite.
    """
    score = finite("scores", scores)
    _, of_list = np.unique(np.asarray(list_ids), return_inverse=True)
    same_length(scores=score, list_ids=of_list)
    distinct = np.unique(score, return_inverse=True)[1]
    # one rank over all lists, less the rows of the lists before
    key = of_list * (distinct.max(initial=0) + 1) - distinct
    n = np.bincount(of_list)
    ranks: FloatArray = rankdata(key) - (np.cumsum(n) - n)[of_list]
    return ranks


def ndcg_from_ranks(
    ranks: npt.ArrayLike, list_ids: npt.ArrayLike, n_relevant: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[Any], FloatArray]:
    """Binary NDCG@K from the ranks of relevant items, for full-catalogue ranking.

    Args:
        ranks: (n,) place of each relevant item, 1 = first; average ranks for ties may be fractional.
        list_ids: (n,) list of each row; a list whose relevant items all miss the top K still needs a row.
        n_relevant: |R|, (n,) equal inside a list, or one number for all.
        k: cut-off.

    Returns:
        list ids (L,) and NDCG (L,).

    Raises:
        ValueError: lengths differ, a rank or ``n_relevant`` is below 1, or k < 1.

    Source: METHODS §2 [S].
    """
    ids, of_list, rank = _ranks(ranks, list_ids, k)
    relevant = np.broadcast_to(np.asarray(n_relevant, dtype=np.int64), rank.shape)
    if (relevant < 1).any():
        raise ValueError("n_relevant must be ≥ 1: leave lists without a relevant item out")
    dcg = _sum_by(of_list, _discount(rank, k), ids.size)
    per_list = np.zeros(ids.size, dtype=np.int64)
    np.maximum.at(per_list, of_list, relevant)
    ideal = np.cumsum(_discount(np.arange(1, k + 1), k))[np.minimum(per_list, k) - 1]
    return ids, dcg / ideal


def hit_rate(
    ranks: npt.ArrayLike, list_ids: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[Any], FloatArray]:
    """HR@K: 1 where a relevant item of the list has rank ≤ K. Arguments as :func:`ndcg_from_ranks`."""
    ids, best = _best_rank(ranks, list_ids, k)
    return ids, (best <= k).astype(np.float64)


def mrr(
    ranks: npt.ArrayLike, list_ids: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[Any], FloatArray]:
    """MRR@K: 1 / rank of the list's best relevant item, 0 below place K. Arguments as :func:`ndcg_from_ranks`."""
    ids, best = _best_rank(ranks, list_ids, k)
    return ids, np.where(best <= k, 1 / best, 0.0)


def _discount(rank: npt.NDArray[Any], k: int) -> FloatArray:
    discount: FloatArray = np.where(rank <= k, 1 / np.log2(rank + 1), 0.0)
    return discount


def _sum_by(index: npt.NDArray[Any], values: FloatArray, size: int) -> FloatArray:
    return np.bincount(index, weights=values, minlength=size).astype(np.float64)


def _by_list(
    scores: npt.ArrayLike, gains: npt.ArrayLike, list_ids: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[Any], FloatArray, FloatArray, IntArray]:
    """List ids, scores and gains of their rows one list after the other, and where each list ends."""
    _check_cutoff(k)
    score, gain = finite("scores", scores), finite("gains", gains)
    ids, of_list = np.unique(np.asarray(list_ids), return_inverse=True)
    same_length(scores=score, gains=gain, list_ids=of_list)
    order = np.argsort(of_list, kind="stable")
    ends = np.cumsum(np.bincount(of_list))
    return ids, score[order], gain[order], ends


@njit(cache=True, nogil=True)
def _ndcg_by_list(
    scores: FloatArray, gains: FloatArray, ends: IntArray, discount: FloatArray
) -> FloatArray:
    """NDCG (L,) of lists that lie one after the other; ``discount`` (K,) belongs to places 1 … K."""
    values = _dcg_by_list(scores, gains, ends, discount)
    against = -gains
    order, spare = np.empty(gains.size, np.int64), np.empty(gains.size, np.int64)
    start = 0
    for index, end in enumerate(ends):
        top = min(end - start, discount.size)
        own = _sorted_places(start, end, against, order, spare)
        ideal = 0.0
        for place in range(top):
            ideal += gains[own[place]] * discount[place]
        values[index] = values[index] / ideal if ideal > 0 else np.nan
        start = end
    return values


@njit(cache=True, nogil=True)
def _sorted_places(
    start: int, end: int, key: FloatArray, order: IntArray, spare: IntArray
) -> IntArray:
    """Places start … end − 1 by rising ``key``, in the memory of ``order``."""
    size = end - start
    for k in range(size):
        order[k] = start + k
    sort_by(order[:size], key, spare[:size])
    return order[:size]


@njit(cache=True, nogil=True)
def _dcg_by_list(
    scores: FloatArray, gains: FloatArray, ends: IntArray, discount: FloatArray
) -> FloatArray:
    values, against = np.zeros(ends.size), -scores
    order, spare = np.empty(scores.size, np.int64), np.empty(scores.size, np.int64)
    start = 0
    for index, end in enumerate(ends):
        size = end - start
        top = min(size, discount.size)
        own = _sorted_places(start, end, against, order, spare)
        place = 0
        while place < top:  # one step per group of equal scores
            last, total, shared = place, 0.0, 0.0
            while last < size and scores[own[last]] == scores[own[place]]:
                total += gains[own[last]]
                shared += discount[last] if last < top else 0.0
                last += 1
            values[index] += total * shared / (last - place)
            place = last
        start = end
    return values


def _best_rank(
    ranks: npt.ArrayLike, list_ids: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[Any], FloatArray]:
    ids, of_list, rank = _ranks(ranks, list_ids, k)
    best = np.full(ids.size, np.inf)
    np.minimum.at(best, of_list, rank)
    return ids, best


def _ranks(
    ranks: npt.ArrayLike, list_ids: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[Any], IntArray, FloatArray]:
    _check_cutoff(k)
    ids, of_list = np.unique(np.asarray(list_ids), return_inverse=True)
    rank = finite("rank", ranks)
    same_length(ranks=rank, list_ids=of_list)
    require("rank", rank, rank >= 1, "≥ 1: ranks start at 1")
    return ids, of_list, rank


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be ≥ 1, not {k}")
