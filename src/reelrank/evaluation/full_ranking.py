"""Ranks of target items among the whole catalogue, or among a sample of it, for models that score by an inner product.

The rank of a target is counted, nothing is sorted. The product of a block of queries and a tile of items is taken in
float32 and only sieves: an item whose score lies further from the target's than rounding can explain is decided by it, the
few others by an inner product in float64. So ranks, and ties, depend neither on tiles nor on the machine's product.

Source: METHODS §2 [S].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from numba import njit

from reelrank.draws import stream_key, uniform
from reelrank.evaluation import ranking
from reelrank.evaluation.columns import finite, require, same_length
from reelrank.threads import side_by_side

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Embeddings = npt.NDArray[np.floating[Any]]
Sampling = Literal["uniform", "popularity"]
ListMetric = Literal["ndcg", "hr", "mrr"]

N_SAMPLED = 99  # METHODS §2: as UniSAR
POPULARITY_POWER = 0.75  # METHODS §2
# scores at a time and thread: 1 MiB, which stays in the cache until counted
_QUERIES, _TILE = 512, 512
_ROUNDING = 2.0**-24  # of float32
_ROUNDINGS = 6  # beside the d of a product: of its inputs, and of the limits it is held against
_TINY = 1e-36  # products that vanish in float32
_PATIENCE = 20  # draws per wanted item before the rest is drawn exactly


@dataclass(frozen=True, slots=True)
class Competitors:
    """Which items compete for each query; without arguments all of them do.

    Attributes:
        hidden_query: (h,) row of ``queries`` for which the item of the same row in ``hidden_item`` is left out (seen before).
        hidden_item: (h,) item; a pair may come twice.
        available_from: (I,) time from which an item exists (L7), as ``features.candidates.availability_ts`` makes it.
        ts: (Q,) time of each query, in the same unit; item i competes if ``available_from[i] <= ts``.
    """

    hidden_query: npt.ArrayLike = ()
    hidden_item: npt.ArrayLike = ()
    available_from: npt.ArrayLike | None = None
    ts: npt.ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class TargetRanks:
    """Ranks of targets, and among what they were ranked: full and sampled ranks differ in every metric's name.

    Attributes:
        protocol: ``full``, or sampling and size, such as ``uniform99``. Sampled metrics are no estimates of the full ones, and may
            order models otherwise (Krichene & Rendle 2020): show them beside, never in one table.
        rank: (n,) 1 + items with a higher score + half of those with the same score.
        list_id: (n,) targets of one list: the query in full ranking; in sampled ranking each target is a list of its own.
    """

    protocol: str
    rank: FloatArray
    list_id: IntArray

    def per_list(self, metric: ListMetric, k: int) -> tuple[str, IntArray, FloatArray]:
        """Name, list ids (L,) and values (L,) of a metric at cut-off K: ``ndcg@20`` or, if sampled, ``ndcg@20_uniform99``.

        Raises:
            ValueError: k < 1.
        """
        name = f"{metric}@{k}" + ("" if self.protocol == "full" else f"_{self.protocol}")
        if metric == "hr":
            ids, value = ranking.hit_rate(self.rank, self.list_id, k)
        elif metric == "mrr":
            ids, value = ranking.mrr(self.rank, self.list_id, k)
        else:
            _, of_list, size = np.unique(self.list_id, return_inverse=True, return_counts=True)
            ids, value = ranking.ndcg_from_ranks(self.rank, self.list_id, size[of_list], k)
        return name, ids, value


def full_ranks(
    queries: npt.ArrayLike,
    items: npt.ArrayLike,
    target_query: npt.ArrayLike,
    target_item: npt.ArrayLike,
    competitors: Competitors | None = None,
) -> TargetRanks:
    """Rank each target among all items that compete for its query; other targets of the query compete too.

    Memory beyond the inputs: a copy of both embeddings (a second one in float32 if they are not) and 1 MiB of scores for each
    thread. A thread each for blocks of queries, as many as torch has.

    Args:
        queries: (Q, d) embeddings of users or sessions.
        items: (I, d) embeddings of the catalogue.
        target_query: (n,) row of ``queries``.
        target_item: (n,) row of ``items``, relevant for that query.
        competitors: what is not available yet, or hidden.

    Raises:
        ValueError: shapes do not fit, a value is not finite, an index is out of range, or a target does not compete itself; the
            row is named.

    Source: METHODS §2 [S].
    """
    import torch  # noqa: PLC0415 (whoever reads metrics alone does not pay for it)

    task = _Task.of(queries, items, target_query, target_item, competitors)
    higher, tied = np.zeros(task.row.size, np.int64), np.zeros(task.row.size, np.int64)
    score = _pair_scores(task.queries, task.items, task.target_start, task.target)
    query32 = torch.from_numpy(task.queries.astype(np.float32, copy=False))
    item32 = torch.from_numpy(task.items.astype(np.float32, copy=False))
    margin = _norms(task.queries) * _ROUNDING * (task.items.shape[1] + _ROUNDINGS) * 1.01
    item_norm = _norms(task.items)

    def count(first: int) -> None:
        block = query32[first : first + _QUERIES]
        buffer = torch.empty(len(block) * _TILE)
        for start in range(0, int(task.n_available[first : first + _QUERIES].max()), _TILE):
            tile = item32[start : start + _TILE]
            # torch's product: on narrow matrices about a third faster than NumPy's BLAS
            scores = torch.mm(
                block, tile.T, out=buffer[: len(block) * len(tile)].view(len(block), -1)
            )
            _count_tile(
                scores.numpy(), first, start, task.n_available, task.target_start,
                task.hidden_start, task.hidden, score, margin, item_norm[start : start + _TILE].max(),
                task.queries, task.items, higher, tied,
            )  # fmt: skip

    # products of this size wait for each other's threads: blocks side by side, one thread each, do not
    side_by_side(count, range(0, len(task.queries), _QUERIES))
    rank = 1 + higher + 0.5 * (tied - 1)  # a target ties with itself
    return task.ranks("full", rank, task.query)


def sampled_ranks(
    queries: npt.ArrayLike,
    items: npt.ArrayLike,
    target_query: npt.ArrayLike,
    target_item: npt.ArrayLike,
    competitors: Competitors | None = None,
    *,
    n: int = N_SAMPLED,
    sampling: Sampling = "uniform",
    popularity: npt.ArrayLike | None = None,
    seed: int = 0,
    key: npt.ArrayLike | None = None,
) -> TargetRanks:
    """Rank each target among itself and ``n`` different items drawn from those that compete for its query.

    Draws depend on seed, query and target alone: every model meets the same items.

    Args:
        queries: (Q, d) embeddings of users or sessions.
        items: (I, d) embeddings of the catalogue.
        target_query: (m,) row of ``queries``.
        target_item: (m,) row of ``items``, relevant for that query; the query's other targets may be drawn unless they are hidden.
        competitors: what is not available yet, or hidden.
        n: items drawn for each target.
        sampling: ``uniform``, or ``popularity``: one after the other with weights popularity^0.75.
        popularity: (I,) train exposures (L2), for ``popularity``; an item without any is never drawn.
        seed: of the draws.
        key: (m,) integers that name the targets' draws in place of query and item: the same in any order and block.

    Raises:
        ValueError: as :func:`full_ranks`, ``popularity`` is missing or unusable, or fewer than ``n`` items can be drawn for a row.

    Source: METHODS §2 [S].
    """
    task = _Task.of(queries, items, target_query, target_item, competitors)
    weight = np.ones(len(task.items))
    if sampling == "popularity":
        if popularity is None:
            raise ValueError("sampling by popularity needs the items' train exposures")
        exposures = finite("popularity", popularity)
        same_length(popularity=exposures, items=weight)
        require("popularity", exposures, exposures >= 0, "≥ 0")
        weight = exposures[task.item_order] ** POPULARITY_POWER
    drawn = _drawn(task, weight, n, seed, key)
    rank = _ranks_among(task.queries, task.items, task.target_start, task.target, drawn)
    return task.ranks(f"{sampling}{n}", rank, task.row)


def sampled_items(
    n_items: int,
    target_query: npt.ArrayLike,
    target_item: npt.ArrayLike,
    competitors: Competitors,
    *,
    n: int,
    seed: int = 0,
    key: npt.ArrayLike | None = None,
) -> IntArray:
    """What :func:`sampled_ranks` draws uniformly, (m, n) rows of items: for models without a vector that serves all of them.

    The first items of a longer draw are those of a shorter one. Arguments and errors as :func:`sampled_ranks`.

    Args:
        n_items: I.
        target_query: (m,).
        target_item: (m,).
        competitors: with ``ts``, which says how many queries there are.
        n: items drawn for each target.
        seed: of the draws.
        key: names the targets' draws.
    """
    n_queries = np.asarray(competitors.ts).size
    nothing = np.zeros((max(n_queries, n_items), 0), np.float32)
    task = _Task.of(nothing[:n_queries], nothing[:n_items], target_query, target_item, competitors)
    drawn = _drawn(task, np.ones(n_items), n, seed, key)
    return task.item_order[drawn[np.argsort(task.row)]]


def _drawn(
    task: _Task, weight: FloatArray, n: int, seed: int, key: npt.ArrayLike | None
) -> IntArray:
    """(m, n) places of the items drawn for the task's targets."""
    if n < 1:
        raise ValueError(f"n must be ≥ 1, not {n}")
    stream = task.query * len(task.items) + task.item_order[task.target]
    if key is not None:
        given = np.asarray(key, np.int64)
        same_length(key=given, target_item=stream)
        stream = given[task.row]
    drawn, n_drawable = _draw(
        task.n_available, task.target_start, task.target, task.hidden_start, task.hidden,
        np.append(0.0, np.cumsum(weight)), stream, n, seed,
    )  # fmt: skip
    if n_drawable.size and n_drawable.min() < n:
        first = np.argmax(n_drawable < n)
        raise ValueError(
            f"target row {task.row[first]}: only {n_drawable[first]} items can be drawn for query {task.query[first]}, "
            f"not {n}: choose a smaller n, or rank in full"
        )
    return drawn


