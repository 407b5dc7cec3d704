"""Sessions of every user in time: requests, rows, feedback, the planted return rule, random exposure.

After a session whose rows have the mean true expected reward m, the user's next session starts within 24 hours of the last
row with probability σ(a + b·m), else later. Sessions are more than an hour apart, the requests of a session less than
15 minutes, so any gap rule between the two finds the planted sessions.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reelrank.worlds.latent import Ints
from reelrank.worlds.policy import (
    Policy,
    RandomState,
    draw_request,
    new_request,
    normal,
    seed_state,
    uniform,
)
from reelrank.worlds.response import (
    COMPLETE_MEAN,
    COMPLETE_SD,
    DAY_MS,
    LONG_VIEW_MS,
    N_TABS,
    PARTIAL_SD,
    VALID_PLAY_MS,
    Doubles,
    Odds,
    Record,
    Response,
    affinity_of,
    expected_reward,
    heads_of,
    interest_at,
    jit,
    odds_of,
    play_parts,
    powers_of,
    sigmoid,
)

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
SESSION_APART_MS = 61 * MINUTE_MS
RANDOM_TAB = 1  # SCHEMAS §2.1: nearly all random exposures are in tab 1
# share of the real rows of KuaiRand-Pure in each local hour
HOURLY: Doubles = np.array([
    0.036, 0.022, 0.015, 0.010, 0.008, 0.010, 0.018, 0.026, 0.034, 0.040, 0.046, 0.052,
    0.059, 0.056, 0.051, 0.053, 0.056, 0.060, 0.057, 0.055, 0.057, 0.060, 0.064, 0.057,
])  # fmt: skip

ROW_COLUMNS = (
    "user_id", "video_id", "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view",
    "play_time_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter", "is_rand", "tab", "request", "position",
)  # fmt: skip
SESSION_COLUMNS = ("user_id", "start_ms", "end_ms", "n_rows", "mean_reward", "p_return", "returned")


class Schedule(NamedTuple):
    """When and how much each user watches; U users."""

    gap_ms: Doubles  # (U,) mean time between sessions, for the start of the first one
    later_ms: Doubles  # (U,) mean time beyond 24 h where the user does not return within them
    session_rows: Doubles  # (U,) mean rows of a session
    request_rows: float  # mean rows of a request
    start_ms: int
    stop_ms: int
    random_start_ms: int
    random_rate: float  # random rows per standard row from random_start_ms on
    hourly: Doubles  # (24,) share of sessions by local hour, scaled to a maximum of 1
    utc_offset_ms: int
    tab_cdf: Doubles  # (15,)
    tab_stay: float  # P(a request stays in the tab of the one before)
    return_intercept: float
    return_slope: float


class Log(NamedTuple):
    """Rows, requests and sessions in (user, time) order."""

    rows: Ints  # (17, n) by ROW_COLUMNS; request counts within the block, −1 = random exposure
    ts_ms: NDArray[np.int64]  # (n,)
    propensity: Doubles  # (n,)
    candidates: Ints  # (m, C) candidate set of each request
    sessions: Doubles  # (s, 7) by SESSION_COLUMNS


@jit
def awake(state: RandomState, hourly: Doubles, local_ms: float) -> bool:
    """Whether a proposed start is accepted by the daily rhythm."""
    return bool(uniform(state) < hourly[int(local_ms // HOUR_MS) % 24])


@jit
def geometric(state: RandomState, mean: float) -> int:
    """1, 2, … with the given mean."""
    if mean <= 1.0:
        return 1
    return 1 + int(math.log(1.0 - uniform(state)) / math.log(1.0 - 1.0 / mean))


@jit
def choose(state: RandomState, cdf: Doubles) -> int:
    """Index drawn by a cumulative distribution."""
    x = uniform(state)
    k = 0
    while cdf[k] <= x:
        k += 1
    return k


@jit
def observe(
    state: RandomState,
    tab: Record,
    user: Record,
    video: Record,
    affinity: float,
    rows: Ints,
    n: int,
) -> None:
    """Draw the feedback of one exposure into column ``n`` of ``rows``."""
    powers = powers_of(affinity)
    opened, engaged, complete, mean = play_parts(tab, user, video, affinity, powers)
    duration = int(video.duration_ms)
    is_open = uniform(state) < opened
    play = 0
    if is_open:
        x = uniform(state)
        if x < engaged * complete:
            log_play = video.log_duration + COMPLETE_MEAN + COMPLETE_SD * normal(state)
        elif x < engaged:
            log_play = mean + PARTIAL_SD * normal(state)
        else:
            log_play = tab.skip_mean + tab.skip_sd * normal(state)
        play = round(math.exp(min(log_play, 21.0)))  # 2³¹ ms bounds the column
    valid = play >= duration if duration <= VALID_PLAY_MS else play > VALID_PLAY_MS
    long = play >= min(duration, LONG_VIEW_MS)
    rows[2, n] = is_open if tab.two_column > 0.0 else valid
    heads = heads_of(tab, user, video, powers)
    for k in range(4):
        rows[3 + k, n] = uniform(state) < heads[k] and is_open
    rows[7, n] = uniform(state) < heads[4]
    rows[8, n] = long
    rows[9, n] = play
    # beside the planted heads: visits to the author's page and the comments, at the real rates given the play
    enter = uniform(state) < (0.044 if long else 0.028 if valid else 0.0028)
    rows[10, n] = int(math.exp(9.7 + normal(state))) if enter and uniform(state) < 0.005 else 0
    in_comments = uniform(state) < (0.117 if long else 0.044 if valid else 0.002)
    rows[11, n] = int(math.exp(8.7 + normal(state))) if in_comments or rows[5, n] else 0
    rows[12, n] = enter


@jit
def grow(array: NDArray[Any]) -> NDArray[Any]:
    """``array`` (k, n) at the start of a new (k, 2n)."""
    out = np.empty((array.shape[0], 2 * array.shape[1]), array.dtype)
    for k in range(array.shape[0]):
        for i in range(array.shape[1]):
            out[k, i] = array[k, i]
    return out


@jit
def simulate_block(  # noqa: PLR0912, PLR0915 (one loop over users, sessions, requests, rows; numba takes no keywords)
    first: int, last: int, seed: int, expected: int, r: Odds, p: Policy, s: Schedule
) -> tuple[Ints, Doubles, Ints, Doubles, int, int, int]:
    """Everything that users ``first`` … ``last − 1`` see and do; each user has a random stream of their own.

    Returns:
        Buffers of rows (17, ≥ n), times and propensities (2, ≥ n), candidates (1, ≥ m·C), sessions (7, ≥ q), and n, m, q.
    """
    slack = (
        p.n_candidates * (2 + int(s.random_rate)) + 2
    )  # rows of one request, random ones included
    rows = np.empty((17, expected + slack), np.int32)
    reals = np.empty((2, expected + slack))  # ts_ms (exact in a double) and propensity
    width = p.n_candidates
    candidates = np.empty((1, width * (expected // 3 + slack)), np.int32)
    sessions = np.empty((7, expected // 4 + slack))
    vectors, videos, skips, tabs, interest = r.vectors, r.videos, r.skips, r.tabs, np.empty(r.vectors.shape[1], np.float32)  # fmt: skip
    request = new_request(r, p.n_candidates)
    drawn, affinities, rewards = request.candidates, request.affinity, request.reward
    state = np.zeros(1, np.uint64)
    random_tab = tabs[RANDOM_TAB]
    n = m = q = 0
    for user_id in range(first, last):
        seed_state(state, seed, user_id)
        user = r.users[user_id]
        ts = s.start_ms + uniform(state) * s.gap_ms[user_id]
        while not awake(state, s.hourly, ts + s.utc_offset_ms):
            ts = s.start_ms + uniform(state) * s.gap_ms[user_id]
        tab_id = choose(state, s.tab_cdf)
        while ts < s.stop_ms:
            begin, start, reward = n, int(ts), 0.0
            mean_shown = min(s.request_rows, s.session_rows[user_id])
            left = geometric(state, s.session_rows[user_id] / mean_shown)
            end = start
            while left > 0 and ts < s.stop_ms:
                ts_ms = int(ts)
                shown = min(geometric(state, mean_shown), p.n_candidates)
                left -= 1
                if n + slack > rows.shape[1]:
                    rows, reals = grow(rows), grow(reals)
                if (m + 1) * width > candidates.shape[1]:
                    candidates = grow(candidates)
                draw_request(state, r, p, request, tab_id, user_id, ts_ms, m, shown)
                for i in range(width):
                    candidates[0, m * width + i] = drawn[i]
                tab = tabs[tab_id]
                for j in range(shown):
                    place = width - 1 - j
                    video_id, affinity = drawn[place], affinities[place]
                    observe(state, tab, user, videos[video_id], affinity, rows, n)
                    rows[0, n], rows[1, n] = user_id, video_id
                    rows[13, n], rows[14, n], rows[15, n], rows[16, n] = 0, tab_id, m, j
                    reals[0, n], reals[1, n] = ts_ms, request.propensity[j]
                    reward += rewards[place]
                    n += 1
                m += 1
                end = ts_ms
                extra = 0
                if ts_ms >= s.random_start_ms:
                    extra = int(s.random_rate * shown + uniform(state))
                for j in range(extra):
                    at = ts_ms + int(50_000 * (j + uniform(state)) / extra) + 1
                    if at >= s.stop_ms:
                        break
                    video_id = int(uniform(state) * len(videos))
                    video, skip = videos[video_id], skips[RANDOM_TAB, video_id]
                    angle = user.speed * (at - r.origin_ms) / DAY_MS
                    interest_at(r.start, r.turn, user_id, angle, interest)
                    affinity = affinity_of(vectors, video_id, interest)
                    observe(state, random_tab, user, video, affinity, rows, n)
                    rows[0, n], rows[1, n] = user_id, video_id
                    rows[13, n], rows[14, n], rows[15, n], rows[16, n] = 1, RANDOM_TAB, -1, -1
                    reals[0, n], reals[1, n] = at, 1.0 / len(videos)
                    reward += expected_reward(p.reward, random_tab, user, video, skip, affinity)
                    n += 1
                    end = at
                gap = 2.5 * MINUTE_MS * math.exp(0.8 * normal(state))
                ts = ts_ms + min(max(gap, 1.0 * MINUTE_MS), 14.0 * MINUTE_MS)
                if uniform(state) >= s.tab_stay:
                    tab_id = choose(state, s.tab_cdf)
            mean = reward / (n - begin)
            p_return = sigmoid(s.return_intercept + s.return_slope * mean)
            returned = uniform(state) < p_return
            if q == sessions.shape[1]:
                sessions = grow(sessions)
            sessions[0, q], sessions[1, q], sessions[2, q] = user_id, start, end
            sessions[3, q], sessions[4, q] = n - begin, mean
            sessions[5, q], sessions[6, q] = p_return, returned
            q += 1
            ts = float(end)
            while True:
                if returned:
                    ts = end + SESSION_APART_MS + uniform(state) * (DAY_MS - SESSION_APART_MS)
                else:
                    ts = end + DAY_MS + 1 - s.later_ms[user_id] * math.log(1.0 - uniform(state))
                if awake(state, s.hourly, ts + s.utc_offset_ms):
                    break
    return rows, reals, candidates, sessions, n, m, q


def _block_log(
    bounds: tuple[int, int], expected: int, *, seed: int, r: Odds, p: Policy, s: Schedule
) -> Log:
    rows, reals, candidates, sessions, n, m, q = simulate_block(*bounds, seed, expected, r, p, s)
    ts_ms = reals[0, :n].astype(np.int64)
    return Log(rows[:, :n], ts_ms, reals[1, :n], candidates[0, : m * p.n_candidates].reshape(m, p.n_candidates), sessions[:, :q].T)  # fmt: skip


def simulate(
    seed: int, response: Response, policy: Policy, schedule: Schedule, rows_of_user: Doubles
) -> list[Log]:
    """Simulate all users in blocks, on two threads; the result does not depend on blocks or threads.

    Args:
        seed: of the log.
        response: the calibrated response model.
        policy: the logging policy.
        schedule: times and session lengths.
        rows_of_user: rows to expect of each user, (U,): sizes the buffers.

    Returns:
        One :class:`Log` per block of users, in order of users.
    """
    n_users = len(rows_of_user)
    edges = np.unique(np.linspace(0, n_users, max(2, n_users // 512) + 1).astype(int))
    bounds = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    sizes = [int(1.2 * rows_of_user[a:b].sum()) + 64 for a, b in bounds]
    run = partial(_block_log, seed=seed, r=odds_of(response), p=policy, s=schedule)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, bounds, sizes))


def tab_cdf(shares: Doubles) -> Doubles:
    """Cumulative shares of the tabs, last value 1."""
    cdf = np.cumsum(shares / shares.sum())
    cdf[N_TABS - 1] = 1.0
    return cdf
