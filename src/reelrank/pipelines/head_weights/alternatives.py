"""Other objectives that give head weights: pairs of shown and never shown, the observed order, and categories.

Signs differ between them (METHODS §6.6: rewatch, complete and long change sign in the author's follow-up), so the weights are descriptive.
All score by softmax or logistic of β·p̂, which has a scale; w = β/‖β‖₁.

Source: METHODS §6.6, Alternative objectives [A], GV-07.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from reelrank.pipelines.head_weights.matching import N_HEADS
from reelrank.pipelines.head_weights.options import AlternativeOptions, SoftOptions
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.search import Terms, levenberg

Doubles = npt.NDArray[np.float64]
TOLERANCE = 1e-13  # relative fall at which a convex fit has ended


@dataclass(frozen=True)
class AlternativeFit:
    """Weights by another objective.

    Attributes:
        name: ``bradley_terry``, ``plackett_luce`` or ``category_cross_entropy``.
        weights: (4,) on the L1 sphere; NaN if β = 0.
        beta: (4,).
        objective: mean negative log-likelihood, in nats, without the ridge: per pair, per place or per session.
        baseline: the same at β = 0, where heads say nothing.
        n: pairs, places or sessions that it rests on.
    """

    name: str
    weights: Doubles
    beta: Doubles
    objective: float
    baseline: float
    n: int

    def sign_agreement(self, weights: npt.ArrayLike) -> float:
        """Share of the heads whose sign is that of ``weights`` (4,)."""
        return float(np.mean(np.sign(self.weights) == np.sign(np.asarray(weights))))


def bradley_terry(sessions: RankingSessions, options: AlternativeOptions) -> AlternativeFit:
    """P(shown before other) = σ(β·(p̂_shown − p̂_other)); others are candidates of the session that the user was never shown [A].

    Args:
        sessions: to fit.
        options: others drawn per shown one, with replacement.

    Raises:
        ValueError: no session has both shown and never shown candidates.
    """
    d = pair_differences(sessions, options)

    def terms(beta: Doubles) -> tuple[float, Doubles, Doubles]:
        eta = d @ beta
        miss = 1 / (1 + np.exp(eta.clip(-700, 700)))
        curvature = (d * (miss * (1 - miss))[:, None]).T @ d / len(d)
        return float(np.logaddexp(0, -eta).mean()), -(miss @ d) / len(d), curvature

    return _convex("bradley_terry", terms, len(d), options)


def pair_differences(sessions: RankingSessions, options: AlternativeOptions) -> Doubles:
    """(P, 4) p̂ of a shown candidate minus that of a never shown one. Arguments and errors as :func:`bradley_terry`."""
    s = sessions
    session = np.repeat(np.arange(len(s.first) - 1), np.diff(s.first))
    key = s.user_id[session].astype(np.int64) << 32 | s.item_id.astype(np.int64)
    shown = np.flatnonzero(s.rank_shown > 0)
    other = np.flatnonzero(~np.isin(key, key[shown]))
    n_other = np.bincount(session[other], minlength=len(s.first) - 1)
    shown = np.repeat(shown[n_other[session[shown]] > 0], options.negatives)
    if not len(shown):
        raise ValueError("no session has both shown and never shown candidates: there is no pair")
    begin = np.cumsum(n_other) - n_other
    own = session[shown]
    pick = np.random.default_rng(options.seed).random(len(shown)) * n_other[own]
    drawn = other[begin[own] + pick.astype(np.int64)]
    difference: Doubles = s.heads[shown].astype(np.float64) - s.heads[drawn]
    return difference


def plackett_luce(sessions: RankingSessions, options: AlternativeOptions) -> AlternativeFit:
    """Each place is a softmax(β·p̂) draw from the candidates not shown before it, in the observed order.

    Args:
        sessions: to fit.
        options: ridge and steps.

    Raises:
        ValueError: every session shows one candidate of one: no place leaves a choice.
    """
    s = sessions
    session = np.repeat(np.arange(len(s.first) - 1), np.diff(s.first))
    order = np.lexsort((s.rank_shown, session))  # those not shown first, then by place
    heads = s.heads[order].astype(np.float64)
    n_hidden = np.diff(s.first) - s.n_shown
    places = int(s.n_shown.sum() - np.count_nonzero(n_hidden == 0))  # the last of all is no choice
    if places == 0:
        raise ValueError("every session shows its only candidate: there is no choice to explain")

    def terms(beta: Doubles) -> tuple[float, Doubles, Doubles]:
        loss, gradient, curvature = place_terms(s.first, n_hidden, heads, beta)
        return loss / places, gradient / places, curvature / places

    return _convex("plackett_luce", terms, places, options)


@njit(cache=True, nogil=True)
def place_terms(
    first: npt.NDArray[np.int64], n_hidden: npt.NDArray[np.int64], heads: Doubles, beta: Doubles
) -> tuple[float, Doubles, Doubles]:
    """Σ −log P(place), its gradient and Hessian in β.

    A session's rows hold the candidates not shown, then the shown ones by place. Places are added from the last to the first, so that sums only grow.
    """
    loss, gradient, curvature = 0.0, np.zeros(4), np.zeros((4, 4))
    mean, second = np.empty(4), np.empty((4, 4))
    for s in range(len(first) - 1):
        a, hidden, b = first[s], first[s] + n_hidden[s], first[s + 1]
        top = -np.inf
        for c in range(a, b):
            top = max(top, np.dot(heads[c], beta))
        total = 0.0
        mean[:] = 0
        second[:] = 0
        for step in range(b - a):
            c = a + step if a + step < hidden else b - 1 - (a + step - hidden)
            p = heads[c]
            eta = np.dot(p, beta) - top
            rate = np.exp(eta)
            total += rate
            for i in range(4):
                mean[i] += rate * p[i]
                for j in range(4):
                    second[i, j] += rate * p[i] * p[j]
            if c < hidden:
                continue
            loss += np.log(total) - eta
            for i in range(4):
                gradient[i] += mean[i] / total - p[i]
                for j in range(4):
                    curvature[i, j] += second[i, j] / total - mean[i] * mean[j] / total**2
    return loss, gradient, curvature


def category_cross_entropy(
    sessions: RankingSessions, category: npt.ArrayLike, options: AlternativeOptions
) -> AlternativeFit:
    """−Σ_k share_obs(k) log q(k), q(k) = Σ softmax(β·p̂) over the candidates of category k; mean over sessions.

    The author's code scores a hard top-K, whose empty categories cost a constant (its optimum of 12.23 is above ln 39 [A]); this form is smooth
    and finite. ``baseline`` is that of the candidates' own shares.

    Args:
        sessions: to fit.
        category: (n_items,) from 0; negative = none, a category of its own.
        options: ridge.

    Raises:
        ValueError: ``category`` is too short for the candidates.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 (slow to import)

    s = sessions
    code = np.asarray(category, np.int64)
    if len(code) <= s.item_id.max():
        raise ValueError(
            f"category has {len(code)} items, the candidates go up to {s.item_id.max()}"
        )
    code = np.where(code < 0, max(int(code.max()) + 1, 0), code)
    n_sessions, width = len(s.first) - 1, int(code.max()) + 1
    session = np.repeat(np.arange(n_sessions), np.diff(s.first))
    cell = session * width + code[s.item_id]
    observed = np.bincount(cell, (s.rank_shown > 0) / s.n_shown[session], n_sessions * width)
    heads = s.heads.astype(np.float64)

    def value(beta: Doubles, ridge: float = options.ridge) -> tuple[float, Doubles]:
        eta = heads @ beta
        rate = np.exp(eta - np.maximum.reduceat(eta, s.first[:-1])[session])
        rate /= np.add.reduceat(rate, s.first[:-1])[session]
        q = np.bincount(cell, rate, n_sessions * width).clip(min=1e-300)
        loss = -(observed * np.log(q)).sum() / n_sessions
        # d(−Σ obs log q)/dη_c = rate_c (1 − obs_k/q_k), as Σ obs = 1
        slope = (rate * (1 - (observed / q)[cell])) @ heads / n_sessions
        return float(loss + ridge * beta @ beta), slope + 2 * ridge * beta

    found = minimize(value, np.zeros(N_HEADS), jac=True, method="L-BFGS-B")
    return _fit(
        "category_cross_entropy",
        found.x,
        value(found.x, 0.0)[0],
        value(np.zeros(N_HEADS), 0.0)[0],
        n_sessions,
    )


def _convex(name: str, terms: Terms, n: int, options: AlternativeOptions) -> AlternativeFit:
    """Newton's minimum of a convex mean loss with a ridge."""

    def penalised(beta: Doubles) -> tuple[float, Doubles, Doubles]:
        loss, gradient, curvature = terms(beta)
        ridge = options.ridge
        return (
            loss + ridge * float(beta @ beta),
            gradient + 2 * ridge * beta,
            curvature + 2 * ridge * np.eye(N_HEADS),
        )

    start = np.zeros(N_HEADS)
    newton = SoftOptions(max_steps=options.max_steps, tolerance=TOLERANCE)
    unbounded = np.zeros((N_HEADS, N_HEADS))
    beta, _, _ = levenberg(penalised, start, unbounded, newton)
    return _fit(name, beta, terms(beta)[0], terms(start)[0], n)


def _fit(name: str, beta: Doubles, objective: float, baseline: float, n: int) -> AlternativeFit:
    norm = np.abs(beta).sum()
    weights = beta / norm if norm > 0 else np.full(N_HEADS, np.nan)
    return AlternativeFit(name, weights, beta, objective, baseline, n)
