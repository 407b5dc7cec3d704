"""A fitted feedback simulator as an environment: users answer as it predicts, come and go as a log's sessions do.

Source: METHODS §4.8 (simulated A/B on a simulator of a disjoint fold of users).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from reelrank.models.feed import PAD, WATCH_TIME, FeedBatch, ItemFeatures
from reelrank.models.feed_environment import (
    Bools,
    Doubles,
    Info,
    Ints,
    check_actions,
    decision_keys,
    draw_places,
    part_keys,
    uniforms,
)
from reelrank.models.feedback_calibration import N_RESPONSES, N_UNIFORMS
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.models.session_model import GRID, SessionModel
from reelrank.models.shown_history import ShownHistory
from reelrank.options import Options

DAY_MS = 86_400_000
CANDIDATES, SESSION, OPENING = -1, -2, -3
CHANCES = 6  # numbers behind what happens between two decisions


class SimulatorRolloutOptions(Options):
    """Length and shape of a roll-out in a simulator."""

    days: int = Field(10, ge=1, le=1_000, description="simulated days, METHODS §4.8")
    episode: Literal["days", "session"] = Field(
        "days", description="session: a user is done when the first session ends"
    )
    candidates: int = Field(40, ge=1, le=100_000, description="C, as track K2")
    repeats: bool = Field(
        True, description="an item may be a candidate again in the session that showed it"
    )


class SimulatorEnvironment:
    """:class:`reelrank.models.feed_environment.FeedEnvironment`; ``row_reward`` is the reward of watch time in train sds.

    Args:
        simulator: calibrated.
        sessions: when users leave and return.
        start: (B,) users: codes, histories and feedback; on the simulator's device.
        users: (B,) ids that key the users' chance.
        items: attributes of all items.
        pool: (P,) item ids that candidates are drawn from.
        popularity: (P,) their shares.
        start_ms: time 0, UTC epoch ms.
        options: length and shape.

    Raises:
        ValueError: shapes do not fit, or the pool is smaller than a candidate set.
    """

    def __init__(
        self,
        simulator: FeedbackSimulator,
        sessions: SessionModel,
        start: FeedBatch,
        users: Ints,
        items: ItemFeatures,
        *,
        pool: Ints,
        popularity: Doubles,
        start_ms: int,
        options: SimulatorRolloutOptions,
    ) -> None:
        if len(users) != len(start.user_codes) or len(pool) != len(popularity):
            raise ValueError(
                f"{len(users)} users for {len(start.user_codes)} states, {len(popularity)} shares for {len(pool)} items: "
                "give one of each"
            )
        if len(pool) < options.candidates or not (np.asarray(popularity) > 0).all():
            raise ValueError(
                f"the pool holds {len(pool)} items for {options.candidates} candidates, all must have a positive share"
            )
        self.options, self.num_envs, self.n_days = options, len(users), options.days
        self._simulator, self._sessions = simulator.eval(), sessions
        self._all, self._pool = np.asarray(users, np.int64), np.asarray(pool, np.int64)
        self._cdf = np.cumsum(popularity) / np.sum(popularity)
        self._start_ms, self._stop_ms = start_ms, start_ms + options.days * DAY_MS
        self._past = ShownHistory(start, items)
        self._seed = 0
        with torch.no_grad():
            self._first_state = simulator.state(start)

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
        n, self._users = self.num_envs, self._all
        self._session, self._request = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._rows, self._sum = np.zeros(n, np.int64), np.zeros((n, N_RESPONSES))
        self._left_for_good = np.zeros(n, np.bool_)
        self._state = self._first_state.clone()
        self._past.reset()
        width = 0 if self.options.repeats else len(self._pool)
        self._barred = np.zeros((n, width), np.bool_)
        chance = self._chance(OPENING)
        # a user comes at any time of a mean pause between sessions
        p = float(self._sessions.p_return(np.zeros(N_RESPONSES)))
        pause = p * self._sessions.soon_ms.mean() + (1 - p) * self._sessions.later_ms.mean()
        self._ts = self._start_ms + chance[:, 0] * pause
        self._scenario = np.searchsorted(self._sessions.scenario_share, chance[:, 1], "right")
        self._left = _geometric(chance[:, 2], self._sessions.requests)
        return self._observation(), self._info(self._active())

    @torch.no_grad()
    def step(self, actions: Ints) -> tuple[FeedBatch, Doubles, Bools, Bools, Info]:
        """As the protocol says."""
        active = self._active()
        slots = check_actions(actions, self._places, ~active)
        starts = active & (self._request == 0)
        k = slots.shape[1]
        reach = _geometric(self._chance(SESSION)[:, 0], self._sessions.rows_of_request)
        shown = (slots >= 0) & active[:, None] & (np.arange(k) < reach[:, None])
        places = np.take_along_axis(self._places, slots.clip(0), 1)
        items = np.where(shown, self._pool[places], PAD)
        if not self.options.repeats:
            self._barred[np.nonzero(shown)[0], places[shown]] = True
        answers = self._answer(items)
        response = answers.cpu().numpy()
        standard = self._simulator.standardised(answers).cpu().numpy()
        self._sum += np.where(shown[..., None], np.nan_to_num(standard), 0.0).sum(1)
        self._rows += shown.sum(1)
        reward = self._simulator.reward(answers)[..., WATCH_TIME].cpu().numpy()
        ends, returned = self._move_on(active)
        if self.options.episode == "session":
            self._left_for_good |= ends
        truncated = (self._ts >= self._stop_ms) & ~self._left_for_good
        info = {
            **self._info(active),
            "response": response,
            "shown": shown,
            "row_reward": np.where(shown, np.nan_to_num(reward), 0.0).astype(np.float64),
            "starts": starts,
            "ends": ends,
            "returned": returned,
        }
        total = np.where(shown[..., None], response, 0.0).sum(1, dtype=np.float64)
        return self._observation(), total, self._left_for_good.copy(), truncated, info

    def keep(self, chosen: Bools) -> tuple[FeedBatch, Info]:
        """Go on with some of the users, (B,) bool."""
        for name in ("_users", "_session", "_request", "_rows", "_sum", "_left_for_good", "_barred", "_ts", "_scenario", "_left"):  # fmt: skip
            setattr(self, name, getattr(self, name)[chosen])
        of_users = torch.from_numpy(chosen).to(self._state.device)
        self._state = self._state[of_users]
        self._past.keep(of_users)
        return self._observation(), self._info(self._active())

    def _answer(self, items: Ints) -> torch.Tensor:
        """Responses (B, K, 7) to items (B, K), which all see the state before the request; then the states move on."""
        device = self._state.device
        row, place = np.nonzero(items != PAD)
        numbers = uniforms(self._keys()[row], items[row, place][:, None], N_UNIFORMS)[:, 0]
        of_row = torch.from_numpy(row).to(device)
        item = torch.from_numpy(items[row, place]).to(device)
        where = (self._batch.scenario[of_row], self._batch.hour[of_row])
        x = self._simulator.features(self._state[of_row], item, *where)
        uniform = torch.from_numpy(numbers).float().to(device)
        drawn = self._simulator.draw(self._simulator.predict(x), uniform)
        answers = torch.full((*items.shape, N_RESPONSES), torch.nan, device=device)
        answers[of_row, torch.from_numpy(place).to(device)] = drawn
        for j in range(int(place.max(initial=-1)) + 1):
            now = torch.from_numpy(place == j).to(device)
            users = of_row[now]
            stepped = self._simulator.step(self._state[users], item[now], drawn[now])
            self._state[users] = stepped
            self._past.add(users, item[now], drawn[now])
        return answers

    def _move_on(self, active: Bools) -> tuple[Bools, Bools]:
        """Time, scenario and session of the next decisions; which sessions ended, and of which the user is back in 24 h."""
        s, chance = self._sessions, self._chance(SESSION)
        moves = active & (chance[:, 1] >= s.scenario_stay)
        drawn = np.searchsorted(s.scenario_share, chance[:, 2], "right")
        self._scenario = np.where(moves, drawn, self._scenario)
        self._left -= active
        ends = active & (self._left <= 0)
        back = ends & (chance[:, 3] < s.p_return(self._sum / self._rows.clip(1)[:, None]))
        later = np.where(back, *(np.interp(chance[:, 4], GRID, q) for q in (s.soon_ms, s.later_ms)))
        pause = np.where(ends, later, np.interp(chance[:, 4], GRID, s.pause_ms))
        self._ts = self._ts + np.where(active, pause, 0.0)
        self._left = np.where(ends, _geometric(chance[:, 5], s.requests), self._left)
        self._session += ends
        self._request = np.where(ends, 0, self._request + active)
        self._rows[ends], self._sum[ends] = 0, 0.0
        if self._barred.shape[1]:
            self._barred[ends] = False
        return ends, back

    def _active(self) -> Bools:
        return np.asarray((self._ts < self._stop_ms) & ~self._left_for_good)

    def _keys(self) -> NDArray[np.uint64]:
        return decision_keys(self._seed, self._users, self._session, self._request)

    def _chance(self, purpose: int) -> Doubles:
        """(B, 6) numbers of the current decision."""
        return uniforms(part_keys(self._keys(), purpose), self._users[:, None], CHANCES)[:, 0]

    def _info(self, active: Bools) -> dict[str, NDArray[Any]]:
        day = (self._ts - self._start_ms) // DAY_MS
        return {"key": self._keys(), "day": day.astype(np.int64), "active": active}

    def _observation(self) -> FeedBatch:
        self._places = draw_places(
            part_keys(self._keys(), CANDIDATES),
            self._active(),
            self._cdf,
            self._barred,
            self.options.candidates,
        )
        items = np.where(self._places == PAD, PAD, self._pool[self._places])
        scenario = torch.from_numpy(self._scenario.astype(np.int64)).to(self._state.device)
        self._batch = self._past.batch(items, self._ts, scenario)
        return self._batch


def _geometric(chance: Doubles, mean: float) -> Ints:
    """1, 2, … with the given mean, from numbers in [0, 1)."""
    if mean <= 1:
        return np.ones(len(chance), np.int64)
    more = np.log1p(-chance) / np.log1p(-1 / mean)
    return np.asarray(1 + more.astype(np.int64))
