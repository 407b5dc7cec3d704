"""Users who follow each other, in which the claims on social diffusion are judged: each world plants one way in which they hang together, or none.

Communities of users meet items of no importance and like them or not. In ``mood`` a community shares a mood that turns within days, and one
follows one's own community: one's own last answer is old, those of the followed are not. In ``strangers`` moods are the same, but one follows
anybody. In ``post`` there is no mood; an item that a followed user liked within a day is liked more.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import torch

from reelrank.models.event_stream import EventStream
from reelrank.models.follow_graph import FollowGraph
from reelrank.models.inputs import ModelInputs
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.user_features import UserFeatures
from reelrank.tables import FEEDBACKS

WORLDS = {
    "mood": "a community shares a mood that turns within days, and one follows one's own",
    "strangers": "the same moods, but one follows anybody",
    "post": "what a followed user liked within a day is liked more",
}
USERS, COMMUNITIES, ITEMS, FOLLOWED, DAYS = 600, 30, 60, 10, 40
MOOD_SD, MOOD_DAYS = 1.5, 2.0  # log-odds of a like; days in which a mood falls to 1/e
LIKED, CAUGHT = -1.0, 2.5  # log-odds of a like; what a followed user's adds
START_MS, DAY_MS = 1_650_000_000_000, 86_400_000
SPLITS = (0.7, 0.8)  # of the time: train, then val, then test


def drawn(world: str, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events in order of time (user_id, item_id, ts_ms, like, caught: whether a followed user had liked the item within a day), and edges src → dst."""
    rng = np.random.default_rng(seed)
    community = rng.integers(0, COMMUNITIES, USERS)
    same = np.equal.outer(community, community) & ~np.eye(USERS, dtype=bool)
    weight = (same if world != "strangers" else ~np.eye(USERS, dtype=bool)) * rng.random((USERS, USERS))  # fmt: skip
    chosen = np.argsort(-weight, axis=1)[:, :FOLLOWED]
    src, dst = np.repeat(np.arange(USERS), FOLLOWED), chosen.ravel()
    known = weight[src, dst] > 0
    edges = pl.DataFrame({"src": src[known], "dst": dst[known]})

    n = USERS * DAYS  # a row a day of each user in the mean
    ts = np.sort(rng.integers(START_MS, START_MS + DAYS * DAY_MS, n))
    user, item = rng.integers(0, USERS, n), rng.integers(0, ITEMS, n)
    mood = _moods(rng)[community[user], (ts - START_MS) * _STEPS // DAY_MS]
    logit = LIKED + (0.0 if world == "post" else mood)
    chance = rng.random(n)
    follows = np.zeros((USERS, USERS), bool)
    follows[edges["src"], edges["dst"]] = True
    like, caught = np.zeros(n, np.int8), np.zeros(n, bool)
    last = np.full((USERS, ITEMS), -DAY_MS, np.int64)  # when each user last liked each item
    for i in range(n):  # the world is small, and a like hangs on those before
        caught[i] = bool((follows[user[i]] & (ts[i] - last[:, item[i]] <= DAY_MS) & (last[:, item[i]] < ts[i])).any())  # fmt: skip
        odds = logit if np.isscalar(logit) else logit[i]
        like[i] = chance[i] < 1 / (1 + math.exp(-(odds + CAUGHT * (world == "post" and caught[i]))))
        if like[i]:
            last[user[i], item[i]] = ts[i]
    events = pl.DataFrame({"user_id": user, "item_id": item, "ts_ms": ts, "like": like, "caught": caught})  # fmt: skip
    return events, edges


_STEPS = 8  # of a mood a day


def _moods(rng: np.random.Generator) -> np.ndarray:
    """Of each community at each step, (COMMUNITIES, steps): noise that forgets itself."""
    keep = math.exp(-1 / (_STEPS * MOOD_DAYS))
    mood = rng.normal(0, MOOD_SD, COMMUNITIES)
    found = []
    for _ in range(DAYS * _STEPS):
        found.append(mood)
        mood = keep * mood + rng.normal(0, MOOD_SD * math.sqrt(1 - keep**2), COMMUNITIES)
    return np.stack(found, axis=1)


def inputs_of(events: pl.DataFrame, edges: pl.DataFrame) -> ModelInputs:
    """What a graph network reads: events with their likes, users of whom nothing else is known, items with blank tokens."""
    ts = events["ts_ms"]
    train, val = (int(START_MS + share * DAYS * DAY_MS) for share in SPLITS)
    nothing = [pl.lit(0, pl.Int8).alias(name) for name in FEEDBACKS if name != "like"]
    numbers = [pl.lit(0.0).alias(name) for name in ("watch_ratio", "r_immediate", "reward", "return")]  # fmt: skip
    rows = events.with_columns(
        *nothing,
        *numbers,
        split=pl.when(ts < train).then(pl.lit("train")).when(ts < val).then(pl.lit("val")).otherwise(pl.lit("test")),
        is_rand=pl.lit(0, pl.Int8),
        play_ms=pl.lit(0),
        next_pos=pl.lit(-1),
    )  # fmt: skip
    blank = ModalTokens(torch.zeros(ITEMS, 1, 1), torch.ones(ITEMS, 1, dtype=torch.bool), torch.ones(ITEMS, dtype=torch.bool))  # fmt: skip
    users = pl.DataFrame({"user_id": range(USERS), "degree": [0] * USERS})
    return ModelInputs(
        EventStream.from_frame(rows, USERS, ITEMS),
        ItemTokens((blank, blank, blank)),
        UserFeatures.from_frame(users, np.arange(USERS)),
        FollowGraph.from_frame(edges.with_columns(ts=pl.lit(None, pl.Int64)), USERS, START_MS),
    )
