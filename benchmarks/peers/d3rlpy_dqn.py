"""d3rlpy as a servant of ``benchmarks/dqn_update.py``: reads one JSON order a line, answers with one JSON line.

Runs in an environment of its own; see ``make_peer`` there. Batches are drawn by d3rlpy's own ``sample_transition_batch``, updates made by its own ``update``.
"""

# ruff: noqa: ANN401, E402 - d3rlpy has no types, and its import prints
import argparse
import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
ORDERS = os.fdopen(os.dup(1), "w")  # answers; whatever d3rlpy prints goes to stderr
os.dup2(2, 1)

import d3rlpy
import numpy as np
import torch
from d3rlpy.models.encoders import VectorEncoderFactory


def build(given: argparse.Namespace, log: Any) -> tuple[Any, Any]:
    dataset = d3rlpy.dataset.MDPDataset(
        log["observations"], log["actions"][:, None], log["rewards"], log["terminals"],
        action_space=d3rlpy.ActionSpace.DISCRETE, action_size=given.actions,
    )  # fmt: skip
    kind = d3rlpy.algos.DoubleDQNConfig if given.double else d3rlpy.algos.DQNConfig
    config = kind(
        batch_size=given.batch, encoder_factory=VectorEncoderFactory([given.hidden, given.hidden]),
        target_update_interval=given.target_every, learning_rate=given.lr, gamma=given.gamma,
    )  # fmt: skip
    learner = config.create(device="cpu")
    learner.build_with_dataset(dataset)
    return dataset, learner


def parameters(learner: Any) -> list[torch.nn.Parameter]:
    """Of the Q-function, weights and biases of its layers in order."""
    return list(learner.impl.q_function.parameters())


def run(order: dict[str, Any], dataset: Any, learner: Any, given: argparse.Namespace) -> Any:
    if order["do"] == "steps":
        started = time.perf_counter()
        for _ in range(order["n"]):
            learner.update(dataset.sample_transition_batch(given.batch))
        return {"seconds": time.perf_counter() - started}
    if order["do"] == "check":  # weights before and after an update of one batch, and its loss
        before = [p.detach().numpy().copy() for p in parameters(learner)]
        batch = dataset.sample_transition_batch(given.batch)
        answer = learner.update(batch)
        after = [p.detach().numpy().copy() for p in parameters(learner)]
        np.savez(
            order["file"], loss=answer["loss"], observations=batch.observations, actions=batch.actions,
            rewards=batch.rewards, next_observations=batch.next_observations, terminals=batch.terminals,
            **{f"before_{i}": w for i, w in enumerate(before)}, **{f"after_{i}": w for i, w in enumerate(after)},
        )  # fmt: skip
        return {"n": len(before)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"version": d3rlpy.__version__, "peak_rss_mb": round(peak)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path)
    for name in ("batch", "actions", "hidden", "target-every", "threads"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("lr", "gamma"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--double", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    dataset, learner = build(given, np.load(given.log))
    for line in sys.stdin:
        ORDERS.write(json.dumps(run(json.loads(line), dataset, learner, given)) + "\n")
        ORDERS.flush()


if __name__ == "__main__":
    main()
