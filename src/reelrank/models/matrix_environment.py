"""KuaiRec's fully observed matrix as an environment: whatever is shown, how long the user watched it is known.

Source: METHODS §4.8 (a user leaves after 3 consecutive plays under 2 s, or 50 videos).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from reelrank.models.feed import PAD, RESPONSES, WATCH_TIME, FeedBatch, ItemFeatures
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
from reelrank.models.shown_history import ShownHistory
from reelrank.options import Options

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
CANDIDATES, OPENING = -1, -3
LONG_VIEW = RESPONSES.index("long_view")
REQUEST_MS = 60_000  # between decisions


class MatrixOptions(Options):
    """Length and shape of a roll-out in an observed matrix."""

    days: int = Field(10, ge=1, le=1_000, description="simulated days, one session each")
    candidates: int = Field(40, ge=1, le=100_000, description="C, as track K2")
    max_videos: int = Field(50, ge=1, description="videos after which a user leaves")
    short_play_s: float = Field(2.0, gt=0, description="a play under this is a short one")
    short_plays: int = Field(3, ge=1, description="consecutive short plays: the user leaves")
    repeats: bool = Field(
        False, description="a video may be a candidate again in the session that showed it"
    )


class MatrixEnvironment:
    """:class:`reelrank.models.feed_environment.FeedEnvironment` of a matrix of plays; ``row_reward`` is the watch time in s.

    Only watch time is known, and with ``long_view_s`` what follows from it; the other responses are NaN, as in the log. Candidates are drawn uniformly from the observed pairs. A user
    comes once a day whatever happened: ``returned`` is always true but on the last day, and means nothing.

    Args:
        play_s: (B, P) seconds, NaN = pair not observed.
        pool: (P,) dense item ids of the columns.
        start: (B,) users: codes and histories.
        items: attributes by dense id.
        start_ms: midnight before the first day, UTC epoch ms.
        options: length and shape.
        long_view_s: (P,) seconds from which a play of a video is a long view, NaN = unknown; None: nobody knows long views.

    Raises:
        ValueError: shapes do not fit, or a user has fewer observed pairs than a session may need.
    """

    def __init__(
        self,
        play_s: NDArray[np.floating],
        pool: Ints,
        start: FeedBatch,
        items: ItemFeatures,
        *,
        start_ms: int,
        options: MatrixOptions,
        long_view_s: NDArray[np.floating] | None = None,
    ) -> None:
        if play_s.shape != (len(start.user_codes), len(pool)):
            raise ValueError(
                f"play_s is {play_s.shape}, users and pool ask for {(len(start.user_codes), len(pool))}"
            )
        observed = ~np.isnan(play_s)
        need = options.candidates + (0 if options.repeats else options.max_videos)
        poor = np.flatnonzero(observed.sum(1) < need)
        if len(poor):
            raise ValueError(
                f"{len(poor)} users have fewer than {need} observed pairs, the first is row {poor[0]}: "
                "leave them out, or lower candidates or max_videos"
            )
        self.options, self.num_envs, self.n_days = options, len(play_s), options.days
        self._play, self._pool = np.asarray(play_s, np.float32), np.asarray(pool, np.int64)
        self._unobserved, self._start_ms = ~observed, start_ms
        self._cdf = np.arange(1, len(pool) + 1) / len(pool)
        self._all = np.arange(self.num_envs)
        self._past = ShownHistory(start, items)
        self._long_s = np.full(len(pool), np.nan) if long_view_s is None else long_view_s
        self._seed = 0

    @property
    def play_s(self) -> Doubles:
        """Watch time (B, C) of the candidates now, −inf at a pad: the oracle's scores."""
        known = self._play[self._users[:, None], self._places]
        return np.where(self._places == PAD, -np.inf, known).astype(np.float64)

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
        n = self.num_envs
        self._day, self._request = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._videos, self._short = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._users, self._barred = self._all, self._unobserved.copy()
        self._past.reset()
        return self._observation(), self._info(np.ones(n, np.bool_))

    def step(self, actions: Ints) -> tuple[FeedBatch, Doubles, Bools, Bools, Info]:
        """As the protocol says: the user watches what is given until the one that makes them leave."""
        o = self.options
        active = self._day < o.days
        slots = check_actions(actions, self._places, ~active)
        starts = active & (self._request == 0)
        n, k = slots.shape
        response = np.full((n, k, len(RESPONSES)), np.nan, np.float32)
        shown, here, row = np.zeros((n, k), np.bool_), active.copy(), np.arange(n)
        for j in range(k):
            seen = here & (slots[:, j] >= 0)
            place = self._places[row, slots[:, j]]
            seconds = np.where(seen, self._play[self._users, place], np.nan)
            response[:, j, WATCH_TIME] = seconds
            enough = self._long_s[place]
            response[:, j, LONG_VIEW] = np.where(seen & ~np.isnan(enough), seconds >= enough, np.nan)  # fmt: skip
            shown[:, j] = seen
            if not o.repeats:
                self._barred[row[seen], place[seen]] = True
            self._videos += seen
            self._short = np.where(seen, np.where(seconds < o.short_play_s, self._short + 1, 0), self._short)  # fmt: skip
            here &= (self._short < o.short_plays) & (self._videos < o.max_videos)
            item = torch.from_numpy(self._pool[place[seen]])
            answer = torch.from_numpy(response[seen, j])
            self._past.add(torch.from_numpy(np.flatnonzero(seen)), item, answer)
        # who is shown nothing leaves, or the day would not end
        ends = active & (~here | ~shown.any(1))
        self._day += ends
        self._request = np.where(ends, 0, self._request + active)
        self._videos[ends] = self._short[ends] = 0
        self._barred[ends] = self._unobserved[self._users[ends]]
        terminated = self._day >= o.days
        watched = np.where(shown, response[..., WATCH_TIME], 0.0).astype(np.float64)
        reward = np.full((n, len(RESPONSES)), np.nan)
        reward[~active] = 0.0
        reward[:, WATCH_TIME] = watched.sum(1)
        if not np.isnan(self._long_s).any():
            reward[:, LONG_VIEW] = np.nan_to_num(response[..., LONG_VIEW]).sum(1)
        info = {
            **self._info(active),
            "response": response,
            "shown": shown,
            "row_reward": watched,
            "starts": starts,
            "ends": ends,
            "returned": ends & ~terminated,
        }
        return self._observation(), reward, terminated, np.zeros(n, np.bool_), info

    def keep(self, chosen: Bools) -> tuple[FeedBatch, Info]:
        """Go on with some of the users, (B,) bool."""
        for name in ("_users", "_day", "_request", "_videos", "_short", "_barred"):
            setattr(self, name, getattr(self, name)[chosen])
        self._past.keep(torch.from_numpy(chosen))
        return self._observation(), self._info(self._day < self.options.days)

    def _info(self, active: Bools) -> dict[str, NDArray[Any]]:
        key = decision_keys(self._seed, self._users, self._day, self._request)
        return {"key": key, "day": self._day.copy(), "active": active}

    def _observation(self) -> FeedBatch:
        key = decision_keys(self._seed, self._users, self._day, self._request)
        active = self._day < self.options.days
        self._places = draw_places(
            part_keys(key, CANDIDATES), active, self._cdf, self._barred, self.options.candidates
        )
        opening = decision_keys(self._seed, self._users, self._day, np.zeros_like(self._day))
        hour = uniforms(part_keys(opening, OPENING), self._users[:, None], 1)[:, 0, 0] * 23
        ts = self._start_ms + self._day * DAY_MS + hour * HOUR_MS + self._request * REQUEST_MS
        items = np.where(self._places == PAD, PAD, self._pool[self._places])
        return self._past.batch(items, ts, torch.zeros(len(ts), dtype=torch.int64))
