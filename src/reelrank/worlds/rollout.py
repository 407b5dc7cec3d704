"""The KuaiRand world as an environment: policies are rolled out on the true responses, not estimated.

Candidates, feedback, drift of interests, pauses, tabs and the return rule are those that wrote the log (``policy``, ``response``,
``sessions``), so the logging policy under this environment makes such a log again. Only who ranks is free. As in the log a session's
length does not depend on what is shown; whether the user is back within 24 hours does.

Source: METHODS §3.9, §4.8; ARCHITECTURE choice 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from reelrank.draws import stream_key
from reelrank.models.feed import PAD, RESPONSES, FeedBatch, ItemFeatures
from reelrank.models.feed_data import candidate_codes
from reelrank.models.feed_environment import (
    Bools,
    Info,
    check_actions,
    decision_key,
    decision_keys,
)
from reelrank.options import Options
from reelrank.sources.kuairand_schema import RELEASE_START_MS, RELEASE_STOP_MS
from reelrank.worlds.kuairand import CALIBRATION_REQUESTS, draw_rows_of_user, make_schedule
from reelrank.worlds.kuairand_options import WorldOptions
from reelrank.worlds.latent import Ints, stream
from reelrank.worlds.policy import (
    Policy,
    RandomState,
    Request,
    draw_request,
    mean_response,
    new_request,
    normal,
    uniform,
)
from reelrank.worlds.population import seed_of
from reelrank.worlds.response import (
    DAY_MS,
    N_TABS,
    TAB_PROFILES,
    Doubles,
    Odds,
    Response,
    jit,
    odds_of,
    sigmoid,
    watch,
)
from reelrank.worlds.sessions import (
    HOUR_MS,
    MINUTE_MS,
    ROW_COLUMNS,
    SESSION_APART_MS,
    Schedule,
    awake,
    choose,
    geometric,
    observe,
)
from reelrank.worlds.truth import Truth

Longs = NDArray[np.int64]
N_THREADS = 2
LAST_STAMP = 2**30  # stamps are 32 bits wide
N_RESPONSES = len(RESPONSES)
# what a row of the log is called there, in the order of RESPONSES
LOGGED = np.array(
    [ROW_COLUMNS.index(name) for name in ("is_click", "is_like", "is_follow", "is_comment", "is_hate", "long_view", "play_time_ms")]
)  # fmt: skip
CANDIDATES, SESSION, OPENING = (
    -1,
    -2,
    -3,
)  # purposes of a decision's draws; a video's own is its number
RUNNING, TERMINATED, TRUNCATED = 0, 1, 2


class WorldRolloutOptions(Options):
    """Length and shape of a roll-out in the world."""

    days: int = Field(10, ge=1, le=1_000, description="simulated days, METHODS §4.8")
    episode: Literal["days", "session"] = Field(
        "days", description="session: a user is done when the first session ends"
    )
    history: int = Field(50, ge=1, le=10_000, description="last rows that a policy reads, §4.3")


class Feed(NamedTuple):
    """Where each of B users stands; C candidates, L rows of history."""

    user: Longs  # (B,) raw id
    ts: Doubles  # (B,) of the decision, UTC epoch ms
    tab: Longs  # (B,)
    session: Longs  # (B,) number, from 0
    request: Longs  # (B,) number in the session, from 0
    left: Longs  # (B,) requests of the session, this one included
    n_shown: Longs  # (B,) videos that the user will reach
    rows: Longs  # (B,) shown in the session so far
    reward: Doubles  # (B,) true expected reward of those
    done: NDArray[np.int8]  # (B,) RUNNING, TERMINATED or TRUNCATED
    candidates: Ints  # (B, C) raw ids
    affinity: Doubles  # (B, C)
    expected: Doubles  # (B, C) true expected immediate reward
    logging: Doubles  # (B, C) exp(score / T) of the logging policy, up to a factor
    history: Longs  # (B, L) raw ids, PAD = none
    feedback: NDArray[np.float32]  # (B, L, 7)


class Step(NamedTuple):
    """What came of one decision of B users, K places."""

    response: NDArray[np.float32]  # (B, K, 7)
    shown: Bools  # (B, K)
    row_reward: Doubles  # (B, K)
    ends: Bools  # (B,)
    returned: Bools  # (B,)


@dataclass(frozen=True)
class WorldFeed:
    """How a world's users and videos look to a policy: dense ids and codes of the tables that it was trained on.

    Attributes:
        users: (B,) raw user ids to roll out.
        user_codes: (B, F) int64 codes of these users.
        item_of: (V,) dense item id of every video of the world.
        items: attributes by dense id.
    """

    users: Longs
    user_codes: torch.Tensor
    item_of: Longs
    items: ItemFeatures


class WorldEnvironment:
    """:class:`reelrank.models.feed_environment.FeedEnvironment` of a KuaiRand world; ``row_reward`` is the true expected reward.

    Args:
        response: the planted response.
        policy: the logging policy: how candidates are drawn, and the weights of the reward.
        schedule: times and lengths of sessions.
        feed: who is rolled out, and how it looks.
        start_ms: time 0, UTC epoch ms.
        options: length and shape.
        history: what the users saw before, (B, L) raw video ids, oldest first, right-aligned, PAD = none; None: nothing.
        feedback: their responses, (B, L, 7).

    Raises:
        ValueError: a user or video is not of this world or not of the tables, or too few videos for the candidates.
    """

    def __init__(
        self,
        response: Response,
        policy: Policy,
        schedule: Schedule,
        feed: WorldFeed,
        *,
        start_ms: int,
        options: WorldRolloutOptions,
        history: Longs | None = None,
        feedback: NDArray[np.float32] | None = None,
    ) -> None:
        _check(response, policy, feed, start_ms)
        self.options, self.feed, self.policy = options, feed, policy
        self.num_envs, self.n_days = len(feed.users), options.days
        self._odds = odds_of(response)
        stop_ms = start_ms + options.days * DAY_MS
        self._schedule = schedule._replace(start_ms=start_ms, stop_ms=stop_ms)
        n, length = self.num_envs, options.history
        if history is None or feedback is None:
            history = np.full((n, length), PAD)
            feedback = np.zeros((n, length, N_RESPONSES), np.float32)
        self._past = history[:, -length:], feedback[:, -length:]
        self._item_of = np.append(feed.item_of, PAD)  # place −1: PAD stays PAD
        self._memory = [new_request(self._odds, policy.n_candidates) for _ in range(N_THREADS)]
        self._pool = ThreadPoolExecutor(N_THREADS)
        self._stamp = self._seed = 0
        self._codes = feed.user_codes
        self.state = _new_state(feed.users, policy.n_candidates, *self._past)

    @classmethod
    def from_truth(
        cls,
        truth: Truth,
        feed: WorldFeed,
        *,
        start_ms: int,
        options: WorldRolloutOptions,
        history: Longs | None = None,
        feedback: NDArray[np.float32] | None = None,
    ) -> WorldEnvironment:
        """The environment of a written world; its schedule follows from its options (:func:`schedule_of`)."""
        o = WorldOptions.model_validate(truth.params["options"])
        return cls(
            truth.response,
            truth.policy,
            schedule_of(o, truth.response, truth.policy),
            feed,
            start_ms=start_ms,
            options=options,
            history=history,
            feedback=feedback,
        )

    @property
    def expected_reward(self) -> Doubles:
        """True expected immediate reward (B, C) of the candidates now, −inf for a user who is done: the oracle's scores."""
        return np.where(self.state.done[:, None] > 0, -np.inf, self.state.expected)

    @property
    def logging_scores(self) -> Doubles:
        """Scores (B, C) of the logging policy now; at temperature 1 they draw as it drew, −inf for a user who is done."""
        scores = np.log(np.maximum(self.state.logging, 1e-300))
        return np.where(self.state.done[:, None] > 0, -np.inf, scores)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[FeedBatch, Info]:
        """First decision of every user.

        Raises:
            ValueError: options are given; there are none.
        """
        if options:
            raise ValueError(f"reset takes no options, got {sorted(options)}")
        self._seed = self._seed if seed is None else seed
        self._codes = self.feed.user_codes
        self.state = _new_state(self.feed.users, self.policy.n_candidates, *self._past)
        self._run(_open)
        return self._observation(), self._info(self.state.done == RUNNING)

    def step(self, actions: Longs) -> tuple[FeedBatch, Doubles, Bools, Bools, Info]:
        """As the protocol says; watch time is in seconds."""
        st = self.state
        active = st.done == RUNNING
        slots = check_actions(actions, st.candidates, ~active)
        starts = active & (st.request == 0)
        n, k = slots.shape
        out = Step(
            np.full((n, k, N_RESPONSES), np.nan, np.float32),
            np.zeros((n, k), np.bool_),
            np.zeros((n, k)),
            np.zeros(n, np.bool_),
            np.zeros(n, np.bool_),
        )
        self._run(_answer, slots, out, self.options.episode == "session")
        reward = np.asarray(np.nansum(out.response, 1, dtype=np.float64))
        info = {**self._info(active), **out._asdict(), "starts": starts}
        over = np.asarray(st.done == TERMINATED), np.asarray(st.done == TRUNCATED)
        return self._observation(), reward, *over, info

    def keep(self, chosen: Bools) -> tuple[FeedBatch, Info]:
        """Go on with some of the users, (B,) bool."""
        self.state = Feed._make(values[chosen] for values in self.state)
        self._codes = self._codes[torch.from_numpy(chosen)]
        return self._observation(), self._info(self.state.done == RUNNING)

    def _run(self, kernel: Callable[..., None], *arguments: object) -> None:
        """One kernel over all users, half of them a thread; what is drawn does not depend on how they are cut."""
        if self._stamp > LAST_STAMP:
            for request in self._memory:
                request.seen[:] = -1
            self._stamp = 0
        edges = np.linspace(0, len(self.state.user), N_THREADS + 1).astype(int).tolist()
        jobs = [
            self._pool.submit(
                kernel, a, b, self._seed, self._stamp, self._odds, self.policy, self._schedule, memory, self.state, *arguments
            )
            for a, b, memory in zip(edges[:-1], edges[1:], self._memory, strict=True)
        ]  # fmt: skip
        self._stamp += self.num_envs
        for job in jobs:
            job.result()

    def _info(self, active: Bools) -> dict[str, NDArray[Any]]:
        st = self.state
        day = (st.ts - self._schedule.start_ms) // DAY_MS
        return {
            "key": decision_keys(self._seed, st.user, st.session, st.request),
            "day": day.astype(np.int64),
            "active": active,
        }

    def _observation(self) -> FeedBatch:
        st = self.state
        candidates = torch.from_numpy(self._item_of[st.candidates])
        hour = (st.ts + self._schedule.utc_offset_ms) // HOUR_MS % 24
        return FeedBatch(
            user_codes=self._codes,
            scenario=torch.from_numpy(st.tab.copy()),
            hour=torch.from_numpy(hour.astype(np.int64)),
            history=torch.from_numpy(self._item_of[st.history]),
            feedback=torch.from_numpy(st.feedback.copy()),
            candidates=candidates,
            item_codes=candidate_codes(self.feed.items, candidates),
        )


