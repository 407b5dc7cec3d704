"""Planted session shocks: one topic is pushed up or down in all requests of a session, for reasons that no model of values knows.

Exogenous shocks are drawn apart from everything that is known before the session. A share of sessions may get an endogenous one instead,
a function of the local hour at which the session starts, which the features show: topic 0 is pushed down before noon and up from noon on.
Sizes of both have mean square sd², and the exogenous ones mean 0, so that they favour no topic and no user to first order.

Source: METHODS §6.7 (the exogeneity diagnostics need worlds of both kinds).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reelrank.worlds.latent import Ints
from reelrank.worlds.policy import RandomState, normal, seed_state, uniform
from reelrank.worlds.response import Doubles, jit

HOUR_MS = 3_600_000
ENDOGENOUS_TOPIC = 0  # the most common one, so that nearly every session could show it


class ShockRule(NamedTuple):
    """How sessions are disturbed."""

    sd: float  # root mean square of the size, in temperatures of the logging softmax; 0 = no shocks
    endogenous: float  # share of sessions whose shock is a function of the local hour
    n_topics: int
    utc_offset_ms: int


NO_SHOCKS = ShockRule(0.0, 0.0, 1, 0)


@jit
def draw_shock(
    state: RandomState, seed: int, user_id: int, start_ms: int, rule: ShockRule, out: Doubles
) -> None:
    """Topic and size of one session's shock into ``out`` (2,): a stream of its own, for which ``state`` is scratch."""
    seed_state(state, seed ^ start_ms, user_id)
    if uniform(state) < rule.endogenous:
        is_late = (start_ms + rule.utc_offset_ms) // HOUR_MS % 24 >= 12
        out[0], out[1] = ENDOGENOUS_TOPIC, rule.sd if is_late else -rule.sd
    else:
        out[0], out[1] = int(uniform(state) * rule.n_topics), rule.sd * normal(state)


@jit
def _draw_shocks(
    seed: int,
    user_ids: NDArray[np.int64],
    start_ms: NDArray[np.int64],
    rule: ShockRule,
    topic: Ints,
    size: Doubles,
) -> None:
    shock, state = np.zeros(2), np.zeros(1, np.uint64)
    for i in range(len(user_ids)):
        draw_shock(state, seed, user_ids[i], start_ms[i], rule, shock)
        topic[i], size[i] = int(shock[0]), shock[1]


def draw_shocks(
    seed: int, user_ids: NDArray[np.int64], start_ms: NDArray[np.int64], rule: ShockRule
) -> tuple[Ints, Doubles]:
    """Topic and size of the shocks of sessions (q,), as the simulation under that seed had them; −1 and 0 where there are none."""
    topic, size = np.full(len(user_ids), -1, np.int32), np.zeros(len(user_ids))
    if rule.sd > 0:
        _draw_shocks(seed, user_ids, start_ms, rule, topic, size)
    return topic, size
