"""GAUC of every user against a loop over users with scikit-learn's roc_auc_score, and against Polars.

    python benchmarks/gauc.py [--rows 5000000] [--users 10000] [--rounds 3]

Rows come in random order; scores are float32 with ties. scikit-learn's loop runs over a tenth of the users and is scaled by
their rows; `ratio` is the median over rounds of its time / our time. Compilation is not timed.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
from sklearn.metrics import roc_auc_score

from reelrank.evaluation.grouped import gauc

Columns = tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.int32]]


def generate(n_rows: int, n_users: int) -> Columns:
    """Labels, scores and long-tailed users."""
    rng = np.random.default_rng(3)
    activity = rng.lognormal(0, 0.8, n_users)
    user = rng.choice(n_users, n_rows, p=activity / activity.sum()).astype(np.int32)
    score = np.round(rng.normal(0, 1, n_rows).astype(np.float32), 3)
    label = (rng.random(n_rows) < 1 / (1 + np.exp(0.6 - score))).astype(np.int8)
    return label, score, user


def by_loop(label: npt.ArrayLike, score: npt.ArrayLike, user: npt.ArrayLike) -> float:
    total = weight = 0.0
    for _, rows in pd.DataFrame({"user": user, "y": label, "p": score}).groupby("user"):
        if rows["y"].nunique() == 2:
            total += roc_auc_score(rows["y"], rows["p"]) * len(rows)
            weight += len(rows)
    return total / weight


def by_polars(label: npt.ArrayLike, score: npt.ArrayLike, user: npt.ArrayLike) -> float:
    n, positive = pl.col("n"), pl.col("positive")
    value = (pl.col("ranks") - positive * (positive + 1) / 2) / (positive * (n - positive))
    found = (
        pl.DataFrame({"user": user, "y": label, "p": score})
        .with_columns(rank=pl.col("p").rank("average").over("user"))
        .group_by("user")
        .agg(
            n=pl.len().cast(pl.Float64),
            positive=pl.col("y").cast(pl.Float64).sum(),
            ranks=(pl.col("rank") * pl.col("y")).sum(),
        )
        .filter((positive > 0) & (positive < n))
        .select((value * n).sum() / n.sum())
    )
    return float(found.item())


def timed(function: Callable[..., Any], *columns: npt.ArrayLike) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*columns)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    columns = generate(arguments.rows, arguments.users)
    few = columns[2] < max(arguments.users // 10, 1)
    tenth = tuple(column[few] for column in columns)
    scale = arguments.rows / int(few.sum())
    gauc(*(column[:1000] for column in columns))  # compiles
    gauc(*columns)  # first touch of memory
    seconds: dict[str, list[float]] = {"ours": [], "loop": [], "polars": []}
    agrees = True
    for _ in range(arguments.rounds):
        ours_s, ours = timed(gauc, *columns)
        polars_s, by_expressions = timed(by_polars, *columns)
        loop_s, looped = timed(by_loop, *tenth)
        seconds["ours"].append(ours_s)
        seconds["polars"].append(polars_s)
        seconds["loop"].append(loop_s * scale)
        agrees &= abs(ours.value - by_expressions) < 1e-9
        agrees &= abs(gauc(*tenth).value - looped) < 1e-9
        print(f"ours {ours_s:.3f} s, Polars {polars_s:.3f} s, a tenth of the loop {loop_s:.2f} s")
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["loop"], strict=True)]
    to_polars = [p / o for o, p in zip(seconds["ours"], seconds["polars"], strict=True)]
    line = {
        "name": "gauc",
        "ours": round(statistics.median(seconds["ours"]), 4),
        "peer": round(statistics.median(seconds["loop"]), 2),
        "ratio": round(statistics.median(ratios), 1),
        "unit": "s",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": bool(agrees),
        "rows": arguments.rows,
        "users": arguments.users,
        "ratio_range": [round(min(ratios), 1), round(max(ratios), 1)],
        "peer_scaled_from_rows": int(few.sum()),
        "polars_s": round(statistics.median(seconds["polars"]), 4),
        "polars_ratio": round(statistics.median(to_polars), 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
