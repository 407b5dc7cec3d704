"""The three places where the test is run: the world that wrote the log, a simulator fitted on other users, KuaiRec's full matrix.

Source: METHODS §4.8.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_data import trained_decisions
from reelrank.models.feed_environment import FeedEnvironment
from reelrank.models.feed_options import LONG_VIEW_S, FeedDataOptions
from reelrank.models.feed_start import past_of, starting_states, test_start, test_users
from reelrank.models.feed_windows import TRAIN, row_roles
from reelrank.models.feedback_options import SimulatorOptions, UserFold
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.models.matrix_environment import MatrixEnvironment, MatrixOptions
from reelrank.models.session_model import fit_sessions
from reelrank.models.simulator_environment import SimulatorEnvironment, SimulatorRolloutOptions
from reelrank.options import digest
from reelrank.pipelines.ab_test.run_options import (
    DesignOptions,
    MatrixPopulation,
    PopulationOptions,
    SimulatorPopulation,
)
from reelrank.provenance import code_version
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.feedback_simulator import (
    fit_simulator,
    fold_of_users,
    simulator_checkpoint,
)
from reelrank.training.options import TrainOptions
from reelrank.worlds.feed_world import environment_of_log
from reelrank.worlds.rollout import WorldRolloutOptions
from reelrank.worlds.truth import Truth

log = logging.getLogger(__name__)
Users = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """An environment and the dense ids (B,) of its users."""

    environment: FeedEnvironment
    users: Users


def world_place(
    truth: Truth,
    inputs: FeedInputs,
    raw_users: Users,
    raw_items: Users,
    test: DesignOptions,
    population: PopulationOptions,
    history: int,
) -> Place:
    """(a) The users of the test part in the world that wrote their log, from the first test moment on.

    Args:
        truth: of the world.
        inputs: the log, on the CPU.
        raw_users: (n_users,) official id of each dense one.
        raw_items: (n_items,) the same of videos.
        test: days, and the seed of who is taken.
        population: how many.
        history: rows that policies read.
    """
    users = _some(test_users(inputs), population.users, test.seed)
    options = WorldRolloutOptions(days=test.days, history=history)
    start_ms = test_start(inputs)
    environment = environment_of_log(
        truth, inputs, raw_users, raw_items, users, start_ms=start_ms, options=options
    )
    return Place(environment, users)


def fit_fold(
    inputs: FeedInputs,
    fold: UserFold,
    simulator: SimulatorOptions,
    training: TrainOptions,
    work_dir: Path,
    data: str,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """A simulator that has learnt from the users of a fold alone, and its history.

    Args:
        inputs: the log, on the device to train on.
        fold: who.
        simulator: sizes and losses.
        training: length and rates.
        work_dir: where an unfinished run keeps its state.
        data: digest of the log.
    """
    users = fold_of_users(len(inputs.rows.first) - 1, fold)
    identity = {"data": data, "code": code_version()}
    model, result = fit_simulator(
        inputs, simulator, training, work_dir=work_dir, identity=identity, users=users
    )
    made = simulator_checkpoint(model, result)
    fitted = {"fold": fold.model_dump(mode="json"), "best_epoch": result.best_epoch}
    config = {**made.config, **fitted}
    history = result.history.select(pl.lit("simulator").alias("variant"), pl.all())
    return ModelCheckpoint(config, made.best, made.last), history


def simulator_place(
    checkpoint: ModelCheckpoint,
    inputs: FeedInputs,
    fold: UserFold,
    test: DesignOptions,
    population: SimulatorPopulation,
    history: int,
) -> Place:
    """(b) The users of the test part outside of the fold, in a simulator of the fold's users.

    They answer as it predicts, and come and go as the fold's sessions do; candidates are drawn by their exposures in train.

    Raises:
        ValueError: nobody is outside of the fold, or too few videos were shown in train.
    """
    device = inputs.rows.item.device
    model = FeedbackSimulator.from_checkpoint(checkpoint.config, checkpoint.best, inputs.items)
    model.to(device)
    inside = fold_of_users(len(inputs.rows.first) - 1, fold)
    everyone = test_users(inputs)
    users = _some(everyone[~inside.numpy()[everyone]], population.users, test.seed)
    if not len(users):
        raise ValueError(
            f"fold: all {len(everyone)} users of the test part are in it, lower fold.share"
        )
    of_fold = inside.to(device).repeat_interleave(inputs.rows.first.diff())
    learnt = row_roles(inputs).in_split(TRAIN) & of_fold
    sessions = fit_sessions(inputs, model.standardised(inputs.rows.response), learnt)
    decisions = inputs.decisions
    train = trained_decisions(decisions)
    shown = decisions.candidates[train][decisions.shown[train]].cpu().numpy()
    exposures = np.bincount(shown, minlength=len(inputs.items.codes))
    pool = np.flatnonzero(exposures)
    start_ms = test_start(inputs)
    environment = SimulatorEnvironment(
        model,
        sessions,
        starting_states(inputs, users, past_of(inputs, users, start_ms, history)),
        users,
        inputs.items,
        pool=pool,
        popularity=exposures[pool] / exposures.sum(),
        start_ms=start_ms,
        options=SimulatorRolloutOptions(
            days=test.days, candidates=population.candidates, repeats=population.repeats
        ),
    )
    return Place(environment, users)


def matrix_place(
    observed: pl.DataFrame,
    inputs: FeedInputs,
    test: DesignOptions,
    population: MatrixPopulation,
    data: FeedDataOptions,
    history: int,
) -> Place | None:
    """(c) The users of a fully observed matrix, with what they had seen of the log by its first test moment.

    Users with too few observed pairs for a session are left out, and counted in the log of the run.

    Returns:
        None where nobody is left: the files hold no such matrix.
    """
    if observed.is_empty():
        return None
    ids = [observed[name].unique().sort().to_numpy().astype(np.int64) for name in ("user_id", "item_id")]  # fmt: skip
    users, pool = ids
    play = np.full((len(users), len(pool)), np.nan, np.float32)
    row, column = (
        np.searchsorted(known, observed[name].to_numpy())
        for known, name in zip(ids, ("user_id", "item_id"), strict=True)
    )
    play[row, column] = observed["play_ms"].to_numpy() / 1000
    enough = (~np.isnan(play)).sum(1) >= population.candidates + population.max_videos
    if not enough.all():
        log.warning(
            "%d of %d users of the matrix have fewer than %d + %d observed pairs and are left out",
            (~enough).sum(), len(enough), population.candidates, population.max_videos,
        )  # fmt: skip
    if not enough.any():
        return None
    chosen = _some(users[enough], population.users, test.seed)
    long_view_s = None
    if data.long_view == "rule":
        duration = observed.group_by("item_id").agg(pl.col("duration_ms").max()).sort("item_id")
        long_view_s = (duration["duration_ms"].cast(pl.Float64) / 1000).clip(upper_bound=LONG_VIEW_S).to_numpy()  # fmt: skip
    start_ms = test_start(inputs)
    environment = MatrixEnvironment(
        play[np.searchsorted(users, chosen)],
        pool,
        starting_states(inputs, chosen, past_of(inputs, chosen, start_ms, history)),
        inputs.items,
        start_ms=start_ms,
        options=MatrixOptions(
            days=test.days,
            candidates=population.candidates,
            max_videos=population.max_videos,
            short_play_s=population.short_play_s,
            short_plays=population.short_plays,
        ),
        long_view_s=long_view_s,
    )
    return Place(environment, chosen)


def fingerprint(*tables: pl.DataFrame) -> str:
    """Digest of the tables' contents."""
    made: list[Any] = [int(table.hash_rows().sum()) for table in tables]
    return digest(made)


def _some(users: Users, most: int, seed: int) -> Users:
    """At most so many of them, drawn once; 0 = all."""
    if not most:
        return users
    return np.sort(np.random.default_rng(seed).permutation(users)[:most])
