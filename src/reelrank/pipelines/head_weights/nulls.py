"""Recommenders that need no head weights: what ŵ has to beat before it means anything.

Source: METHODS §6.6, Nulls [S]. Without them a fit looks good that is not: the author's category optimum is far worse than uniform shares [A].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelrank.evaluation.uncertainty import Difference, Estimate, UserBootstrap, paired
from reelrank.pipelines.head_weights.inference import HEADS
from reelrank.pipelines.head_weights.matching import N_HEADS, Matching
from reelrank.pipelines.head_weights.options import NullOptions
from reelrank.pipelines.head_weights.search import EQUAL

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NullComparison:
    """One recommender beside ŵ, on the same sessions and resamples of users.

    Attributes:
        name: ``random``, ``popularity``, ``user_categories``, ``+complete`` … ``−neg``, ``equal_signed``.
        loss: its L with the interval over users.
        difference: its L − L(ŵ), paired.
        beaten: the interval of the difference lies above 0.
    """

    name: str
    loss: Estimate
    difference: Difference
    beaten: bool


def compare_with_nulls(
    problem: Matching,
    weights: npt.ArrayLike,
    options: NullOptions,
    *,
    popularity: npt.ArrayLike | None = None,
    category: npt.ArrayLike | None = None,
    history: npt.ArrayLike | None = None,
) -> tuple[Estimate, list[NullComparison]]:
    """L(ŵ), and every null that the data allow.

    Args:
        problem: sessions that ŵ was not fitted on (L9).
        weights: (4,) ŵ.
        options: draws and resamples.
        popularity: (n_items,) train counts; without it the popularity null is left out.
        category: (n_items,) from 0, negative = none (a category of its own); with ``history`` for the user-category null.
        history: (n_users, n_categories [+ 1 for none]) rows of each user by category, train only.

    Raises:
        ValueError: ``popularity``, ``category`` or ``history`` is too short for the candidates.
    """
    bootstrap = UserBootstrap(problem.users, options.replicates, options.seed)
    users = problem.sessions.user_id
    own = bootstrap.mean(users, problem.losses(weights))
    losses = {"random": random_losses(problem)}
    if popularity is not None:
        losses["popularity"] = _popularity_losses(problem, popularity)
    if category is not None and history is not None:
        losses["user_categories"] = user_category_losses(problem, category, history, options)
    losses |= dict(_fixed_losses(problem))
    rows = []
    for name, values in losses.items():
        estimate = bootstrap.mean(users, values)
        difference = paired(estimate, own)
        rows.append(NullComparison(name, estimate, difference, difference.ci_low > 0))
    return own, rows


def random_losses(problem: Matching) -> Doubles:
    """(S,) expected loss of K_s candidates drawn evenly without replacement, in closed form.

    E‖μ_obs − μ_R‖² = ‖μ_obs − ē‖² + (1 − K/n)/K · Σ‖e − ē‖²/(n − 1).
    """
    size = np.diff(problem.sessions.first)
    share = np.repeat(1 / size, size)
    squares = np.square(problem.embedding, dtype=np.float64).sum(axis=1)[problem.row]
    mean_square = np.add.reduceat(squares, problem.sessions.first[:-1]) / size
    centre = problem.means(share).astype(np.float64)
    spread = (mean_square - np.square(centre).sum(axis=1)).clip(min=0) * size
    k = problem.n_shown
    noise: Doubles = (1 - k / size) / k * spread / np.maximum(size - 1, 1)
    return problem.losses_of(share) + noise


def user_category_losses(
    problem: Matching, category: npt.ArrayLike, history: npt.ArrayLike, options: NullOptions
) -> Doubles:
    """(S,) mean loss over draws: a category by the user's past shares, then one of its candidates evenly, K_s times without replacement.

    Arguments and errors as :func:`compare_with_nulls`.
    """
    s = problem.sessions
    code = np.asarray(category, np.int64)
    counts = np.asarray(history, np.float64)
    if len(code) <= s.item_id.max():
        raise ValueError(
            f"category has {len(code)} items, the candidates go up to {s.item_id.max()}"
        )
    code = np.where(code < 0, max(int(code.max()) + 1, 0), code)
    if counts.ndim != 2 or len(counts) <= s.user_id.max() or counts.shape[1] <= code.max():
        raise ValueError(
            f"history {counts.shape} must have a row for user {s.user_id.max()} and a column for category {code.max()}"
        )
    overall = (counts.sum(axis=0) + 1) / (counts.sum() + counts.shape[1])
    share = counts[s.user_id] + options.smoothing * overall
    size = np.diff(s.first)
    session = np.repeat(np.arange(len(size)), size)
    cell = session * counts.shape[1] + code[s.item_id]
    in_cell = np.bincount(cell, minlength=len(size) * counts.shape[1])
    log_rate = np.log(share.ravel()[cell] / in_cell[cell])
    per_shown = 1 / np.repeat(problem.n_shown, size)
    rng = np.random.default_rng(options.seed)
    total = np.zeros(len(size))
    for _ in range(options.draws):  # the K largest of log rate + Gumbel are successive draws
        drawn = problem.selected(log_rate + rng.gumbel(size=len(cell)))
        total += problem.losses_of(drawn * per_shown)
    return total / options.draws


def _popularity_losses(problem: Matching, popularity: npt.ArrayLike) -> Doubles:
    count = np.asarray(popularity, np.float32)
    item = problem.sessions.item_id
    if len(count) <= item.max():
        raise ValueError(f"popularity has {len(count)} items, the candidates go up to {item.max()}")
    per_shown = 1 / np.repeat(problem.n_shown, np.diff(problem.sessions.first))
    return problem.losses_of(problem.selected(count[item]) * per_shown)


def _fixed_losses(problem: Matching) -> Iterator[tuple[str, Doubles]]:
    names = [f"{sign}{head}" for sign in "+−" for head in HEADS] + ["equal_signed"]
    fixed = np.vstack([np.eye(N_HEADS), -np.eye(N_HEADS), EQUAL[None]])
    yield from zip(names, problem.losses(fixed), strict=True)
