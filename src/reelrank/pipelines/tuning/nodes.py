"""Thin nodes: search, confirm on other seeds, weigh the parameters, write down the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import yaml
from kedro.framework.project import pipelines
from optuna.trial import FrozenTrial, TrialState
from pydantic_core import to_jsonable_python

from reelrank.options import digest
from reelrank.pipelines.tuning import study as studies
from reelrank.pipelines.tuning.options import TuningParameters
from reelrank.pipelines.tuning.space import Check, Values, nested, stored
from reelrank.pipelines.tuning.study import NoTrial, Search, counts
from reelrank.pipelines.tuning.task import Task, make_task, readable
from reelrank.pipelines.tuning.training import Outcome, Trainer, Watch, share_of_cores

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "given up", "failed", "running"
STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: RUNNING,
}
TRIALS: dict[str, pl.DataType | type[pl.DataType]] = {
    "study": pl.String, "trial": pl.Int64, "state": pl.String, "origin": pl.String, "value": pl.Float64, "best_epoch": pl.Int64,
    "curve": pl.List(pl.Float64), "seconds": pl.Float64, "same_as": pl.Int64, "error": pl.String,
}  # fmt: skip
CONFIRMED: dict[str, type[pl.DataType]] = {"seed": pl.Int64, "defaults": pl.Float64, "best": pl.Float64}  # fmt: skip
IMPORTANCE: dict[str, type[pl.DataType]] = {"parameter": pl.String, "importance": pl.Float64}


def _no_check(_: Mapping[str, Any]) -> list[str]:
    return []


def search(
    tuning: TuningParameters, system: str, parameters: dict[str, Any], check: Check = _no_check
) -> pl.DataFrame:
    """Every trial of the study, after those that it lacks were run: a row per trial that counts, with a column per parameter.

    Args:
        tuning: how it is searched.
        system: name of a space.
        parameters: the whole tree.
        check: what is wrong with a tree of parameters.

    Raises:
        ValueError: the system is unknown, or its space is wrong.
        StudyUnreachable: the storage cannot be reached.
        NoTrial: none was trained to its end.
    """
    task = task_of(tuning, system, parameters, check)
    study = studies.open_study(task, tuning)
    folder = Path(tuning.folder) / task.study
    trainer = _trainer(tuning, tuning.workers)
    searching = Search(study, task, tuning, folder, partial(_train, trainer, task))
    if searching.missing():
        trainer.prepare(Path(tuning.folder), task.options.pipeline, task.inputs, task.tree)
        searching.run()
    with studies.reachable(tuning.storage):
        trials = [trial for trial in study.get_trials(deepcopy=False) if counts(trial)]
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        errors = [str(t.user_attrs[studies.ERROR]) for t in trials if studies.ERROR in t.user_attrs]
        raise NoTrial(
            f"{task.study}: no trial was trained to its end: {errors[-1] if errors else 'all run elsewhere, or were given up'}"
        )
    return trial_table(task, trials)


def confirm(
    trials: pl.DataFrame, tuning: TuningParameters, system: str, parameters: dict[str, Any]
) -> pl.DataFrame:
    """Validation metric of the defaults and of the best trial with seeds by which nothing was chosen; no row if they are the same."""
    task = task_of(tuning, system, parameters)
    best = best_trial(trials)
    if best["origin"] == studies.DEFAULTS or not tuning.confirming_seeds:
        return pl.DataFrame(schema=CONFIRMED)
    trainer = _trainer(tuning, 1)
    folder = Path(tuning.folder) / task.study / "confirmed"

    def value(values: Values, seed: int) -> float:
        own = folder / f"{seed}-{digest(dict(values))[:6]}"
        found = _train(trainer, task, own, values, lambda _: True, seed)
        if found is None:
            raise ValueError(f"{own}: a training that nobody gives up was given up")
        return found.value

    tuned = readable(task, {path: best[path] for path in task.space})
    present = readable(task, task.defaults())
    rows = [
        {"seed": seed, "defaults": value(present, seed), "best": value(tuned, seed)}
        for seed in tuning.confirming_seeds
    ]
    return pl.DataFrame(rows, schema=CONFIRMED)


def weigh(
    trials: pl.DataFrame, tuning: TuningParameters, system: str, parameters: dict[str, Any]
) -> pl.DataFrame:
    """Share of the metric's variation that each parameter explains (PED-ANOVA), largest first; no row where too few trials differ."""
    task = task_of(tuning, system, parameters)
    with studies.reachable(tuning.storage):
        study = studies.open_study(task, tuning)
        finished = trials.filter(state=COMPLETE)
        if finished["value"].n_unique() < 2 or finished.select(list(task.space)).n_unique() < 2:
            return pl.DataFrame(schema=IMPORTANCE)
        found = optuna.importance.get_param_importances(study, params=list(task.space))
    return pl.DataFrame(list(found.items()), schema=IMPORTANCE, orient="row")


