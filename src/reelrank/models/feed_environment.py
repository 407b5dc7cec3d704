"""Roll-outs: the environment that a feed policy acts in, and what comes of it in days of use.

Environments follow the Gymnasium vector interface, one sub-environment per user, without autoreset: a user who is done gets zero
rewards and empty candidates until ``reset``. All chance is counter-based (``reelrank.draws``) by user, session, request and item, so that
two policies under one seed meet the same luck wherever they meet the same situation: differences are paired.

Source: METHODS §3.9, §4.8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from reelrank.draws import stream_key, uniform
from reelrank.models.feed import PAD, RESPONSES, WATCH_TIME, FeedBatch, FeedPolicy

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Keys = NDArray[np.uint64]
Info = Mapping[str, NDArray[Any]]
GREEDY = 0.0
FOLLOW, COMMENT = RESPONSES.index("follow"), RESPONSES.index("comment")


class FeedEnvironment(Protocol):
    """B users who open the feed for some days.

    ``info`` of ``reset`` and ``step`` holds, of the decision that comes next: ``key`` (B,) uint64, the stream of its draws, and ``day``
    (B,) from 0. That of ``step`` also holds, of the decision that was just taken: ``response`` (B, K, 7) float32, NaN where nothing was shown
    or logged; ``shown`` (B, K) bool; ``row_reward`` (B, K), the environment's own reward of a row, 0 where nothing was shown;
    ``active`` (B,) bool, not done before; ``starts`` (B,) bool, the decision opened a session; ``ends`` (B,) bool, the session ended
    after it; ``returned`` (B,) bool, the next one starts within 24 hours.
    """

    num_envs: int
    n_days: int

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[FeedBatch, Info]:
        """First decision of every user; without a seed that of the last reset."""
        ...

    def step(self, actions: Ints) -> tuple[FeedBatch, Doubles, Bools, Bools, Info]:
        """Show items, best first.

        Args:
            actions: (B, K) places among the candidates, −1 = none; how many of them a user reaches is the environment's to say.

        Returns:
            Next observation, rewards (B, 7) = the responses summed over what was shown, terminated (B,), truncated (B,), info.

        Raises:
            ValueError: a place that holds no candidate, or the same one twice.
        """
        ...

    def keep(self, chosen: Bools) -> tuple[FeedBatch, Info]:
        """Go on with some of the users, (B,) bool, until ``reset``; what happens to them does not change.

        Most users are done long before the last one: a roll-out that drops them does a fraction of the work.
        """
        ...


TruthPolicy = Callable[[Any], NDArray[Any]]
"""From the environment itself to scores (B, C), −inf at a pad: for what no policy may see, such as the truth of a world."""


@dataclass(frozen=True)
class RollOut:
    """Sums over the rows that B users saw on D days.

    Attributes:
        response: (B, D, 7) responses, watch time in s; NaN where one was not logged.
        rows: (B, D) videos shown.
        sessions: (B, D) sessions that started.
        ended: (B, D) sessions that ended before the last day was over.
        returned: (B, D) of those, followed by another within 24 hours.
        returns: (B,) Σ over units of Σ_k γ^k · row reward, k counting rows within a unit.
        units: (B,) sessions, or days with a row.
        n_steps: decisions taken.
    """

    response: Doubles
    rows: Ints
    sessions: Ints
    ended: Ints
    returned: Ints
    returns: Doubles
    units: Ints
    n_steps: int

    def totals(self, first_day: int = 0) -> dict[str, tuple[Doubles, Doubles]]:
        """Numerator and denominator (B,) of each A/B metric from ``first_day`` on: their sums' ratio is the metric.

        ``watch_time`` (s), ``depth_day`` (videos), ``follow`` and ``comment`` are per user and day, ``depth`` is videos per session,
        ``return_24h`` the share of ended sessions. Source: METHODS §4.8.
        """
        days = slice(first_day, None)
        response = self.response[:, days].sum(1)
        rows, sessions, ended, returned = (
            v[:, days].sum(1).astype(np.float64)
            for v in (self.rows, self.sessions, self.ended, self.returned)
        )
        n_days = np.full(len(rows), float(self.rows[:, days].shape[1]))
        return {
            "watch_time": (response[:, WATCH_TIME], n_days),
            "depth": (rows, sessions),
            "depth_day": (rows, n_days),
            "follow": (response[:, FOLLOW], n_days),
            "comment": (response[:, COMMENT], n_days),
            "return_24h": (returned, ended),
        }


@dataclass(frozen=True)
class RolledOutValue:
    """A policy's true value: mean discounted return of a unit, with the standard error over users."""

    value: float
    standard_error: float
    n_users: int
    n_units: int