def schedule_of(o: WorldOptions, response: Response, policy: Policy) -> Schedule:
    """The schedule that a world was simulated with, random exposures left out.

    The mean P(return) is that of the calibrated response; the world took it one step of the calibration earlier, so pauses and
    lengths of sessions may differ by a part in a thousand.
    """
    rng = stream(o.seed, "schedule")
    rows_of_user = draw_rows_of_user(rng, o)
    sample = rng.choice(o.users, CALIBRATION_REQUESTS, p=rows_of_user / rows_of_user.sum())
    sample_ms = rng.integers(RELEASE_START_MS, RELEASE_STOP_MS, CALIBRATION_REQUESTS)
    odds, shown = odds_of(response), max(1, min(o.candidates, round(o.request_rows)))
    rule = (o.return_rule.intercept, o.return_rule.slope)
    seed = seed_of(o.seed, "calibration")
    p_return = [
        mean_response(seed, odds, policy, tab, sample, sample_ms, shown, rule)[7]
        for tab in range(N_TABS)
    ]
    share = TAB_PROFILES[:, 0] / TAB_PROFILES[:, 0].sum()
    return make_schedule(o, rows_of_user, float(np.dot(p_return, share)))._replace(random_rate=0.0)


def _check(response: Response, policy: Policy, feed: WorldFeed, start_ms: int) -> None:
    n_users, n_videos = len(response.users), len(response.videos)
    users = feed.users
    if len(users) and not (users.min() >= 0 and users.max() < n_users):
        raise ValueError(f"users {users.min()} … {users.max()}: this world has 0 … {n_users - 1}")
    if len(feed.user_codes) != len(users):
        raise ValueError(f"user_codes has {len(feed.user_codes)} rows for {len(users)} users")
    known = (feed.item_of >= 0) & (feed.item_of < len(feed.items.codes))
    if len(known) != n_videos or not known.all():
        raise ValueError(
            f"item_of names an item of the tables for {int(known.sum())} of {n_videos} videos: the world may show any of them, "
            "so ingest the world's own video files"
        )
    there = int((response.videos["upload_ms"] <= start_ms).sum())
    if there < 2 * policy.n_candidates:
        raise ValueError(
            f"only {there} videos are uploaded at start_ms {start_ms}, too few for {policy.n_candidates} candidates: start later"
        )


