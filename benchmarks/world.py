"""Rows per second of writing a world of KuaiRand-Pure's official size, all files and the truth included. No peer exists."""

import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from reelrank.worlds.kuairand import write_world
from reelrank.worlds.kuairand_options import WorldOptions
from reelrank.worlds.truth import Truth

ROUNDS = 3


def main() -> None:
    # 1,436,609 standard and 1,186,059 random rows of 27,285 users and 7,583 videos
    options = WorldOptions(
        users=27_285, videos=7_583, exposures_per_user=52.65, random_per_user=43.47
    )
    best = 0.0
    with tempfile.TemporaryDirectory() as folder:
        write_world(WorldOptions(users=200), Path(folder) / "warm")  # compiles on a fresh clone
        for k in range(ROUNDS):
            started = time.perf_counter()
            root = write_world(options, Path(folder) / str(k))
            seconds = time.perf_counter() - started
            exposures = Truth.load(root).exposures()
            rows = int(exposures.select("line").collect().height)
            best = max(best, rows / seconds)
            print(f"round {k}: {rows} rows in {seconds:.2f} s")
        truth = Truth.load(root)
        started = time.perf_counter()
        truth.expected_matrix(np.arange(500), np.arange(1_000), truth.response.origin_ms, 1)
        matrix = time.perf_counter() - started
    line = {
        "name": "world",
        "ours": best,
        "peer": None,
        "ratio": None,
        "unit": "rows/s",
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "agrees": None,
        "rows": rows,
        "truth_500x1000_s": matrix,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
