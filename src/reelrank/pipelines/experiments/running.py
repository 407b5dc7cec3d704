"""Carry out jobs, each in a process of its own, and remember on disk which are done."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from reelrank.children import child_environment
from reelrank.evaluation.results import results_frame
from reelrank.pipelines.experiments.cell import Order
from reelrank.pipelines.experiments.plan import DONE, PREPARED, TABLES, Job
from reelrank.tables import Results

log = logging.getLogger(__name__)
LOG, LOCK, ORDER, WORK = "log.txt", "lock", "order.json", "training"
Start = Callable[[Path, Path, int], int]
State = Literal["done", "was done", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    state: State
    seconds: float
    log: Path | None = None


@dataclass(frozen=True)
class Runner:
    """Where and how jobs are run.

    Attributes:
        root: folder of what they leave.
        project: Kedro's project.
        environment: that they run in; None: the project's own.
        workers: at a time.
        start: runs an order (file, log, threads) and answers with its exit code.
    """

    root: Path
    project: Path
    environment: str | None
    workers: int
    start: Start

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Every job that is not finished, once; the stored tables that they load are made first, if they are missing or out of date."""
        waiting = [job for job in jobs if not job.finished(self.root)]
        yield from (Outcome(j, "was done", 0.0) for j in jobs if j.finished(self.root))
        for pipeline in dict.fromkeys(job.pipeline for job in waiting):
            own = [job for job in waiting if job.pipeline == pipeline]
            failed = self._prepare(pipeline, own)
            if failed is not None:
                yield from (Outcome(job, "failed", 0.0, failed) for job in own)
                continue
            with ThreadPoolExecutor(self.workers) as pool:
                futures = {pool.submit(self._carry_out, job): job for job in own}
                try:
                    for future in as_completed(futures):
                        yield future.result()
                finally:
                    for future in futures:
                        future.cancel()

    def _prepare(self, pipeline: str, jobs: Sequence[Job]) -> Path | None:
        """Make what the jobs load; the log if that failed."""
        wanted = sorted({name for job in jobs for name in job.inputs})
        tree = _with_freshness(jobs[0].parameters, "rebuild")
        tree = {key: value for key, value in tree.items() if key != "tables_root"}
        folder = self.root / PREPARED
        log.info("%s: making what its cells load, where it is missing or out of date", pipeline)
        order: Order = {
            "project": str(self.project),
            "environment": self.environment,
            "pipeline": pipeline,
            "nodes": [],
            "to_outputs": wanted,
            "parameters": tree,
            "lock": str(folder / LOCK),  # one for all: pipelines share sources
            "done": str(folder / f"{pipeline}.json"),
            "repeat": True,
        }
        code, file = self._start(folder, pipeline, order, 1)
        return file if code else None

    def _carry_out(self, job: Job) -> Outcome:
        folder = job.folder(self.root)
        tree = _with_freshness(job.parameters, "ignore")  # what it loads has just been looked at
        tree = _with_work_dir(tree, str(folder / WORK)) | {"tables_root": str(folder / TABLES)}
        order: Order = {
            "project": str(self.project),
            "environment": self.environment,
            "pipeline": job.pipeline,
            "nodes": [job.node],
            "to_outputs": [],
            "parameters": tree,
            "lock": str(folder / LOCK),
            "done": str(folder / DONE),
            "repeat": False,
        }
        titles = ", ".join(cell.title for cell in job.cells)
        log.info("%s: begun", titles)
        begun = time.monotonic()
        code, file = self._start(folder, "", order, self.workers)
        seconds = time.monotonic() - begun
        state: State = "done" if code == 0 and job.finished(self.root) else "failed"
        if state == "done":
            shutil.rmtree(folder / WORK, ignore_errors=True)
        log.info("%s: %s after %.0f s", titles, state, seconds)
        return Outcome(job, state, seconds, file)

    def _start(self, folder: Path, name: str, order: Order, at_a_time: int) -> tuple[int, Path]:
        folder.mkdir(parents=True, exist_ok=True)
        prefix = f"{name}-" if name else ""
        file, text = folder / f"{prefix}{ORDER}", folder / f"{prefix}{LOG}"
        file.write_text(json.dumps(order, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        threads = max(1, (os.cpu_count() or 1) // at_a_time)
        return self.start(file, text, threads), text


def start_process(order: Path, text: Path, threads: int) -> int:
    """Run an order in a process of its own with a share of the cores, and answer with its exit code."""
    environment = child_environment(threads)
    command = [sys.executable, "-m", "reelrank.pipelines.experiments.cell", str(order)]
    with text.open("w", encoding="utf-8") as output:
        return subprocess.run(
            command, stdout=output, stderr=output, env=environment, check=False
        ).returncode


def collected(jobs: Sequence[Job], root: Path) -> pl.DataFrame:
    """Result rows of every finished job, each under the experiments and cells that it answers; a row that answers two stands twice."""
    frames = [_empty()]
    for job in jobs:
        if not job.finished(root):
            continue
        rows = [pl.read_parquet(file) for file in sorted((job.folder(root) / TABLES).rglob("*.parquet"))]  # fmt: skip
        for cell in job.cells:
            for frame in rows:
                own = frame.filter(experiment=cell.rows_of)
                if cell.only is not None:
                    own = own.filter(cell=cell.only)
                titled = own.with_columns(experiment=pl.lit(cell.experiment))
                if cell.named is not None:
                    titled = titled.with_columns(cell=pl.concat_str(pl.lit(f"{cell.named}, "), "cell"))  # fmt: skip
                frames.append(titled.select(Results.polars_schema().keys()))
    return pl.concat(frames).sort("experiment", maintain_order=True)


def _empty() -> pl.DataFrame:
    return results_frame(
        [], system="", source="", split="", seed=0, data_kind="world", config_hash=""
    )


def _with_freshness(tree: Mapping[str, Any], stale: str) -> dict[str, Any]:
    return {**tree, "freshness": {**tree.get("freshness", {}), "stale": stale}}


def _with_work_dir(tree: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The tree with unfinished training runs in a folder of the job: two jobs may train the same model at once."""
    return {
        key: {**block, "work_dir": folder}
        if isinstance(block, Mapping) and "work_dir" in block
        else block
        for key, block in tree.items()
    }
