"""Scoring one request's 400 candidates with MMRF's seven actors: eagerly, as an exported program, and compiled where a C++ compiler is there.

    python benchmarks/mmrf_scoring.py [--candidates 400] [--requests 500] [--threads 1] [--device cpu] [--eager-only] [--processor-time]

Timed is one request at a time, from its tensors to the scores on the CPU; rounds of 100 requests of each program and of the peer alternate. The peer is the
same networks in a loop over agents (``mmrf_update``), run eagerly. ``ours`` and ``peer`` are the eager p99; ``agrees``: all programs and the
peer give the same scores to 1e-5. ``--processor-time`` counts what the process itself took: the only figure that means something on a busy machine.
"""

import argparse
import json
import resource
import shutil
import time

import numpy as np
import torch
from mmrf_update import SPEC, LoopedActors, random_batch
from torch import nn

from reelrank.models.feed import FeedBatch
from reelrank.pipelines.mmrf.actors import MMRFActors
from reelrank.pipelines.mmrf.options import ActorOptions
from reelrank.pipelines.mmrf.serving import (
    COMPILER,
    MB,
    QUANTILES,
    peak_bytes,
    programs,
    threads,
    timed,
)

ROUND = 100


class Ranking(nn.Module):
    """The looped actors as a policy."""

    def __init__(self, actors: LoopedActors) -> None:
        super().__init__()
        self.actors = actors

    def scores(self, batch: FeedBatch) -> torch.Tensor:
        return self.actors(batch).logits[-1]


def quantiles(ms: list[np.ndarray]) -> dict[str, float]:
    every = np.concatenate(ms)
    return {metric: round(float(np.quantile(every, q)), 3) for metric, q in QUANTILES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=400)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--eager-only", action="store_true")
    parser.add_argument("--processor-time", action="store_true")
    given = parser.parse_args()
    clock = time.process_time if given.processor_time else time.perf_counter
    torch.manual_seed(0)
    options = ActorOptions()
    ours = MMRFActors(options, SPEC).eval()
    peer = Ranking(LoopedActors(ours)).eval().to(given.device)
    ours.to(given.device)
    requests = [
        random_batch(1, given.candidates, options.encoder.history).to(given.device)
        for _ in range(ROUND)
    ]
    wanted = ["eager"]
    if not given.eager_only:
        wanted += ["exported"] + ["compiled"] * (shutil.which(COMPILER) is not None)
    spent: dict[str, list[np.ndarray]] = {}
    with threads(given.threads), torch.no_grad():
        ways = {**programs(ours, requests[0], wanted), "looped": peer.scores}
        eager = [ours.scores(r) for r in requests]
        error = max(
            float((way(r) - known).abs().max())
            for way in ways.values()
            for r, known in zip(requests, eager, strict=True)
        )
        for number in range(max(1, given.requests // ROUND)):
            for name, way in ways.items():
                spent.setdefault(name, []).append(
                    timed(way, requests, ROUND if not number else 5, clock)
                )
            print(f"round {number}: " + ", ".join(f"{n} p50 {np.median(v[-1]):.2f} ms" for n, v in spent.items()))  # fmt: skip
    found = {name: quantiles(ms) for name, ms in spent.items()}
    looped = found.pop("looped")
    line = {
        "name": "mmrf_scoring",
        "ours": found["eager"]["latency_p99_ms"],
        "peer": looped["latency_p99_ms"],
        "ratio": round(looped["latency_p99_ms"] / found["eager"]["latency_p99_ms"], 2),
        "unit": f"ms{' of processor time' * given.processor_time}, p99 of one request",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": error < 1e-5,
        "programs": found,
        "looped": looped,
        "score_error": error,
        "weights_mb": round(sum(p.numel() * p.element_size() for p in ours.parameters()) / MB, 2),
        "activations_mb": round(peak_bytes(ours, requests[0]) / MB, 2),
        "candidates": given.candidates,
        "agents": len(options.agents),
        "requests": sum(map(len, spent["eager"])),
        "threads": given.threads,
        "device": given.device,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
