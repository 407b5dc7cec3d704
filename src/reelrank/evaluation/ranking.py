"""Ranking metrics per list, for ragged lists whose rows may stand in any order.

Source: METHODS §2 [S]. Every function returns the list ids (ascending) and one value per list; averaging, with its
uncertainty, is left to :mod:`reelrank.evaluation.uncertainty`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

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
    score, rel = np.asarray(scores, dtype=np.float64), np.asarray(relevance, dtype=np.float64)
    ids, of_list = np.unique(np.asarray(list_ids), return_inverse=True)
    _check(k, scores=score, relevance=rel, list_ids=of_list)
    if (rel < 0).any():
        raise ValueError(
            "relevance must be ≥ 0 (NDCG is not defined for negative gains): shift or clip it"
        )
    gains = np.exp2(rel) - 1 if gain == "exponential" else rel
    order = np.argsort(of_list, kind="stable")
    ends = np.cumsum(np.bincount(of_list))
    return ids, _ndcg_by_list(score[order], gains[order], ends, _discount(np.arange(1, k + 1), k))


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


@njit(cache=True)
def _ndcg_by_list(
    scores: FloatArray, gains: FloatArray, ends: IntArray, discount: FloatArray
) -> FloatArray:
    """NDCG (L,) of lists that lie one after the other; ``discount`` (K,) belongs to places 1 … K."""
    values = np.full(ends.size, np.nan)
    start = 0
    for index, end in enumerate(ends):
        gain = gains[start:end]
        size = end - start
        top = min(size, discount.size)
        ideal = (np.sort(gain)[::-1][:top] * discount[:top]).sum()
        if ideal > 0:
            score = scores[start:end]
            order = np.argsort(-score)
            dcg, place = 0.0, 0
            while place < top:  # one step per group of equal scores
                last, total = place, 0.0
                while last < size and score[order[last]] == score[order[place]]:
                    total += gain[order[last]]
                    last += 1
                dcg += total * discount[place : min(last, top)].sum() / (last - place)
                place = last
            values[index] = dcg / ideal
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
    ids, of_list = np.unique(np.asarray(list_ids), return_inverse=True)
    rank = np.asarray(ranks, dtype=np.float64)
    _check(k, ranks=rank, list_ids=of_list)
    if (rank < 1).any():
        raise ValueError("ranks start at 1")
    return ids, of_list, rank


def _check(k: int, **columns: npt.NDArray[Any]) -> None:
    if k < 1:
        raise ValueError(f"k must be ≥ 1, not {k}")
    sizes = {name: column.shape for name, column in columns.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"columns differ in length: {sizes}")
    for name, column in columns.items():
        if not np.isfinite(column).all():
            raise ValueError(f"{name} holds values that are not finite: drop those rows first")