@njit(cache=True, nogil=True)
def ranked(scores: Doubles, candidates: Ints, keys: Keys, temperature: float, k: int) -> Ints:
    """The ``k`` best places (B, k) of scores (B, C), −1 where no candidate is left.

    At a positive temperature items are drawn without replacement by softmax(score / temperature): noise that depends on the
    decision's key and the item alone (Gumbel top-k), so policies under one seed share it. At 0 the best scores win, first place first.
    """
    n, width = scores.shape
    out = np.full((n, k), -1, np.int64)
    value = np.empty(width)
    for i in range(n):
        left = 0
        for c in range(width):
            value[c] = -np.inf
            if candidates[i, c] >= 0 and scores[i, c] > -np.inf:
                value[c] = scores[i, c]
                left += 1
                if temperature > 0.0:
                    u = uniform(keys[i], -1 - candidates[i, c])
                    value[c] = value[c] / temperature - np.log(-np.log(u + 1e-300) + 1e-300)
        for j in range(min(k, left)):
            best = 0
            for c in range(1, width):
                if value[c] > value[best]:
                    best = c
            out[i, j] = best
            value[best] = -np.inf
    return out


@njit(cache=True, nogil=True)
def decision_keys(seed: int, user: Ints, session: Ints, request: Ints) -> Keys:
    """Streams (B,) of decisions."""
    out = np.empty(len(user), np.uint64)
    for i in range(len(user)):
        out[i] = decision_key(seed, user[i], session[i], request[i])
    return out


@njit(cache=True, nogil=True)
def decision_key(seed: int, user: int, session: int, request: int) -> np.uint64:
    """Stream of one decision; fewer than 2²⁰ sessions of fewer than 2¹² requests."""
    return stream_key(seed, (user << 32) ^ (session << 12) ^ request)


def scores_of(
    policy: FeedPolicy | TruthPolicy, environment: FeedEnvironment, batch: FeedBatch
) -> Doubles:
    """Scores (B, C) of a policy of either kind as float64."""
    score = getattr(policy, "scores", None)  # a torch module is callable too
    if score is None:
        return np.asarray(cast("TruthPolicy", policy)(environment), np.float64)
    with torch.no_grad():
        return np.asarray(score(batch).cpu().numpy(), np.float64)


def _scores_where(
    wanted: Bools,
    policy: FeedPolicy | TruthPolicy,
    environment: FeedEnvironment,
    batch: FeedBatch,
) -> Doubles:
    """As :func:`scores_of`; a model is not asked about the other decisions, which get 0."""
    if wanted.all() or not hasattr(policy, "scores"):
        return scores_of(policy, environment, batch)
    out = np.zeros(batch.candidates.shape)
    if wanted.any():
        rows = torch.from_numpy(wanted).to(batch.candidates.device)
        some = {f.name: getattr(batch, f.name)[rows] for f in fields(batch)}
        out[wanted] = scores_of(policy, environment, replace(batch, **some))
    return out


