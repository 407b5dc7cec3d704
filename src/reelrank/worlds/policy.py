"""The logging policy: a skewed candidate set, planted head weights, softmax draws without replacement.

At each request C distinct videos that are available at that time are drawn by popularity and scored by Σ_h w_h·p_h with the
true probabilities. The shown items are drawn one at a time: P(i) = exp(score_i/T) / Σ_{j not yet shown} exp(score_j/T).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reelrank.worlds.latent import Floats, Ints
from reelrank.worlds.response import (
    N_TABS,
    TAB_PROFILES,
    Doubles,
    Response,
    affinity_of,
    feedback,
    interest_at,
    jit,
    sigmoid,
    watch,
)

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31, S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)
RandomState = NDArray[np.uint64]


class Policy(NamedTuple):
    """What the logging policy knows; V videos."""

    weights: Doubles  # (7,) on click, long_view, like, follow, comment, forward, hate
    temperature: float
    n_candidates: int
    alias_keep: Doubles  # (V,) Walker's alias table of the popularity
    alias_other: Ints  # (V,)
    upload_ms: NDArray[np.int64]  # (V,) available from here on
    reward: Doubles  # (6,) weights of watch_ratio, like, follow, comment, forward, hate in the immediate reward


class Scratch(NamedTuple):
    """Working memory of one thread: C candidates."""

    interest: Floats  # (d,)
    seen: Ints  # (V,) stamp of the last request that drew a video
    candidates: Ints  # (C,)
    affinity: Doubles  # (C,)
    weight: Doubles  # (C,) exp(score / T); 0 once shown
    order: Ints  # (C,) shown positions, in order
    propensity: Doubles  # (C,) of each shown position


def alias_table(popularity: Doubles) -> tuple[Doubles, Ints]:
    """Walker's alias table: draws from ``popularity`` (V,) in constant time."""
    n = len(popularity)
    keep = popularity / popularity.sum() * n
    other = np.arange(n, dtype=np.int32)
    small, large = list(np.flatnonzero(keep < 1)), list(np.flatnonzero(keep >= 1))
    while small and large:
        low, high = small.pop(), large[-1]
        other[low] = high
        keep[high] -= 1 - keep[low]
        if keep[high] < 1:
            small.append(large.pop())
    return keep, other


@jit
def make_scratch(r: Response, n_candidates: int) -> Scratch:
    """Empty working memory."""
    return Scratch(
        np.zeros(r.vector.shape[1], np.float32),
        np.full(len(r.vector), -1, np.int32),
        np.zeros(n_candidates, np.int32),
        np.zeros(n_candidates),
        np.zeros(n_candidates),
        np.zeros(n_candidates, np.int32),
        np.zeros(n_candidates),
    )


@jit
def uniform(state: RandomState) -> float:
    """Next number of a SplitMix64 stream in [0, 1); a few instructions, the same on every machine."""
    state[0] += GOLDEN
    z = state[0]
    z = (z ^ (z >> S30)) * MIX_1
    z = (z ^ (z >> S27)) * MIX_2
    return float((z ^ (z >> S31)) >> S11) * 1.1102230246251565e-16  # 2⁻⁵³


