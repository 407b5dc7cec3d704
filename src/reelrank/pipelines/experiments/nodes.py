"""Thin nodes: say what is to be done, do it, collect the rows, read the verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from kedro.framework.project import pipelines
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table

from reelrank.children import tail
from reelrank.evaluation import verdicts as reading
from reelrank.pipelines.experiments import plan as planning
from reelrank.pipelines.experiments import running
from reelrank.pipelines.experiments.options import ExperimentsParameters
from reelrank.pipelines.experiments.plan import Job

PLAN: dict[str, type[pl.DataType]] = {
    "experiment": pl.String, "cell": pl.String, "state": pl.String, "seconds": pl.Float64, "measured": pl.Boolean, "note": pl.String,
    "job": pl.String, "key": pl.String,
}  # fmt: skip
RUNS: dict[str, type[pl.DataType]] = {
    "experiment": pl.String, "cell": pl.String, "state": pl.String, "seconds": pl.Float64, "log": pl.String,
    "job": pl.String, "key": pl.String,
}  # fmt: skip
FINISHED, WAITING, STUCK = "finished", "to run", "cannot run"
COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


class CellsFailed(RuntimeError):
    """Some cells did not run to their end; the rows of the others are stored."""


def plan(
    experiments: ExperimentsParameters,
    wanted: Any,  # noqa: ANN401 (Kedro checks no union: a text or a list)
    parameters: dict[str, Any],
) -> pl.DataFrame:
    """Every cell that is asked for, whether it is finished, and how long it will take; printed.

    Args:
        experiments: the registry.
        wanted: ids or families, a text or a list of texts.
        parameters: the whole tree.

    Raises:
        ValueError: an id is unknown; those that look like it are named.
    """
    ids = planning.chosen_ids(wanted, experiments.registry)
    root = Path(experiments.folder)
    rows: list[dict[str, Any]] = []
    shared: dict[str, str] = {}
    jobs = _jobs(experiments, ids, parameters)
    for job in jobs:
        finished = job.finished(root)
        guess = planning.expected(job, root)
        for cell in job.cells:
            first = shared.setdefault(job.name, cell.title)
            note = "" if first == cell.title else f"the run of {first}"
            own = {} if finished or note else {"seconds": guess.seconds, "measured": guess.measured}
            state = FINISHED if finished else WAITING
            rows.append({"experiment": cell.experiment, "cell": cell.name, "state": state, "note": note, "job": job.name, "key": job.key} | own)  # fmt: skip
    for name in ids:
        if why := experiments.registry[name].status:
            rows.append({"experiment": name, "cell": "…", "state": STUCK, "note": why})
    table = pl.DataFrame(rows, schema=PLAN).sort("experiment", maintain_order=True)
    waiting = {job.pipeline for job in jobs if not job.finished(root)}
    before = {p: planning.expected_preparation(p, root, experiments.prepare_minutes) for p in sorted(waiting)}  # fmt: skip
    _print_plan(table, before, experiments.workers)
    return table


def run_cells(
    plan: pl.DataFrame,
    experiments: ExperimentsParameters,
    wanted: Any,  # noqa: ANN401 (Kedro checks no union: a text or a list)
    parameters: dict[str, Any],
) -> pl.DataFrame:
    """Run what is not finished, each cell in a process of its own; what became of every cell."""
    ids = planning.chosen_ids(wanted, experiments.registry)
    runner = running.Runner(
        root=Path(experiments.folder),
        project=Path(experiments.project),
        environment=None if experiments.environment == "base" else experiments.environment,
        workers=experiments.workers,
        start=running.start_process,
    )
    rows = [
        {
            "experiment": cell.experiment,
            "cell": cell.name,
            "state": outcome.state,
            "seconds": outcome.seconds,
            "log": None if outcome.log is None else str(outcome.log),
            "job": outcome.job.name,
            "key": outcome.job.key,
        }
        for outcome in runner.run(_jobs(experiments, ids, parameters))
        for cell in outcome.job.cells
    ]
    return pl.DataFrame(rows, schema=RUNS).sort("experiment", maintain_order=True)


def collect(
    runs: pl.DataFrame, experiments: ExperimentsParameters, parameters: dict[str, Any]
) -> pl.DataFrame:
    """Result rows of every cell that is finished as the parameters and the code are now, of this call or an earlier one."""
    jobs = _jobs(experiments, list(experiments.registry), parameters)
    return running.collected(jobs, Path(experiments.folder))


def judge(results: pl.DataFrame, experiments: ExperimentsParameters) -> pl.DataFrame:
    """The verdict on every experiment."""
    rows = results.with_columns(run_id=pl.lit("this run"))
    return reading.verdicts(rows, experiments.registry)


def summarise(
    verdicts: pl.DataFrame, runs: pl.DataFrame, experiments: ExperimentsParameters
) -> None:
    """Print the verdicts on what was asked for.

    Raises:
        CellsFailed: some cells failed; with the ends of their logs.
    """
    table = Table("experiment", "cells", "verdict", "what was found", title="Experiments")
    states = {
        name: Counter(own["state"].to_list())
        for (name,), own in runs.group_by("experiment", maintain_order=True)
    }
    shown = verdicts.filter("newest", pl.col("experiment").is_in([*states]))
    for row in shown.iter_rows(named=True):
        count = ", ".join(f"{n} {state}" for state, n in states[row["experiment"]].items())
        colour = COLOURS.get(row["verdict"])
        word = f"[{colour}]{row['verdict']}[/]" if colour else row["verdict"]
        table.add_row(row["experiment"], count, word, row["sentence"])
    Console().print(table)
    failed = runs.filter(state="failed")
    if not failed.is_empty():
        ends = [
            f"{', '.join(own['experiment'] + '.' + own['cell'])}: {log}\n{tail(Path(str(log)))}"
            for (log,), own in failed.group_by("log", maintain_order=True)
        ]
        raise CellsFailed(
            f"{failed.height} of {runs.height} cells failed; the others are stored, and the same command tries these again.\n"
            + "\n\n".join(ends)
        )


def _jobs(
    experiments: ExperimentsParameters, ids: list[str], parameters: Mapping[str, Any]
) -> list[Job]:
    tree = to_jsonable_python(parameters)
    return planning.make_jobs(experiments.registry, ids, tree, pipelines)


def _print_plan(table: pl.DataFrame, before: Mapping[str, planning.Expected], workers: int) -> None:
    shown = Table("experiment", "cell", "state", "time", "", title="Cells")
    for row in table.iter_rows(named=True):
        time = "" if row["seconds"] is None else _duration(row["seconds"], row["measured"])
        shown.add_row(row["experiment"], row["cell"], row["state"], time, row["note"])
    for pipeline, guess in before.items():
        time = _duration(guess.seconds, guess.measured)
        shown.add_row("", f"what cells of {pipeline} load", "at most", time, "fresh tables are not made again")  # fmt: skip
    console = Console()
    console.print(shown)
    cells = float(table["seconds"].sum()) / workers
    most = cells + sum(guess.seconds for guess in before.values())
    count = table.filter(state=WAITING).height
    stuck = table.filter(state=STUCK).height
    console.print(
        f"{count} cells to run: about {_duration(cells, True)}, with all that they load at most {_duration(most, True)}"
        f" ({workers} at a time); {table.filter(state=FINISHED).height} are finished"
        + (f"; {stuck} experiments have parts that cannot run yet" if stuck else "")
        + ". A time with a ~ is a guess, the others were measured.",
        soft_wrap=True,
    )


def _duration(seconds: float, measured: bool) -> str:
    mark = "" if measured else "~"
    return f"{mark}{seconds:.0f} s" if seconds < 90 else f"{mark}{seconds / 60:.0f} min"
