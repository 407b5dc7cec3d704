"""One training in a process of its own, and its validation metrics while it runs.

The training loop writes its history into the checkpoint of the unfinished run after every epoch, from which a killed run goes on. That
file is read here: the models know nothing of being tuned.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from reelrank.atomic import replace_file
from reelrank.children import child_environment, locked, tail

RUN, LOG, OUTCOME, WORK, MODELS, LOCK = "run.yml", "log.txt", "outcome.json", "work", "models", "lock"  # fmt: skip
POLL_S, PATIENCE_S = 0.5, 10.0
Row = Mapping[str, float]
Watch = Callable[[Sequence[float]], bool]
"""Sees the validation metric of every epoch so far; false gives the training up."""


@dataclass(frozen=True)
class Outcome:
    """Validation metric of every epoch of a training, and the epoch (from 1) whose weights were kept."""

    metric: list[float]
    epoch: int

    @property
    def value(self) -> float:
        """Metric of the weights that were kept."""
        return self.metric[self.epoch - 1]


class TrainingFailed(RuntimeError):
    """A training ended with an error; the text is the end of its log."""


@dataclass(frozen=True)
class Trainer:
    """Where and how a training node is run.

    Attributes:
        project: Kedro's project.
        environment: that it runs in; None: the project's own.
        threads: cores of one training.
    """

    project: Path
    environment: str | None
    threads: int

    def prepare(
        self, root: Path, pipeline: str, inputs: Sequence[str], tree: Mapping[str, Any]
    ) -> None:
        """Make the stored tables that the training loads, where they are missing or out of date; one process at a time.

        Raises:
            TrainingFailed: that failed.
        """
        folder = root / "prepared" / pipeline
        given = {**tree, "freshness": {**tree.get("freshness", {}), "stale": "rebuild"}}
        with locked(root / "prepared" / LOCK):
            config = self._write(folder, {"pipelines": pipeline, "to_outputs": ",".join(inputs)}, given)  # fmt: skip
            with (folder / LOG).open("w", encoding="utf-8") as output:
                code = self._start(config, output).wait()
        if code:
            raise TrainingFailed(
                f"what the training loads could not be made: {folder / LOG}\n{tail(folder / LOG)}"
            )

    def train(
        self, folder: Path, pipeline: str, node: str, tree: Mapping[str, Any], watch: Watch
    ) -> Outcome | None:
        """Validation metrics; None if ``watch`` gave it up.

        What was finished in this folder is not run again, and what was interrupted goes on from its last checkpoint.

        Args:
            folder: of this training.
            pipeline: registered.
            node: with its namespace.
            tree: all parameters.
            watch: called about twice a second.

        Raises:
            TrainingFailed: the run ended with an error, or its history has no validation metric.
        """
        if not (folder / OUTCOME).exists():
            given = {**tree, "freshness": {**tree.get("freshness", {}), "stale": "ignore"}}
            given = _with_work_dir(given, str(folder / WORK)) | {"models_root": str(folder / MODELS)}  # fmt: skip
            config = self._write(folder, {"pipelines": pipeline, "node_names": node}, given)
            if not self._watched(folder, config, watch):
                _remove(folder)
                return None
            with replace_file(folder / OUTCOME) as temporary:
                temporary.write_text(json.dumps(asdict(saved(folder / MODELS))) + "\n")
            _remove(folder)
        return Outcome(**json.loads((folder / OUTCOME).read_text()))

    def _watched(self, folder: Path, config: Path, watch: Watch) -> bool:
        """Run to the end; false if it was given up."""
        with (folder / LOG).open("a", encoding="utf-8") as output:
            process = self._start(config, output)
        try:
            while (code := process.poll()) is None:
                if not watch(progress(folder / WORK)):
                    return False
                time.sleep(POLL_S)
        finally:
            _end(process)
        if code:
            raise TrainingFailed(f"{folder / LOG}\n{tail(folder / LOG)}")
        return True

    def _write(self, folder: Path, what: Mapping[str, str], tree: Mapping[str, Any]) -> Path:
        """The run as a file for ``kedro run --config``."""
        folder.mkdir(parents=True, exist_ok=True)
        environment = {"env": self.environment} if self.environment else {}
        order = {"run": {**environment, **what, "params": dict(tree)}}
        text = yaml.safe_dump(order, sort_keys=False, allow_unicode=True)
        (folder / RUN).write_text(text, encoding="utf-8")
        return folder / RUN

    def _start(self, config: Path, output: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 (an open file)
        command = [
            sys.executable,
            "-m",
            "reelrank.pipelines.tuning.child",
            str(config),
            str(os.getpid()),
        ]
        environment = child_environment(self.threads)
        return subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, cwd=self.project
        )


def share_of_cores(workers: int) -> int:
    """Threads of each of so many trainings at a time."""
    return max(1, (os.cpu_count() or 1) // workers)


def progress(work: Path) -> list[float]:
    """Validation metric of the epochs that an unfinished run has behind it."""
    for file in work.glob("*/last/checkpoint.json"):
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))["config"]["history"]
        except (OSError, ValueError, KeyError):  # not there yet, or just finished
            continue
        return headline(rows)
    return []


def saved(models: Path) -> Outcome:
    """What a training node has saved: its ``{variant}_history``, and the epoch that its ``{variant}_model`` holds.

    Raises:
        TrainingFailed: there is no such pair, or no validation metric.
    """
    histories = sorted(models.glob("*/*_history.parquet/*/*.parquet"))
    checkpoints = sorted(models.glob("*/*/*/*/best/checkpoint.json"))
    if not histories or not checkpoints:
        raise TrainingFailed("the node saved no {variant}_history and {variant}_model")
    config = json.loads(checkpoints[-1].read_text(encoding="utf-8"))["config"]
    metric = headline(pl.read_parquet(histories[-1]).to_dicts())
    return Outcome(metric, int(config["best_epoch"]))


def headline(rows: Sequence[Row]) -> list[float]:
    """The first validation metric of every epoch, the one that stops a training early; nothing else is looked at (L9).

    Raises:
        TrainingFailed: there is none.
    """
    if not rows:
        return []
    name = next((name for name in rows[0] if name.startswith("val_")), None)
    if name is None:
        raise TrainingFailed(
            f"the history has no validation metric (val_…) to tune by, but {', '.join(rows[0])}"
        )
    return [float(row[name]) for row in rows]


def _with_work_dir(tree: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The tree with unfinished training runs in a folder of the trial."""
    return {
        key: {**block, "work_dir": folder}
        if isinstance(block, Mapping) and "work_dir" in block
        else block
        for key, block in tree.items()
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _remove(folder: Path) -> None:
    """Weights of trials are not kept: the best is trained again with its parameter file."""
    for name in (WORK, MODELS):
        shutil.rmtree(folder / name, ignore_errors=True)
