"""Does attention over the followed users help where they are planted to matter, and only there? ``make claims``.

The graph network of MT-DQN, alone, with a small network that foretells a like from the states of user and item, on the worlds of ``social_worlds.py``:
with one hop over who follows whom, as the same network without edges, and with as many edges to anybody. Judged by the average precision of likes on the
last fifth of the time. World and first weights change with the seed; intervals are Student's over the seeds' paired differences. Beside them stands what a
logistic regression gains that is told, beside the logit of the network without edges, whether a followed user had liked the very item. Rows are stored like any
results (experiment ``claims``); a claim that fails is shown as such, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from over_seeds import ABOVE, Claim, Page, Rule, judge, publish
from social_worlds import WORLDS, drawn, inputs_of

from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.options import SocialOptions, TGNNOptions
from reelrank.models.tgnn import graph_network
from reelrank.options import digest

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
MARGIN = 0.02  # AP below which a gain counts as none
EPOCHS, BATCH, LR = (
    6,
    64,
    2e-3,
)  # fewer or longer steps leave some first weights where they were [D]
D_F = 8
GRAPH = TGNNOptions(d_h=32, layers=1, fanout=(10,), time_dim=16, message_dim=16, content_dim=8, dropout=0.1)  # fmt: skip
HOPS = {"no edges": 0, "one hop": 1, "two hops": 2, "to anybody": 1}
NETWORKS = {"mood": tuple(HOPS), "strangers": ("no edges", "one hop"), "post": ("no edges", "one hop")}  # fmt: skip
TOLD = "no edges, told"
NO_GAIN = Rule(f"the 95 % interval lies below +{MARGIN}", lambda _, high: high < MARGIN)


class Liked(nn.Module):
    """Logit of a like from the states of a user and of an item before a moment."""

    def __init__(self, inputs: ModelInputs, hops: int) -> None:
        super().__init__()
        options = GRAPH.model_copy(update={"social": SocialOptions(hops=hops, every_hours=6)})
        self.graph = graph_network(options, InputSpec.of(inputs), D_F)
        self.out = nn.Sequential(nn.Linear(2 * GRAPH.d_h, GRAPH.d_h), nn.ReLU(), nn.Linear(GRAPH.d_h, 1))  # fmt: skip
        self.memory = nn.Buffer(
            torch.randn(inputs.stream.n_items, D_F)
        )  # items differ, that is all

    def forward(self, inputs: ModelInputs, rows: Tensor) -> Tensor:
        """(B,) of rows (B,) of the events."""
        stream = inputs.stream
        nodes = torch.cat([stream.user[rows], stream.n_users + stream.item[rows]])
        states = self.graph(inputs, nodes, stream.ts_ms[rows].repeat(2), self.memory)
        logit: Tensor = self.out(torch.cat(states.chunk(2), dim=1)).squeeze(1)
        return logit


def fitted(inputs: ModelInputs, hops: int, seed: int) -> Liked:
    """A model that has met the train rows in the order of time, some times over."""
    torch.manual_seed(seed)
    model = Liked(inputs, hops)
    rows = torch.nonzero(inputs.stream.split == 0).squeeze(1)
    batches = torch.split(rows, BATCH)
    optimiser = torch.optim.Adam(model.parameters(), LR)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * len(batches))
    for _ in range(EPOCHS):
        for batch in batches:
            like = inputs.stream.labels[batch, 1]
            loss = F.binary_cross_entropy_with_logits(model(inputs, batch), like)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            falling.step()
    return model.eval()


def measure(job: tuple[str, int]) -> dict[str, float]:
    """AP by network in one world with one seed."""
    world, seed = job
    events, edges = drawn(world, seed)
    inputs = inputs_of(events, edges)
    assert inputs.follows is not None
    val, test = (torch.nonzero(inputs.stream.split == part).squeeze(1) for part in (1, 2))
    like, caught = events["like"].to_numpy(), events["caught"].to_numpy()
    found: dict[str, float] = {}
    for name in NETWORKS[world]:
        hops = HOPS[name]
        follows = inputs.follows.rewired(seed) if name == "to anybody" else inputs.follows
        here = replace(inputs, follows=follows)
        model = fitted(here, hops, seed)
        with torch.no_grad():
            logit = {part: torch.cat([model(here, b) for b in rows.split(1024)]).numpy() for part, rows in (("val", val), ("test", test))}  # fmt: skip
        found[name] = float(average_precision_score(like[test], logit["test"]))
        if name == "no edges":
            told = {part: np.column_stack([logit[part], caught[rows]]) for part, rows in (("val", val), ("test", test))}  # fmt: skip
            weighed = LogisticRegression().fit(told["val"], like[val])
            found[TOLD] = float(average_precision_score(like[test], weighed.decision_function(told["test"])))  # fmt: skip
    return found


CLAIMS = (
    Claim("mood", ("one hop", "no edges"), "attention over the followed foretells likes better where they share a mood", ABOVE),
    Claim("mood", ("to anybody", "no edges"), "edges to anybody gain nothing there", NO_GAIN),
    Claim("mood", ("two hops", "one hop"), "a second hop, there", None),
    Claim("strangers", ("one hop", "no edges"), "it gains nothing where one follows anybody", NO_GAIN),
    Claim("post", ("one hop", "no edges"), "it foretells likes better where a like is caught from a followed user's of the same item", ABOVE),
    Claim("post", (TOLD, "no edges"), "what that fact is worth, told beside the logit", None),
    Claim("strangers", (TOLD, "no edges"), "the same fact where nothing is caught", None),
)  # fmt: skip


def main() -> int:
    """Judge every claim, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    if len(given.seeds) < 2:
        parser.error("an interval needs at least two seeds")
    jobs = [(world, seed) for world in WORLDS for seed in given.seeds]
    found: dict[str, list[dict[str, float]]] = {}
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        for (world, seed), measured in zip(jobs, pool.map(measure, jobs), strict=True):
            found.setdefault(world, []).append(measured)
            log.info("%s seed %d: %s", world, seed, {k: round(v, 4) for k, v in measured.items()})
    judged = []
    for claim in CLAIMS:
        own, other = ([m[name] for m in found[claim.world]] for name in claim.pair)
        judged.append(judge(claim, own, other, metric="ap", n=len(own), group="like"))
    page = Page(
        "claims_social", "Claims on social diffusion", " ".join(f"{name}: {says}." for name, says in WORLDS.items()),
        ("Who follows whom", "Differences over seeds of the average precision of likes. States of users are what diffuses: a mood is in them. That a followed user liked this"
         " very item is a fact about a user and an item: the mean of ten states has no room for it, whoever is followed."),
        [], "python claims/social.py",
    )  # fmt: skip
    return publish(
        judged, page, given.data, system="mt_dqn", seed=given.seeds[0], source="planted", split="time/test",
        config_hash=digest(MARGIN, EPOCHS, BATCH, LR, GRAPH.model_dump(mode="json"), HOPS),
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    sys.exit(main())
