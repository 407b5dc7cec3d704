"""Does RUIE lose nothing in a small scenario that the large one contradicts, and is it the gate? ``make claims``.

On the worlds of ``ruie_worlds.py``. RU-05: with 1, 5, 10, 25 and 100 % of the small scenario's train events, RUIE's NDCG@10 on that scenario's test events
against RUIE trained on that scenario alone, and against RUIE with gate = 1. In ``blank``, where Q can learn nothing, gate and no gate must be
equivalent. World and first weights change with the seed; intervals are Student's over the seeds' paired differences. Beside them, and not judged, what
explains a loss: the gate's monitors; the same comparison with other gates and other rankers, where the scenarios agree, after four times the passes,
and with four times the users. Rows are stored like any results
(experiment ``claims``); a claim that fails is shown as such, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))
from over_seeds import Claim, Page, judge, no_loss, publish, same
from ruie_worlds import SMALL, WORLDS, tables

from reelrank.evaluation.ranking import ndcg_from_ranks
from reelrank.options import digest
from reelrank.pipelines.ruie.fitting import SequenceTables, popularity, predict, train
from reelrank.pipelines.ruie.run_options import (
    Cell,
    LearningOptions,
    RankingOptions,
    RuieModels,
    changed_options,
)
from reelrank.pipelines.ruie.studies import thinned
from reelrank.reports.page import Section, Table, plain_table
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
MARGIN = 0.02  # NDCG@10 below which a difference counts as none
SHARES = (0.01, 0.05, 0.1, 0.25, 1.0)
USERS = 240
MORE = 4  # times the passes, or the users: is a loss for want of steps or of events?
FEW = 0.25  # of the small scenario's events: what more passes change where the loss is largest
K = 10
MODELS = RuieModels.model_validate(
    {
        "ruie": {
            "backbone": {"name": "nextitnet", "dim": 16, "dilations": [1]},
            "heads": 2,
            "softmax_negatives": None,
        }
    }
)
LEARNING = LearningOptions(length=20, validation_targets=200)
TRAINING = TrainOptions(epochs=12, batch_size=32, lr=0.01, lr_min=1e-3, weight_decay=0.0, patience=12, device="cpu")  # fmt: skip
RANKING = RankingOptions(sampled=20)
NO_GATE: dict[str, Any] = {"gate": {"form": "none"}}
MONITORS = ("gate_at_high", "p_sd", f"gate_mean_{1 - SMALL}", f"gate_mean_{SMALL}", f"loss_share_{SMALL}")  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A configuration, and how much it learns from.

    Attributes:
        cell: configuration.
        users: of the world.
        passes: over its log.
    """

    cell: Cell
    users: int = USERS
    passes: int = TRAINING.epochs


def cells() -> dict[str, dict[str, Trained]]:
    """World → name → what is trained."""
    found: dict[str, Trained] = {}
    for share in SHARES:
        own = partial(Cell, scenario=SMALL, share=share)
        three = {"joint": own(), "alone": own(alone=True), "gate = 1": own(model=NO_GATE)}
        found |= {f"{name} {share:.0%}": Trained(cell) for name, cell in three.items()}
    found["other gate 100%"] = Trained(Cell(model={"gate": {"normalise": "none"}}))
    found["ranks by backbone 100%"] = Trained(Cell(model={"ranks_by": "backbone"}))
    pair = {"joint": Cell(), "alone": Cell(scenario=SMALL, alone=True)}
    for name, cell in pair.items():
        found[f"{name}, {MORE} × the passes"] = Trained(cell, passes=MORE * TRAINING.epochs)
        found[f"{name}, {MORE} × the users"] = Trained(cell, users=MORE * USERS)
        few = cell.model_copy(update={"scenario": SMALL, "share": FEW})
        found[f"{name}, {MORE} × the passes, {FEW:.0%}"] = Trained(
            few, passes=MORE * TRAINING.epochs
        )
    return {
        "opposed": found,
        "alike": {f"{name} 100%": Trained(cell) for name, cell in pair.items()},
        "blank": {"joint 100%": Trained(Cell()), "gate = 1 100%": Trained(Cell(model=NO_GATE))},
    }


@dataclass(frozen=True)
class Measured:
    """One model on one seed.

    Attributes:
        small: NDCG@10 on the small scenario's test events.
        large: on the large one's; NaN where it was not learnt.
        n: test events of the small scenario.
        monitors: of the last epoch; none where nothing could be trained.
    """

    small: float
    large: float
    n: int
    monitors: dict[str, float]


def measure(job: tuple[str, str, Trained, int]) -> Measured:
    """Train a configuration on a seed's world and judge it."""
    world, _, trained, seed = job
    made = tables(world, seed, trained.users)
    made = replace(made, events=thinned(made, trained.cell, seed))
    pairs = made.events.filter(split="train").group_by("user_id").len().filter(pl.col("len") > 1)
    if (
        pairs.is_empty()
    ):  # nothing follows from anything: what is left of a model is how often items were met
        checkpoint = popularity(made, MODELS.popularity, LEARNING.length)
        monitors: dict[str, float] = {}
    else:
        checkpoint, monitors = _fitted(made, trained, seed)
    test = predict(checkpoint, made, RANKING, "cpu").filter(split="test")
    value = ndcg_from_ranks(test["rank"].to_numpy(), np.arange(test.height), 1, K)[1]
    small = (test["scenario"] == SMALL).to_numpy()
    return Measured(
        float(value[small].mean()),
        float(value[~small].mean()) if (~small).any() else float("nan"),
        int(small.sum()),
        monitors,
    )