@dataclass(frozen=True, slots=True)
class _Task:
    """Checked input, items in order of availability, queries in order of how many items exist, targets by query.

    Attributes:
        queries: (Q, d).
        items: (I, d); those that exist for query q are the first ``n_available[q]``.
        item_order: (I,) given row of each item.
        n_available: (Q,).
        target_start: (Q + 1,) bounds of each query's targets.
        target: (n,) place among ``items``.
        row: (n,) given row of each target.
        query: (n,) given query of each target.
        hidden_start: (Q + 1,) bounds of each query's hidden items.
        hidden: (h,) places among ``items``, ascending inside a query, none twice, all available.
    """

    queries: Embeddings
    items: Embeddings
    item_order: IntArray
    n_available: IntArray
    target_start: IntArray
    target: IntArray
    row: IntArray
    query: IntArray
    hidden_start: IntArray
    hidden: IntArray

    @classmethod
    def of(
        cls,
        queries: npt.ArrayLike,
        items: npt.ArrayLike,
        target_query: npt.ArrayLike,
        target_item: npt.ArrayLike,
        competitors: Competitors | None,
    ) -> Self:
        given_queries, given_items = _embeddings("query", queries), _embeddings("item", items)
        if given_queries.shape[1] != given_items.shape[1]:
            raise ValueError(
                f"queries {given_queries.shape} and items {given_items.shape} must have one width"
            )
        n_queries, n_items = len(given_queries), len(given_items)
        query = _indices("target_query", target_query, n_queries)
        item = _indices("target_item", target_item, n_items)
        same_length(target_query=query, target_item=item)
        rules = competitors or Competitors()
        item_order, n_available = _availability(rules, n_queries, n_items)
        query_order = np.argsort(n_available, kind="stable")
        item_place, query_place = np.argsort(item_order), np.argsort(query_order)

        late = item_place[item] >= n_available[query]
        require(
            "target_item",
            item,
            ~late,
            "available when its query is made: drop such rows and count them",
        )
        hidden_query = _indices("hidden_query", rules.hidden_query, n_queries)
        hidden_item = _indices("hidden_item", rules.hidden_item, n_items)
        same_length(hidden_query=hidden_query, hidden_item=hidden_item)
        exists = item_place[hidden_item] < n_available[hidden_query]
        pair = query_place[hidden_query[exists]] * n_items + item_place[hidden_item[exists]]
        pair.sort()
        pair = pair[np.diff(pair, prepend=-1) > 0]
        target_pair = query_place[query] * n_items + item_place[item]
        seen = np.append(pair, -1)[np.searchsorted(pair, target_pair)] == target_pair
        require("target_item", item, ~seen, "one that is not hidden: take it out of hidden_item")

        row = np.argsort(query_place[query], kind="stable")
        bounds = np.arange(n_queries + 1)
        return cls(
            queries=given_queries[query_order],
            items=given_items[item_order],
            item_order=item_order,
            n_available=n_available[query_order],
            target_start=np.searchsorted(query_place[query][row], bounds),
            target=item_place[item][row],
            row=row,
            query=query[row],
            hidden_start=np.searchsorted(pair, bounds * n_items),
            hidden=pair % n_items if n_items else pair,
        )

    def ranks(self, protocol: str, rank: FloatArray, list_id: IntArray) -> TargetRanks:
        """In the order of the given rows."""
        back = np.argsort(self.row)
        return TargetRanks(protocol, rank[back], list_id[back])


