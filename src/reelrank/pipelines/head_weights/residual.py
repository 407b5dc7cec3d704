"""What the weights leave unexplained: each session as it was shown against the session that w·p̂ would have shown.

The weights of a fold of users were fitted without that fold, so that no session is judged by a model that saw it. A feed that
draws with noise differs from a noise-free top K even if the weights are right, by more where scores are close or sessions long:
``expected_*`` is what a Plackett–Luce draw at the fitted temperature would leave on average, and only what exceeds it is news;
``noise_quantile_*`` says how many such draws leave less, which is uniform if noise is all there is, whatever the session.

Source: METHODS §6.6, §6.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field
from scipy.optimize import minimize_scalar

from reelrank.draws import stream_key, uniform
from reelrank.evaluation.off_policy.folds import FOLDS, user_folds
from reelrank.options import Options
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.tables import CandidateResiduals, SessionResiduals

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_Outputs = tuple[FloatArray, FloatArray, FloatArray]  # scalars, Δμ, shares

_SCALARS = ("overlap", "jaccard", "rbo", "d_mean", "d_sd", "loss")
_EXPECTED = ("overlap", "d_mean", "d_sd", "loss")
_TESTED = ("overlap", "d_mean", "d_sd")
_TIE = 1e-12
_OVERLAP, _JACCARD, _RBO, _D_MEAN, _D_SD, _LOSS = range(6)


class ResidualOptions(Options):
    """How residuals are measured and exported."""

    rbo_p: float = Field(0.9, gt=0, lt=1, description="persistence of rank-biased overlap [S]")
    draws: int = Field(
        16, ge=1, le=1000, description="noisy rankings per session behind expected_* [D]"
    )
    chunk_sessions: int = Field(
        1000, ge=1, description="sessions held at once: bounds memory, changes no value"
    )
    candidate_depth: int | None = Field(
        None,
        ge=1,
        description="candidates neither shown nor simulated among the first depth·K are left out of the candidate table; none = all stay (n_candidates says how many there were)",
    )
    seed: int = Field(0, ge=0, description="of folds and noisy rankings")


class Residuals(NamedTuple):
    """The two tables of METHODS §6.7, or a chunk of them."""

    session: pl.DataFrame
    candidate: pl.DataFrame


def ranks(score: npt.ArrayLike, first: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """(N,) rank of each candidate inside its session, from 1: score descending, equal scores by the lower index.

    Args:
        score: (N,) finite.
        first: (S + 1,) bounds of the sessions.
    """
    return _ranks(np.asarray(score, np.float32), np.asarray(first, np.int64))


def scores(
    sessions: RankingSessions, weights: npt.ArrayLike, options: ResidualOptions | None = None
) -> Float32Array:
    """(N,) w·p̂ of every candidate, with the weights of the fold of its user.

    Args:
        sessions: S sessions with N candidates.
        weights: (5, 4) row f fitted without the users of fold f, or (4,) for all.
        options: the seed of the folds.

    Raises:
        ValueError: weights of another shape, or a score that is not finite.
    """
    fold = user_folds(sessions.user_id, (options or ResidualOptions()).seed)
    return _scores(sessions, _per_fold(weights, (FOLDS, 4), "weights"), fold, 0, len(fold))


def fit_temperature(
    sessions: RankingSessions, weights: npt.ArrayLike, options: ResidualOptions | None = None
) -> FloatArray:
    """(5,) temperature T of each fold: the likeliest if rankings are drawn as softmax(w·p̂ / T) without replacement.

    T of fold f is fitted on the users of the other folds, each session with its own fold's weights.

    Args:
        sessions: S sessions.
        weights: (5, 4), or (4,).
        options: the seed of the folds.

    Raises:
        ValueError: weights of another shape, a score that is not finite, or all users in one fold.
    """
    o = options or ResidualOptions()
    score = scores(sessions, weights, o).astype(np.float64)
    fold = user_folds(sessions.user_id, o.seed)
    spread = float(score.std())
    if spread == 0:
        raise ValueError("all candidates have the same score: no temperature explains a ranking; look at heads and weights")  # fmt: skip
    found = np.empty(FOLDS)
    for f in range(FOLDS):
        others = np.flatnonzero(fold != f)
        if others.size == 0:
            raise ValueError("all users fall into one fold: cross-fitting needs more users")
        best = minimize_scalar(
            lambda log_t, rows=others: (
                -_plackett_luce(sessions.first, sessions.rank_shown, score, rows, np.exp(-log_t))
            ),
            bounds=(np.log(spread) - 9, np.log(spread) + 9),
            method="bounded",
        )
        found[f] = np.exp(best.x)
    return found


def iter_residuals(
    sessions: RankingSessions,
    weights: npt.ArrayLike,
    split: npt.ArrayLike,
    embedding: npt.NDArray[np.floating],
    category: npt.ArrayLike,
    n_categories: int,
    temperature: npt.ArrayLike = 0.0,
    options: ResidualOptions | None = None,
) -> Iterator[Residuals]:
    """The residuals of one chunk of sessions after the other; what a chunk holds does not depend on its size.

    Args:
        sessions: S sessions.
        weights: (5, 4) row f fitted without the users of fold f, or (4,) for all.
        split: (S,) train, val or test.
        embedding: (items, H), by item_id.
        category: (items,) code below ``n_categories``, −1 = unknown.
        n_categories: C; shares have C + 1 entries, the last for the unknown.
        temperature: (5,) of the noise of the log in units of w·p̂, or one for all; 0 = the feed is meant to have none.
        options: depth, draws, chunks.

    Raises:
        ValueError: sizes do not fit, a score or vector is not finite, or ``rank_shown`` of a session is not 1 … K with K ≥ 1.
    """
    o = options or ResidualOptions()
    w = _per_fold(weights, (FOLDS, 4), "weights")
    t = _per_fold(temperature, (FOLDS,), "temperature")
    if (t < 0).any():
        raise ValueError(f"temperature {t.tolist()} must not be negative")
    codes = np.asarray(category, np.int64)
    names = np.asarray(split)
    n_items = int(sessions.item_id.max(initial=-1)) + 1
    if len(embedding) < n_items or len(codes) < n_items:
        raise ValueError(f"item_id goes to {n_items - 1}: {len(embedding)} embeddings and {len(codes)} categories are too few")  # fmt: skip
    if codes.size and (codes.min() < -1 or codes.max() >= n_categories):
        raise ValueError(f"categories {codes.min()} … {codes.max()} must lie in −1 … {n_categories - 1}")  # fmt: skip
    if len(names) != len(sessions.user_id):
        raise ValueError(f"{len(names)} values of split for {len(sessions.user_id)} sessions")
    vectors = np.asarray(embedding, np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("embedding holds values that are not finite")
    fold = user_folds(sessions.user_id, o.seed)
    for start in range(0, len(fold), o.chunk_sessions):
        stop = min(start + o.chunk_sessions, len(fold))
        yield _chunk(sessions, w, t, fold, names, vectors, codes, n_categories, start, stop, o)


def residual_tables(
    sessions: RankingSessions,
    weights: npt.ArrayLike,
    split: npt.ArrayLike,
    embedding: npt.NDArray[np.floating],
    category: npt.ArrayLike,
    n_categories: int,
    temperature: npt.ArrayLike = 0.0,
    options: ResidualOptions | None = None,
) -> Residuals:
    """All chunks of ``iter_residuals`` as two tables; same arguments."""
    chunks = list(
        iter_residuals(
            sessions, weights, split, embedding, category, n_categories, temperature, options
        )
    )
    if not chunks:
        return Residuals(*(
            pl.DataFrame(schema=table.polars_schema())
            for table in (SessionResiduals, CandidateResiduals)
        ))  # fmt: skip
    return Residuals(*(pl.concat(parts) for parts in zip(*chunks, strict=True)))


def _per_fold(value: npt.ArrayLike, shape: tuple[int, ...], name: str) -> FloatArray:
    array = np.asarray(value, np.float64)
    if array.shape not in (shape, shape[1:]):
        raise ValueError(f"{name} of shape {array.shape}: {shape} by fold, or {shape[1:]} for all")
    return np.broadcast_to(array, shape)


def _scores(
    sessions: RankingSessions, weights: FloatArray, fold: IntArray, start: int, stop: int
) -> Float32Array:
    """Scores of the candidates of sessions start … stop − 1."""
    bounds = sessions.first[start : stop + 1]
    rows = slice(bounds[0], bounds[-1])
    own = np.repeat(weights[fold[start:stop]].astype(np.float32), np.diff(bounds), axis=0)
    a, b, c, d = (sessions.heads[rows].astype(np.float32) * own).T
    score: Float32Array = ((a + b) + c) + d  # rounded as in matching: ties are the same there
    if not np.isfinite(score).all():
        bad = int(np.flatnonzero(~np.isfinite(score))[0]) + int(bounds[0])
        raise ValueError(f"heads or weights of candidate row {bad} give a score that is not finite")
    return score


def _chunk(
    sessions: RankingSessions, weights: FloatArray, temperature: FloatArray, fold: IntArray, split: npt.NDArray[np.str_],
    embedding: Float32Array, category: IntArray, n_categories: int, start: int, stop: int, options: ResidualOptions,
) -> Residuals:  # fmt: skip
    rows = slice(sessions.first[start], sessions.first[stop])
    own = slice(start, stop)
    first = sessions.first[start : stop + 1] - sessions.first[start]
    item, shown = sessions.item_id[rows], sessions.rank_shown[rows]
    score = _scores(sessions, weights, fold, start, stop)
    simulated = _ranks(score, first)
    n_shown = np.add.reduceat((shown > 0).astype(np.int64), first[:-1])
    size, width = stop - start, n_categories + 1
    actual = _outputs(size, embedding.shape[1], width)
    expected = _outputs(size, embedding.shape[1], width)
    below = np.full((size, len(_SCALARS)), np.nan)  # of noisy draws; stays NaN without noise
    bad = _measure(
        first, n_shown, score, shown, simulated, item, embedding, category, options.rbo_p,
        temperature[fold[own]], options.draws, options.seed, start, actual, expected, below,
    )  # fmt: skip
    if bad >= 0:
        s = start + bad
        raise ValueError(
            f"session row {s} (session_id {sessions.session_id[s]}): rank_shown must be 1 … K, each once, K ≥ 1"
        )
    columns: dict[str, object] = {
        "user_id": sessions.user_id[own],
        "session_id": sessions.session_id[own],
        "burst_id": sessions.burst_id[own],
        "ts_start": sessions.ts_start[own],
        "split": split[own],
        "fold": fold[own],
        "n_shown": n_shown,
        "n_candidates": np.diff(first),
        **{name: actual[0][:, k] for k, name in enumerate(_SCALARS)},
        "delta_mu": actual[1],
        "delta_category": actual[2],
        **{f"expected_{name}": expected[0][:, _SCALARS.index(name)] for name in _EXPECTED},
        **{
            f"noise_quantile_{name}": pl.Series(below[:, _SCALARS.index(name)], nan_to_null=True)
            for name in _TESTED
        },
        "expected_delta_mu": expected[1],
        "expected_delta_category": expected[2],
    }
    return Residuals(
        SessionResiduals.conform(pl.DataFrame(columns).with_columns(_lists())),
        _candidates(sessions, own, rows, n_shown, score, simulated, options),
    )


def _lists() -> list[pl.Expr]:
    names = ("delta_mu", "delta_category", "expected_delta_mu", "expected_delta_category")
    return [pl.col(name).arr.to_list() for name in names]


def _outputs(size: int, width: int, categories: int) -> _Outputs:
    return np.zeros((size, len(_SCALARS))), np.zeros((size, width)), np.zeros((size, categories))


def _candidates(
    sessions: RankingSessions, own: slice, rows: slice, n_shown: IntArray, score: Float32Array,
    simulated: npt.NDArray[np.int32], options: ResidualOptions,
) -> pl.DataFrame:  # fmt: skip
    repeat = np.diff(sessions.first[own.start : own.stop + 1])
    k = np.repeat(n_shown, repeat)
    shown = sessions.rank_shown[rows]
    outside = k + 1
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(sessions.user_id[own], repeat),
            "session_id": np.repeat(sessions.session_id[own], repeat),
            "item_id": sessions.item_id[rows],
            "shown": shown > 0,
            "rank_obs": shown,
            "rank_sim": simulated,
            "score": score,
            "rank_residual": np.minimum(simulated, outside)
            - np.minimum(np.where(shown > 0, shown, outside), outside),
        }
    ).with_columns(rank_obs=pl.when(pl.col("shown")).then(pl.col("rank_obs")))
    if options.candidate_depth is not None:
        frame = frame.filter((shown > 0) | (simulated <= options.candidate_depth * k))
    return CandidateResiduals.conform(frame)


def _ranks(score: Float32Array, first: IntArray) -> npt.NDArray[np.int32]:
    size = np.diff(first)
    order = np.lexsort((-score, np.repeat(np.arange(len(size)), size)))  # stable: ties by index
    rank = np.empty(len(score), np.int32)
    rank[order] = np.arange(len(score)) - np.repeat(first[:-1], size) + 1
    return rank


@njit(cache=True, nogil=True)
def _measure(
    first: IntArray, n_shown: IntArray, score: Float32Array, rank_shown: npt.NDArray[np.int32],
    rank_sim: npt.NDArray[np.int32], item: npt.NDArray[np.int32], embedding: Float32Array, category: IntArray,
    p: float, temperature: FloatArray, draws: int, seed: int, offset: int, actual: _Outputs, expected: _Outputs, below: FloatArray,
) -> int:  # fmt: skip
    """Fill ``actual``, ``expected`` and ``below``; returns the first session whose ranks are not 1 … K, or −1."""
    for s in range(len(first) - 1):
        begin, end, k = first[s], first[s + 1], n_shown[s]
        if k == 0:
            return s
        shown = np.full(k, -1, np.int64)
        simulated = np.empty(k, np.int64)
        for c in range(begin, end):
            if rank_sim[c] <= k:
                simulated[rank_sim[c] - 1] = c
            if rank_shown[c] > 0:
                if rank_shown[c] > k or shown[rank_shown[c] - 1] >= 0:
                    return s
                shown[rank_shown[c] - 1] = c
        _compare(shown, simulated, rank_sim, score, item, embedding, category, p, 1.0, s, actual)
        if temperature[s] == 0:  # no noise: the simulated order itself
            _compare(simulated, simulated, rank_sim, score, item, embedding, category, p, 1.0, s, expected)  # fmt: skip
            continue
        key = stream_key(seed, offset + s)
        order, worth = np.empty(k, np.int64), np.empty(k)
        drawn = np.zeros((1, actual[0].shape[1]))
        own = (drawn, expected[1][s : s + 1], expected[2][s : s + 1])
        below[s] = 0
        for draw in range(draws):
            _noisy_top(score[begin:end], temperature[s], key, draw * (end - begin), order, worth)
            order += begin
            drawn[:] = 0
            _compare(order, simulated, rank_sim, score, item, embedding, category, p, 1.0 / draws, 0, own)  # fmt: skip
            for m in range(len(drawn[0])):
                expected[0][s, m] += drawn[0, m]
                gap = actual[0][s, m] / draws - drawn[0, m]
                if gap > _TIE:
                    below[s, m] += 1.0 / draws
                elif gap > -_TIE:
                    below[s, m] += 0.5 / draws
    return -1


@njit(cache=True, nogil=True)
def _noisy_top(
    score: Float32Array, temperature: float, key: np.uint64, counter: int, order: IntArray, worth: FloatArray
) -> None:  # fmt: skip
    """Fill ``order`` with the K first of a draw from softmax(score / temperature) without replacement."""
    held, k = 0, len(order)
    for c in range(len(score)):
        # Gumbel noise: descending order = draws by softmax without replacement
        value = score[c] - np.log(-np.log(uniform(key, counter + c))) * temperature
        if held == k and value <= worth[k - 1]:
            continue
        place = held if held < k else k - 1
        while place > 0 and worth[place - 1] < value:
            worth[place], order[place] = worth[place - 1], order[place - 1]
            place -= 1
        worth[place], order[place] = value, c
        held = min(held + 1, k)


@njit(cache=True, nogil=True)
def _compare(
    shown: IntArray, simulated: IntArray, rank_sim: npt.NDArray[np.int32], score: Float32Array,
    item: npt.NDArray[np.int32], embedding: Float32Array, category: IntArray, p: float, weight: float, s: int,
    out: _Outputs,
) -> None:  # fmt: skip
    """Add ``weight`` times the residuals of one order against the simulated one to row ``s``."""
    scalars, mu, shares = out
    k = len(shown)
    found = np.zeros(k + 1, np.int64)  # items of both lists by the depth at which both hold them
    difference = np.zeros(mu.shape[1])
    part = weight / k
    for place in range(k):
        a, b = shown[place], simulated[place]
        shares[s, category[item[a]]] += part  # −1 is the last column
        shares[s, category[item[b]]] -= part
        for h in range(len(difference)):
            difference[h] += (embedding[item[a], h] - embedding[item[b], h]) / k
        found[min(max(place, rank_sim[a] - 1), k)] += 1
    agreed, discount, rbo = 0, 1.0, 0.0
    for depth in range(1, k + 1):
        agreed += found[depth - 1]
        rbo += (1 - p) * discount * agreed / depth
        discount *= p
    rbo += discount * agreed / k  # Webber, Moffat, Zobel 2010, Eq. 32 with lists of one length
    loss = 0.0
    for h in range(len(difference)):
        mu[s, h] += weight * difference[h]
        loss += difference[h] ** 2
    mean_shown, sd_shown = _mean_sd(score, shown)
    mean_simulated, sd_simulated = _mean_sd(score, simulated)
    scalars[s, _OVERLAP] += weight * agreed / k
    scalars[s, _JACCARD] += weight * agreed / (2 * k - agreed)
    scalars[s, _RBO] += weight * rbo
    scalars[s, _D_MEAN] += weight * (mean_shown - mean_simulated)
    scalars[s, _D_SD] += weight * (sd_shown - sd_simulated)
    scalars[s, _LOSS] += weight * loss


@njit(cache=True, nogil=True)
def _mean_sd(score: Float32Array, rows: IntArray) -> tuple[float, float]:
    total, squares = 0.0, 0.0
    for c in rows:
        total += score[c]
    mean = total / len(rows)
    for c in rows:
        squares += (score[c] - mean) ** 2
    return mean, np.sqrt(squares / len(rows))


@njit(cache=True, nogil=True)
def _plackett_luce(
    first: IntArray, rank_shown: npt.NDArray[np.int32], score: FloatArray, rows: IntArray, sharpness: float,
) -> float:  # fmt: skip
    """Log-likelihood of the shown orders under softmax(sharpness · score) without replacement."""
    total = 0.0
    for s in rows:
        begin, end = first[s], first[s + 1]
        top = score[begin:end].max()
        k = 0
        left = 0.0  # of the candidates that were not shown
        for c in range(begin, end):
            if rank_shown[c] > 0:
                k += 1
            else:
                left += np.exp(sharpness * (score[c] - top))
        own = np.empty(k)
        for c in range(begin, end):
            if rank_shown[c] > 0:
                own[rank_shown[c] - 1] = sharpness * (score[c] - top)
        for place in range(k - 1, -1, -1):
            left += np.exp(own[place])
            total += own[place] - np.log(left)
    return total
