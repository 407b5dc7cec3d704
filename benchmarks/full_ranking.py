"""NDCG@20 of a full ranking: counted ranks against matrix product and topk in PyTorch, and against the bare product.

    python benchmarks/full_ranking.py [--users 10000] [--items 50000] [--rounds 3]

d = 64, 50 seen items hidden for each user. All work in float32 on blocks of 512 users with reused buffers; the bare product is
the faster one of NumPy's and PyTorch's. Arms take turns; `ratio` is the median over rounds of peer time / our time, and
`to_bare_product` that of our time / the bare product's. Compilation is not timed.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from reelrank.evaluation.full_ranking import Competitors, full_ranks

WIDTH, SEEN, K, BLOCK = 64, 50, 20, 512

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def generate(n_users: int, n_items: int) -> tuple[Floats, Floats, Ints, Competitors]:
    """Embeddings, a target for each user (the best of some, so that it often reaches the top), and seen items."""
    rng = np.random.default_rng(0)
    users = rng.normal(size=(n_users, WIDTH)).astype(np.float32)
    items = rng.normal(size=(n_items, WIDTH)).astype(np.float32)
    some = rng.integers(0, n_items, (n_users, 500))
    target = np.array(
        [row[np.argmax(items[row] @ user)] for row, user in zip(some, users, strict=True)]
    )
    user = np.repeat(np.arange(n_users), SEEN)
    seen = rng.integers(0, n_items, user.size)
    other = seen != target[user]
    return users, items, target, Competitors(user[other], seen[other])


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    users, items, target, seen = generate(arguments.users, arguments.items)
    everyone = np.arange(arguments.users)

    def ours() -> float:
        ranks = full_ranks(users, items, everyone, target, seen)
        return float(ranks.per_list("ndcg", K)[2].mean())

    full_ranks(users[:5], items[:5], [0], [0], Competitors([0], [1]))  # compiles
    before = rss_mb()
    ours()
    growth = rss_mb() - before

    import torch  # noqa: PLC0415 - after the memory of ours has been measured

    user_t, item_t, target_t = (torch.from_numpy(array) for array in (users, items, target))
    buffer = torch.empty(BLOCK, arguments.items)
    hidden_user, hidden_item = np.asarray(seen.hidden_query), np.asarray(seen.hidden_item)
    starts = np.searchsorted(hidden_user, np.arange(0, arguments.users + BLOCK, BLOCK))

    def peer() -> float:
        gains = []
        for number, first in enumerate(range(0, arguments.users, BLOCK)):
            block = user_t[first : first + BLOCK]
            score = torch.mm(block, item_t.T, out=buffer[: len(block)])
            part = slice(starts[number], starts[number + 1])
            rows = torch.from_numpy(hidden_user[part] - first)
            score[rows, torch.from_numpy(hidden_item[part])] = -torch.inf
            top = score.topk(K, dim=1).indices
            hit = top == target_t[first : first + BLOCK, None]
            place = hit.float().argmax(1) + 1
            gains.append(torch.where(hit.any(1), 1 / torch.log2(place + 1.0), 0.0).double())
        return float(torch.cat(gains).mean())

    def bare_torch() -> None:
        for first in range(0, arguments.users, BLOCK):
            block = user_t[first : first + BLOCK]
            torch.mm(block, item_t.T, out=buffer[: len(block)])

    def bare_numpy() -> None:
        out = buffer.numpy()
        for first in range(0, arguments.users, BLOCK):
            block = users[first : first + BLOCK]
            np.matmul(block, items.T, out=out[: len(block)])

    arms: dict[str, Callable[[], float | None]] = {
        "ours": ours,
        "peer": peer,
        "bare_numpy": bare_numpy,
        "bare_torch": bare_torch,
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    values: dict[str, float | None] = {}
    for _ in range(arguments.rounds):
        for name, run in arms.items():
            start = time.perf_counter()
            values[name] = run()
            seconds[name].append(time.perf_counter() - start)
        print(", ".join(f"{name} {taken[-1]:.3f} s" for name, taken in seconds.items()))
    bare = [min(pair) for pair in zip(seconds["bare_numpy"], seconds["bare_torch"], strict=True)]
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True)]
    to_bare = [o / b for o, b in zip(seconds["ours"], bare, strict=True)]
    ours_value, peer_value = values["ours"], values["peer"]
    line = {
        "name": "full_ranking",
        "ours": round(statistics.median(seconds["ours"]), 4),
        "peer": round(statistics.median(seconds["peer"]), 4),
        "ratio": round(statistics.median(ratios), 2),
        "unit": "s",
        "peak_rss_mb": round(rss_mb()),
        "agrees": ours_value is not None
        and peer_value is not None
        and abs(ours_value - peer_value) < 1e-6,  # gains of the peer are float32
        "users": arguments.users,
        "items": arguments.items,
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "to_bare_product": round(statistics.median(to_bare), 2),
        "bare_product_s": round(statistics.median(bare), 4),
        "ours_rss_growth_mb": round(growth),
        "ndcg@20": ours_value,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