def _availability(rules: Competitors, n_queries: int, n_items: int) -> tuple[IntArray, IntArray]:
    """Items in the order in which they appear, and how many exist for each query."""
    if rules.available_from is None or rules.ts is None:
        if rules.available_from is not None or rules.ts is not None:
            raise ValueError("available_from and ts are given together or not at all")
        return np.arange(n_items), np.full(n_queries, n_items)
    available_from, ts = np.asarray(rules.available_from), np.asarray(rules.ts)
    if available_from.shape != (n_items,) or ts.shape != (n_queries,):
        raise ValueError(
            f"available_from {available_from.shape} belongs to {n_items} items, ts {ts.shape} to {n_queries} queries"
        )
    require("available_from", available_from, ~np.isnan(available_from), "a time")
    require("ts", ts, ~np.isnan(ts), "a time")
    order = np.argsort(available_from, kind="stable")
    return order, np.searchsorted(available_from[order], ts, side="right")


def _embeddings(name: str, values: npt.ArrayLike) -> Embeddings:
    matrix = np.asarray(values)
    if matrix.ndim != 2:
        raise ValueError(f"embeddings of the {name} rows must have two axes, not {matrix.shape}")
    if matrix.dtype != np.float32:
        matrix = matrix.astype(np.float64, copy=False)
    fine = np.isfinite(matrix).all(axis=1)
    if not fine.all():
        raise ValueError(f"the embedding of {name} row {np.argmin(fine)} is not finite")
    return matrix


