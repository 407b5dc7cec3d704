"""User-steps per second of rolled-out policies, in the KuaiRand world and in a feedback simulator, against a Python loop over users.

    python benchmarks/rollout.py [--users 4000] [--days 5] [--rounds 3] [--processor-time]

A user-step is one decision of one user: candidates drawn, scored by a cheap policy (a table of item scores), ranked, shown, answered, and
the next decision made. The peer steps the same environment one user at a time, each an environment of its own, on fewer users; its time per
user-step is compared, and its totals must be those of the same users in the batch. One thread; compilation is not timed. ``--processor-time`` counts what the process itself took, for a busy machine.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from reelrank.models.feed import PAD, FeedBatch, ItemFeatures
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_environment import FeedEnvironment, RollOut, roll_out
from reelrank.models.feedback_options import SimulatorOptions
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.models.session_model import GRID, SessionModel
from reelrank.models.simulator_environment import SimulatorEnvironment, SimulatorRolloutOptions
from reelrank.sources.kuairand_schema import RELEASE_START_MS
from reelrank.worlds.kuairand import generate
from reelrank.worlds.kuairand_options import WorldOptions
from reelrank.worlds.response import DAY_MS
from reelrank.worlds.rollout import WorldEnvironment, WorldFeed, WorldRolloutOptions, schedule_of

SHOWN, CANDIDATES, HISTORY, PEER_USERS = 6, 40, 50, 10
START_MS = RELEASE_START_MS + 15 * DAY_MS
HOUR_MS = 3_600_000
Clock = Callable[[], float]


class ByItem:
    """The cheap policy: a score per item."""

    def __init__(self, n_items: int) -> None:
        self.values = torch.rand(n_items, generator=torch.Generator().manual_seed(0))

    def scores(self, batch: FeedBatch) -> torch.Tensor:
        return self.values[batch.candidates.clamp(min=0)].masked_fill(~batch.mask, -torch.inf)


def world_maker(n_users: int, days: int) -> tuple[Callable[[np.ndarray], FeedEnvironment], int]:
    """Environments of some users of one world, and its number of videos."""
    options = WorldOptions(users=n_users, videos=2_000, exposures_per_user=100, random_per_user=0)
    options = options.model_copy(update={"candidates": CANDIDATES})
    world = generate(options)
    schedule = schedule_of(options, world.response, world.policy)
    items = ItemFeatures(torch.zeros(options.videos, 4, dtype=torch.int64), (1,) * 4, tuple("abcd"))
    shape = WorldRolloutOptions(days=days, history=HISTORY)

    def make(users: np.ndarray) -> WorldEnvironment:
        codes = torch.zeros(len(users), 8, dtype=torch.int64)
        feed = WorldFeed(users, codes, np.arange(options.videos), items)
        return WorldEnvironment(
            world.response, world.policy, schedule, feed, start_ms=START_MS, options=shape
        )

    return make, options.videos


def simulator_maker(n_users: int, days: int) -> tuple[Callable[[np.ndarray], FeedEnvironment], int]:
    """The same of a simulator of METHODS' sizes with random weights: time does not depend on them."""
    n_items = 2_000
    spec = FeedSpec(n_items=n_items, n_scenarios=15, user_cardinalities=(10,) * 8, item_cardinalities=(50,) * 4)  # fmt: skip
    items = ItemFeatures(torch.zeros(n_items, 4, dtype=torch.int64), (50,) * 4, tuple("abcd"))
    torch.manual_seed(0)
    model = FeedbackSimulator(SimulatorOptions(), spec, items)
    sessions = SessionModel(
        rows_of_request=1.2,
        requests=5.0,
        pause_ms=np.full(65, 3 * 60_000.0),
        soon_ms=(1 + 22 * GRID) * HOUR_MS,
        later_ms=(24 + 48 * GRID) * HOUR_MS,
        intercept=0.0,
        weights=np.full(7, 0.1),
        scenario_share=np.arange(1, 16) / 15,
        scenario_stay=0.7,
    )
    shape = SimulatorRolloutOptions(days=days, candidates=CANDIDATES)

    def make(users: np.ndarray) -> SimulatorEnvironment:
        n = len(users)
        start = FeedBatch(
            user_codes=torch.zeros(n, 8, dtype=torch.int64),
            scenario=torch.zeros(n, dtype=torch.int64),
            hour=torch.zeros(n, dtype=torch.int64),
            history=torch.full((n, HISTORY), PAD),
            feedback=torch.zeros(n, HISTORY, 7),
            candidates=torch.zeros(n, 0, dtype=torch.int64),
            item_codes=torch.zeros(n, 0, 4, dtype=torch.int64),
        )
        return SimulatorEnvironment(
            model, sessions, start, users, items,
            pool=np.arange(n_items), popularity=np.ones(n_items), start_ms=START_MS, options=shape,
        )  # fmt: skip

    return make, n_items


def serve(environment: FeedEnvironment, policy: ByItem, clock: Clock) -> tuple[float, RollOut]:
    started = clock()
    got = roll_out(environment, policy, seed=7, k=SHOWN)
    return clock() - started, got


def measure(make: Callable[[np.ndarray], FeedEnvironment], n_items: int, n_users: int, rounds: int, clock: Clock) -> dict[str, Any]:  # fmt: skip
    policy = ByItem(n_items)
    users = np.arange(n_users)
    batch, single = make(users), [make(users[i : i + 1]) for i in range(PEER_USERS)]
    serve(make(users[:5]), policy, clock)  # compiles
    ours, peer, agrees = [], [], True
    for k in range(rounds):
        seconds, got = serve(batch, policy, clock)
        alone = [serve(environment, policy, clock) for environment in single]
        steps = sum(one.n_steps for _, one in alone)
        ours.append(got.n_steps / seconds)
        peer.append(steps / sum(s for s, _ in alone))
        for i, (_, one) in enumerate(alone):
            agrees &= np.allclose(one.rows[0], got.rows[i])
            agrees &= np.allclose(one.response[0], got.response[i], rtol=1e-4, atol=1e-4)
        print(f"round {k}: {ours[-1]:.0f} user-steps/s in batch, {peer[-1]:.0f} one user at a time")
    return {
        "ours": round(statistics.median(ours)),
        "peer": round(statistics.median(peer)),
        "ratio": round(statistics.median(o / p for o, p in zip(ours, peer, strict=True)), 1),
        "range": [round(min(ours)), round(max(ours))],
        "agrees": bool(agrees),
        "user_steps": got.n_steps,
        "rows": int(got.rows.sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processor-time", action="store_true")
    a = parser.parse_args()
    clock = time.process_time if a.processor_time else time.perf_counter
    torch.set_num_threads(1)  # on a busy machine two wait for each other
    world = measure(*world_maker(a.users, a.days), a.users, a.rounds, clock)
    simulator = measure(*simulator_maker(a.users, a.days), a.users, a.rounds, clock)
    line = {
        "name": "rollout",
        "ours": min(world["ours"], simulator["ours"]),
        "peer": world["peer"] if world["ours"] < simulator["ours"] else simulator["peer"],
        "ratio": min(world["ratio"], simulator["ratio"]),
        "unit": f"user-steps/s{' of processor time' * a.processor_time}",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": world["agrees"] and simulator["agrees"],
        "world": world,
        "simulator": simulator,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
