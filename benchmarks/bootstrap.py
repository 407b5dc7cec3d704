"""1,000 user-cluster replicates of NCIS on a million rows of 10,000 users, against a NumPy loop that gathers each replicate's rows.

    python benchmarks/bootstrap.py [--rows 1000000] [--users 10000] [--rounds 3]

Both recompute the ratio in every replicate, from the same draws of users. The peer's time is that of a few replicates, scaled to all;
`agrees` says that their values are the same to 1e-9.
"""

import argparse
import json
import resource
import statistics
import time

import numpy as np
import numpy.typing as npt

from reelrank.evaluation.off_policy.estimators import ncis
from reelrank.evaluation.uncertainty import UserBootstrap

REPLICATES, PEER_REPLICATES = 1000, 10


def peer(
    user: npt.NDArray[np.int64],
    reward: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    n_users: int,
    draws: list[npt.NDArray[np.int64]],
) -> npt.NDArray[np.float64]:
    """Values of the drawn replicates: rows of the drawn users, one user after the other in memory."""
    order = np.argsort(user, kind="stable")
    n_rows = np.bincount(user, minlength=n_users)
    start = np.cumsum(n_rows) - n_rows
    values = []
    for drawn in draws:
        length = n_rows[drawn]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        rows = order[np.repeat(start[drawn], length) + within]
        clipped = np.minimum(weight[rows], 10.0)
        values.append((clipped * reward[rows]).sum() / clipped.sum())
    return np.array(values)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rng = np.random.default_rng(3)
    user = rng.integers(given.users, size=given.rows)
    reward = rng.normal(1, 0.5, given.rows)
    weight = np.exp(rng.normal(0, 0.8, given.rows))
    seconds, peer_seconds, agrees = [], [], []
    for k in range(given.rounds):
        started = time.perf_counter()
        bootstrap = UserBootstrap(user, REPLICATES, seed=k)
        estimate = bootstrap.ratios(user, [ncis(reward, weight).parts])[0]
        seconds.append(time.perf_counter() - started)
        dense = np.searchsorted(bootstrap.users, user)
        draws = [np.repeat(np.arange(len(c)), c) for c in bootstrap.counts[:PEER_REPLICATES]]
        started = time.perf_counter()
        values = peer(dense, reward, weight, len(bootstrap.users), draws)
        peer_seconds.append((time.perf_counter() - started) * REPLICATES / PEER_REPLICATES)
        agrees.append(np.allclose(values, estimate.replicates[:PEER_REPLICATES], rtol=1e-9, atol=0))
        print(f"round {k}: ours {seconds[-1]:.2f} s, peer {peer_seconds[-1]:.1f} s (scaled)")
    line = {
        "name": "bootstrap",
        "ours": statistics.median(seconds),
        "peer": statistics.median(peer_seconds),
        "ratio": statistics.median(p / o for o, p in zip(seconds, peer_seconds, strict=True)),
        "unit": "s",
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "agrees": all(agrees),
        "rows": given.rows,
        "users": given.users,
        "replicates": REPLICATES,
        "peer_scaled_from": PEER_REPLICATES,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
