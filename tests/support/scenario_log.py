"""A small log of two scenarios whose next item follows a rule, and small models of it."""

import numpy as np
import polars as pl
import torch

from reelrank.models import registry
from reelrank.models.sequence_data import Sequences
from reelrank.pipelines.ruie import baselines, model  # noqa: F401 (registers)
from reelrank.pipelines.ruie.protocol import SequenceModel, SequenceSpec

LENGTH = 6
SMALL = {
    "ruie": {"backbone": {"name": "nextitnet", "dim": 8}, "heads": 2},
    "nextitnet": {"dim": 8},
    "sasrec": {"dim": 8},
    "gru4rec": {"dim": 8, "hidden": 12},
    "caser": {"dim": 8, "length": LENGTH},
    "pepnet": {"dim": 8, "hidden": [12, 8]},
    "star": {"dim": 8, "hidden": [12, 8]},
    "din": {"dim": 8, "attention_hidden": [12], "hidden": [12]},
    "popularity_of_items": {},
}


def event_frame(n_users=8, n_events=9, n_items=20, n_scenarios=2, seed=0):
    """Each user steps by 1 in scenario 0 and by 2 in scenario 1; the last two events are val and test."""
    rng = np.random.default_rng(seed)
    scenario = rng.integers(0, n_scenarios, (n_users, n_events))
    item = (rng.integers(0, n_items, (n_users, 1)) + np.cumsum(1 + scenario, axis=1)) % n_items
    return pl.DataFrame(
        {
            "row_id": np.arange(n_users * n_events),
            "user_id": np.repeat(np.arange(n_users), n_events),
            "item": item.ravel(),
            "scenario": scenario.ravel(),
            "ts_ms": np.tile(np.arange(n_events) + 1, n_users),
            "split": np.tile(["train"] * (n_events - 2) + ["val", "test"], n_users),
            "click": 1,
            "like": (item % 3 == 0).ravel().astype(int),
            "follow": 0,
            "forward": None,
        }
    )


def sequences(events=None, n_items=20, n_scenarios=2):
    frame = event_frame() if events is None else events
    return Sequences.from_frame(frame, int(frame["user_id"].max()) + 1, n_items, n_scenarios)


def build(name, log, **changes):
    """Fresh weights by seed 0."""
    torch.manual_seed(0)
    spec = SequenceSpec.of(log, LENGTH)
    return registry.build(name, SMALL[name] | changes, spec, SequenceModel)
