"""GV-10: predicted heads without what the user has come to believe about the feed, and the ranking that they give.

A skip may say "I do not like this" or "I know that the feed has better": engagement depends on beliefs, and a head trained on it
repeats them. The beliefs that a log shows are running statistics of what the feed has sent so far: how much of a category, how
early in a session, and how its items of late did. Each head is taken minus what these proxies explain of it inside sessions.

All candidates of a session are ranked at once, so all stand before the same past: the proxies are those at its start [D]. What is
the same for every candidate moves no order, and is not removed.

Source: METHODS §9 GV-10; the poster's future direction.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field

from reelrank.evaluation.off_policy.folds import FOLDS, user_folds
from reelrank.options import Options
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.residual import (
    ResidualOptions,
    ranks,
    residual_tables,
    scores,
)

FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

HEADS = ("complete", "long", "rewatch", "neg")
PROXIES = ("share", "position", "recent_mean")
N_HEADS = len(HEADS)


class DebiasOptions(Options):
    """How long beliefs last, and how they are removed."""

    memory: float = Field(
        0.9, ge=0, le=1, description="weight of the past that is left after each session [D]"
    )
    prior: float = Field(
        5.0, gt=0, description="rows of the user's overall mean added to each category's own [D]"
    )
    ridge: float = Field(
        1e-6, ge=0, description="added to the proxies' correlation matrix, so that it has an inverse [D]"
    )  # fmt: skip
    seed: int = Field(0, ge=0, description="of the folds of users")


@dataclass(frozen=True, slots=True)
class Debiased:
    """Heads without beliefs.

    Attributes:
        sessions: as given, with p̃ for p̂ (float32; may leave [0, 1], since only the order counts).
        coefficients: fold, head, proxy, estimate: change of p̂ per unit of the proxy, fitted without the fold.
        r2: head → share of p̂'s variance inside sessions that the proxies explain, out of fold.
    """

    sessions: RankingSessions
    coefficients: pl.DataFrame
    r2: dict[str, float]


def belief_proxies(
    sessions: RankingSessions,
    category: npt.ArrayLike,
    n_categories: int,
    outcomes: npt.ArrayLike,
    options: DebiasOptions | None = None,
) -> Float32Array:
    """What a user has come to expect of each candidate's category at the start of the session.

    Only sessions that the user began strictly earlier count, of the same burst, each with ``memory`` times the weight of the next.

    Args:
        sessions: S sessions with N candidates.
        category: (items,) code below ``n_categories``, −1 = unknown, which is one category more.
        n_categories: C.
        outcomes: (N, 4) what the user did with each shown item, by head; NaN = not known; ignored where nothing was shown.
        options: memory, prior.

    Returns:
        (N, 6): share of the category among the items shown so far, its mean place in a session (0 first … 1 last), and the recent
        mean of each head in it. Before anything was shown: 0, ½ and ½.

    Raises:
        ValueError: sizes do not fit.
    """
    o = options or DebiasOptions()
    codes = np.asarray(category, np.int64)
    y = np.asarray(outcomes, np.float64)
    if y.shape != (len(sessions.item_id), N_HEADS):
        raise ValueError(f"outcomes of shape {y.shape} for {len(sessions.item_id)} candidates: {N_HEADS} columns are needed")  # fmt: skip
    if len(codes) <= sessions.item_id.max(initial=-1):
        raise ValueError(f"{len(codes)} categories for items up to {sessions.item_id.max()}")
    if codes.size and (codes.min() < -1 or codes.max() >= n_categories):
        raise ValueError(f"categories {codes.min()} … {codes.max()} must lie in −1 … {n_categories - 1}")  # fmt: skip
    order = np.lexsort((sessions.session_id, sessions.ts_start, sessions.burst_id, sessions.user_id))  # fmt: skip
    return _proxies(
        order, sessions.user_id, sessions.burst_id, sessions.ts_start, sessions.first,
        codes[sessions.item_id], sessions.rank_shown, sessions.n_shown, y, n_categories + 1, o.memory, o.prior,
    )  # fmt: skip


def debias(
    sessions: RankingSessions, proxies: npt.ArrayLike, options: DebiasOptions | None = None
) -> Debiased:
    """p̃_j = p̂_j − γ_j·(B_j − B̄_j), B̄ the session's mean; γ by least squares inside sessions of other folds of users.

    Head j answers to share, position and its own recent mean.

    Args:
        sessions: S sessions.
        proxies: (N, 6) from ``belief_proxies``, or of that form.
        options: ridge, folds.

    Raises:
        ValueError: sizes do not fit, a value is not finite, or all users are in one fold.
    """
    o = options or DebiasOptions()
    b = np.asarray(proxies, np.float64)
    if b.shape != (len(sessions.item_id), 2 + N_HEADS):
        raise ValueError(f"proxies of shape {b.shape} for {len(sessions.item_id)} candidates: {2 + N_HEADS} columns are needed")  # fmt: skip
    heads = sessions.heads.astype(np.float64)
    if not (np.isfinite(b).all() and np.isfinite(heads).all()):
        raise ValueError("proxies and heads must be finite")
    fold = user_folds(sessions.user_id, o.seed)
    if (fold == fold[0]).all():
        raise ValueError("all users fall into one fold: cross-fitting needs more users")
    size = np.diff(sessions.first)
    row_fold = np.repeat(fold, size)
    b, inside = _within(b, sessions.first), _within(heads, sessions.first)
    removed = np.zeros_like(heads)
    rows = []
    for j, head in enumerate(HEADS):
        x = b[:, [0, 1, 2 + j]]
        for f in range(FOLDS):
            own = row_fold == f
            gamma = _least_squares(x[~own], inside[~own, j], o.ridge)
            removed[own, j] = x[own] @ gamma
            rows += [(f, head, name, float(g)) for name, g in zip(PROXIES, gamma, strict=True)]
    left = ((inside - removed) ** 2).sum(axis=0)
    total = (inside**2).sum(axis=0)
    return Debiased(
        dataclasses.replace(sessions, heads=(heads - removed).astype(np.float32)),
        pl.DataFrame(
            rows,
            schema={"fold": pl.Int8, "head": pl.String, "proxy": pl.String, "estimate": pl.Float64},
            orient="row",
        ),
        {
            head: float(1 - left[j] / total[j]) if total[j] > 0 else 0.0
            for j, head in enumerate(HEADS)
        },
    )


def rerank(
    sessions: RankingSessions,
    debiased: RankingSessions,
    weights: npt.ArrayLike,
    split: npt.ArrayLike,
    embedding: npt.NDArray[np.floating],
    category: npt.ArrayLike,
    n_categories: int,
    options: ResidualOptions | None = None,
) -> pl.DataFrame:
    """What p̃ in the place of p̂ does to the simulated ranking of each session, with the same weights.

    Args:
        sessions: with p̂.
        debiased: the same sessions with p̃.
        weights: (5, 4) by fold, or (4,).
        split: (S,) train, val or test.
        embedding: (items, H).
        category: (items,) as in ``iter_residuals``.
        n_categories: C.
        options: of the residuals.

    Returns:
        user_id, session_id, split; overlap, rbo and loss against what was shown, before and after (``_debiased``); ``kept``: share of
        the K simulated items that stay.
    """
    o = options or ResidualOptions()
    before, after = (
        residual_tables(one, weights, split, embedding, category, n_categories, options=o).session
        for one in (sessions, debiased)
    )
    top = [
        ranks(scores(one, weights, o), one.first) <= np.repeat(one.n_shown, np.diff(one.first))
        for one in (sessions, debiased)
    ]
    both = np.add.reduceat((top[0] & top[1]).astype(np.int64), sessions.first[:-1])
    measured = ("overlap", "rbo", "loss")
    return before.select("user_id", "session_id", "split", *measured).with_columns(
        *(after[name].alias(f"{name}_debiased") for name in measured),
        kept=pl.Series(both / sessions.n_shown, dtype=pl.Float32),
    )


def _within(value: FloatArray, first: IntArray) -> FloatArray:
    """Minus the mean of the session."""
    size = np.diff(first)
    mean = np.add.reduceat(value, first[:-1], axis=0) / size[:, None]
    centred: FloatArray = value - np.repeat(mean, size, axis=0)
    return centred


def _least_squares(x: FloatArray, y: FloatArray, ridge: float) -> FloatArray:
    """Coefficients of y on standardised x, in units of x; a column that does not vary gets 0."""
    sd = np.sqrt((x**2).mean(axis=0))
    used = sd > 1e-12
    gamma = np.zeros(x.shape[1])
    z = x[:, used] / sd[used]
    gram = z.T @ z / len(z) + ridge * np.eye(int(used.sum()))
    gamma[used] = np.linalg.solve(gram, z.T @ y / len(z)) / sd[used]
    return gamma


@njit(cache=True, nogil=True)
def _proxies(
    order: IntArray, user: npt.NDArray[np.int32], burst: npt.NDArray[np.int16], ts: IntArray, first: IntArray,
    category: IntArray, rank_shown: npt.NDArray[np.int32], n_shown: IntArray, outcome: FloatArray, width: int,
    memory: float, prior: float,
) -> Float32Array:  # fmt: skip
    out = np.empty((len(category), 2 + N_HEADS), np.float32)
    count, place = np.zeros(width), np.zeros(width)
    total, known = np.zeros((width, N_HEADS)), np.zeros((width, N_HEADS))
    mean = np.empty(N_HEADS)
    pending = 0  # sessions of one time are ranked before any of them is remembered
    for k in range(len(order)):
        s = order[k]
        if k > 0 and (user[s] != user[order[k - 1]] or burst[s] != burst[order[k - 1]]):
            count[:], place[:], total[:], known[:] = 0, 0, 0, 0
            pending = k
        if ts[s] != ts[order[pending]]:
            for m in range(pending, k):
                _remember(order[m], first, category, rank_shown, n_shown, outcome, memory, count, place, total, known)  # fmt: skip
            pending = k
        shown = count.sum()
        mean_place = place.sum() / shown if shown > 0 else 0.5
        for j in range(N_HEADS):
            everything = known[:, j].sum()
            mean[j] = total[:, j].sum() / everything if everything > 0 else 0.5
        for c in range(first[s], first[s + 1]):
            g = category[c]
            out[c, 0] = count[g] / shown if shown > 0 else 0.0
            out[c, 1] = (place[g] + prior * mean_place) / (count[g] + prior)
            for j in range(N_HEADS):
                out[c, 2 + j] = (total[g, j] + prior * mean[j]) / (known[g, j] + prior)
    return out


@njit(cache=True, nogil=True)
def _remember(
    s: int, first: IntArray, category: IntArray, rank_shown: npt.NDArray[np.int32], n_shown: IntArray, outcome: FloatArray,
    memory: float, count: FloatArray, place: FloatArray, total: FloatArray, known: FloatArray,
) -> None:  # fmt: skip
    count *= memory
    place *= memory
    total *= memory
    known *= memory
    for c in range(first[s], first[s + 1]):
        if rank_shown[c] == 0:
            continue
        g = category[c]
        count[g] += 1
        place[g] += (rank_shown[c] - 1) / max(n_shown[s] - 1, 1)
        for j in range(N_HEADS):
            if not np.isnan(outcome[c, j]):
                total[g, j] += outcome[c, j]
                known[g, j] += 1