def _new_state(users: Longs, width: int, history: Longs, feedback: NDArray[np.float32]) -> Feed:
    n = len(users)

    def zeros() -> Longs:
        return np.zeros(n, np.int64)

    return Feed(
        user=np.asarray(users, np.int64),
        ts=np.zeros(n),
        tab=zeros(),
        session=zeros(),
        request=zeros(),
        left=zeros(),
        n_shown=zeros(),
        rows=zeros(),
        reward=np.zeros(n),
        done=np.zeros(n, np.int8),
        candidates=np.full((n, width), PAD, np.int32),
        affinity=np.zeros((n, width)),
        expected=np.zeros((n, width)),
        logging=np.zeros((n, width)),
        history=np.array(history, np.int64),
        feedback=np.array(feedback, np.float32),
    )


@jit
def part_of(key: Any, purpose: int) -> Any:  # noqa: ANN401 (a uint64, which is no int to mypy)
    """The stream of one purpose of a decision: :data:`CANDIDATES` …, or a video."""
    return stream_key(key, purpose)


@jit
def _begin(
    i: int,
    seed: int,
    stamp: int,
    r: Odds,
    p: Policy,
    s: Schedule,
    request: Request,
    st: Feed,
    state: RandomState,
) -> None:
    """Draw the candidates of user ``i``'s next decision and how many of them will be reached, or end at the last day."""
    width, user_id = p.n_candidates, st.user[i]
    if st.ts[i] >= s.stop_ms:
        st.done[i] = TRUNCATED
    if st.done[i] != RUNNING:
        st.candidates[i, :] = PAD
        return
    key = decision_key(seed, user_id, st.session[i], st.request[i])
    state[0] = part_of(key, CANDIDATES)
    st.n_shown[i] = min(geometric(state, min(s.request_rows, s.session_rows[user_id])), width)
    # shows none: candidates, affinities and the logging policy's weights are all that is asked for
    draw_request(state, r, p, request, st.tab[i], user_id, int(st.ts[i]), stamp, 0)
    tab, user = r.tabs[st.tab[i]], r.users[user_id]
    for c in range(width):
        video_id, affinity = request.candidates[c], request.affinity[c]
        skip = r.skips[st.tab[i], video_id]
        ratio, _ = watch(tab, user, r.videos[video_id], skip, affinity)
        st.candidates[i, c], st.affinity[i, c] = video_id, affinity
        st.expected[i, c] = request.reward[c] + p.reward[0] * ratio
        st.logging[i, c] = request.weight[c]


