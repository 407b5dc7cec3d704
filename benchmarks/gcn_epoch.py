"""One epoch of a 3-layer GCN with edge MLP: factored and fused against PyG's GCNConv and a concatenating MLP.

    python benchmarks/gcn_epoch.py [--edges 800000] [--width 64] [--rounds 5] [--threads 2]

One epoch is forward, loss of four heads, backward and an Adam step over all train edges; 7,176 users, 10,728 items, learnt
embeddings, 16 numbers per edge, one hidden layer as wide as the node vectors. Both sides start from the same weights and take
the same number of steps; ``agrees`` says that logits, losses and vectors are equal to 1e-5 before the first step and the losses
after every round too. Arms take turns; ``ratio`` is the median over rounds of PyG's time / ours. Compilation and the
normalisation that both keep are not timed. Both sides allocate with THP_MEM_ALLOC_ENABLE=1.

On a machine with CUDA the factored form runs there over 12.5 M edges, without a peer: seconds per epoch, and which share of the
time the bytes that it must move would take at the speed of a copy.
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable

os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it starts

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.value_inputs import FeatureBlock, ValueInputs
from reelrank.models.value_model import ValueSpec
from reelrank.pipelines.value_model.graph import Graph, build_graph
from reelrank.pipelines.value_model.model import (
    GNN,
    FusedEdges,
    ValueTensors,
    fused_loss,
    masked_loss,
)
from reelrank.pipelines.value_model.options import GnnOptions

USERS, ITEMS, EDGE_FEATURES = 7_176, 10_728, 16
TOLERANCE = 1e-5


def generate(n_edges: int) -> tuple[ValueInputs, npt.NDArray[np.int8]]:
    """Long-tailed users and items, in random order; labels at the rates of the heads."""
    rng = np.random.default_rng(0)
    activity = rng.lognormal(0, 0.55, USERS)
    popularity = 1 / (np.arange(ITEMS) + 30) ** 0.9
    user = rng.choice(USERS, n_edges, p=activity / activity.sum()).astype(np.int32)
    item = rng.choice(ITEMS, n_edges, p=popularity / popularity.sum()).astype(np.int32)

    def block(n: int, columns: int) -> FeatureBlock:
        numbers = rng.standard_normal((n, columns), dtype=np.float32)
        return FeatureBlock(numbers, np.zeros((n, 0), np.int32), ())

    inputs = ValueInputs(
        block(USERS, 0), block(ITEMS, 0), block(n_edges, EDGE_FEATURES), user, item
    )
    labels = (rng.random((n_edges, 4)) < [0.34, 0.215, 0.075, 0.125]).astype(np.int8)
    return inputs, labels


class Peer(nn.Module):
    """The same model as a PyG user writes it, with the weights of ours."""

    def __init__(self, ours: GNN, edge_index: Tensor) -> None:
        from torch_geometric.nn import GCNConv  # noqa: PLC0415 - after the memory of ours has been measured

        super().__init__()
        width = ours.embedding.embedding_dim
        self.edge_index = edge_index
        self.embedding = nn.Embedding.from_pretrained(ours.embedding.weight.clone(), freeze=False)
        self.convolutions = nn.ModuleList(GCNConv(width, width, cached=True) for _ in ours.layers)
        for mine, theirs in zip(self.convolutions, ours.layers, strict=True):
            mine.lin.weight.data.copy_(theirs.weight)
            mine.bias.data.copy_(theirs.bias)
        layers = [ours.first, *(layer for layer in ours.rest if isinstance(layer, nn.Linear))]
        self.mlp = nn.Sequential()
        for number, theirs in enumerate(layers):
            mine = nn.Linear(theirs.in_features, theirs.out_features)
            mine.load_state_dict(theirs.state_dict())
            self.mlp.extend([nn.ReLU(), mine] if number else [mine])

    def forward(self, source: Tensor, target: Tensor, x: Tensor) -> Tensor:
        h = self.embedding.weight
        for convolution in self.convolutions:
            h = F.relu(convolution(h, self.edge_index))
        return self.mlp(torch.cat([h[source], h[target], x], 1))


def one_epoch(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """A step over all edges, which answers with the loss before it."""
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)

    def epoch() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        return float(value.detach())

    return epoch


def timed(function: Callable[[], float]) -> tuple[float, float, float]:
    """Seconds, seconds of processor time, result."""
    start, processor = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - start, time.process_time() - processor, result


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make(inputs: ValueInputs, width: int) -> tuple[GNN, Graph]:
    torch.manual_seed(0)
    model = GNN(GnnOptions(width=width, hidden=(width,)), ValueSpec.of(inputs))
    return model, build_graph("honest", inputs.user_id, inputs.item_id, USERS, ITEMS)


def on_cpu(n_edges: int, width: int, rounds: int, threads: int) -> dict[str, object]:
    torch.set_num_threads(threads)
    inputs, labels = generate(n_edges)
    model, graph = make(inputs, width)
    data = ValueTensors.of(inputs)
    edges = FusedEdges.of(inputs, labels, np.arange(n_edges))
    ours = one_epoch(model, lambda: fused_loss(model, edges, data, model.propagate(graph)))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    ours()  # compiles
    ours()
    peak = rss_mb()
    model.load_state_dict(before)
    ours = one_epoch(model, lambda: fused_loss(model, edges, data, model.propagate(graph)))

    pairs = np.unique(np.stack([inputs.user_id, inputs.item_id + USERS]), axis=1).astype(np.int64)
    index = torch.from_numpy(np.concatenate([pairs, pairs[::-1]], axis=1))
    peer_model = Peer(model, index)
    source, target = torch.from_numpy(inputs.user_id).long(), data.item_id.long() + USERS
    truth = torch.from_numpy(labels).float()

    def peer_loss() -> Tensor:
        logits = peer_model(source, target, data.edge.continuous)
        return F.binary_cross_entropy_with_logits(logits, truth)

    with torch.no_grad():
        mine = model(data, model.propagate(graph))
        theirs = peer_model(source, target, data.edge.continuous)
        difference = float((mine - theirs).abs().max())
        del mine, theirs
    peer = one_epoch(peer_model, peer_loss)
    warm_difference = abs(ours() - peer())
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    processor: dict[str, list[float]] = {"ours": [], "peer": []}
    losses = [warm_difference]
    for _ in range(rounds):
        ours_s, ours_cpu, our_loss = timed(ours)
        peer_s, peer_cpu, their_loss = timed(peer)
        seconds["ours"].append(ours_s)
        seconds["peer"].append(peer_s)
        processor["ours"].append(ours_cpu)
        processor["peer"].append(peer_cpu)
        losses.append(abs(our_loss - their_loss))
        print(
            f"ours {ours_s:.3f} s, PyG {peer_s:.3f} s (processor {ours_cpu:.2f}, {peer_cpu:.2f}), losses {our_loss:.6f} {their_loss:.6f}"
        )
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True)]
    return {
        "name": "gcn_epoch",
        "ours": round(statistics.median(seconds["ours"]), 4),
        "peer": round(statistics.median(seconds["peer"]), 3),
        "ratio": round(statistics.median(ratios), 2),
        "unit": "s",
        "peak_rss_mb": round(peak),
        "agrees": max(difference, *losses) < TOLERANCE,
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "processor_s": {arm: round(statistics.median(s), 3) for arm, s in processor.items()},
        "peak_rss_mb_with_peer": round(rss_mb()),
        "edges": n_edges,
        "message_edges": index.shape[1],
        "width": width,
        "largest_difference_of_logits": difference,
        "largest_difference_of_losses": max(losses),
        "threads": threads,
    }


def bytes_moved(n_edges: int, n_entries: int, width: int) -> int:
    """What an epoch must at least read and write in float32 with nothing but node tables in the cache.

    Three products and their transposes read an index, a value and a row per entry; an edge reads its ids, features and labels, and
    writes and reads its hidden layer once on the way forward and once back.
    """
    product = n_entries * (8 + 4 * width)
    edge = n_edges * (8 + 4 * EDGE_FEATURES + 4 + 4 * 4 * width)
    return 6 * product + edge


def on_cuda(n_edges: int, width: int, rounds: int) -> dict[str, object]:
    device = torch.device("cuda")
    inputs, labels = generate(n_edges)
    model, graph = make(inputs, width)
    model, graph, data = model.to(device), graph.to(device), ValueTensors.of(inputs).to(device)
    truth = torch.from_numpy(labels).to(device)
    epoch = one_epoch(model, lambda: masked_loss(model(data, model.propagate(graph)), truth))
    large = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(large)

    def copy() -> float:
        target.copy_(large)
        torch.cuda.synchronize()
        return 0.0

    def synchronised() -> float:
        loss = epoch()
        torch.cuda.synchronize()
        return loss

    synchronised(), copy()
    copied = 2 * large.numel() / statistics.median(timed(copy)[0] for _ in range(rounds))
    seconds = [timed(synchronised)[0] for _ in range(rounds)]
    median = statistics.median(seconds)
    moved = bytes_moved(n_edges, len(graph.matrix.values), width)
    return {
        "name": "gcn_epoch",
        "ours": round(median, 4),
        "peer": None,
        "ratio": None,
        "unit": "s",
        "peak_rss_mb": round(rss_mb()),
        "agrees": None,
        "edges": n_edges,
        "width": width,
        "device": torch.cuda.get_device_name(),
        "peak_device_mb": round(torch.cuda.max_memory_allocated() / 2**20),
        "copy_gb_s": round(copied / 1e9, 1),
        "share_of_bandwidth": round(moved / copied / median, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, help="0.8 M on the CPU, 12.5 M on CUDA")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        line = on_cuda(arguments.edges or 12_500_000, arguments.width, arguments.rounds)
    else:
        edges = arguments.edges or 800_000
        line = on_cpu(edges, arguments.width, arguments.rounds, arguments.threads)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
