"""Thin nodes of the feedback simulator; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.evaluation.results import results_frame
from reelrank.models.feedback_options import SimulatorOptions, UserFold
from reelrank.pipelines.feedback_simulator.run_options import (
    MAIN,
    EvaluationOptions,
    RewardGrid,
    StudyOptions,
    changed,
)
from reelrank.provenance import result_columns
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions

if TYPE_CHECKING:
    from torch import Tensor

    from reelrank.pipelines.feedback_simulator.evaluate import Rows

log = logging.getLogger(__name__)
COLUMNS = (
    "user_id", "item_id", "ts_ms", "row_id", "scenario", "request_id", "session_id", "is_rand", "split",
    "click", "like", "follow", "comment", "hate", "long_view", "play_ms",
)  # fmt: skip


def make_impressions(
    interactions: BucketedTable, splits: BucketedTable
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Shown rows with their split, and counts of them; rows that the split leaves out stay, without one, as history."""
    parts = splits.scan().select("row_id", "split")
    rows = interactions.scan().join(parts, on="row_id", how="left").select(COLUMNS).collect()
    rows = rows.sort("user_id", "ts_ms", "row_id")
    of_split = rows.group_by("split", "is_rand").agg(
        rows=pl.len(), users=pl.col("user_id").n_unique(), items=pl.col("item_id").n_unique()
    )
    request = ["user_id", "request_id"]
    report = {
        "rows": rows.height,
        "splits": of_split.sort("split", "is_rand").cast({"split": pl.String}).to_dicts(),
        # a request counts an item once, and is random if any of its rows is
        "repeated_rows": rows.height - rows.n_unique([*request, "item_id"]),
        "standard_rows_of_random_requests": rows.filter(
            pl.col("is_rand") == 0, pl.col("is_rand").max().over(request) == 1
        ).height,
    }
    return rows, report


def train_feedback_simulator(
    simulator: SimulatorOptions,
    training: TrainOptions,
    fold: UserFold,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Fit on train impressions, calibrate on val ones. ``tables``: impressions, items, users."""
    from reelrank.pipelines.feedback_simulator.fitting import ImpressionTables, train

    return train(ImpressionTables(*tables), simulator, training, fold, Path(work_dir))


def predict(
    model: ModelCheckpoint,
    evaluation: EvaluationOptions,
    training: TrainOptions,
    raw_manifest: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    *tables: pl.DataFrame,
) -> pl.DataFrame:
    """Predictions of all test rows, beside what was answered and, in a world, what was to be expected. ``tables``: as in training."""
    from reelrank.pipelines.feedback_simulator import fitting

    made = fitting.ImpressionTables(*tables)
    inputs = made.inputs(training.device)
    expected = _expected(raw_manifest, made.impressions, user_map, item_map)
    if expected is not None:
        expected = expected.to(inputs.rows.item.device)
    return fitting.judged(model, inputs, seed=evaluation.seed, expected=expected)


def evaluate(
    responses: pl.DataFrame,
    impressions: pl.DataFrame,
    evaluation: EvaluationOptions,
    rewards: RewardGrid,
    training: TrainOptions,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    system: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
) -> pl.DataFrame:
    """MM-03: accuracy, calibration and uncertainty by response; MM-04: errors by exposure of the video; MM-07: the simulated reward of answers that were given."""
    from reelrank.pipelines.feedback_simulator import evaluate as judge

    bootstrap = judge.bootstrap_of(responses, evaluation)
    rows, _ = judge.main_rows(responses, evaluation, bootstrap)
    common = result_columns(MAIN, raw_manifest, training.seed, (system, source, world))
    frames = [_frame(rows, split_cuts, common, "MM-03", "main")]
    for cell, own in judge.decile_rows(responses, impressions, evaluation, bootstrap).items():
        frames.append(_frame(own, split_cuts, common, "MM-04", cell))
    for cell, own in judge.reward_rows(responses, rewards, evaluation, bootstrap).items():
        frames.append(_frame(own, split_cuts, common, "MM-07", cell))
    return pl.concat(frames)


def study(
    studies: StudyOptions,
    simulator: SimulatorOptions,
    training: TrainOptions,
    fold: UserFold,
    evaluation: EvaluationOptions,
    work_dir: str,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    system: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    impressions: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    responses: pl.DataFrame,
) -> pl.DataFrame:
    """Every cell that ``studies.run`` names, fitted anew and compared with the run's own simulator on the same rows."""
    from reelrank.models.feedback_accuracy import accuracy
    from reelrank.pipelines.feedback_simulator import evaluate as judge
    from reelrank.pipelines.feedback_simulator import fitting

    common = result_columns(MAIN, raw_manifest, training.seed, (system, source, world))
    frames = [results_frame([], **common, split=f"{split_cuts['rule']}/test")]
    if not studies.run:
        return frames[0]
    tables = fitting.ImpressionTables(impressions, items, users)
    inputs = tables.inputs(training.device)
    expected = _expected(raw_manifest, impressions, user_map, item_map)
    if expected is not None:
        expected = expected.to(inputs.rows.item.device)
    bootstrap = judge.bootstrap_of(responses, evaluation)
    main = accuracy(responses, bootstrap, evaluation.responses)
    for name in studies.run:
        log.info("MM-03: %s", name)
        cell = studies.cells[name]
        checkpoint, _ = fitting.train(
            tables,
            changed(simulator, cell.simulator),
            training,
            cell.fold or fold,
            Path(work_dir),
        )
        found = fitting.judged(checkpoint, inputs, seed=evaluation.seed, expected=expected)
        rows = judge.cell_rows(found, evaluation, bootstrap, main)
        frames.append(_frame(rows, split_cuts, common, "MM-03", name))
    return pl.concat(frames)


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows, in the order of the experiments."""
    return pl.concat(studies).sort("experiment", maintain_order=True)


def _expected(
    raw_manifest: dict[str, Any],
    impressions: pl.DataFrame,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
) -> Tensor | None:
    """True expected responses of all rows; None on real rows."""
    from reelrank.pipelines.feedback_simulator.fitting import planted_responses
    from reelrank.worlds.truth import Truth

    truth = Truth.behind(raw_manifest)
    return None if truth is None else planted_responses(impressions, truth, user_map, item_map)


def _frame(
    rows: Rows,
    split_cuts: Mapping[str, Any],
    common: Mapping[str, str | int | None],
    experiment: str,
    cell: str,
) -> pl.DataFrame:
    """Rows of one cell, standard and random exposures as parts of the split."""
    from reelrank.pipelines.feedback_simulator.evaluate import PARTS

    frames = []
    for exposure, own in rows.items():
        split = f"{split_cuts['rule']}/{PARTS[exposure]}"
        frames.append(results_frame(own, **common, split=split, experiment=experiment, cell=cell))
    return pl.concat(frames)
