"""Small ranking problems with planted weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reelrank.pipelines.head_weights.problem import RankingSessions

PLANTED = np.array([0.3, 0.2, -0.1, -0.4])


def sessions_of(
    heads: npt.ArrayLike, rank: npt.ArrayLike, item: npt.ArrayLike | None = None, users: int = 50
) -> RankingSessions:
    """Heads (S, n, 4) and places (S, n) of as many candidates in every session."""
    h, r = np.asarray(heads, np.float32), np.asarray(rank, np.int32)
    s, n = r.shape
    items = np.tile(np.arange(n), (s, 1)) if item is None else np.asarray(item)
    return RankingSessions(
        user_id=(np.arange(s) % users).astype(np.int32),
        session_id=np.arange(s),
        ts_start=np.zeros(s, np.int64),
        burst_id=np.zeros(s, np.int16),
        first=np.arange(s + 1) * n,
        item_id=items.ravel().astype(np.int32),
        heads=h.reshape(-1, 4),
        rank_shown=r.ravel(),
    )


def planted_sessions(
    *,
    s: int = 300,
    n: int = 20,
    k: int = 5,
    temperature: float = 0.5,
    same_heads: bool = False,
    seed: int = 0,
) -> tuple[RankingSessions, npt.NDArray[np.float32], float]:
    """Sessions ranked by softmax(w·p̂/T) without replacement, item vectors that carry the heads' item part, and T.

    ``temperature`` is in sd of the score; infinite = evenly at random.
    """
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(200, 4))
    vectors = latent @ rng.normal(size=(4, 8)) + 0.5 * rng.normal(size=(200, 8))
    item = rng.permuted(np.tile(np.arange(200), (s, 1)), axis=1)[:, :n]
    heads = 1 / (1 + np.exp(0.5 - latent[item] - 0.7 * rng.normal(size=(s, n, 4))))
    if same_heads:
        heads[..., 1] = heads[..., 0]
    score = heads @ PLANTED
    t = temperature * float(np.sqrt(score.var(axis=1).mean()))
    order = np.argsort(-(score / t + rng.gumbel(size=score.shape)), axis=1)[:, :k]
    rank = np.zeros((s, n), np.int32)
    np.put_along_axis(rank, order, np.arange(1, k + 1, dtype=np.int32)[None], axis=1)
    return sessions_of(heads, rank, item), vectors.astype(np.float32), t
