"""Logs of two scenarios in which the claims on RUIE are judged: each plants one property.

A user has two topics. In the large scenario topics' items are met by popularity; in the small one the user turns to the opposite topics and the order of
popularity is turned round, so that what the large scenario teaches points the wrong way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from reelrank.pipelines.ruie.fitting import SequenceTables

LARGE, SMALL = 0, 1
TOPICS, ITEMS_OF_TOPIC = 12, 12
TRAIN, VAL = 0.6, 0.1  # of a user's events; the others are test
OTHER = 0.2  # share of events that have nothing to do with the user


class Planted(NamedTuple):
    """Why a world is there, and what sets it apart.

    Attributes:
        reason: in words.
        small: share of the small scenario's events.
        stay: chance that an event in the small scenario is followed by another; ``small`` itself: nothing tells the next scenario.
        likes: chance of a like in the large and in the small scenario.
        opposed: whether the scenarios contradict each other; else they are the same but for their names.
    """

    reason: str
    small: float = 0.15
    stay: float = 0.7
    likes: tuple[float, float] = (0.1, 0.3)
    opposed: bool = True


WORLDS = {
    "opposed": Planted(
        "negative transfer: the small scenario contradicts the large one; the next scenario and the reward can be told"
    ),
    "alike": Planted(
        "no negative transfer: both scenarios are one but for their names", opposed=False
    ),
    "blank": Planted(
        "negative transfer, and nothing for Q to learn: the next scenario is a coin, every reward is 1",
        stay=0.15,
        likes=(0.0, 0.0),
    ),
}

_STREAM = {"blank": 0, "opposed": 1, "alike": 2}  # of random numbers


def tables(world: str, seed: int, users: int = 240, events: int = 30) -> SequenceTables:
    """The tables of a world, every user with as many events."""
    w = WORLDS[world]
    rng = np.random.default_rng([seed, _STREAM[world]])
    scenario = np.zeros((users, events), np.int64)
    scenario[:, 0] = rng.random(users) < w.small
    come = w.small * (1 - w.stay) / (1 - w.small)  # keeps the small scenario's share
    for t in range(1, events):
        chance = np.where(scenario[:, t - 1] == SMALL, w.stay, come)
        scenario[:, t] = rng.random(users) < chance
    turned = (scenario == SMALL) & w.opposed
    tastes = rng.integers(0, TOPICS, (users, 2))
    topic = np.take_along_axis(tastes, rng.integers(0, 2, (users, events)), axis=1)
    topic = np.where(rng.random((users, events)) < OTHER, rng.integers(0, TOPICS, topic.shape), topic)  # fmt: skip
    topic = np.where(turned, (topic + TOPICS // 2) % TOPICS, topic)
    popularity = 1 / np.arange(1, ITEMS_OF_TOPIC + 1)
    place = rng.choice(ITEMS_OF_TOPIC, (users, events), p=popularity / popularity.sum())
    item = topic * ITEMS_OF_TOPIC + np.where(turned, ITEMS_OF_TOPIC - 1 - place, place)
    like = rng.random((users, events)) < np.array(w.likes)[scenario]
    n_train, n_val = round(TRAIN * events), round(VAL * events)
    split = ["train"] * n_train + ["val"] * n_val + ["test"] * (events - n_train - n_val)
    n_items = TOPICS * ITEMS_OF_TOPIC
    frame = pl.DataFrame(
        {
            "row_id": np.arange(users * events),
            "user_id": np.repeat(np.arange(users), events),
            "item": item.ravel().astype(np.int32),
            "scenario": scenario.ravel().astype(np.int16),
            "ts_ms": np.tile(np.arange(events) * 60_000, users),
            "split": np.tile(split, users),
            "click": 1,
            "like": like.ravel().astype(int),
            "follow": 0,
            "forward": 0,
        }
    )
    items = pl.DataFrame({"item": range(n_items), "item_id": range(n_items), "available_ts": [0] * n_items})  # fmt: skip
    scenarios = pl.DataFrame({"scenario": [LARGE, SMALL], "raw_scenario": [LARGE, SMALL]})
    return SequenceTables.of(frame, items, scenarios)