def _indices(name: str, values: npt.ArrayLike, size: int) -> IntArray:
    index = np.asarray(values)
    if index.size == 0:
        return np.zeros(0, np.int64)
    inside = (index >= 0) & (index < size) & np.issubdtype(index.dtype, np.integer)
    require(name, index, inside, f"a row number below {size}")
    return index.astype(np.int64)


def _norms(matrix: Embeddings) -> FloatArray:
    norms: FloatArray = np.sqrt(np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64))
    return norms


@njit(cache=True, nogil=True)
def _dot(a: Embeddings, b: Embeddings) -> float:
    """Inner product in float64; the order of additions is fixed, so equal embeddings have equal scores."""
    s0 = s1 = s2 = s3 = 0.0
    k = 0
    while k + 4 <= a.size:
        s0 += np.float64(a[k]) * np.float64(b[k])
        s1 += np.float64(a[k + 1]) * np.float64(b[k + 1])
        s2 += np.float64(a[k + 2]) * np.float64(b[k + 2])
        s3 += np.float64(a[k + 3]) * np.float64(b[k + 3])
        k += 4
    while k < a.size:
        s0 += np.float64(a[k]) * np.float64(b[k])
        k += 1
    return (s0 + s1) + (s2 + s3)


@njit(cache=True, nogil=True)
def _pair_scores(
    queries: Embeddings, items: Embeddings, target_start: IntArray, target: IntArray
) -> FloatArray:
    score = np.empty(target.size)
    for query in range(len(queries)):
        for j in range(target_start[query], target_start[query + 1]):
            score[j] = _dot(queries[query], items[target[j]])
    return score


@njit(cache=True, nogil=True)
def _count_above(
    scores: npt.NDArray[np.float32], top: np.float32, bottom: np.float32
) -> tuple[np.int32, np.int32]:
    """Scores > ``top``, and scores ≥ ``bottom``: vectorised for its 32-bit sums and its plain index."""
    above, reached = np.int32(0), np.int32(0)
    for i in range(scores.size):
        above = np.int32(above + np.int32(scores[i] > top))
        reached = np.int32(reached + np.int32(scores[i] >= bottom))
    return above, reached


