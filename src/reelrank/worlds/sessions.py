"""Sessions of every user in time: requests, rows, feedback, the planted return rule, random exposure.

After a session whose rows have the mean true expected reward m, the user's next session starts within 24 hours of the last
row with probability σ(a + b·m), else later. Sessions are more than an hour apart, the requests of a session less than
15 minutes, so any gap rule between the two finds the planted sessions.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from reelrank.worlds.latent import Ints
from reelrank.worlds.policy import (
    Policy,
    RandomState,
    Request,
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
    jit_borrowing,
    odds_of,
    play_parts,
    powers_of,
    sigmoid,
)
from reelrank.worlds.shocks import NO_SHOCKS, ShockRule, draw_shock

T = TypeVar("T")

BLOCK_USERS, AT_ONCE = (
    512,
    4,
)  # users simulated in one piece; pieces in the making or waiting to be taken
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
    shock: ShockRule = NO_SHOCKS


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


class Memory(NamedTuple):
    """Room for one block of users, used again for the next: fresh memory costs more than the work on it."""

    rows: Ints  # (17, N)
    ts_ms: NDArray[np.int64]  # (N,)
    propensity: Doubles  # (N,)
    candidates: Ints  # (M, C)
    sessions: Doubles  # (Q, 7)
    request: Request
    state: RandomState


def new_memory(n_rows: int, r: Odds, p: Policy) -> Memory:
    """Empty room for ``n_rows`` rows, as many sessions, and requests of three rows."""
    return Memory(
        np.empty((len(ROW_COLUMNS), n_rows), np.int32),
        np.empty(n_rows, np.int64),
        np.empty(n_rows),
        np.empty((n_rows // 3, p.n_candidates), np.int32),
        np.empty((n_rows // 4, len(SESSION_COLUMNS))),
        new_request(r, p.n_candidates),
        np.zeros(1, np.uint64),
    )


@jit_borrowing
def simulate_block(  # noqa: PLR0912, PLR0915 (one loop over users, sessions, requests, rows; numba takes no keywords)
    first: int, last: int, seed: int, r: Odds, p: Policy, s: Schedule, out: Memory
) -> tuple[int, int, int]:
    """Everything that users ``first`` … ``last − 1`` see and do; each user has a random stream of their own.

    Returns:
        Rows, requests and sessions written to ``out``; −1 rows if it is too small.
    """
    # rows of one request, random ones included
    slack = p.n_candidates * (2 + int(s.random_rate)) + 2
    rows, all_ts, propensity, sessions = out.rows, out.ts_ms, out.propensity, out.sessions
    width, n_videos, start, turn = p.n_candidates, len(r.videos), r.start, r.turn
    vectors, users, videos, skips, tabs = r.vectors, r.users, r.videos, r.skips, r.tabs
    request, state = out.request, out.state
    drawn, affinities, rewards = request.candidates, request.affinity, request.reward
    request.seen[:] = -1
    random_tab = tabs[RANDOM_TAB]
    # not the literal 0: what takes it would be compiled twice
    n = m = q = int(np.int64(0))
    for user_id in range(first, last):
        seed_state(state, seed, user_id)
        user = users[user_id]
        ts = s.start_ms + uniform(state) * s.gap_ms[user_id]
        while not awake(state, s.hourly, ts + s.utc_offset_ms):
            ts = s.start_ms + uniform(state) * s.gap_ms[user_id]
        tab_id = choose(state, s.tab_cdf)
        while ts < s.stop_ms:
            begin, begin_ms, reward = n, int(ts), 0.0
            if s.shock.sd > 0.0:
                kept = state[0]
                draw_shock(state, seed, user_id, begin_ms, s.shock, request.shock)
                state[0] = kept
            mean_shown = min(s.request_rows, s.session_rows[user_id])
            left = geometric(state, s.session_rows[user_id] / mean_shown)
            end = begin_ms
            while left > 0 and ts < s.stop_ms:
                ts_ms = int(ts)
                shown = min(geometric(state, mean_shown), p.n_candidates)
                left -= 1
                if n + slack > len(all_ts) or m == len(out.candidates) or q == len(sessions):
                    return -1, 0, 0
                draw_request(state, r, p, request, tab_id, user_id, ts_ms, m, shown)
                for i in range(width):
                    out.candidates[m, i] = drawn[i]
                tab = tabs[tab_id]
                for j in range(shown):
                    place = width - 1 - j
                    video_id = drawn[place]
                    observe(state, tab, user, videos[video_id], affinities[place], rows, n)
                    rows[0, n], rows[1, n] = user_id, video_id
                    rows[13, n], rows[14, n], rows[15, n], rows[16, n] = 0, tab_id, m, j
                    all_ts[n], propensity[n] = ts_ms, request.propensity[j]
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
                    video_id = int(uniform(state) * n_videos)
                    video, skip = videos[video_id], skips[RANDOM_TAB, video_id]
                    angle = user.speed * (at - r.origin_ms) / DAY_MS
                    interest_at(start, turn, user_id, angle, request.interest)
                    affinity = affinity_of(vectors, video_id, request.interest)
                    observe(state, random_tab, user, video, affinity, rows, n)
                    rows[0, n], rows[1, n] = user_id, video_id
                    rows[13, n], rows[14, n], rows[15, n], rows[16, n] = 1, RANDOM_TAB, -1, -1
                    all_ts[n], propensity[n] = at, 1.0 / n_videos
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
            sessions[q, 0], sessions[q, 1], sessions[q, 2] = user_id, begin_ms, end
            sessions[q, 3], sessions[q, 4] = n - begin, mean
            sessions[q, 5], sessions[q, 6] = p_return, returned
            q += 1
            while True:
                if returned:
                    ts = end + SESSION_APART_MS + uniform(state) * (DAY_MS - SESSION_APART_MS)
                else:
                    ts = end + DAY_MS + 1 - s.later_ms[user_id] * math.log(1.0 - uniform(state))
                if awake(state, s.hourly, ts + s.utc_offset_ms):
                    break
    return n, m, q


def simulate_blocks(
    use: Callable[[Log, int], T],
    pool: Executor,
    seed: int,
    response: Response,
    policy: Policy,
    schedule: Schedule,
    rows_of_user: Doubles,
) -> Iterator[T]:
    """Simulate users in blocks; the rows of a user do not depend on blocks or threads.

    Args:
        use: makes something of one block in the thread that simulated it. The log's memory serves again, so the result must
            not keep it. The second argument, 0 … ``AT_ONCE`` − 1, numbers the blocks in the making: memory of one's own under
            that number is free until the result has been taken and the next one is asked for.
        pool: does the work.
        seed: of the log.
        response: the calibrated response model.
        policy: the logging policy.
        schedule: times and session lengths.
        rows_of_user: rows to expect of each user, (U,): sizes the memory.

    Yields:
        What ``use`` made, in order of users.
    """
    n_users, odds = len(rows_of_user), odds_of(response)
    edges = np.unique(np.linspace(0, n_users, max(2, n_users // BLOCK_USERS) + 1).astype(int))
    largest = int(1.2 * np.add.reduceat(rows_of_user, edges[:-1]).max()) + 4096
    memories = [new_memory(largest, odds, policy) for _ in range(min(AT_ONCE, len(edges) - 1))]

    def work(first: int, last: int, place: int) -> T:
        while True:
            memory = memories[place]
            n, m, q = simulate_block(first, last, seed, odds, policy, schedule, memory)
            if n >= 0:
                break
            memories[place] = new_memory(2 * len(memory.ts_ms), odds, policy)
        log = Log(memory.rows[:, :n], memory.ts_ms[:n], memory.propensity[:n], memory.candidates[:m], memory.sessions[:q])  # fmt: skip
        return use(log, place)

    waiting: deque[Future[T]] = deque()
    for k, (first, last) in enumerate(itertools.pairwise(edges.tolist())):
        if len(waiting) == AT_ONCE:
            yield waiting.popleft().result()
        waiting.append(pool.submit(work, first, last, k % AT_ONCE))
    while waiting:
        yield waiting.popleft().result()


def simulate(
    seed: int, response: Response, policy: Policy, schedule: Schedule, rows_of_user: Doubles
) -> list[Log]:
    """One :class:`Log` per block of users, in order of users; arguments as of :func:`simulate_blocks`."""

    def kept(log: Log, _: int) -> Log:
        copies: Any = (values.copy() for values in log)
        return Log(*copies)

    with ThreadPoolExecutor(2) as pool:
        return list(simulate_blocks(kept, pool, seed, response, policy, schedule, rows_of_user))


def tab_cdf(shares: Doubles) -> Doubles:
    """Cumulative shares of the tabs, last value 1."""
    cdf = np.cumsum(shares / shares.sum())
    cdf[N_TABS - 1] = 1.0
    return cdf
