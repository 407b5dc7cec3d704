"""CSV → validated, bucketed, sorted interactions, against Polars' bare streaming CSV → Parquet of the same file.

    python benchmarks/ingest.py [--rows 12500000] [--rounds 3] [--workers 2]

Rows have the shape of KuaiRec's big matrix (users in order, times in order inside a user). Each side runs in a process of its own, rounds
alternate; `ratio` is the median over rounds of peer time / ours, `peak_rss_mb` ours.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from reelrank.buckets import EngineOptions
from reelrank.sources.ingest import LogOptions, ingest_logs
from reelrank.sources.kuairec_matrix import BIG_FORMAT
from reelrank.sources.log_format import LogFile
from reelrank.sources.manifest import RawFile
from reelrank.tables import Interactions

USERS, VIDEOS = 7_176, 10_728
START_MS, SPAN_MS = 1_593_878_400_000, 62 * 86_400_000
ROWS_AT_ONCE = 1_000_000
N_BUCKETS = 16


def write_matrix(path: Path, n_rows: int) -> None:
    """A big matrix of random rows with the official columns."""
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(USERS, size=n_rows))
    ts_ms = START_MS + rng.integers(SPAN_MS, size=n_rows)
    ts_ms = ts_ms[np.lexsort((ts_ms, user))]
    with path.open("wb") as file:
        for first in range(0, n_rows, ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            n = len(user[part])
            duration = np.exp(rng.normal(9.2, 0.8, n)).astype(np.int64) + 500
            play = (duration * rng.gamma(1.2, 0.7, n)).astype(np.int64)
            local = pl.from_epoch(pl.col("ts_ms") + 8 * 3_600_000, "ms")
            columns = {
                "user_id": user[part],
                "video_id": rng.integers(VIDEOS, size=n),
                "play_duration": play,
                "video_duration": duration,
                "ts_ms": ts_ms[part],
            }
            pl.DataFrame(columns).select(
                "user_id",
                "video_id",
                "play_duration",
                "video_duration",
                time=local.dt.to_string("%Y-%m-%d %H:%M:%S%.3f"),
                date=local.dt.to_string("%Y%m%d").cast(pl.Int64),
                timestamp=pl.col("ts_ms") / 1000,
                watch_ratio=pl.col("play_duration") / pl.col("video_duration"),
            ).write_csv(file, include_header=first == 0)


def ours(csv: Path, folder: Path, workers: int) -> int:
    """Rows of the validated table."""
    engine = EngineOptions(workers=workers, n_buckets=N_BUCKETS, staging=folder)
    log = LogFile(RawFile("big_matrix", csv, csv.stat().st_size), BIG_FORMAT)
    users, videos = np.arange(USERS), np.arange(VIDEOS)
    done = ingest_logs("kuairec", [log], users, videos, LogOptions(), engine, {})
    Interactions.validate(done.interactions)
    return done.interactions.n_rows


def peer(csv: Path, folder: Path, workers: int) -> int:
    """Rows of the bare copy."""
    target = folder / "matrix.parquet"
    pl.scan_csv(csv).sink_parquet(target)
    return int(pl.scan_parquet(target).select(pl.len()).collect().item())


def peak_rss_mb() -> float:
    """Of this process alone: what getrusage says may be the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_one(side: str, csv: Path, workers: int) -> None:
    """One timed run of one side, as a process of its own; prints seconds, rows and peak memory."""
    small = csv.with_name("small.csv")
    sides = {"ours": ours, "polars": peer}
    with tempfile.TemporaryDirectory(dir=csv.parent) as warm:
        sides[side](small, Path(warm), workers)  # compiles
    with tempfile.TemporaryDirectory(dir=csv.parent) as folder:
        started = time.perf_counter()
        rows = sides[side](csv, Path(folder), workers)
        seconds = time.perf_counter() - started
    peak = peak_rss_mb()
    print(json.dumps({"seconds": seconds, "rows": rows, "peak_rss_mb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=12_500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", choices=["ours", "polars"])
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    if given.side:
        run_one(given.side, given.csv, given.workers)
        return
    root = Path(tempfile.mkdtemp(prefix="reelrank-ingest-"))
    try:
        csv = root / "big_matrix.csv"
        write_matrix(csv, given.rows)
        write_matrix(csv.with_name("small.csv"), 20_000)
        runs: dict[str, list[dict[str, float]]] = {"ours": [], "polars": []}
        for k in range(given.rounds):
            for side, done in runs.items():
                command = [sys.executable, __file__, "--side", side, "--csv", str(csv), "--workers", str(given.workers)]  # fmt: skip
                answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                done.append(json.loads(answer.splitlines()[-1]))
                print(f"round {k}: {side} {done[-1]['seconds']:.2f} s, {done[-1]['peak_rss_mb']:.0f} MB")  # fmt: skip
    finally:
        shutil.rmtree(root, ignore_errors=True)
    ratios = [
        p["seconds"] / o["seconds"] for o, p in zip(runs["ours"], runs["polars"], strict=True)
    ]
    line = {
        "name": "ingest",
        "ours": statistics.median(run["seconds"] for run in runs["ours"]),
        "peer": statistics.median(run["seconds"] for run in runs["polars"]),
        "ratio": statistics.median(ratios),
        "unit": "s",
        "peak_rss_mb": max(run["peak_rss_mb"] for run in runs["ours"]),
        "agrees": len({run["rows"] for side in runs.values() for run in side}) == 1,
        "rows": given.rows,
        "workers": given.workers,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