@njit(cache=True, nogil=True)
def _count_tile(
    scores: npt.NDArray[np.float32],
    first: int,
    start: int,
    n_available: IntArray,
    target_start: IntArray,
    hidden_start: IntArray,
    hidden: IntArray,
    target_score: FloatArray,
    margin: FloatArray,
    widest: float,
    queries: Embeddings,
    items: Embeddings,
    higher: IntArray,
    tied: IntArray,
) -> None:
    """Count the items of a tile above each target, and level with it.

    ``scores`` (B, T) are float32 products of the queries from ``first`` and the items from ``start``, wrong by at most
    ``margin`` (Q,) times the largest norm in the tile.
    """
    for query in range(first, first + len(scores)):
        row = scores[query - first, : max(n_available[query] - start, 0)]
        slack = margin[query] * widest + _TINY
        for j in range(target_start[query], target_start[query + 1]):
            exact = target_score[j]
            top, bottom = np.float32(exact + slack), np.float32(exact - slack)
            above, reached = _count_above(row, top, bottom)
            higher[j] += above
            if reached > above:  # some may be level with the target
                for i in range(row.size):
                    if bottom <= row[i] <= top:
                        score = _dot(queries[query], items[start + i])
                        higher[j] += score > exact
                        tied[j] += score == exact
            if hidden_start[query] == hidden_start[query + 1]:
                continue
            left_out = hidden[hidden_start[query] : hidden_start[query + 1]]
            for item in left_out[np.searchsorted(left_out, start) :]:
                if item >= start + row.size:
                    break
                if row[item - start] > top:
                    higher[j] -= 1
                elif row[item - start] >= bottom:
                    score = _dot(queries[query], items[item])
                    higher[j] -= score > exact
                    tied[j] -= score == exact


@njit(cache=True, nogil=True)
def _draw(
    n_available: IntArray,
    target_start: IntArray,
    target: IntArray,
    hidden_start: IntArray,
    hidden: IntArray,
    cumulative: FloatArray,
    stream: IntArray,
    n: int,
    seed: int,
) -> tuple[IntArray, IntArray]:
    """Items (m, n) drawn for each target, and how many could be (m,): where that is below ``n``, none is.

    ``cumulative`` (I + 1,) are summed weights of the draw, ``stream`` (m,) names each target's random numbers.
    """
    n_items = cumulative.size - 1
    drawn = np.zeros((target.size, n), np.int64)
    n_drawable = np.zeros(target.size, np.int64)
    taken = np.full(n_items, -1, np.int64)  # by the target of this number
    drawable = np.zeros(n_items + 1, np.int64)
    for i in range(n_items):
        drawable[i + 1] = drawable[i] + (cumulative[i + 1] > cumulative[i])
    for query in range(n_available.size):
        seen = hidden[hidden_start[query] : hidden_start[query + 1]]
        size = n_available[query]
        for j in range(target_start[query], target_start[query + 1]):
            n_drawable[j] = drawable[size]
            for item in seen:
                taken[item] = j
                n_drawable[j] -= cumulative[item + 1] > cumulative[item]
            taken[target[j]] = j
            n_drawable[j] -= cumulative[target[j] + 1] > cumulative[target[j]]
            if n_drawable[j] < n:
                continue
            key = stream_key(seed, stream[j])
            found = tries = 0
            while found < n:
                if tries < _PATIENCE * n:
                    point = uniform(key, tries) * cumulative[size]
                    item = np.searchsorted(cumulative, point, side="right") - 1
                    if item >= size or taken[item] == j:
                        tries += 1
                        continue
                else:
                    item = _draw_rest(uniform(key, tries), taken, j, cumulative, size)
                tries += 1
                taken[item] = j
                drawn[j, found] = item
                found += 1
    return drawn, n_drawable


@njit(cache=True, nogil=True)
def _ranks_among(
    queries: Embeddings,
    items: Embeddings,
    target_start: IntArray,
    target: IntArray,
    drawn: IntArray,
) -> FloatArray:
    """Rank (m,) of each target among itself and its drawn items (m, n)."""
    rank = np.ones(target.size)
    for query in range(len(queries)):
        for j in range(target_start[query], target_start[query + 1]):
            exact = _dot(queries[query], items[target[j]])
            for item in drawn[j]:
                score = _dot(queries[query], items[item])
                rank[j] += 1.0 if score > exact else 0.5 if score == exact else 0.0
    return rank


@njit(cache=True, nogil=True)
def _draw_rest(share: float, taken: IntArray, owner: int, cumulative: FloatArray, size: int) -> int:
    """An item that ``owner`` has not taken, by weight, found by walking: for draws that would be rejected too often."""
    total = 0.0
    for item in range(size):
        if taken[item] != owner:
            total += cumulative[item + 1] - cumulative[item]
    point, last = share * total, -1
    for item in range(size):
        weight = cumulative[item + 1] - cumulative[item]
        if taken[item] != owner and weight > 0:
            last = item
            point -= weight
            if point < 0:
                break
    return last
