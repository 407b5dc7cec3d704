"""The logging policy: a skewed candidate set, planted head weights, softmax draws without replacement.

At each request C distinct videos that are available at that time are drawn by popularity and scored by Σ_h w_h·p_h with the
true probabilities, of the feedback and, in worlds that ask for it, of the value model's four heads. The shown items are drawn one
at a time: P(i) = exp(score_i/T) / Σ_{j not yet shown} exp(score_j/T). A session's shock adds to score/T of one topic's videos.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reelrank.worlds.latent import Floats, Ints
from reelrank.worlds.response import (
    DAY_MS,
    HEADS,
    N_TABS,
    TAB_PROFILES,
    Doubles,
    Odds,
    Record,
    Records,
    Response,
    affinity_of,
    feedback,
    interest_at,
    jit,
    jit_borrowing,
    odds_of,
    opened_ratio,
    play_parts,
    powers_of,
    sigmoid,
    tab_odds,
    value_heads,
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
    reward: Doubles  # (6,) weights of watch_ratio, like, follow, comment, forward, hate in the immediate reward
    value_weights: Doubles  # (4,) on complete, long, rewatch, neg; (0,) where they play no part
    topic: Ints  # (V,) what shocks act on; (0,) in a world without shocks


class Request(NamedTuple):
    """Working memory for one request at a time: C candidates, V videos."""

    interest: Floats  # (d,) of the user at the time of the request
    seen: Ints  # (V,) stamp of the last request that drew a video
    candidates: Ints  # (C,)
    affinity: Doubles  # (C,)
    reward: Doubles  # (C,) true expected immediate reward, METHODS §3.8 without the clip (watching only once shown)
    weight: Doubles  # (C,) exp(score / T)
    propensity: Doubles  # (C,) of each shown one, in order
    shock: Doubles  # (2,) topic and size of the session's shock


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
def new_request(r: Odds, n_candidates: int) -> Request:
    """Empty working memory."""
    return Request(
        np.zeros(r.vectors.shape[1], np.float32),
        np.full(len(r.videos), -1, np.int32),
        np.zeros(n_candidates, np.int32),
        np.zeros(n_candidates),
        np.zeros(n_candidates),
        np.zeros(n_candidates),
        np.zeros(n_candidates),
        np.zeros(2),
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


@jit_borrowing
def rank_by_value(p: Policy, videos: Records, tab: Record, user: Record, out: Request) -> float:
    """Add the value heads and the session's shock to ``out.weight``, still score / T; returns its maximum."""
    weight, candidates, shock = out.weight, out.candidates, out.shock
    best = -1e300
    for i in range(len(candidates)):
        if len(p.value_weights) > 0:
            heads = value_heads(tab, user, videos[candidates[i]], out.affinity[i], 0)
            score = 0.0
            for k in range(4):
                score += p.value_weights[k] * heads[k]
            weight[i] += score / p.temperature
        if shock[1] != 0.0 and p.topic[candidates[i]] == shock[0]:
            weight[i] += shock[1]
        best = max(best, weight[i])
    return best


@jit_borrowing
def put_affinities(vectors: Floats, videos: Ints, interest: Floats, out: Doubles) -> None:
    """Affinities of ``videos`` (n,) into ``out`` (n,): a short loop, so that the processor overlaps its waits for memory."""
    for i in range(len(videos)):
        out[i] = affinity_of(vectors, videos[i], interest)


