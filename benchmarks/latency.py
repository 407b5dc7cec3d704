"""One request of 400 candidates with the published widths (6 layers, 12 heads, d = 768; graph of 3 layers): p50, p95, p99.

    python benchmarks/latency.py [--tokens 4 4 8] [--requests 300] [--peer-requests 3] [--threads 2]

Ours: the item side is precomputed (``compress.serving``), so that a request looks its user's graph up and runs the Q-network; teacher, student (2 layers,
d = 96) and the teacher in eight bits. The peer fuses the 400 candidates in one fp32 batch, then does the same. ``ratio`` = its median over the
teacher's; ``agrees``: equal scores to 1e-4. ``unseen``: all 400 are seen for the first time, so that ours fuses them, too. Weights are random: time does not depend on them.
Tokens are the sample world's by default; the published 16 + 16 + 64 (``--tokens 16 16 64``) make the peer about six times slower.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from copy import deepcopy

os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it starts, on both sides

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.policy import RankingModel
from reelrank.models.user_features import UserFeatures
from reelrank.pipelines.compress.compressed import fusion_of, memory_of
from reelrank.pipelines.compress.options import QuantisationOptions, StudentOptions
from reelrank.pipelines.compress.quantise import chosen, quantise_
from reelrank.pipelines.compress.serving import RequestScorer
from reelrank.pipelines.mt_dqn.model import MTDQN
from reelrank.pipelines.mt_dqn.options import MTDQNOptions
from reelrank.tables import FEEDBACKS

USERS, EVENTS, DAY_MS = 600, 60_000, 86_400_000
TOKEN_DIMS = (2048, 128, 768)  # ResNet-50, VGGish, BERT
STUDENT = StudentOptions(
    fusion={"d_model": 96, "layers": 2, "heads": 4, "d_f": 96},
    tgnn={"d_h": 96, "layers": 1, "fanout": (10,), "time_dim": 16},
    head={"hidden": (128, 64), "value_hidden": 64},
)


def generated(n_items: int, token_lengths: tuple[int, ...], seed: int = 0) -> ModelInputs:
    """A log of a week with random videos."""
    rng = np.random.default_rng(seed)
    ts = 1_650_000_000_000 + np.sort(rng.integers(0, 7 * DAY_MS, EVENTS))
    events = pl.DataFrame(
        {
            "user_id": rng.integers(0, USERS, EVENTS),
            "item_id": rng.integers(0, n_items, EVENTS),
            "ts_ms": ts,
            "split": np.where(ts < ts[0] + 6 * DAY_MS, "train", "test"),
            "is_rand": 0,
            "play_ms": rng.integers(0, 60_000, EVENTS),
            "watch_ratio": rng.random(EVENTS) * 2,
            **{f: (rng.random(EVENTS) < 0.3).astype(np.int8) for f in FEEDBACKS},
            **{f: rng.normal(size=EVENTS) for f in ("r_immediate", "reward", "return")},
            "next_pos": -1,
        }
    )
    generator = torch.Generator().manual_seed(seed)
    tokens = ItemTokens(
        tuple(
            ModalTokens(
                torch.randn(n_items, length, dim, generator=generator),
                torch.ones(n_items, length, dtype=torch.bool),
                torch.ones(n_items, dtype=torch.bool),
            )
            for length, dim in zip(token_lengths, TOKEN_DIMS, strict=True)
        )
    )
    users = pl.DataFrame({"user_id": range(USERS), "degree": rng.integers(0, 10, USERS)})
    features = UserFeatures.from_frame(users, np.arange(USERS))
    return ModelInputs(EventStream.from_frame(events, USERS, n_items), tokens, features)


class Ours:
    """A network and the index of its items; what a request costs."""

    def __init__(self, model: RankingModel, inputs: ModelInputs, now: Tensor) -> None:
        self.model, self.inputs, self.now = model.eval(), inputs, now
        self.candidates = torch.arange(inputs.stream.n_items)
        with torch.inference_mode():
            model.refresh(inputs)
            self.states = self.item_states()
            user = model.user_state(inputs, self.candidates[:1], now)
        self.scorer = RequestScorer(model, user.shape[1])
        self.index = self.scorer.index(self.states)

    def item_states(self) -> Tensor:
        """[f ‖ h] of all candidates now."""
        return self.model.item_state(self.inputs, self.candidates, self.now.expand(len(self.candidates)))  # fmt: skip

    def user_state(self, user: int) -> Tensor:
        return self.model.user_state(self.inputs, torch.tensor([user]), self.now)

    def request(self, user: int) -> Tensor:
        """Scores (C,) of all candidates, everything about them known."""
        return self.scorer.scores(self.index, self.candidates, self.user_state(user))

    def unseen(self, user: int) -> Tensor:
        """The same, every candidate fused first."""
        f = fusion_of(self.model)(self.inputs.items).f
        memory_of(self.model).copy_(f)
        states = torch.cat([f, self.states[:, f.shape[1] :]], dim=1)
        return self.model.head(self.user_state(user), states.unsqueeze(0)).q.squeeze(0)


def milliseconds(function: Callable[[int], object], requests: int, warm_up: int) -> np.ndarray:
    """Of each request, of users in turn."""
    taken = []
    for i in range(-warm_up, requests):
        started = time.perf_counter()
        function(i % USERS)
        if i >= 0:
            taken.append((time.perf_counter() - started) * 1e3)
    return np.array(taken)


def percentiles(ms: np.ndarray) -> dict[str, float]:
    found = np.percentile(ms, (50, 95, 99))
    return {name: round(float(v), 3) for name, v in zip(("p50", "p95", "p99"), found, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=400)
    parser.add_argument("--tokens", type=int, nargs=3, default=[4, 4, 8], help="visual audio text")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--peer-requests", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="ours, in turns with the peer's requests")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    inputs = generated(given.candidates, tuple(given.tokens))
    now = inputs.stream.ts_ms[-1:] + 1
    spec = InputSpec.of(inputs)
    published = MTDQNOptions()  # the defaults are the published widths
    small = MTDQNOptions.model_validate(STUDENT.of(published.model_dump(mode="json")))
    teacher = Ours(MTDQN(published, spec), inputs, now)
    rounded = deepcopy(teacher.model)
    quantise_(rounded, chosen(rounded, QuantisationOptions()))
    servers = {
        "teacher": teacher,
        "student": Ours(MTDQN(small, spec), inputs, now),
        "int8": Ours(rounded, inputs, now),
    }
    cached: dict[str, list[np.ndarray]] = {name: [] for name in servers}
    unseen: dict[str, list[np.ndarray]] = {name: [] for name in servers}
    with torch.inference_mode():
        difference = max(
            float((teacher.request(user) - teacher.unseen(user)).abs().max()) for user in range(2)
        )
        for round_ in range(given.rounds):
            for name, server in servers.items():
                cached[name].append(milliseconds(server.request, given.requests // given.rounds, 5))
                n = max(1, given.peer_requests // given.rounds) * (1 if name == "teacher" else 3)
                unseen[name].append(milliseconds(server.unseen, n, 0))
            print(f"round {round_}: " + ", ".join(f"{n} {np.median(cached[n][-1]):.2f} ms, unseen {np.median(unseen[n][-1]):.0f} ms" for n in servers), flush=True)  # fmt: skip
    ratios = [float(np.median(p) / np.median(o)) for o, p in zip(cached["teacher"], unseen["teacher"], strict=True)]  # fmt: skip
    ours, peer = (np.concatenate(side["teacher"]) for side in (cached, unseen))
    line = {
        "name": "latency",
        "ours": round(float(np.median(ours)), 3),
        "peer": round(float(np.median(peer)), 1),
        "ratio": round(float(np.median(peer) / np.median(ours)), 1),
        "unit": "ms",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": difference <= 1e-4,
        "ratio_range": [round(min(ratios), 1), round(max(ratios), 1)],
        "largest_difference": difference,
        "request_ms": {name: percentiles(np.concatenate(ms)) for name, ms in cached.items()},
        "unseen_ms": {name: percentiles(np.concatenate(ms)) for name, ms in unseen.items()},
        "requests": len(ours),
        "peer_requests": len(peer),
        "candidates": given.candidates,
        "tokens": given.tokens,
        "threads": given.threads,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
