"""What the lists that a model would show bring by a world's truth, and what its reward says they bring: reward hacking.

Source: METHODS §9 MT-03, MT-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.features.rewards import RewardOptions
from reelrank.models.behaviours import watch_rule, watched
from reelrank.worlds.truth import Truth

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Consequences:
    """Of the top k of each context, one number a context.

    Attributes:
        user_id: (C,) dense.
        long_view: (C,) mean true chance of a long view.
        returning: (C,) true chance that a session of these videos is followed by another within 24 hours.
        immediate: (C,) mean expected immediate reward.
        interest: (C,) mean r_interest.
        k: length of a list.
    """

    user_id: npt.NDArray[np.int32]
    long_view: Doubles
    returning: Doubles
    immediate: Doubles
    interest: Doubles
    k: int

    def proxy(self, reward: RewardOptions) -> Doubles:
        """(C,) the composite reward of a row, in the mean of a list that is a session: retention counts once, at its end.

        Source: MT-DQN Eq. 15.
        """
        retention = reward.lambda_retention * self.returning / self.k
        return self.immediate + retention + reward.lambda_interest * self.interest


def consequences(
    catalogue: pl.DataFrame,
    truth: Truth,
    tastes: Doubles,
    item_vectors: npt.NDArray[np.float32],
    raw_user_ids: npt.NDArray[np.int64],
    raw_item_ids: npt.NDArray[np.int64],
    k: int,
    weights: Mapping[str, float],
) -> Consequences:
    """What the first k of each context bring.

    Args:
        catalogue: context_id, user_id, ts_ms, scenario, rank, item_id.
        truth: of the world that the log came from.
        tastes: (C, d) of the contexts in order of their ids, from :func:`tastes_at`.
        item_vectors: (n_items, d) frozen pooled features.
        raw_user_ids: (n_users,) official id of each dense one.
        raw_item_ids: (n_items,) official id of each dense one.
        k: places that count.
        weights: of the immediate reward's terms, by signal.
    """
    top = catalogue.filter(pl.col("rank") <= k).sort("context_id", "rank")
    users = raw_user_ids[top["user_id"].to_numpy()]
    items = raw_item_ids[top["item_id"].to_numpy()]
    at = (users, items, top["ts_ms"].to_numpy(), top["scenario"].to_numpy())
    # the world's own weights decide who comes back, ours what is called a reward
    felt = truth.expected_immediate_reward(*at).reshape(-1, k)
    shown = item_vectors[top["item_id"].to_numpy()].reshape(len(felt), k, -1).astype(np.float64)
    return Consequences(
        user_id=top["user_id"].gather_every(k).to_numpy(),
        long_view=truth.expected(*at)["long_view"].reshape(-1, k).mean(1),
        returning=truth.return_probability(felt.mean(1)),
        immediate=truth.expected_immediate_reward(*at, weights).reshape(-1, k).mean(1),
        interest=_cosine(shown, tastes[:, None]).mean(1),
        k=k,
    )


def tastes_at(
    contexts: pl.DataFrame,
    events: pl.DataFrame,
    item_vectors: npt.NDArray[np.float32],
    alpha: float,
) -> Doubles:
    """Moving average of the items that each context's user watched strictly before it, (C, d); zeros without one.

    Args:
        contexts: user_id, ts_ms.
        events: user_id, item_id, ts_ms, long_view, watch_ratio, in order of time.
        item_vectors: (n_items, d).
        alpha: weight of the newest.

    Source: METHODS §3.8, as ``features.rewards``.
    """
    rows = events.filter(watched(watch_rule(events.lazy())) == 1)
    seen = rows.group_by("user_id", maintain_order=True).agg("item_id", "ts_ms")
    of_user = {u: (np.asarray(i), np.asarray(t)) for u, i, t in seen.iter_rows()}
    out = np.zeros((contexts.height, item_vectors.shape[1]))
    for row, (user, ts) in enumerate(contexts.select("user_id", "ts_ms").iter_rows()):
        items, times = of_user.get(user, (np.zeros(0, np.int64), np.zeros(0)))
        n = int(np.searchsorted(times, ts))
        # the first counts as if it had been there for ever
        weight = (1 - alpha) ** np.arange(n)[::-1] * np.where(np.arange(n) > 0, alpha, 1.0)
        out[row] = weight @ item_vectors[items[:n]]
    return out


def _cosine(a: Doubles, b: Doubles) -> Doubles:
    """Along the last axis; 0 where a vector is."""
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    product: Doubles = (a * b).sum(-1)
    out: Doubles = np.zeros_like(product)
    np.divide(product, length, out=out, where=length > 0)
    return out
