"""Thin nodes of the A/B test; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feedback_options import SimulatorOptions, UserFold
from reelrank.pipelines.ab_test import columns
from reelrank.pipelines.ab_test.run_options import (
    CONTROL,
    DesignOptions,
    EvaluationOptions,
    MatrixPopulation,
    PopulationOptions,
    SimulatorPopulation,
)
from reelrank.provenance import result_columns
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import DeviceName, TrainOptions
from reelrank.worlds.truth import Truth

if TYPE_CHECKING:
    from reelrank.models.feed import FeedInputs


def fit_simulator(
    fold: UserFold,
    simulator: SimulatorOptions,
    training: TrainOptions,
    work_dir: str,
    data: FeedDataOptions,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """A feedback simulator that has seen only the users of a fold. ``tables``: see ``_inputs``."""
    from reelrank.pipelines.ab_test.environments import fingerprint, fit_fold

    inputs = _inputs(data, training.device, *tables)
    return fit_fold(inputs, fold, simulator, training, Path(work_dir), fingerprint(*tables))


def estimate_off_policy(
    raw_manifest: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    propensities: pl.DataFrame,
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    data: FeedDataOptions,
    evaluation: EvaluationOptions,
    **scores: pl.DataFrame,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the log says of every arm, as sums by user, in a world beside what is true; and the temperature of each."""
    from reelrank.pipelines.ab_test.off_policy import TEST, decisions_of, off_policy_sums
    from reelrank.worlds.feed_world import expected_responses

    inputs = _inputs(data, "cpu", feed_log, items, users, feed_candidates)
    truth, expected = Truth.behind(raw_manifest), None
    if truth is not None:
        raw = user_map["raw_id"].to_numpy(), item_map["raw_id"].to_numpy()
        expected = expected_responses(truth, inputs, decisions_of(inputs, TEST), *raw)
    return off_policy_sums(scores, propensities, inputs, evaluation, expected)


def live_in_world(
    raw_manifest: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    temperatures: pl.DataFrame,
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    data: FeedDataOptions,
    test: DesignOptions,
    population: PopulationOptions,
    training: TrainOptions,
    **models: ModelCheckpoint,
) -> pl.DataFrame:
    """(a) Every arm in the world itself, serving its best and as the estimators take it; no rows where the files are real."""
    from reelrank.pipelines.ab_test import arms, environments

    truth = Truth.behind(raw_manifest)
    if truth is None:
        return arms.no_days()
    place = environments.world_place(
        truth,
        _inputs(data, "cpu", feed_log, items, users, feed_candidates),
        user_map["raw_id"].to_numpy(),
        item_map["raw_id"].to_numpy(),
        test,
        population,
        arms.longest_history(models),
    )
    softened = dict(temperatures.select("arm", "temperature").iter_rows())
    device = _device(training.device)
    frames = [
        arms.run_arms(
            place.environment,
            place.users,
            arms.trained_arms(models, device, scale),
            CONTROL,
            test,
            lives=population.lives,
            k=data.k,
            serving=serving,
        )
        for serving, scale in ((columns.BEST, None), (columns.SOFT, softened))
    ]
    return pl.concat(frames)


def live_in_simulator(
    simulator_model: ModelCheckpoint,
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    data: FeedDataOptions,
    fold: UserFold,
    test: DesignOptions,
    population: SimulatorPopulation,
    training: TrainOptions,
    **models: ModelCheckpoint,
) -> pl.DataFrame:
    """(b) Every arm in the simulator, for users that it has not seen."""
    from reelrank.pipelines.ab_test import arms, environments

    place = environments.simulator_place(
        simulator_model,
        _inputs(data, training.device, feed_log, items, users, feed_candidates),
        fold,
        test,
        population,
        arms.longest_history(models),
    )
    own = arms.trained_arms(models, _device(training.device))
    return arms.run_arms(place.environment, place.users, own, CONTROL, test, lives=population.lives, k=data.k)  # fmt: skip


def live_in_matrix(
    observed: pl.DataFrame,
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    data: FeedDataOptions,
    test: DesignOptions,
    population: MatrixPopulation,
    training: TrainOptions,
    **models: ModelCheckpoint,
) -> pl.DataFrame:
    """(c) Policies of KuaiRec's log in its fully observed matrix; no rows where the files hold none."""
    from reelrank.pipelines.ab_test import arms, environments

    inputs = _inputs(data, "cpu", feed_log, items, users, feed_candidates)
    history = arms.longest_history(models)
    place = environments.matrix_place(observed, inputs, test, population, data, history)
    if place is None:
        return arms.no_days()
    own = arms.trained_arms(models, _device(training.device))
    return arms.run_arms(place.environment, place.users, own, CONTROL, test, lives=population.lives, k=data.k)  # fmt: skip


def evaluate(
    world_days: pl.DataFrame,
    simulator_days: pl.DataFrame,
    off_policy: pl.DataFrame,
    temperatures: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    test: DesignOptions,
    evaluation: EvaluationOptions,
    system: dict[str, Any],
    shared: dict[str, Any],
    policies: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """MM-10: effects of every arm in the world and in the simulator; off-policy; and how far the estimates agree with the world."""
    from reelrank.pipelines.ab_test import evaluate as judging

    found = judging.evaluate(world_days, simulator_days, off_policy, CONTROL, test, evaluation)
    blocks = (system, shared, policies, source, world)
    common = _common(raw_manifest, split_cuts, test, blocks)
    return (
        _frame(found.effects, common),
        _frame(
            {"temperatures": judging.temperature_rows(temperatures), **found.off_policy}, common
        ),
        _frame({"agreement": found.agreement}, common),
    )


def evaluate_matrix(
    matrix_days: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    test: DesignOptions,
    evaluation: EvaluationOptions,
    system: dict[str, Any],
    shared: dict[str, Any],
    policies: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
) -> pl.DataFrame:
    """MM-10: effects of every arm in KuaiRec's matrix."""
    from reelrank.pipelines.ab_test import evaluate as judging

    rows = judging.evaluate_matrix(matrix_days, CONTROL, test, evaluation)
    blocks = (system, shared, policies, source, world)
    return _frame({judging.MATRIX: rows}, _common(raw_manifest, split_cuts, test, blocks))


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows."""
    return pl.concat(studies)


def _inputs(data: FeedDataOptions, device: DeviceName, *tables: pl.DataFrame) -> FeedInputs:
    """Tensors of log, items, users and candidates."""
    from reelrank.models.feed_data import feed_inputs

    log, items, users, candidates = tables
    sets = candidates if data.track == "request" else None
    return feed_inputs(log, items, users, data, sets, _device(device))


def _device(name: DeviceName) -> str:
    from reelrank.training.device import pick_device

    return str(pick_device(name))


def _common(
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    test: DesignOptions,
    blocks: tuple[dict[str, Any], ...],
) -> dict[str, str | int | None]:
    """What all result rows of a source have in common."""
    split = f"{split_cuts['rule']}/test"
    return result_columns(
        "ab_test", raw_manifest, test.seed, blocks, split=split, experiment="MM-10"
    )


def _frame(cells: dict[str, list[ResultRow]], common: dict[str, str | int | None]) -> pl.DataFrame:
    frames = [results_frame(rows, **common, cell=cell) for cell, rows in cells.items()]
    return pl.concat([results_frame([], **common), *frames])
