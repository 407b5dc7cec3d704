"""SASRec, GRU4Rec and NextItNet against RecBole 1.2.1's: positions trained per second, NDCG@10, users ranked per second.

    python benchmarks/sequential.py [--parts speed quality ranking] [--models sasrec gru4rec nextitnet] [--threads 2] [--rounds 3]
    python benchmarks/sequential.py --parts agreement [--seeds 5]

20,000 users, 50,000 items, 1 M events, histories of 50, d = 64; the last event of a user is test, the one before it valid, as RecBole splits.
RecBole runs in an environment of its own, ``build/recbole``, that is made on the first call (a few minutes, from the package index), as
a process that both sides' rounds alternate with. Both sides have the same sizes and dropout; RecBole trains one position a sample with a
softmax over all items, as it does out of the box; ours all positions of half-overlapping windows with 1,024 items shared by a step.

- ``speed``: positions a second of whole training steps, optimiser included (ours by ``training.loop.fit``); ratio of each round.
- ``quality``: test NDCG@10 after the same wall time: ours learns for ``--passes`` passes and chooses its pass on valid; RecBole is given as much time for
  training alone. Both learn at each of ``--rates``, and valid chooses the rate on each side.
- ``ranking``: full ranking of the test events, encoder included: users a second, by the clock and by processor time; ours with the growth of its memory.
- ``agreement``: a smaller log (400 users, 200 items, 8,000 events, histories of 10) on which RecBole, too, is trained to the end: up to 20 passes with
  patience 4 and Adam's rate at 1e-3 throughout on both sides. Paired by seed of the weights; ``agrees``: ours is not more than two standard errors below.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it starts, on both sides

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from reelrank.evaluation.ranking import ndcg_from_ranks
from reelrank.models import registry
from reelrank.models.sequence_data import Sequences
from reelrank.options import Options
from reelrank.pipelines.ruie import baselines  # noqa: F401 (registers)
from reelrank.pipelines.ruie.learning import examples, learn
from reelrank.pipelines.ruie.options import GRU4RecOptions, NextItNetOptions, SASRecOptions
from reelrank.pipelines.ruie.protocol import SequenceModel, SequenceSpec
from reelrank.pipelines.ruie.ranking import rank_targets, target_positions
from reelrank.pipelines.ruie.run_options import LearningOptions, RankingOptions
from reelrank.training.loop import fit
from reelrank.training.options import TrainOptions

HERE = Path(__file__).parent
PEER = HERE.parent / "build" / "recbole"
PEER_PACKAGES = ("recbole==1.2.1", "numpy<2", "pandas<2.3", "scipy<1.12", "setuptools<81")
TORCH = "torch==2.13.0"  # first: whatever follows leaves its build alone
WANTED = {"speed": 50, "ranking": 4}


class Sides(NamedTuple):
    """A model on both sides, with the same sizes."""

    ours: Options
    peer: str
    peer_options: dict[str, Any]


MODELS = {
    "sasrec": Sides(
        SASRecOptions(), "SASRec", {"hidden_size": 64, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2}
    ),
    "gru4rec": Sides(GRU4RecOptions(), "GRU4Rec", {"embedding_size": 64, "hidden_size": 128}),
    "nextitnet": Sides(NextItNetOptions(), "NextItNet", {"embedding_size": 64, "dilations": [1, 2], "block_num": 3}),
}  # fmt: skip


class Size(NamedTuple):
    """Of a generated log, and how both sides learn from it; ``batch``: positions a step of the peer, ``windows``: of ours."""

    users: int
    items: int
    events: int
    length: int
    batch: int
    windows: int


FULL = Size(20_000, 50_000, 1_000_000, 50, 2048, 256)  # windows as in conf/real
SMALL = Size(400, 200, 8_000, 10, 256, 32)
TINY = Size(300, 200, 6_000, 10, 256, 16)


def generate(size: Size, seed: int = 7) -> pl.DataFrame:
    """Long-tailed items in topics; a user has three topics, and three in ten events follow from the event before.

    Returns:
        row_id, user_id, item, ts_ms, split and the columns that :class:`Sequences` reads, in the order of user and time.
    """
    rng = np.random.default_rng(seed)
    n_topics = max(5, size.items // 500)
    popularity = 1 / (np.arange(size.items) + 20) ** 0.9
    topic = rng.integers(0, n_topics, size.items)
    order = np.argsort(topic, kind="stable")
    start = np.searchsorted(topic[order], np.arange(n_topics + 1))
    cumulative = np.append(0.0, np.cumsum(popularity[order]))

    def drawn(low: npt.NDArray[Any], high: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An item by popularity among ``order[low:high]``."""
        point = cumulative[low] + rng.random(len(low)) * (cumulative[high] - cumulative[low])
        return order[np.clip(np.searchsorted(cumulative, point, side="right") - 1, low, high - 1)]

    def of_topic(which: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return drawn(start[which], start[which + 1])

    follows = np.stack([of_topic(topic) for _ in range(3)], axis=1)
    activity = rng.lognormal(0, 0.9, size.users)
    activity = 8 + activity / activity.sum() * (size.events - 8 * size.users)
    count = np.minimum(np.floor(activity), 800).astype(np.int64)
    np.add.at(count, rng.integers(0, size.users, size.events - int(count.sum())), 1)
    tastes = rng.integers(0, n_topics, (size.users, 3))
    by_count = np.argsort(-count, kind="stable")
    first = np.cumsum(count) - count
    item = np.empty(size.events, np.int64)
    before = np.zeros(size.users, np.int64)
    for step in range(int(count.max())):
        users = by_count[: np.searchsorted(-count[by_count], -step)]  # who have more events
        kind, n = rng.random(len(users)), len(users)
        own = of_topic(tastes[users, rng.integers(0, 3, n)])
        any_item = drawn(np.zeros(n, np.int64), np.full(n, size.items))
        next_item = follows[before[users], rng.integers(0, 3, n)]
        chosen = np.where((kind < 0.3) & (step > 0), next_item, np.where(kind < 0.8, own, any_item))
        item[first[users] + step] = before[users] = chosen
    user = np.repeat(np.arange(size.users), count)
    place = np.arange(size.events) - first[user]
    left = count[user] - place
    known = np.unique(item, return_inverse=True)[1]  # RecBole knows items that occur
    return pl.DataFrame(
        {
            "row_id": np.arange(size.events), "user_id": user, "item": known, "scenario": 0, "ts_ms": place,
            "split": np.array(["train", "val", "test"])[np.where(left == 1, 2, np.where(left == 2, 1, 0))],
            "click": 1, "like": 0, "follow": 0, "forward": 0,
        }
    )  # fmt: skip


def make_peer(folder: Path) -> Path:
    """RecBole's Python, made if it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for packages in ((TORCH,), PEER_PACKAGES):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


class Peer:
    """RecBole's process: an order is a call."""

    def __init__(self, name: str, size: Size, folder: Path, given: argparse.Namespace) -> None:
        sides = MODELS[name]
        command = [
            make_peer(given.peer), HERE / "peers" / "recbole_sequential.py",
            "--model", sides.peer, "--data", folder, "--name", "log", "--length", size.length,
            "--batch", size.batch, "--threads", given.threads, "--options", json.dumps(sides.peer_options),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE if given.quiet else None,
            text=True, cwd=folder,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def __call__(self, do: str, **order: object) -> dict[str, Any]:
        self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"RecBole died at {do}: see its messages above")
        return json.loads(line)


class Ours:
    """A model, its log and how it learns."""

    def __init__(self, name: str, size: Size, events: pl.DataFrame) -> None:
        self.name, self.size = name, size
        n_items = int(events["item"].max()) + 1
        self.log = Sequences.from_frame(events, size.users, n_items, 1)
        self.available = np.zeros(n_items, np.int64)
        self.ranking = RankingOptions()
        self.learning = LearningOptions(length=size.length, validation_targets=5_000)

    def model(self, seed: int = 0) -> SequenceModel:
        torch.manual_seed(seed)
        spec = SequenceSpec.of(self.log, self.size.length)
        return registry.build(self.name, MODELS[self.name].ours, spec, SequenceModel)

    def training(self, **changes: object) -> TrainOptions:
        fixed = {"batch_size": self.size.windows, "lr": 1e-3, "lr_min": 1e-5, "weight_decay": 0.0, "checkpoint_every_steps": 10**9, "device": "cpu"}  # fmt: skip
        return TrainOptions(**(fixed | changes))

    def speed(self, steps: int) -> tuple[int, float]:
        """Positions and seconds of some steps of the training loop."""
        model = self.model()
        rows, step = examples(model, self.log, 0, self.size.windows)
        rows = rows[: steps * self.size.windows]
        positions = sum(int(step.batch(part).mask.sum()) for part in rows.split(4096))
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            fit(
                model, rows, step_fn=step, validate_fn=lambda _: {"none": 0.0}, options=self.training(epochs=1),
                work_dir=Path(folder), identity={},
            )  # fmt: skip
            return positions, time.perf_counter() - started

    def fit(
        self, seed: int, passes: int, patience: int, **changes: object
    ) -> tuple[SequenceModel, int, float]:
        """Best weights by valid, passes and seconds."""
        model = self.model(seed)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            found = learn(
                model, self.log, self.available, learning=self.learning,
                training=self.training(epochs=passes, patience=patience, seed=seed, **changes),
                ranking=self.ranking, work_dir=Path(folder), identity={},
            )  # fmt: skip
            return model, found.history.height, time.perf_counter() - started

    def evaluate(self, model: SequenceModel, users: int | None = None, part: str = "test") -> dict[str, float]:  # fmt: skip
        """NDCG@10 of a part's events in full ranking."""
        positions = target_positions(self.log, part)[:users]
        model.eval()
        started, processor = time.perf_counter(), time.process_time()
        rank = rank_targets(model, self.log, positions, self.available, self.ranking, sample=False).rank  # fmt: skip
        ndcg = float(ndcg_from_ranks(rank, np.arange(len(rank)), 1, 10)[1].mean())
        return {
            "users": len(rank),
            "seconds": time.perf_counter() - started,
            "processor_s": time.process_time() - processor,
            "ndcg@10": ndcg,
        }


def write_log(events: pl.DataFrame, folder: Path) -> None:
    """RecBole's file."""
    (folder / "log").mkdir(parents=True)
    columns = {"user_id": "user_id:token", "item": "item_id:token", "ts_ms": "timestamp:float"}
    named = events.select(*columns).rename(columns)
    named.write_csv(folder / "log" / "log.inter", separator="\t")


def popularity_ndcg(events: pl.DataFrame) -> float:
    """NDCG@10 of the most popular items: what is learnt without a history."""
    train, test = (events.filter(split=split)["item"].to_numpy() for split in ("train", "test"))
    count = np.bincount(train, minlength=int(events["item"].max()) + 1)
    own = count[test]
    ordered = np.sort(count)
    higher = len(ordered) - np.searchsorted(ordered, own, side="right")
    tied = np.searchsorted(ordered, own, side="right") - np.searchsorted(ordered, own, side="left")
    rank = 1 + higher + 0.5 * (tied - 1)
    return float(np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0).mean())


