"""Training a temporal graph network to foretell the next interaction: the window implementation against PyG's TGN.

    python benchmarks/tgnn.py [--events 100000] [--rounds 7] [--threads 2] [--width 64] [--batch 200]

A stream of long-tailed users and items whose tastes turn slowly. An event has 16 numbers of feedback (noise here), an item 16 of content, which tell its topic through noise. Both sides have one layer of
two-headed attention over the last 10 events, states, memory and time encoding of one width, a two-layer link predictor, one drawn negative per event and batches of 200 in the order of time,
and know the same: content stands in every message and in the states of items, nothing else is known of users. PyG's side is its public classes, driven as its documentation says: ``TGNMemory``, ``LastNeighborLoader``,
``TransformerConv``; a linear map of the content is added to an item's memory. ``--blind`` takes content away from the states of items on both sides: what is not in an event is not known. A round is the same 40 batches for each side in turn, after a warm-up; ``ratio`` is the median over rounds of events per second, ours over theirs. ``agrees``: after the same
number of passes over the first 70 % of the stream, average precision on the last 15 % (weights frozen, events still seen) is not more than one point below PyG's.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it starts, on both sides

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch_geometric.nn import TransformerConv
from torch_geometric.nn.models.tgn import (
    IdentityMessage,
    LastAggregator,
    LastNeighborLoader,
    TGNMemory,
)

from reelrank.models.event_stream import REQUIRED_COLUMNS, EventStream
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.item_tokens import ItemTokens
from reelrank.models.options import TGNNOptions
from reelrank.models.tgnn import WindowTGNN
from reelrank.models.user_features import UserFeatures

USERS, ITEMS, TOPICS, MESSAGE, CONTENT = 1_000, 10_000, 8, 16, 16
HOUR = 3_600_000
POINT = 0.01  # of average precision


def planted(n: int) -> tuple[EventStream, Tensor]:
    """n events over 30 days, and the items' content: a user takes eight of ten items from its topic of the day."""
    rng = np.random.default_rng(0)
    activity = rng.lognormal(0, 0.6, USERS)
    user = rng.choice(USERS, n, p=activity / activity.sum())
    ts = np.sort(rng.integers(0, 30 * 24 * HOUR, n))
    own = (rng.integers(0, TOPICS, USERS)[user] + ts // (10 * 24 * HOUR)) % TOPICS  # turns twice
    wanted = np.where(rng.random(n) < 0.8, own, rng.integers(0, TOPICS, n))
    weight = (np.arange(ITEMS // TOPICS) + 20.0) ** -0.9
    item = rng.choice(ITEMS // TOPICS, n, p=weight / weight.sum()) * TOPICS + wanted
    message = rng.normal(0, 0.5, (n, MESSAGE)).astype(np.float32)
    content = rng.normal(0, 0.5, (ITEMS, CONTENT)).astype(np.float32)
    content[np.arange(ITEMS), np.arange(ITEMS) % TOPICS] += 1
    frame = pl.DataFrame({name: np.zeros(n, np.int64) for name in REQUIRED_COLUMNS}).with_columns(
        user_id=pl.Series(user.astype(np.int32)),
        item_id=pl.Series(item.astype(np.int32)),
        ts_ms=pl.Series(1_650_000_000_000 + ts),
        split=pl.lit("train"),
        next_pos=pl.lit(-1),
    )
    stream = EventStream.from_frame(frame, USERS, ITEMS)
    return replace(stream, message=torch.from_numpy(message)), torch.from_numpy(content)


class Link(nn.Module):
    """Logit of an event between two nodes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.source, self.target, self.out = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)  # fmt: skip

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        return self.out(F.relu(self.source(u) + self.target(v))).squeeze(-1)


class Nothing(nn.Module):
    """One learnt vector, whatever the content."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(width))

    def forward(self, content: Tensor) -> Tensor:
        return self.vector.expand(len(content), -1)


class Ours:
    """The window implementation, as MT-DQN builds it."""

    def __init__(self, stream: EventStream, content: Tensor, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.stream = stream
        users = pl.DataFrame({"user_id": np.arange(USERS, dtype=np.int32)})
        self.inputs = ModelInputs(stream, ItemTokens(()), UserFeatures.from_frame(users, np.arange(USERS)))  # fmt: skip
        options = TGNNOptions(
            d_h=given.width, layers=1, fanout=(given.neighbours,), heads=2, time_dim=given.width, message_dim=MESSAGE,
            content_dim=CONTENT, dropout=0.1,
        )  # fmt: skip
        self.network = WindowTGNN(options, InputSpec.of(self.inputs), CONTENT)
        if given.blind:
            self.network.item_base = Nothing(given.width)
        self.link = Link(given.width)
        self.modules = nn.ModuleList([self.network, self.link])
        self.memory = content
        self.optimiser = torch.optim.Adam(self.modules.parameters(), given.lr, fused=True)

    def reset(self, upto: int = 0) -> None:
        """Nothing is kept: events up to any row are in the stream."""

    def logits(self, rows: Tensor, negatives: Tensor) -> Tensor:
        stream = self.stream
        nodes = torch.cat([stream.user[rows], USERS + stream.item[rows], negatives])
        u, v, w = self.network(self.inputs, nodes, stream.ts_ms[rows].repeat(3), self.memory).chunk(3)  # fmt: skip
        return torch.cat([self.link(u, v), self.link(u, w)])

    def seen(self, rows: Tensor) -> None:
        """Events are in the stream."""


class Peer:
    """PyG's classes: predict a batch, then put it into memory and neighbours."""

    def __init__(self, stream: EventStream, content: Tensor, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.stream = stream
        width, nodes, self.batch = given.width, USERS + ITEMS, given.batch
        raw = MESSAGE + CONTENT
        self.memory = TGNMemory(
            nodes, raw, width, width, IdentityMessage(raw, width, width), LastAggregator()
        )
        self.attention = TransformerConv(
            width, width // 2, heads=2, dropout=0.1, edge_dim=raw + width
        )
        self.link = Link(width)
        self.base = Nothing(width) if given.blind else nn.Linear(CONTENT, width)
        self.modules = nn.ModuleList([self.memory, self.attention, self.link, self.base])
        self.message = torch.cat([stream.message, content[stream.item]], 1)
        self.content = torch.cat([torch.zeros(USERS, CONTENT), content])
        self.neighbours = LastNeighborLoader(nodes, size=given.neighbours)
        self.place = torch.empty(nodes, dtype=torch.long)
        self.seconds = (stream.ts_ms - stream.t0) // 1000
        self.optimiser = torch.optim.Adam(self.modules.parameters(), given.lr)

    @torch.no_grad()
    def reset(self, upto: int = 0) -> None:
        """Nothing is known but the events before row ``upto``."""
        self.memory.reset_state()
        self.neighbours.reset_state()
        self.memory.train()
        for rows in torch.split(torch.arange(upto), self.batch) if upto else ():
            self.seen(rows)

    def logits(self, rows: Tensor, negatives: Tensor) -> Tensor:
        stream = self.stream
        source, target = stream.user[rows], USERS + stream.item[rows]
        n_id, edges, e_id = self.neighbours(torch.cat([source, target, negatives]).unique())
        self.place[n_id] = torch.arange(len(n_id))
        z, last = self.memory(n_id)
        since = (last[edges[0]] - self.seconds[e_id]).to(z.dtype)
        edge = torch.cat([self.memory.time_enc(since), self.message[e_id]], 1)
        z = self.attention(z + self.base(self.content[n_id]), edges, edge)
        u, v, w = (z[self.place[n]] for n in (source, target, negatives))
        return torch.cat([self.link(u, v), self.link(u, w)])

    def seen(self, rows: Tensor) -> None:
        stream = self.stream
        source, target = stream.user[rows], USERS + stream.item[rows]
        self.memory.update_state(source, target, self.seconds[rows], self.message[rows])
        self.neighbours.insert(source, target)


def negatives_of(n: int) -> Tensor:
    """A node per event, drawn from all items, the same for both sides."""
    return torch.randint(USERS, USERS + ITEMS, (n,), generator=torch.Generator().manual_seed(0))


def train(side: Ours | Peer, rows: Tensor, negatives: Tensor, batch: int) -> None:
    """One pass over rows, a step per batch."""
    side.modules.train()
    for some in torch.split(rows, batch):
        side.optimiser.zero_grad(set_to_none=True)
        truth = torch.cat([torch.ones(len(some)), torch.zeros(len(some))])
        loss = F.binary_cross_entropy_with_logits(side.logits(some, negatives[some]), truth)
        side.seen(some)
        loss.backward()
        side.optimiser.step()
        if isinstance(side, Peer):
            side.memory.detach()


@torch.no_grad()
def precision(side: Ours | Peer, rows: Tensor, negatives: Tensor, batch: int) -> float:
    """Average precision of events against their negatives; events are seen once they are scored."""
    side.modules.eval()
    scores = []
    for some in torch.split(rows, batch):
        scores.append(side.logits(some, negatives[some]).view(2, -1))
        side.seen(some)
    score = torch.cat(scores, 1).flatten().numpy()
    return float(average_precision_score(np.repeat([1, 0], len(rows)), score))


def timed(function: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    start, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--passes", type=int, default=3, help="over train, before precision is judged"
    )
    parser.add_argument(
        "--blind", action="store_true", help="items are known by their events alone"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40, help="batches of a round, on both sides")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    stream, content = planted(given.events)
    negatives = negatives_of(given.events)
    everything = torch.arange(given.events)
    cut, last = int(0.7 * given.events), int(0.85 * given.events)
    sides: dict[str, Ours | Peer] = {
        "ours": Ours(stream, content, given),
        "peer": Peer(stream, content, given),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    # the stretch that rounds time lies at the end of train, so that histories are full
    first = max(cut - given.steps * given.batch, 0)
    for round_ in range(-1, given.rounds):  # the first is not counted
        for name, side in sides.items():
            side.reset(first)
            s, cpu = timed(lambda side=side: train(side, everything[first:cut], negatives, given.batch))  # fmt: skip
            if round_ >= 0:
                rates[name].append((cut - first) / s)
                processor[name].append((cut - first) / cpu)
        if round_ >= 0:
            print(f"round {round_}: ours {rates['ours'][-1]:.0f}, PyG {rates['peer'][-1]:.0f} events/s; by processor time {processor['ours'][-1]:.0f}, {processor['peer'][-1]:.0f}", flush=True)  # fmt: skip
    found = {}
    for name, make in (("ours", Ours), ("peer", Peer)):
        side = make(stream, content, given)
        for _ in range(given.passes):
            side.reset()
            train(side, everything[:cut], negatives, given.batch)
        precision(side, everything[cut:last], negatives, given.batch)  # what lies between is seen
        found[name] = precision(side, everything[last:], negatives, given.batch)
        print(f"average precision, {name}: {found[name]:.4f}", flush=True)
    ratios = [o / p for o, p in zip(rates["ours"], rates["peer"], strict=True)]
    by_processor = [o / p for o, p in zip(processor["ours"], processor["peer"], strict=True)]
    line = {
        "name": "tgnn",
        "ours": round(statistics.median(rates["ours"])),
        "peer": round(statistics.median(rates["peer"])),
        "ratio": round(statistics.median(ratios), 2),
        "unit": "events/s",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": found["ours"] >= found["peer"] - POINT,
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "ratio_of_processor_time": round(statistics.median(by_processor), 2),
        "average_precision": {name: round(value, 4) for name, value in found.items()},
        "blind": given.blind,
        "batch": given.batch,
        "width": given.width,
        "neighbours": given.neighbours,
        "threads": given.threads,
        "load1": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