@jit
def normal(state: RandomState) -> float:
    """Standard normal by Box and Muller."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
    return radius * math.cos(2.0 * math.pi * uniform(state))


@jit
def seed_state(state: RandomState, seed: int, index: int) -> None:
    """Start the stream of one index (a user) under one seed."""
    state[0] = np.uint64(seed) ^ (np.uint64(index + 1) * MIX_2)
    state[0] = np.uint64(uniform(state) * 9007199254740992.0) * GOLDEN


@jit
def reward_of(p: Policy, r: Response, tab: int, user: int, video: int, affinity: float) -> float:
    """True expected immediate reward, METHODS §3.8 without the clip (linear in the feedback)."""
    f = feedback(r, tab, user, video, affinity)
    ratio = watch(r, tab, user, video, affinity)[0]
    w = p.reward
    return float(
        w[0] * ratio + w[1] * f[2] + w[2] * f[3] + w[3] * f[4] + w[4] * f[5] + w[5] * f[6]
    )


@jit
def draw_request(
    state: RandomState,
    r: Response,
    p: Policy,
    scratch: Scratch,
    tab: int,
    user: int,
    ts_ms: int,
    stamp: int,
    n_shown: int,
) -> None:
    """Fill ``scratch``: candidates, then ``n_shown`` draws with their propensities; ``interest`` must be that of (user, ts)."""
    n_videos = len(scratch.seen)
    n = 0
    best = -1e300
    while n < p.n_candidates:
        x = uniform(state) * n_videos
        video = int(x)
        if x - video >= p.alias_keep[video]:
            video = p.alias_other[video]
        if scratch.seen[video] == stamp or p.upload_ms[video] > ts_ms:
            continue
        scratch.seen[video] = stamp
        affinity = affinity_of(r, scratch.interest, video)
        f = feedback(r, tab, user, video, affinity)
        score = 0.0
        for k in range(7):
            score += p.weights[k] * f[k]
        scratch.candidates[n] = video
        scratch.affinity[n] = affinity
        scratch.weight[n] = score / p.temperature
        best = max(best, scratch.weight[n])
        n += 1
    for i in range(n):
        scratch.weight[i] = math.exp(scratch.weight[i] - best)
    for j in range(n_shown):
        total = 0.0
        for i in range(n):
            total += scratch.weight[i]
        x = uniform(state) * total
        chosen = -1
        for i in range(n):
            if scratch.weight[i] > 0.0:
                chosen = i  # the last open item, should rounding leave x above the sum
                x -= scratch.weight[i]
                if x < 0.0:
                    break
        scratch.order[j] = chosen
        scratch.propensity[j] = scratch.weight[chosen] / total
        scratch.weight[chosen] = 0.0


@jit
def mean_response(
    seed: int,
    r: Response,
    p: Policy,
    tab: int,
    users: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    n_shown: int,
    return_rule: tuple[float, float],
) -> Doubles:
    """Mean true response to what the policy shows: the seven feedbacks, then P(return within 24 h), (8,)."""
    out = np.zeros(8)
    scratch = make_scratch(r, p.n_candidates)
    state = np.zeros(1, np.uint64)
    for i in range(len(users)):
        seed_state(state, seed, i)
        interest_at(r, users[i], ts_ms[i], scratch.interest)
        draw_request(state, r, p, scratch, tab, users[i], ts_ms[i], i, n_shown)
        reward = 0.0
        for j in range(n_shown):
            place = scratch.order[j]
            video, affinity = scratch.candidates[place], scratch.affinity[place]
            f = feedback(r, tab, users[i], video, affinity)
            for k in range(7):
                out[k] += f[k] / n_shown
            reward += reward_of(p, r, tab, users[i], video, affinity) / n_shown
        out[7] += sigmoid(return_rule[0] + return_rule[1] * reward)
    return out / len(users)


def _logit(p: Doubles | float) -> Doubles:
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def calibrate(
    seed: int,
    response: Response,
    policy: Policy,
    users: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    n_shown: int,
    return_rule: tuple[float, float],
    rounds: int = 7,
) -> tuple[Response, float]:
    """Set the intercepts of every tab so that what the policy shows gets the real rates of ``TAB_PROFILES``.

    Args:
        seed: of the draws, the same in every round.
        response: intercepts of any value.
        policy: the logging policy.
        users: sample of users, by their share of requests.
        ts_ms: time of each sampled request.
        n_shown: items shown at a request.
        return_rule: intercept and slope of the planted return rule.
        rounds: Newton-like steps on the logit scale.

    Returns:
        The response with its intercepts, and the mean P(return within 24 h).
    """
    returns = np.zeros(N_TABS)
    for _ in range(rounds):
        for tab in range(N_TABS):
            target = TAB_PROFILES[tab, 5:]
            got = mean_response(seed, response, policy, tab, users, ts_ms, n_shown, return_rule)
            step = _logit(target[0]) - _logit(got[0])
            ratio_step = _logit(target[1] / target[0]) - _logit(got[1] / got[0])
            if response.two_column[tab]:
                response.tap[tab] += step
                response.engage[tab] += np.clip(ratio_step, -2, 2)
            else:
                response.engage[tab] += 1.2 * step
                response.partial[tab] += 0.7 * np.clip(ratio_step, -2, 2)
            response.head[tab] += _logit(target[2:]) - _logit(got[2:7])
            returns[tab] = got[7]
    return response, float(returns @ TAB_PROFILES[:, 0] / TAB_PROFILES[:, 0].sum())