def ratios_of(ours: list[float], peer: list[float]) -> dict[str, Any]:
    """Rates of both sides, and their ratio round by round."""
    ratios = [o / p for o, p in zip(ours, peer, strict=True)]
    return {
        "ours": round(statistics.median(ours), 1),
        "peer": round(statistics.median(peer), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def speed(ours: Ours, peer: Peer, given: argparse.Namespace) -> dict[str, Any]:
    ours.speed(2)
    peer("learn", steps=1)  # first touch of memory
    mine, theirs = [], []
    for number in range(given.rounds):
        positions, seconds = ours.speed(given.steps)
        mine.append(positions / seconds)
        answer = peer("learn", steps=given.peer_steps)
        theirs.append(answer["positions"] / answer["seconds"])
        print(f"{ours.name} round {number}: ours {mine[-1]:,.0f}, RecBole {theirs[-1]:,.0f} positions/s", flush=True)  # fmt: skip
    return ratios_of(mine, theirs) | {"unit": "positions/s", "positions_a_step": round(positions / given.steps)}  # fmt: skip


def ranking(ours: Ours, peer: Peer, given: argparse.Namespace) -> dict[str, Any]:
    model = ours.model()
    ours.evaluate(model, 200)  # compiles
    before = rss_mb()
    mine, theirs, by_processor = [], [], []
    for number in range(given.rounds):
        found = ours.evaluate(model)
        mine.append(found["users"] / found["seconds"])
        answer = peer("evaluate", part="test", users=given.users)
        theirs.append(answer["users"] / answer["seconds"])
        cost = [side["processor_s"] / side["users"] for side in (answer, found)]
        by_processor.append(cost[0] / cost[1])
        print(f"{ours.name} round {number}: ours {mine[-1]:,.0f}, RecBole {theirs[-1]:,.0f} users/s", flush=True)  # fmt: skip
    return ratios_of(mine, theirs) | {
        "unit": "users/s",
        "ratio_of_processor_time": round(statistics.median(by_processor), 2),
        "ours_rss_growth_mb": round(rss_mb() - before),
    }


def quality(ours: Ours, peer: Peer, given: argparse.Namespace) -> dict[str, Any]:
    by_rate: dict[str, dict[str, Any]] = {}
    for lr in given.rates:
        model, passes, seconds = ours.fit(0, given.passes, patience=given.passes, lr=lr)
        mine = {part: ours.evaluate(model, part=part)["ndcg@10"] for part in ("val", "test")}
        peer("begin", seed=0, lr=lr)
        trained = peer("learn", seconds=seconds)
        theirs = {part: peer("evaluate", part=part, users=sys.maxsize)["ndcg@10"] for part in ("valid", "test")}  # fmt: skip
        print(f"{ours.name} at {lr:g}: ours {mine['test']:.4f} after {seconds:.0f} s, RecBole {theirs['test']:.4f} after {trained['seconds']:.0f} s", flush=True)  # fmt: skip
        by_rate[f"{lr:g}"] = {
            "ours": [round(v, 5) for v in mine.values()], "peer": [round(v, 5) for v in theirs.values()],
            "seconds": round(seconds), "peer_seconds": round(trained["seconds"]), "passes": passes, "peer_positions": trained["positions"],
        }  # fmt: skip
    # a pair is (valid, test): the larger valid chooses
    best = {side: max(line[side] for line in by_rate.values())[1] for side in ("ours", "peer")}
    return {**best, "unit": "ndcg@10", "agrees": best["ours"] >= best["peer"], "by_rate": by_rate}


def agreement(ours: Ours, peer: Peer, given: argparse.Namespace) -> dict[str, Any]:
    mine, theirs = [], []
    for seed in range(given.seeds):
        # RecBole's rate does not fall
        model, passes, seconds = ours.fit(seed, given.passes_small, patience=4, lr_min=1e-3)
        mine.append(ours.evaluate(model)["ndcg@10"])
        answer = peer("fit", seed=seed, passes=given.passes_small, patience=4)
        theirs.append(answer["test"])
        print(f"{ours.name} seed {seed}: ours {mine[-1]:.4f} ({passes} passes, {seconds:.0f} s), RecBole {theirs[-1]:.4f} ({answer['passes']} passes, {answer['seconds']:.0f} s)", flush=True)  # fmt: skip
    difference = statistics.mean(mine) - statistics.mean(theirs)
    error = math.hypot(*(statistics.stdev(side) for side in (mine, theirs))) / math.sqrt(len(mine))
    return {
        "ours": round(statistics.mean(mine), 5),
        "peer": round(statistics.mean(theirs), 5),
        "unit": "ndcg@10",
        "agrees": difference >= -2 * error,
        "difference": round(difference, 5),
        "standard_error": round(error, 5),
        "ours_by_seed": [round(v, 5) for v in mine],
        "peer_by_seed": [round(v, 5) for v in theirs],
    }


RUN = {"speed": speed, "quality": quality, "ranking": ranking, "agreement": agreement}


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(RUN), default=list(RUN))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="ours, a round")
    parser.add_argument("--peer-steps", type=int, default=2, help="RecBole's, a round")
    parser.add_argument("--users", type=int, default=4096, help="that RecBole ranks, a round")
    parser.add_argument("--passes", type=int, default=3, help="ours, in quality")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 1e-2], help="Adam's, of both sides, in quality")  # fmt: skip
    parser.add_argument("--passes-small", type=int, default=20, help="at most, in agreement")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peer", type=Path, default=PEER, help="folder of RecBole's environment")
    parser.add_argument("--tiny", action="store_true", help="a tiny log: does it run?")
    parser.add_argument("--quiet", action="store_true", help="swallow RecBole's messages")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found: dict[str, dict[str, Any]] = {}
    at_full_size = [part for part in given.parts if part != "agreement"]
    groups = [(FULL, at_full_size), (SMALL, [p for p in given.parts if p == "agreement"])]
    for size, parts in groups:
        if not parts:
            continue
        made = TINY if given.tiny else size
        events = generate(made)
        with tempfile.TemporaryDirectory() as scratch:
            write_log(events, Path(scratch))
            print(f"popularity: NDCG@10 {popularity_ndcg(events):.4f} on {made}", flush=True)
            for name in given.models:
                ours = Ours(name, made, events)
                with Peer(name, made, Path(scratch), given) as peer:
                    peer("about")
                    for part in parts:
                        found[f"{part}_{name}"] = RUN[part](ours, peer, given)
                    found[f"{parts[0]}_{name}"] |= {"peer_peak_rss_mb": peer("about")["peak_rss_mb"]}  # fmt: skip
    for name, line in found.items():
        print(json.dumps({"cell": name, **line}))
    head = [line for name, line in found.items() if name.startswith("speed")] or list(found.values())  # fmt: skip
    line = {
        "name": "sequential",
        **{key: head[0][key] for key in ("ours", "peer", "unit")},
        "ratio": min((h["ratio"] for h in head if "ratio" in h), default=None),
        "peak_rss_mb": round(rss_mb()),
        "agrees": all(cell.get("agrees", True) for cell in found.values()),
        "asked": WANTED,
        "threads": given.threads,
        "cells": found,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