def roll_out(
    environment: FeedEnvironment,
    policy: FeedPolicy | TruthPolicy,
    *,
    seed: int,
    k: int,
    temperature: float = GREEDY,
    control: FeedPolicy | TruthPolicy | None = None,
    control_days: int = 0,
    gamma: float = 1.0,
    unit: Literal["session", "user_day"] = "session",
) -> RollOut:
    """Let a policy serve all users to the end of their episodes.

    Args:
        environment: is reset first.
        policy: model, or numpy callable of the environment.
        seed: of all chance; the same for policies that are compared.
        k: items ranked at a decision.
        temperature: 0 = greedy.
        control: serves the first ``control_days`` instead (the A/A period of an A/B test).
        control_days: days from 0 on.
        gamma: discount by row, of ``returns``.
        unit: what a return is summed over.

    Raises:
        ValueError: ``k`` < 1, a negative temperature, or control days without a control.
    """
    if k < 1 or temperature < 0:
        raise ValueError(f"k must be ≥ 1 and temperature ≥ 0, are {k} and {temperature}")
    if control_days > 0 and control is None:
        raise ValueError(f"control_days is {control_days}, but there is no control policy")
    n, d = environment.num_envs, environment.n_days
    response = np.zeros((n, d, len(RESPONSES)))
    rows, sessions, ended, returned = (np.zeros((n, d), np.int64) for _ in range(4))
    returns, units, discount = np.zeros(n), np.zeros(n, np.int64), np.ones(n)
    unit_day = np.full(n, -1)
    n_steps = 0
    users = np.arange(n)  # who is still in the batch
    batch, info = environment.reset(seed=seed)
    done = ~info["active"]
    while not done.all():
        if 2 * done.sum() > len(done):
            users = users[~done]
            batch, info = environment.keep(~done)
            done = np.zeros(len(users), np.bool_)
        day, key = info["day"], info["key"]
        early = day < control_days
        scores = _scores_where(~done & ~early, policy, environment, batch)
        if control is not None and early.any():
            other = _scores_where(~done & early, control, environment, batch)
            scores = np.where(early[:, None], other, scores)
        actions = ranked(scores, batch.candidates.cpu().numpy(), key, temperature, k)
        batch, reward, terminated, truncated, info = environment.step(actions)
        active, shown = info["active"], info["shown"]
        user = users[active]
        at = (user, day[active])
        response[at] += reward[active]
        rows[at] += shown[active].sum(1)
        sessions[at] += info["starts"][active]
        ended[at] += info["ends"][active]
        returned[at] += info["returned"][active]
        begins = info["starts"][active] if unit == "session" else day[active] != unit_day[user]
        unit_day[user] = day[active]
        units[user] += begins
        factor = np.where(begins, 1.0, discount[user])
        for j in range(shown.shape[1]):
            returns[user] += factor * info["row_reward"][active, j]
            factor = np.where(shown[active, j], factor * gamma, factor)
        discount[user] = factor
        n_steps += len(user)
        done = terminated | truncated
    return RollOut(response, rows, sessions, ended, returned, returns, units, n_steps)


def rolled_out_value(
    environment: FeedEnvironment,
    policy: FeedPolicy | TruthPolicy,
    *,
    seed: int,
    k: int,
    gamma: float,
    temperature: float = GREEDY,
    unit: Literal["session", "user_day"] = "session",
) -> RolledOutValue:
    """``true_value``: the mean discounted return of a session or of a user-day, when the policy is really rolled out.

    G = Σ_j γ^j r_j over the rows of a unit, r the environment's row reward; the standard error is that of a ratio of sums over users.
    Arguments as :func:`roll_out`. Source: METHODS §3.9.
    """
    got = roll_out(
        environment, policy, seed=seed, k=k, temperature=temperature, gamma=gamma, unit=unit
    )
    n_units = int(got.units.sum())
    value = float(got.returns.sum() / n_units) if n_units else float("nan")
    seen = got.units > 0
    residual = got.returns[seen] - value * got.units[seen]
    n = int(seen.sum())
    error = float(np.sqrt(n / (n - 1) * (residual**2).sum()) / n_units) if n > 1 else float("nan")
    return RolledOutValue(value, error, n, n_units)