def _fitted(made: SequenceTables, trained: Trained, seed: int) -> tuple[ModelCheckpoint, dict[str, float]]:  # fmt: skip
    """A model, and its monitors in the last epoch."""
    options = {"seed": seed, "epochs": trained.passes, "patience": trained.passes}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, history = train(
            "ruie",
            made,
            model=changed_options(MODELS, trained.cell),
            learning=LEARNING,
            training=TRAINING.model_copy(update=options),
            ranking=RANKING,
            work_dir=Path(folder),
        )
    return checkpoint, {m: float(history[f"train_{m}"][-1]) for m in MONITORS}


def claims() -> list[Claim]:
    """All of them; a rule of None: shown, not judged."""
    found = []
    for share in SHARES:
        name = f"{share:.0%}"
        found += [
            Claim("opposed", (f"joint {name}", f"alone {name}"), f"no loss against the small scenario alone, {name} of its events", no_loss(MARGIN)),
            Claim("opposed", (f"joint {name}", f"gate = 1 {name}"), f"the gate does no harm, {name} of the events", no_loss(MARGIN)),
        ]  # fmt: skip
    for other in ("other gate 100%", "ranks by backbone 100%"):
        found.append(Claim("opposed", (other, "joint 100%"), other.removesuffix(" 100%"), None))
    for more in (f"{MORE} × the passes", f"{MORE} × the users", f"{MORE} × the passes, {FEW:.0%}"):
        found.append(Claim("opposed", (f"joint, {more}", f"alone, {more}"), f"against the small scenario alone, {more} on both sides", None))  # fmt: skip
    found.append(Claim("alike", ("joint 100%", "alone 100%"), "against the small scenario alone, where scenarios agree", None))  # fmt: skip
    found.append(Claim("blank", ("joint 100%", "gate = 1 100%"), "gate and no gate are equivalent where Q can learn nothing", same(MARGIN)))  # fmt: skip
    return found


def models_table(found: dict[tuple[str, str], list[Measured]]) -> Table:
    """Every model's means over the seeds."""
    values = [
        [world, name, *(float(np.mean([getattr(m, side) for m in own])) for side in ("small", "large")),
         *(float(np.mean([m.monitors.get(monitor, np.nan) for m in own])) for monitor in MONITORS)]
        for (world, name), own in found.items()
    ]  # fmt: skip
    return plain_table(
        "Every model, mean over the seeds", ["world", "model", "small", "large", *(m.replace("_", " ") for m in MONITORS)], values
    )  # fmt: skip


_CAUSE = (
    "The gate's mean is 1 within each scenario of a batch, so that a scenario's share of the gated loss is its share of the events, whatever Q "
    "says: the gate moves weight among a scenario's own events, from those whose scenario came as a surprise to those where it was expected. Where "
    "the large scenario's share is near the upper clip's 1 − 1/10, its events all stand at the clip and weigh alike.\n\n"
    "Whether a loss is interference between opposed tastes, or a model that has not yet learnt to tell the scenarios apart, shows in the pairs with "
    "more passes or more users on both sides: interference would stay, want of training goes."
)


def main() -> int:
    """Judge every claim, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    if len(given.seeds) < 2:
        parser.error("an interval needs at least two seeds")
    jobs = [
        (world, name, trained, seed)
        for world, own in cells().items()
        for name, trained in own.items()
        for seed in given.seeds
    ]
    found: dict[tuple[str, str], list[Measured]] = {}
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        for (world, name, _, seed), measured in zip(jobs, pool.map(measure, jobs), strict=True):
            found.setdefault((world, name), []).append(measured)
            log.info("%s %s seed %d: %.4f", world, name, seed, measured.small)
    for (world, name), own in found.items():
        means = {
            m: round(float(np.mean([o.monitors.get(m, np.nan) for o in own])), 3) for m in MONITORS
        }
        log.warning("%s %s: small %.4f, large %.4f, %s", world, name, np.mean([o.small for o in own]), np.mean([o.large for o in own]), means)  # fmt: skip
    judged = []
    for claim in claims():
        pair = [found[claim.world, name] for name in claim.pair]
        own, other = ([m.small for m in measured] for measured in pair)
        judged.append(judge(claim, own, other, metric=f"ndcg@{K}", n=sum(m.n for m in pair[0]), group="small"))  # fmt: skip
    page = Page(
        "claims_ruie", "Claims on RUIE", " ".join(f"{name}: {w.reason}." for name, w in WORLDS.items()),
        ("Small scenario", "Differences in NDCG@10 on the small scenario's test events."),
        [Section("What the gate did", _CAUSE, tables=[models_table(found)])], "python claims/ruie.py",
    )  # fmt: skip
    config_hash = digest(MARGIN, list(SHARES), TRAINING.model_dump(mode="json"), MODELS.ruie.model_dump(mode="json"))  # fmt: skip
    return publish(
        judged, page, given.data, system="ruie", seed=given.seeds[0], config_hash=config_hash, source="planted", split="last_events/test"
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    sys.exit(main())
