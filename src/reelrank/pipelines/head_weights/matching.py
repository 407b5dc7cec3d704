"""The loss L(w) = |S|⁻¹ Σ_s ‖μ_obs − μ_sim(w)‖², hard and smooth, by session and by user.

μ_sim is the mean vector of the K_s candidates with the highest score w·p̂, in float32; of equal scores the earlier candidate wins. The smooth forms
put inclusion probabilities in place of the choice, and have derivatives.

Source: METHODS §6.6 [S], eq. of L. L depends on the order of scores alone: w and c·w (c > 0) are the same, so w is given with Σ|w_j| = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numba
import numpy as np
import numpy.typing as npt

from reelrank.pipelines.head_weights import matching_kernels as kernels
from reelrank.pipelines.head_weights.embeddings import Embedding
from reelrank.pipelines.head_weights.problem import RankingSessions

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Inclusion = Literal["successive", "sigmoid"]

N_HEADS = 4
SERIAL = 200_000  # [D] fewer candidate visits than this: threads cost more than they save
BLOCK = 64  # weights evaluated at once


@dataclass(frozen=True)
class SoftTerms:
    """Smooth loss with derivatives in β = w/T, by session.

    Attributes:
        loss: (S,).
        gradient: (S, 4).
        curvature: (S, 4, 4), 2 JᵀJ: Gauss and Newton's, exact in expectation where the model holds.
    """

    loss: Doubles
    gradient: Doubles
    curvature: Doubles


@dataclass(frozen=True)
class Matching:
    """Sessions and embedding, laid out for the kernels. Make it with :func:`matching`.

    Attributes:
        sessions: where it comes from.
        heads: (4, N) float32.
        row: (N,) int32, the candidate's row of ``embedding``.
        embedding: (rows, H) float32.
        n_shown: (S,) int64, K_s.
        observed: (S, H) float32, μ_obs.
        users: (U,) distinct users.
        user_index: (S,) int64, position in ``users``.
    """

    sessions: RankingSessions
    heads: Floats
    row: npt.NDArray[np.int32]
    embedding: Floats
    n_shown: npt.NDArray[np.int64]
    observed: Floats
    users: npt.NDArray[np.int32]
    user_index: npt.NDArray[np.int64]

    @property
    def n_sessions(self) -> int:
        """S."""
        return len(self.n_shown)

    def losses(self, weights: npt.ArrayLike) -> Doubles:
        """Hard loss of every session (M, S), or (S,) for one weight vector.

        Args:
            weights: (M, 4) or (4,), of any positive scale.
        """
        w = np.asarray(weights, np.float32)
        out = np.empty((len(np.atleast_2d(w)), self.n_sessions))
        self._share_out(
            lambda a, b: kernels.hard_losses(
                a, b, self.sessions.first, self.heads, self.row, self.n_shown,
                self.embedding, self.observed, np.atleast_2d(w), out,
            ),
            len(out),
        )  # fmt: skip
        return out if w.ndim == 2 else out[0]

    def mean_losses(self, weights: npt.ArrayLike) -> Doubles:
        """L(w) of M weight vectors (M, 4) → (M,)."""
        w = np.atleast_2d(np.asarray(weights, np.float32))
        parts = [self.losses(w[i : i + BLOCK]).mean(axis=1) for i in range(0, len(w), BLOCK)]
        return np.concatenate(parts)

    def user_losses(self, weights: npt.ArrayLike) -> Doubles:
        """Sums of hard losses by user (M, U): a resample of users only weights them anew."""
        w = np.atleast_2d(np.asarray(weights, np.float32))
        parts = [self.by_user(self.losses(w[i : i + BLOCK]).T).T for i in range(0, len(w), BLOCK)]
        return np.concatenate(parts)

    def soft(self, beta: npt.ArrayLike, inclusion: Inclusion = "successive") -> SoftTerms:
        """Smooth loss with derivatives.

        Args:
            beta: (4,) β = w/T.
            inclusion: ``successive``: 1 − exp(−exp((score − θ)/T)) with θ such that Σπ = K, close to the inclusion in K draws by
                softmax without replacement; ``sigmoid``: σ((score − θ_K)/T), θ_K the K-th score with its gradient stopped, scaled to K [S].

        Raises:
            ValueError: ``beta`` is not four finite numbers.
        """
        b = np.ascontiguousarray(beta, np.float64)
        if b.shape != (N_HEADS,) or not np.isfinite(b).all():
            raise ValueError(f"beta: expected {N_HEADS} finite numbers, got {b}")
        n = self.n_sessions
        terms = SoftTerms(np.empty(n), np.empty((n, N_HEADS)), np.empty((n, N_HEADS, N_HEADS)))
        form = kernels.SUCCESSIVE if inclusion == "successive" else kernels.SIGMOID
        self._share_out(
            lambda start, stop: kernels.soft_terms(
                start, stop, self.sessions.first, self.heads, self.row, self.n_shown,
                self.embedding, self.observed, b, form, terms.loss, terms.gradient, terms.curvature,
            ),
            10,
        )  # fmt: skip
        return terms

    def soft_loss(
        self, weights: npt.ArrayLike, log_t: float, inclusion: Inclusion = "successive"
    ) -> tuple[float, Doubles]:
        """Smooth L(w, log T) and its gradient (5,) in (w, log T).

        Args:
            weights: (4,), scores are w·p̂ as given.
            log_t: log T.
            inclusion: as :meth:`soft`.
        """
        beta = np.asarray(weights, np.float64) * np.exp(-log_t)
        terms = self.soft(beta, inclusion)
        slope = terms.gradient.mean(axis=0)
        return float(terms.loss.mean()), np.append(slope * np.exp(-log_t), -slope @ beta)

    def by_user(self, values: npt.NDArray[np.float64]) -> Doubles:
        """Sums over the sessions of each user: (S, …) → (U, …)."""
        flat = values.reshape(len(values), -1)
        sums = [np.bincount(self.user_index, v, len(self.users)).astype(np.float64) for v in flat.T]
        out: Doubles = np.stack(sums, axis=-1).reshape(len(self.users), *values.shape[1:])
        return out

    def selected(self, score: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """(N,) the K_s candidates of each session with the highest score (N,), of equal ones the earlier."""
        given = np.ascontiguousarray(score, np.float32)
        out = np.zeros(len(self.row), np.bool_)
        self._share_out(
            lambda a, b: kernels.top_rows(a, b, self.sessions.first, given, self.n_shown, out), 1
        )
        return out

    def losses_of(self, share: npt.ArrayLike) -> Doubles:
        """(S,) loss where μ_sim = Σ share·e.

        Args:
            share: (N,) of each candidate in what is simulated; 1 in sum by session.
        """
        mean = self.means(share)
        loss: Doubles = np.square(self.observed.astype(np.float64) - mean).sum(axis=1)
        return loss

    def subset(self, index: npt.ArrayLike) -> Matching:
        """The sessions with these numbers, in this order."""
        chosen = np.asarray(index, np.int64)
        sessions, rows = take_sessions(self.sessions, chosen)
        users, user_index = np.unique(sessions.user_id, return_inverse=True)
        return Matching(
            sessions,
            np.ascontiguousarray(self.heads[:, rows]),
            self.row[rows],
            self.embedding,
            self.n_shown[chosen],
            self.observed[chosen],
            users,
            user_index,
        )

    def sample(self, n: int, seed: int) -> Matching:
        """``n`` random sessions in their order; itself where it has no more."""
        if n >= self.n_sessions:
            return self
        rng = np.random.default_rng(seed)
        return self.subset(np.sort(rng.choice(self.n_sessions, n, replace=False)))

    def score_sd(self, weights: npt.ArrayLike) -> float:
        """Root mean variance of w·p̂ within sessions: the unit of T."""
        w = np.asarray(weights, np.float64)
        return float(np.sqrt(w @ self.head_covariance() @ w))

    def head_covariance(self) -> Doubles:
        """(4, 4) covariance of the heads within sessions, every session counted once."""
        first = self.sessions.first
        size = np.diff(first).astype(np.float64)
        mean = np.add.reduceat(self.heads, first[:-1], axis=1, dtype=np.float64) / size
        second = np.empty((N_HEADS, N_HEADS))
        for i in range(N_HEADS):
            for j in range(i + 1):
                product = np.multiply(self.heads[i], self.heads[j], dtype=np.float64)
                raw = np.add.reduceat(product, first[:-1]) / size
                second[i, j] = second[j, i] = (raw - mean[i] * mean[j]).mean()
        return second

    def means(self, share: npt.ArrayLike) -> Floats:
        """(S, H) Σ share·e of each session, for shares of its candidates (N,)."""
        given = np.ascontiguousarray(share, np.float32)
        out = np.empty_like(self.observed)
        self._share_out(
            lambda a, b: kernels.mean_rows(
                a, b, self.sessions.first, self.row, given, self.embedding, out
            ),
            1,
        )
        return out

    def _share_out(self, work: Callable[[int, int], None], passes: int) -> None:
        """``work(start, stop)`` over all sessions, in threads where that pays; parts have about equal numbers of candidates."""
        threads = numba.get_num_threads() if passes * len(self.row) > SERIAL else 1
        if threads == 1:
            work(0, self.n_sessions)
            return
        edges = np.searchsorted(self.sessions.first, np.linspace(0, len(self.row), threads + 1))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, edges[:-1].tolist(), edges[1:].tolist()))


def matching(sessions: RankingSessions, embedding: Embedding) -> Matching:
    """Lay out sessions and embedding.

    Args:
        sessions: S sessions with N candidates.
        embedding: a vector for every item, or for every candidate.

    Raises:
        ValueError: no session, a session without shown or candidate items, heads that are not finite or not four, or no vector for an item.
    """
    s, e = sessions, embedding
    n = len(s.item_id)
    if len(s.first) < 2 or s.first[0] != 0 or s.first[-1] != n or (np.diff(s.first) < 1).any():
        raise ValueError(
            f"first must rise from 0 to the {n} candidates with at least one session, and no session may be without candidates"
        )
    if s.heads.shape != (n, N_HEADS):
        raise ValueError(f"heads: expected ({n}, {N_HEADS}), got {s.heads.shape}")
    bad = ~np.isfinite(s.heads).all(axis=1)
    if bad.any():
        raise ValueError(
            f"heads of {int(bad.sum())} candidates are not finite, first in row {int(bad.argmax())}"
        )
    if (s.n_shown < 1).any():
        where = int(s.session_id[int((s.n_shown < 1).argmax())])
        raise ValueError(f"session {where} shows none of its candidates: leave it out")
    row = np.arange(n, dtype=np.int32) if e.per_candidate else s.item_id.astype(np.int32)
    if row.max() >= len(e.vectors) or row.min() < 0:
        raise ValueError(
            f"embedding {e.name} has {len(e.vectors)} rows, the candidates ask for {row.min()} … {row.max()}"
        )
    users, user_index = np.unique(s.user_id, return_inverse=True)
    heads = np.ascontiguousarray(s.heads.T, np.float32)
    vectors = np.ascontiguousarray(e.vectors, np.float32)
    empty = np.empty((len(s.first) - 1, vectors.shape[1]), np.float32)
    first = np.ascontiguousarray(s.first, np.int64)
    out = Matching(
        replace(s, first=first), heads, row, vectors, s.n_shown, empty, users, user_index
    )
    share = (s.rank_shown > 0) / np.repeat(s.n_shown, np.diff(s.first))
    return replace(out, observed=out.means(share))


def take_sessions(
    sessions: RankingSessions, index: npt.ArrayLike
) -> tuple[RankingSessions, npt.NDArray[np.int64]]:
    """Some sessions with their candidates.

    Args:
        sessions: all.
        index: (m,) numbers of sessions, in any order, repeats allowed.

    Returns:
        the sessions, and the rows of their candidates (n,).
    """
    chosen = np.asarray(index, np.int64)
    length = np.diff(sessions.first)[chosen]
    first = np.concatenate([[0], np.cumsum(length)])
    rows = np.arange(first[-1]) + np.repeat(sessions.first[chosen] - first[:-1], length)
    return RankingSessions(
        sessions.user_id[chosen],
        sessions.session_id[chosen],
        sessions.ts_start[chosen],
        sessions.burst_id[chosen],
        first,
        sessions.item_id[rows],
        sessions.heads[rows],
        sessions.rank_shown[rows],
    ), rows


def on_sphere(u: npt.ArrayLike) -> Doubles:
    """u/‖u‖₁ along the last axis.

    Raises:
        ValueError: a vector is zero: it has no direction.
    """
    given = np.asarray(u, np.float64)
    norm = np.abs(given).sum(axis=-1, keepdims=True)
    if (norm == 0).any():
        raise ValueError("a weight vector of zeros has no direction")
    w: Doubles = given / norm
    return w


def half_space(x: npt.ArrayLike) -> Doubles:
    """The author's form: (x, −(1 − Σx)) on the L1 sphere, (…, 3) → (…, 4); it has w₁ + w₂ + w₃ − w₄ > 0 only [A]."""
    given = np.asarray(x, np.float64)
    last = given.sum(axis=-1, keepdims=True) - 1
    return on_sphere(np.concatenate([given, last], axis=-1))


def cosine(a: npt.ArrayLike, b: npt.ArrayLike) -> Doubles:
    """Cosine between weight vectors along the last axis."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    out: Doubles = (x * y).sum(axis=-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
    return out