@jit_borrowing
def draw_request(
    state: RandomState,
    r: Odds,
    p: Policy,
    out: Request,
    tab_id: int,
    user_id: int,
    ts_ms: int,
    stamp: int,
    n_shown: int,
) -> None:
    """Draw the candidates of one request, score them, and draw ``n_shown`` of them with their propensities.

    The j-th shown is ``candidates[C − 1 − j]`` and was drawn from ``candidates[: C − j]``.
    """
    interest, seen, candidates, weight = out.interest, out.seen, out.candidates, out.weight
    affinities, vectors, videos, skips = out.affinity, r.vectors, r.videos, r.skips
    keep, other, weights, reward_weights = p.alias_keep, p.alias_other, p.weights, p.reward
    rewards = out.reward
    user, tab = r.users[user_id], r.tabs[tab_id]
    interest_at(r.start, r.turn, user_id, user.speed * (ts_ms - r.origin_ms) / DAY_MS, interest)
    n = 0
    while n < p.n_candidates:  # one short loop per step: the processor overlaps their turns
        x = uniform(state) * len(seen)
        video_id = int(x)
        if x - video_id >= keep[video_id]:
            video_id = other[video_id]
        if seen[video_id] != stamp and videos[video_id].upload_ms <= ts_ms:
            seen[video_id] = stamp
            candidates[n] = video_id
            n += 1
    put_affinities(vectors, candidates, interest, affinities)
    best = -1e300
    for i in range(n):
        video_id = candidates[i]
        f = feedback(tab, user, videos[video_id], skips[tab_id, video_id], affinities[i])
        score = weights[0] * f[0] + weights[1] * f[1]
        acts = 0.0
        for k in range(5):
            score += weights[k + 2] * f[k + 2]
            acts += reward_weights[k + 1] * f[k + 2]
        rewards[i], weight[i] = acts, score / p.temperature
        best = max(best, weight[i])
    if len(p.value_weights) > 0 or out.shock[1] != 0.0:
        best = rank_by_value(p, videos, tab, user, out)
    for i in range(n):
        weight[i] = math.exp(weight[i] - best)
    for j in range(n_shown):
        last = n - 1 - j  # the chosen one goes here: candidates[: last + 1] stays the set of draw j
        total = 0.0
        for i in range(last + 1):
            total += weight[i]
        x = uniform(state) * total
        chosen = 0
        while chosen < last and x >= weight[chosen]:
            x -= weight[chosen]
            chosen += 1
        out.propensity[j] = weight[chosen] / total
        for values in (affinities, rewards, weight):
            values[chosen], values[last] = values[last], values[chosen]
        candidates[chosen], candidates[last] = candidates[last], candidates[chosen]
    for i in range(n - n_shown, n):
        video_id = candidates[i]
        video, affinity = videos[video_id], affinities[i]
        parts = play_parts(tab, user, video, affinity, powers_of(affinity))
        rewards[i] += (
            reward_weights[0] * parts[0] * opened_ratio(video, skips[tab_id, video_id], parts)
        )


@jit
def mean_response(
    seed: int,
    r: Odds,
    p: Policy,
    tab_id: int,
    users: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    n_shown: int,
    return_rule: tuple[float, float],
) -> Doubles:
    """Mean true response to what the policy shows: the seven feedbacks, then P(return within 24 h), (8,)."""
    out = np.zeros(8)
    request = new_request(r, p.n_candidates)
    state = np.zeros(1, np.uint64)
    for i in range(len(users)):
        seed_state(state, seed, i)
        draw_request(state, r, p, request, tab_id, users[i], ts_ms[i], i, n_shown)
        user, tab = r.users[users[i]], r.tabs[tab_id]
        reward = 0.0
        for j in range(n_shown):
            place = p.n_candidates - 1 - j
            video_id, affinity = request.candidates[place], request.affinity[place]
            video, skip = r.videos[video_id], r.skips[tab_id, video_id]
            f = feedback(tab, user, video, skip, affinity)
            for k in range(7):
                out[k] += f[k] / n_shown
            reward += request.reward[place] / n_shown
        out[7] += sigmoid(return_rule[0] + return_rule[1] * reward)
    return out / len(users)


def _logit(p: Doubles | float) -> Doubles:
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def calibrate(
    response: Response,
    policy: Policy,
    users: NDArray[np.int64],
    ts_ms: NDArray[np.int64],
    *,
    seed: int,
    n_shown: int,
    return_rule: tuple[float, float],
    feedback_rate: float = 1.0,
    rounds: int = 7,
) -> tuple[Response, float]:
    """Set the intercepts of every tab so that what the policy shows gets the real rates of ``TAB_PROFILES``.

    Args:
        response: intercepts of any value.
        policy: the logging policy.
        users: sample of users, by their share of requests.
        ts_ms: time of each sampled request.
        seed: of the draws, the same in every round.
        n_shown: items shown at a request.
        return_rule: intercept and slope of the planted return rule.
        feedback_rate: what the rates of ``HEADS`` are multiplied by, up to one half.
        rounds: Newton-like steps on the logit scale.

    Returns:
        The response with its intercepts, and the mean P(return within 24 h).
    """
    odds = odds_of(response)

    def fit(k: int) -> float:
        tab, target = response.tabs[k], TAB_PROFILES[k, 5:].copy()
        target[2:] = np.minimum(feedback_rate * target[2:], 0.5)
        for _ in range(rounds):
            now = odds._replace(tabs=tab_odds(response.tabs))
            got = mean_response(seed, now, policy, k, users, ts_ms, n_shown, return_rule)
            step = _logit(target[0]) - _logit(got[0])
            ratio_step = np.clip(_logit(target[1] / target[0]) - _logit(got[1] / got[0]), -1, 1)
            if tab["two_column"] > 0:
                tab["tap"] += step
                tab["engage"] += ratio_step
            else:
                tab["engage"] += step
                tab["complete"] = max(-5.0, tab["complete"] + ratio_step)
            for head, head_step in zip(HEADS, _logit(target[2:]) - _logit(got[2:7]), strict=True):
                tab[head] += head_step
        return float(got[7])

    with ThreadPoolExecutor(2) as pool:
        returns = np.array(list(pool.map(fit, range(N_TABS))))
    return response, float(returns @ TAB_PROFILES[:, 0] / TAB_PROFILES[:, 0].sum())
