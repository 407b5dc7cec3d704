"""Ranked sessions made in memory, with the noise and the heads that a test asks for."""

import numpy as np

from reelrank.pipelines.head_weights.problem import RankingSessions

WEIGHTS = np.array([0.4, 0.3, 0.1, -0.2])
HOUR_MS = 3_600_000


def sessions_of(heads, rank_shown, first, *, user=None, item=None):
    """Sessions from plain lists: one user each unless named, an hour apart, one burst, items counted from 0 in each."""
    first = np.asarray(first, np.int64)
    n = len(first) - 1
    counted = np.concatenate([np.arange(size) for size in np.diff(first)])
    return RankingSessions(
        user_id=np.asarray(np.arange(n) if user is None else user, np.int32),
        session_id=np.arange(n, dtype=np.int64) + 100,
        ts_start=np.arange(n, dtype=np.int64) * HOUR_MS,
        burst_id=np.zeros(n, np.int16),
        first=first,
        item_id=np.asarray(counted if item is None else item, np.int32),
        heads=np.asarray(heads, np.float32),
        rank_shown=np.asarray(rank_shown, np.int32),
    )


def drawn_sessions(
    n, *, users, candidates=30, shown=6, temperature=0.05, items=200, seed=0, shift=None
):
    """Plackett–Luce draws from softmax(WEIGHTS · p̂ / temperature); temperature 0 = the top ``shown``.

    ``shift`` (n · candidates,) is added to the values that the feed ranks by, not to p̂.
    """
    rng = np.random.default_rng(seed)
    heads = rng.uniform(size=(n * candidates, 4)).astype(np.float32)
    value = (heads @ WEIGHTS.astype(np.float32)).astype(float)
    value = value if shift is None else value + shift
    noisy = (value + temperature * rng.gumbel(size=value.size)).reshape(n, candidates)
    order = np.argsort(-noisy, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(1, candidates + 1)[None], axis=1)
    rank[rank > shown] = 0
    item = np.concatenate([rng.choice(items, candidates, replace=False) for _ in range(n)])
    return sessions_of(
        heads, rank.ravel(), np.arange(n + 1) * candidates,
        user=np.sort(np.arange(n) % users), item=item,
    )  # fmt: skip
