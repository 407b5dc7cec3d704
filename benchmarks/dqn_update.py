"""Offline Q-learning against d3rlpy 2.8.1's: update steps a second, sampling included (state 128, batch 256, 256-256, 20 actions).

    python benchmarks/dqn_update.py [--double] [--steps 400] [--rounds 5] [--threads 2] [--peer build/d3rlpy]

Ours is MT-DQN's own target, maximum and cap (``mt_dqn.losses``) over whole tensors: batches up to the next copy of the target net are drawn at once, and what the
frozen target net says of them is one product instead of one a step; fused Adam. d3rlpy lives in an environment of its own, ``build/d3rlpy``, made on the first call, as a process
that rounds alternate with. ``agrees``: from d3rlpy's weights and batch our first update has its loss, and its weights afterwards.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, Self

os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it starts, on both sides

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.pipelines.mt_dqn.losses import best_next, td_target

HERE = Path(__file__).parent
PEER = HERE.parent / "build" / "d3rlpy"
TORCH = "torch==2.13.0"  # first: whatever follows leaves its build alone
PEER_PACKAGES = ("d3rlpy==2.8.1",)
UNCAPPED = 1e9  # d3rlpy does not cap targets


class Transitions(NamedTuple):
    """N rows: state (N, S), action (N,), reward (N,), next state (N, S), goes_on (N,) float."""

    state: Tensor
    action: Tensor
    reward: Tensor
    next_state: Tensor
    goes_on: Tensor


def q_network(state: int, hidden: int, actions: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(state, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, actions)
    )  # fmt: skip


class Learner:
    """Deep Q-learning from a log that fits into memory."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.q = q_network(given.state, given.hidden, given.actions)
        self.target = deepcopy(self.q).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.q.parameters(), lr=given.lr, fused=True)
        self.all_actions = torch.ones(given.batch, given.actions, dtype=torch.bool)

    def update(self, batch: Transitions, q_target: Tensor) -> Tensor:
        """One step; ``q_target`` (B, A): what the target net says of the next states."""
        q_main = None
        if self.given.double:
            with torch.no_grad():
                q_main = self.q(batch.next_state)
        value = best_next(q_target, self.all_actions[: len(q_target)], q_main)
        y = td_target(batch.reward, value * batch.goes_on, self.given.gamma, UNCAPPED)
        q = self.q(batch.state).gather(1, batch.action.unsqueeze(1)).squeeze(1)
        loss = F.huber_loss(q, y)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def steps(self, log: Transitions, n: int) -> None:
        """Updates on random batches; the target net is copied every ``target_every``."""
        for start in range(0, n, self.given.target_every):
            self.target.load_state_dict(self.q.state_dict())
            count = min(self.given.target_every, n - start)
            rows = torch.randint(len(log.action), (count, self.given.batch))
            with torch.no_grad():
                drawn = Transitions(*(column[rows] for column in log))
                q_target = self.target(drawn.next_state)
            for i in range(count):
                self.update(Transitions(*(column[i] for column in drawn)), q_target[i])


def random_log(given: argparse.Namespace) -> dict[str, np.ndarray]:
    """Episodes of 20 rows of noise: time does not depend on what is learnt."""
    rng = np.random.default_rng(0)
    terminals = np.zeros(given.rows, np.float32)
    terminals[19::20] = 1
    return {
        "observations": rng.normal(size=(given.rows, given.state)).astype(np.float32),
        "actions": rng.integers(0, given.actions, given.rows),
        "rewards": rng.normal(size=given.rows).astype(np.float32),
        "terminals": terminals,
    }


def transitions(log: dict[str, np.ndarray]) -> Transitions:
    state = torch.from_numpy(log["observations"])
    following = torch.arange(1, len(state) + 1).clamp_max(len(state) - 1)
    goes_on = 1 - torch.from_numpy(log["terminals"])
    return Transitions(
        state, torch.from_numpy(log["actions"]), torch.from_numpy(log["rewards"]), state[following], goes_on
    )  # fmt: skip


