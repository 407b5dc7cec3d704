"""Loops over sessions: hard top-K without a sort, and smooth inclusion with derivatives.

Each kernel works on the sessions ``[start, stop)`` alone and writes to their rows only, so that threads may share them out, and a result does
not depend on how many there are.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from numba import njit

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SUCCESSIVE: Final = 0
SIGMOID: Final = 1
NEGLIGIBLE: Final = 1e-10  # inclusion that moves no mean
FARTHEST: Final = (
    300.0  # log of the largest ratio of a rate to that of the K-th: products stay finite
)
MAX_STEPS: Final = 100
PER_LANE: Final = 16  # rows of a lane
BISECTIONS: Final = 12
FEW: Final = 128  # rows that are ranked by comparing all pairs


@njit(cache=True, nogil=True)
def kth_largest(x: Floats, n: int, k: int) -> float:
    """The k-th largest of ``x[:n]``, whose order is lost [R: Hoare's quickselect]. 0 < k ≤ n."""
    low, high, place = 0, n - 1, k - 1
    while low < high:
        a, b, c = x[low], x[(low + high) // 2], x[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while x[i] > pivot:
                i += 1
            while x[j] < pivot:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                i += 1
                j -= 1
        if place <= j:
            high = j
        elif place >= i:
            low = i
        else:
            break
    value: float = x[place]
    return value


@njit(cache=True, nogil=True)
def lower_bound(x: Floats, n: int, k: int) -> float:
    """A number that at least k, and not many more, of ``x[:n]`` reach: bisection, with counts that the compiler vectorises."""
    low: float = float(x[:n].min())
    high: float = float(x[:n].max())
    for _ in range(BISECTIONS):
        middle = float(np.float32(0.5 * (low + high)))
        count = 0
        for i in range(n):
            count += x[i] >= middle
        if count >= k:
            low = middle
            if count <= k + k // 8:
                break
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def reach(score: Floats, n: int, k: int, work: Floats, kept: Ints, lane: Ints) -> int:
    """Rows of ``score[:n]``, the k largest and those that equal them among them, in ``kept``, their scores in ``work``.

    k of the maxima of disjoint lanes reach a bound, so at least k scores do, and rows of other lanes need not be looked at.

    Returns:
        how many rows.
    """
    n_lanes = n // PER_LANE // 8 * 8
    if n_lanes < k:
        for i in range(n):
            kept[i] = i
            work[i] = score[i]
        return n
    steps = n // n_lanes
    for i in range(n_lanes):
        work[i] = score[i]
    for j in range(1, steps):
        rows = score[j * n_lanes : (j + 1) * n_lanes]
        for i in range(n_lanes):
            work[i] = max(rows[i], work[i])
    for i in range(steps * n_lanes, n):
        work[i - steps * n_lanes] = max(score[i], work[i - steps * n_lanes])
    bound = lower_bound(work, n_lanes, k)
    n_open = 0
    for i in range(n_lanes):
        if work[i] >= bound:
            lane[n_open] = i
            n_open += 1
    reached = 0
    for j in range(n_open):
        for i in range(lane[j], n, n_lanes):
            kept[reached] = i  # kept only if the counter moves: no branch
            work[reached] = score[i]
            reached += score[i] >= bound
    return reached


@njit(cache=True, nogil=True)
def select_top(score: Floats, n: int, k: int, work: Floats, kept: Ints, lane: Ints) -> None:
    """Rows of the k largest of ``score[:n]`` in ``kept[:k]``, in no order; of equal scores the earlier rows. 0 < k ≤ n."""
    reached = reach(score, n, k, work, kept, lane)
    m = 0
    if reached <= FEW:
        for j in range(reached):
            x, above, equal = work[j], 0, 0
            for i in range(reached):
                above += work[i] > x
                equal += work[i] == x
            if above < k < above + equal:
                for i in range(reached):
                    above += work[i] == x and kept[i] < kept[j]
            lane[m] = kept[j]
            m += above < k
        kept[:k] = lane[:k]
        return
    lowest = kth_largest(work, reached, k)
    n_above, n_equal = 0, 0
    for j in range(reached):
        n_above += score[kept[j]] > lowest
        n_equal += score[kept[j]] == lowest
    if n_above + n_equal > k:
        kept[:reached].sort()  # the earlier of equal scores
    room = k - n_above
    for j in range(reached):
        x = score[kept[j]]
        if x > lowest or (x == lowest and room > 0):
            room -= x == lowest
            kept[m] = kept[j]
            m += 1


@njit(cache=True, nogil=True)
def hard_losses(
    start: int,
    stop: int,
    first: Longs,
    heads: Floats,
    row: Ints,
    n_shown: Longs,
    embedding: Floats,
    observed: Floats,
    weights: Floats,
    out: Doubles,
) -> None:
    """‖μ_obs − μ_sim(w)‖² of each session for each of M weights into ``out`` (M, S).

    A session's heads are read from memory once for all M. Sums in scores are written out, so that they are rounded as in NumPy.
    """
    width = embedding.shape[1]
    longest = 1
    for s in range(start, stop):
        longest = max(longest, first[s + 1] - first[s])
    score, work = np.empty(longest + 1, np.float32), np.empty(longest + 1, np.float32)
    kept, lane = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    mean = np.empty(width, np.float32)
    for s in range(start, stop):
        a, b, k = first[s], first[s + 1], n_shown[s]
        n = b - a
        h0, h1, h2, h3 = heads[0, a:b], heads[1, a:b], heads[2, a:b], heads[3, a:b]
        rows = row[a:b]
        for m in range(len(weights)):
            w0, w1, w2, w3 = weights[m, 0], weights[m, 1], weights[m, 2], weights[m, 3]
            for i in range(n):
                score[i] = ((w0 * h0[i] + w1 * h1[i]) + w2 * h2[i]) + w3 * h3[i]
            select_top(score, n, k, work, kept, lane)
            mean[:] = 0
            for j in range(k):
                e = embedding[rows[kept[j]]]
                for h in range(width):
                    mean[h] += e[h]
            loss, scale = 0.0, np.float32(1.0 / k)
            for h in range(width):
                gap = observed[s, h] - mean[h] * scale
                loss += float(gap) * float(gap)
            out[m, s] = loss


@njit(cache=True, nogil=True)
def top_rows(
    start: int, stop: int, first: Longs, score: Floats, n_shown: Longs, out: npt.NDArray[np.bool_]
) -> None:
    """Mark the K_s rows of the highest ``score`` (N,) in each session."""
    longest = 1
    for s in range(start, stop):
        longest = max(longest, first[s + 1] - first[s])
    work, kept = np.empty(longest + 1, np.float32), np.empty(longest + 1, np.int32)
    lane = np.empty(longest + 1, np.int32)
    for s in range(start, stop):
        a, b, k = first[s], first[s + 1], n_shown[s]
        select_top(score[a:b], b - a, k, work, kept, lane)
        for j in range(k):
            out[a + kept[j]] = True


@njit(cache=True, nogil=True)
def mean_rows(
    start: int,
    stop: int,
    first: Longs,
    row: Ints,
    share: Floats,
    embedding: Floats,
    out: Floats,
) -> None:
    """Σ share·e of each session into ``out`` (S, H); rows with a share of 0 are not read."""
    total = np.empty(embedding.shape[1])
    for s in range(start, stop):
        total[:] = 0
        for c in range(first[s], first[s + 1]):
            if share[c] != 0:
                total += share[c] * embedding[row[c]]
        out[s] = total


@njit(cache=True, nogil=True)
def successive_inclusion(eta: Doubles, k: int, pi: Doubles, slope: Doubles, work: Floats) -> None:
    """Inclusion in k draws by softmax(η) without replacement, and dπ/dη at a fixed threshold.

    π_c = 1 − exp(−exp(η_c − θ)) with Σπ = K [R: Rosén 1997, asymptotic for successive sampling]: each candidate arrives after an exponential time
    of rate exp(η_c), and the first K are shown; the time of the K-th is taken as fixed. θ is found by Newton steps on log Σπ in a bracket.
    """
    n = len(eta)
    if k == n:
        pi[:] = 1
        slope[:] = 0
        return
    for c in range(n):
        work[c] = eta[c]
    centre = kth_largest(work, n, k)
    total, least = 0.0, math.exp(FARTHEST)
    for c in range(n):
        away = min(max(eta[c] - centre, -FARTHEST), FARTHEST)
        slope[c] = math.exp(away)  # the rate, for now
        total += slope[c]
        least = min(least, slope[c])
    low, high = math.log(k / total), math.log(-math.log1p(-k / n) / least)
    time = min(max(0.0, low), high)
    for _ in range(MAX_STEPS):
        scale = math.exp(time)
        included, change = 0.0, 0.0
        for c in range(n):
            x = scale * slope[c]
            stays_out = math.exp(-x)
            included += 1 - stays_out
            change += x * stays_out
        if abs(included - k) < 1e-11 * k:
            break
        if included < k:
            low = time
        else:
            high = time
        time += math.log(k / included) * included / max(change, 1e-300)
        if not low < time < high:
            time = 0.5 * (low + high)
    scale = math.exp(time)
    for c in range(n):
        x = scale * slope[c]
        pi[c] = -math.expm1(-x)
        slope[c] = x * math.exp(-x)


@njit(cache=True, nogil=True)
def sigmoid_inclusion(eta: Doubles, k: int, pi: Doubles, slope: Doubles, work: Floats) -> None:
    """π_c = σ(η_c − η_(K)), scaled to Σπ = K, and dπ/dη with η_(K) and the scale held [S: METHODS §6.6 stops the gradient at θ_K]."""
    n = len(eta)
    for c in range(n):
        work[c] = eta[c]
    threshold = kth_largest(work, n, k)
    total = 0.0
    for c in range(n):
        pi[c] = 1 / (1 + math.exp(min(threshold - eta[c], FARTHEST)))
        total += pi[c]
    for c in range(n):
        slope[c] = k / total * pi[c] * (1 - pi[c])
        pi[c] *= k / total


@njit(cache=True, nogil=True, fastmath=True)
def write_terms(
    observed: Floats,
    mean: Doubles,
    turn: Doubles,
    loss: Doubles,
    gradient: Doubles,
    curvature: Doubles,
) -> None:
    """Loss (1,), gradient (4,) and 2 JᵀJ (4, 4) of one session from μ (H,) and Jᵀ (4, H)."""
    loss[0] = 0
    gradient[:] = 0
    curvature[:] = 0
    for h in range(len(mean)):
        gap = observed[h] - mean[h]
        loss[0] += gap * gap
        for j in range(4):
            gradient[j] -= 2 * gap * turn[j, h]
            for m in range(4):
                curvature[j, m] += 2 * turn[j, h] * turn[m, h]


@njit(cache=True, nogil=True, fastmath=True)
def soft_terms(
    start: int,
    stop: int,
    first: Longs,
    heads: Floats,
    row: Ints,
    n_shown: Longs,
    embedding: Floats,
    observed: Floats,
    beta: Doubles,
    inclusion: int,
    loss: Doubles,
    gradient: Doubles,
    curvature: Doubles,
) -> None:
    """Loss (S,), gradient (S, 4) and Gauss–Newton curvature (S, 4, 4) in β = w/T of ‖μ_obs − Σπe/K‖².

    dπ_c/dβ = slope_c p_c − drag_c Σ slope p / Σ drag keeps Σπ = K: the threshold moves (successive: drag = slope), or the scale does
    (sigmoid: drag = π).
    """
    width = embedding.shape[1]
    longest = 1
    for s in range(start, stop):
        longest = max(longest, first[s + 1] - first[s])
    etas, pis, slopes = np.empty(longest), np.empty(longest), np.empty(longest)
    work = np.empty(longest, np.float32)
    mean, turn = np.empty(width), np.empty((4, width))
    pull = np.empty(4)
    for s in range(start, stop):
        a, b, k = first[s], first[s + 1], n_shown[s]
        n = b - a
        eta, pi, slope = etas[:n], pis[:n], slopes[:n]
        for i in range(n):
            c = a + i
            eta[i] = (
                beta[0] * heads[0, c]
                + beta[1] * heads[1, c]
                + beta[2] * heads[2, c]
                + beta[3] * heads[3, c]
            )
        if inclusion == SUCCESSIVE:
            successive_inclusion(eta, k, pi, slope, work)
            drag = slope
        else:
            sigmoid_inclusion(eta, k, pi, slope, work)
            drag = pi
        pull[:] = 0
        total = 1e-300
        for i in range(n):
            total += drag[i]
            for j in range(4):
                pull[j] += slope[i] * heads[j, a + i]
        pull /= total
        mean[:] = 0
        turn[:] = 0
        for i in range(n):
            share, change, back = pi[i] / k, slope[i] / k, drag[i] / k
            if share < NEGLIGIBLE:
                continue
            c = a + i
            e = embedding[row[c]]
            d0 = change * heads[0, c] - back * pull[0]
            d1 = change * heads[1, c] - back * pull[1]
            d2 = change * heads[2, c] - back * pull[2]
            d3 = change * heads[3, c] - back * pull[3]
            for h in range(width):
                mean[h] += share * e[h]
                turn[0, h] += d0 * e[h]
                turn[1, h] += d1 * e[h]
                turn[2, h] += d2 * e[h]
                turn[3, h] += d3 * e[h]
        write_terms(observed[s], mean, turn, loss[s : s + 1], gradient[s], curvature[s])
