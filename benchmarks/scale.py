"""Ingestion and history features of 10, 30 and 100 million KuaiRand-shaped rows: time and memory against rows. No peer takes part.

    python benchmarks/scale.py [--millions 10 30 100] [--workers 2] [--folder /tmp]

The world writer makes one world of 2.5 million rows; copies of its first standard log, users shifted, are the parts of a log in the official
format of KuaiRand-27K. Each size runs in a process of its own; `ours` is rows/s at the largest, `slope` the exponent of time in rows (1 = linear).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from reelrank.buckets import EngineOptions, map_buckets
from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.sources.ingest import LogOptions, ingest_logs
from reelrank.sources.kuairand_log import log_format
from reelrank.sources.log_format import LogFile
from reelrank.sources.manifest import RawFile
from reelrank.worlds.kuairand import write_world
from reelrank.worlds.kuairand_options import WorldOptions

WORLD = WorldOptions(users=25_000, videos=7_583, exposures_per_user=210, random_per_user=0)
ROLE = "log_standard_1"
N_BUCKETS = 64


def write_parts(folder: Path, n_rows: int) -> None:
    """Parts of a standard log that hold ``n_rows`` rows or a little more."""
    root = write_world(WORLD, folder / "world")
    (source,) = root.glob("*/data/log_standard_4_08*")
    log = pl.read_csv(source)
    for part in range(-(-n_rows // log.height)):
        shifted = log.with_columns(pl.col("user_id") + part * WORLD.users)
        shifted.head(n_rows - part * log.height).write_csv(folder / f"part{part + 1}.csv")
    shutil.rmtree(root)


def peak_rss_mb() -> float:
    """Of this process alone: what getrusage says may be the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_one(folder: Path, n_rows: int, workers: int) -> None:
    """Time ingestion, then histories; prints seconds, rows and peak memory."""
    files = sorted(folder.glob("part*.csv"), key=lambda path: int(path.stem[4:]))
    parts, rows_of_part = [], None
    for file in files:
        if rows_of_part is None:
            rows_of_part = sum(1 for _ in file.open("rb")) - 1
        if len(parts) * rows_of_part < n_rows:
            parts.append(LogFile(RawFile(ROLE, file, file.stat().st_size), log_format(ROLE)))
    users = np.arange(len(parts) * WORLD.users)
    with tempfile.TemporaryDirectory(dir=folder) as staging:
        engine = EngineOptions(workers=workers, n_buckets=N_BUCKETS, staging=Path(staging))
        started = time.perf_counter()
        done = ingest_logs("kuairand", parts, users, np.arange(WORLD.videos), LogOptions(), engine, {})  # fmt: skip
        ingested = time.perf_counter()
        codes = np.arange(WORLD.videos, dtype=np.int32)
        items = ItemCodes(codes % 40, codes % 300, codes % 5_000)
        function = partial(histories, items=items, options=HistoryOptions())
        table = map_buckets(function, [done.interactions], engine, "histories")
        finished = time.perf_counter()
    answer = {
        "rows": sum(done.rows_read.values()),
        "canonical_rows": table.n_rows,
        "ingest_s": ingested - started,
        "histories_s": finished - ingested,
        "peak_rss_mb": peak_rss_mb(),
    }
    print(json.dumps(answer))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--millions", type=float, nargs="+", default=[10, 30, 100])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--one", type=int)
    given = parser.parse_args()
    if given.one:
        run_one(given.folder, given.one, given.workers)
        return
    root = Path(tempfile.mkdtemp(prefix="reelrank-scale-", dir=given.folder))
    try:
        write_parts(root, round(max(given.millions) * 1e6))
        runs = []
        for millions in sorted(given.millions):
            command = [sys.executable, __file__, "--one", str(round(millions * 1e6)), "--folder", str(root), "--workers", str(given.workers)]  # fmt: skip
            answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            runs.append(json.loads(answer.splitlines()[-1]))
            print(json.dumps(runs[-1]), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    seconds = [run["ingest_s"] + run["histories_s"] for run in runs]
    slope = None
    if len(runs) > 1:
        slope = float(np.polyfit(np.log([run["rows"] for run in runs]), np.log(seconds), 1)[0])
    line = {
        "name": "scale",
        "ours": runs[-1]["rows"] / seconds[-1],
        "peer": None,
        "ratio": None,
        "unit": "rows/s",
        "peak_rss_mb": max(run["peak_rss_mb"] for run in runs),
        "agrees": None,
        "slope": slope,
        "runs": runs,
        "workers": given.workers,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