@jit
def _new_session(i: int, s: Schedule, st: Feed, state: RandomState) -> None:
    """Length of the session that user ``i`` begins."""
    rows = s.session_rows[st.user[i]]
    st.left[i] = geometric(state, rows / min(s.request_rows, rows))
    st.request[i], st.rows[i], st.reward[i] = 0, 0, 0.0


@jit
def _open(
    first: int,
    last: int,
    seed: int,
    stamp: int,
    r: Odds,
    p: Policy,
    s: Schedule,
    request: Request,
    st: Feed,
) -> None:
    """First decisions of users ``first`` … ``last − 1``; as ``sessions.simulate_block`` starts them."""
    state = np.zeros(1, np.uint64)
    for i in range(first, last):
        gap = s.gap_ms[st.user[i]]
        state[0] = part_of(decision_key(seed, st.user[i], 0, 0), OPENING)
        st.ts[i] = s.start_ms + uniform(state) * gap
        while not awake(state, s.hourly, st.ts[i] + s.utc_offset_ms):
            st.ts[i] = s.start_ms + uniform(state) * gap
        st.tab[i] = choose(state, s.tab_cdf)
        _new_session(i, s, st, state)
        _begin(i, seed, stamp + i, r, p, s, request, st, state)


@jit
def _answer(  # noqa: PLR0912, PLR0915 (one loop over users and what they are shown; numba takes no keywords)
    first: int,
    last: int,
    seed: int,
    stamp: int,
    r: Odds,
    p: Policy,
    s: Schedule,
    request: Request,
    st: Feed,
    slots: Longs,
    out: Step,
    single: bool,
) -> None:
    """Responses of users ``first`` … ``last − 1`` to what they are shown, and their next decisions."""
    state = np.zeros(1, np.uint64)
    row = np.zeros((17, 1), np.int32)
    length = st.history.shape[1]
    for i in range(first, last):
        if st.done[i] != RUNNING:
            continue
        user_id = st.user[i]
        user, tab = r.users[user_id], r.tabs[st.tab[i]]
        key = decision_key(seed, user_id, st.session[i], st.request[i])
        n = 0
        while n < min(st.n_shown[i], slots.shape[1]) and slots[i, n] >= 0:
            slot = slots[i, n]
            video_id = st.candidates[i, slot]
            state[0] = part_of(key, video_id)
            observe(state, tab, user, r.videos[video_id], st.affinity[i, slot], row, 0)
            for k in range(N_RESPONSES):
                out.response[i, n, k] = row[LOGGED[k], 0]
            out.response[i, n, N_RESPONSES - 1] /= 1000.0
            out.shown[i, n] = True
            out.row_reward[i, n] = st.expected[i, slot]
            st.reward[i] += st.expected[i, slot]
            n += 1
        for j in range(length - n):
            st.history[i, j] = st.history[i, j + n]
            st.feedback[i, j] = st.feedback[i, j + n]
        for j in range(min(n, length)):
            st.history[i, length - 1 - j] = st.candidates[i, slots[i, n - 1 - j]]
            st.feedback[i, length - 1 - j] = out.response[i, n - 1 - j]
        st.rows[i] += n
        st.left[i] -= 1
        state[0] = part_of(key, SESSION)
        if uniform(state) >= s.tab_stay:
            st.tab[i] = choose(state, s.tab_cdf)
        if st.left[i] > 0:
            gap = 2.5 * MINUTE_MS * math.exp(0.8 * normal(state))
            st.ts[i] += min(max(gap, 1.0 * MINUTE_MS), 14.0 * MINUTE_MS)
            st.request[i] += 1
        else:
            mean = st.reward[i] / max(st.rows[i], 1)
            back = uniform(state) < sigmoid(s.return_intercept + s.return_slope * mean)
            out.ends[i], out.returned[i] = True, back
            end = st.ts[i]
            while True:
                if back:
                    st.ts[i] = end + SESSION_APART_MS + uniform(state) * (DAY_MS - SESSION_APART_MS)
                else:
                    later = s.later_ms[user_id] * math.log(1.0 - uniform(state))
                    st.ts[i] = end + DAY_MS + 1 - later
                if awake(state, s.hourly, st.ts[i] + s.utc_offset_ms):
                    break
            st.session[i] += 1
            _new_session(i, s, st, state)
            if single:
                st.done[i] = TERMINATED
        _begin(i, seed, stamp + i, r, p, s, request, st, state)