def make_peer(folder: Path) -> Path:
    """d3rlpy's Python, made if it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for packages in ((TORCH,), PEER_PACKAGES):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


class Peer:
    """d3rlpy's process: an order is a call."""

    def __init__(self, log: Path, given: argparse.Namespace) -> None:
        named = ("batch", "actions", "hidden", "target_every", "threads", "lr", "gamma")
        options = [str(part) for n in named for part in (f"--{n.replace('_', '-')}", getattr(given, n))]  # fmt: skip
        command = [make_peer(given.peer), HERE / "peers" / "d3rlpy_dqn.py", "--log", log, *options]
        self.process = subprocess.Popen(
            [str(part) for part in command] + ["--double"] * given.double, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=log.parent,
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
            raise RuntimeError(f"d3rlpy died at {do}: see its messages above")
        return json.loads(line)


def update_error(given: argparse.Namespace, peer: Peer, file: Path) -> dict[str, float]:
    """Relative difference of the loss, and of what one update moves the weights by, from the peer's weights and batch."""
    peer("check", file=str(file))
    found = np.load(file)
    ours = Learner(given)
    own = list(ours.q.parameters())
    before, after = ([torch.from_numpy(found[f"{when}_{i}"]) for i in range(len(own))] for when in ("before", "after"))  # fmt: skip
    with torch.no_grad():
        for parameter, weight in zip(own, before, strict=True):
            parameter.copy_(weight)
    ours.target.load_state_dict(ours.q.state_dict())
    columns = ("observations", "actions", "rewards", "next_observations", "terminals")
    state, action, reward, following, terminal = (torch.from_numpy(np.asarray(found[c])) for c in columns)  # fmt: skip
    batch = Transitions(state, action.view(-1).long(), reward.view(-1), following, 1 - terminal.view(-1))  # fmt: skip
    loss = float(ours.update(batch, ours.target(following)))
    moved = sum(float((p.detach() - b).square().sum()) for p, b in zip(own, before, strict=True))
    apart = sum(float((p.detach() - a).square().sum()) for p, a in zip(own, after, strict=True))
    return {
        "loss": abs(loss - float(found["loss"])) / abs(float(found["loss"])),
        "update": (apart / moved) ** 0.5,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--actions", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--target-every", type=int, default=100)
    parser.add_argument("--lr", type=float, default=6.25e-5, help="d3rlpy's default")
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--double", action="store_true", help="double Q on both sides")
    parser.add_argument("--steps", type=int, default=400, help="a round, on both sides")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", type=Path, default=PEER, help="folder of d3rlpy's environment")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    arrays = random_log(given)
    log, ours = transitions(arrays), Learner(given)
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "log.npz", **arrays)
        with Peer(Path(folder) / "log.npz", given) as peer:
            error = update_error(given, peer, Path(folder) / "check.npz")
            ours.steps(log, given.target_every)  # first touch of memory
            peer("steps", n=50)
            for round_ in range(given.rounds):
                started = time.perf_counter()
                ours.steps(log, given.steps)
                rates["ours"].append(given.steps / (time.perf_counter() - started))
                rates["peer"].append(given.steps / peer("steps", n=given.steps)["seconds"])
                print(f"round {round_}: ours {rates['ours'][-1]:.0f}, d3rlpy {rates['peer'][-1]:.0f} steps/s", flush=True)  # fmt: skip
            about = peer("about")
    ratios = [o / p for o, p in zip(rates["ours"], rates["peer"], strict=True)]
    line = {
        "name": "dqn_update",
        "ours": round(statistics.median(rates["ours"]), 1),
        "peer": round(statistics.median(rates["peer"]), 1),
        "ratio": round(statistics.median(ratios), 2),
        "unit": "steps/s",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": max(error.values()) < 1e-2,
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "error": error,
        "double": given.double,
        "batch": given.batch,
        "threads": given.threads,
        "d3rlpy": about["version"],
        "peer_peak_rss_mb": about["peak_rss_mb"],
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