def check_actions(actions: Ints, candidates: NDArray[np.integer], done: Bools) -> Ints:
    """Actions (B, K) as int64.

    Raises:
        ValueError: not (B, K), a place that holds no candidate, or the same one twice; the user's place in the batch is named.
    """
    given = np.asarray(actions)
    if given.ndim != 2 or len(given) != len(candidates) or not np.issubdtype(given.dtype, np.integer):  # fmt: skip
        raise ValueError(
            f"actions must be integers ({len(candidates)}, K), are {given.dtype} {given.shape}"
        )
    slots = np.ascontiguousarray(given, np.int64)
    wrong = first_wrong(slots, candidates, done)
    if wrong >= 0:
        raise ValueError(
            f"actions[{wrong}] = {slots[wrong].tolist()}: every place must hold a candidate (0 … {candidates.shape[1] - 1}, no pad) "
            "and stand there once; −1 = none, after the others"
        )
    return slots


@njit(cache=True, nogil=True)
def first_wrong(slots: Ints, candidates: NDArray[np.integer], done: Bools) -> int:
    """The first user whose actions cannot be taken, −1 = none."""
    taken = np.full(candidates.shape[1], -1)
    for i in range(len(slots)):
        if done[i]:
            continue
        ended = False
        for j in range(slots.shape[1]):
            slot = slots[i, j]
            if slot == -1:
                ended = True
                continue
            if ended or slot < 0 or slot >= candidates.shape[1]:
                return i
            if candidates[i, slot] == PAD or taken[slot] == i:
                return i
            taken[slot] = i
    return -1


@njit(cache=True, nogil=True)
def part_keys(keys: Keys, purpose: int) -> Keys:
    """Streams (B,) of one purpose of decisions with ``keys`` (B,)."""
    out = np.empty_like(keys)
    for i in range(len(keys)):
        out[i] = stream_key(keys[i], purpose)
    return out


@njit(cache=True, nogil=True)
def uniforms(keys: Keys, items: Ints, n: int) -> Doubles:
    """``n`` numbers in [0, 1) for each item (B, K) of each decision (B,): (B, K, n)."""
    out = np.empty((*items.shape, n))
    for i in range(items.shape[0]):
        for j in range(items.shape[1]):
            key = stream_key(keys[i], items[i, j])
            for k in range(n):
                out[i, j, k] = uniform(key, k)
    return out


@njit(cache=True, nogil=True)
def draw_places(keys: Keys, active: Bools, cdf: Doubles, barred: Bools, width: int) -> Ints:
    """Distinct places (B, width) of a pool drawn by its cumulative shares (P,), PAD where the pool has no more.

    Args:
        keys: (B,) streams.
        active: (B,) the others get none.
        cdf: (P,) last value 1.
        barred: (B, P) places that must not be drawn, or (B, 0): none is barred.
        width: C.
    """
    n_places, bars = len(cdf), barred.shape[1] > 0
    out = np.full((len(keys), width), PAD, np.int64)
    taken = np.full(n_places, -1)
    for i in range(len(keys)):
        if not active[i]:
            continue
        n = counter = 0
        while n < width and counter < 20 * width:
            place = int(np.searchsorted(cdf, uniform(keys[i], counter), side="right"))
            counter += 1
            if place < n_places and taken[place] != i and not (bars and barred[i, place]):
                taken[place] = i
                out[i, n] = place
                n += 1
        # nearly all is barred or rare: what is left, from anywhere on
        start = int(uniform(keys[i], counter) * n_places)
        for step in range(n_places):
            place = (start + step) % n_places
            if n == width:
                break
            if taken[place] != i and not (bars and barred[i, place]):
                taken[place] = i
                out[i, n] = place
                n += 1
    return out