def write_best(
    trials: pl.DataFrame, tuning: TuningParameters, system: str, parameters: dict[str, Any]
) -> tuple[str, str]:
    """The best trial as a file of parameters, for ``conf/…/parameters``, and as one for ``kedro run --config``."""
    task = task_of(tuning, system, parameters)
    best = best_trial(trials)
    values = readable(task, {path: best[path] for path in task.space})
    tree = nested(values)
    own = (
        "the defaults: no trial was better"
        if best["origin"] == studies.DEFAULTS
        else f"trial {best['trial']}"
    )
    head = (
        f"# {task.study}, {trials.height} trials: {own}, {task.options.metric} {best['value']:.4g} on validation.\n"
        "# Chosen with seed {seed}; seeds of evaluation are not touched.\n"
    ).format(seed=tuning.training_seed)
    run = {"run": {"pipelines": task.options.pipeline, "params": tree}}
    return head + _yaml(tree), head + _yaml(run)


def task_of(
    tuning: TuningParameters, system: str, parameters: Mapping[str, Any], check: Check = _no_check
) -> Task:
    """What is asked for; it is checked once, before the search."""
    return make_task(system, tuning, to_jsonable_python(parameters), pipelines, check)


def best_trial(trials: pl.DataFrame) -> dict[str, Any]:
    """The finished trial with the largest value, the earliest of equals; the defaults, if none is better."""
    finished = trials.filter(state=COMPLETE)
    order = finished.with_columns(first=pl.col("origin").eq_missing(studies.DEFAULTS))
    return order.sort(["value", "first", "trial"], descending=[True, True, False]).row(0, named=True)  # fmt: skip


def trial_table(task: Task, trials: Sequence[FrozenTrial]) -> pl.DataFrame:
    """A row per trial; a list stands as its text."""
    rows = [_row(task, trial) for trial in trials]
    columns = {path: pl.Series(path, [stored(row[path]) for row in rows], strict=False) for path in task.space}  # fmt: skip
    return pl.DataFrame(rows, schema=TRIALS).with_columns(**columns)


def _row(task: Task, trial: FrozenTrial) -> dict[str, Any]:
    said = trial.user_attrs
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    value = trial.value if trial.state == TrialState.COMPLETE else max(curve, default=None)
    best = curve.index(max(curve)) + 1 if curve else None
    return {
        "study": task.study,
        "trial": trial.number,
        "state": STATES[trial.state],
        "origin": said.get(studies.ORIGIN),
        "value": value,
        "best_epoch": said.get(studies.EPOCH, best),
        "curve": curve,
        "seconds": said.get(studies.SECONDS),
        "same_as": said.get(studies.SAME_AS),
        "error": said.get(studies.ERROR),
        **{path: trial.params.get(path) for path in task.space},
    }


def _train(
    trainer: Trainer,
    task: Task,
    folder: Path,
    values: Values,
    watch: Watch,
    seed: int | None = None,
) -> Outcome | None:
    tree = task.parameters(values, seed)
    return trainer.train(folder, task.options.pipeline, task.node, tree, watch)


def _trainer(tuning: TuningParameters, at_a_time: int) -> Trainer:
    environment = None if tuning.environment == "base" else tuning.environment
    return Trainer(Path(tuning.project), environment, share_of_cores(at_a_time))


def _yaml(tree: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)
