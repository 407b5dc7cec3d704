"""From tables to a fitted simulator and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.feed import RESPONSES, WATCH_TIME, FeedInputs
from reelrank.models.feed_data import feed_inputs, shown_sets
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feedback_accuracy import judged_rows
from reelrank.models.feedback_options import SimulatorOptions, UserFold
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.options import digest
from reelrank.pipelines.feedback_simulator.run_options import MAIN
from reelrank.provenance import code_version
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.device import pick_device
from reelrank.training.feedback_simulator import (
    fit_simulator,
    fold_of_users,
    simulator_checkpoint,
)
from reelrank.training.options import DeviceName, TrainOptions
from reelrank.worlds.truth import Truth


@dataclass(frozen=True)
class ImpressionTables:
    """What a simulator reads.

    Attributes:
        impressions: rows of ``Interactions`` with their split, by (user, time, row).
        items: ``Items``.
        users: ``Users``.
    """

    impressions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame

    def inputs(self, device: DeviceName) -> FeedInputs:
        """Tensors on a device: requests whose candidates are what they show."""
        return feed_inputs(
            self.impressions,
            self.items,
            self.users,
            FeedDataOptions(track="request", k=1),
            shown_sets(self.impressions),
            pick_device(device),
        )

    def fingerprint(self) -> str:
        """Digest of the tables' contents."""
        tables = (self.impressions, self.items, self.users)
        return digest([int(table.hash_rows().sum()) for table in tables])


def train(
    tables: ImpressionTables,
    simulator: SimulatorOptions,
    training: TrainOptions,
    fold: UserFold,
    work_dir: Path,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Fit on train rows of the fold's users, calibrate on their val rows.

    Args:
        tables: impressions, items, users.
        simulator: sizes and losses.
        training: length and rates.
        fold: users that it learns from.
        work_dir: where an unfinished run keeps its state, and is taken up again.

    Returns:
        Checkpoint, and the history with a row per epoch.

    Raises:
        ValueError: no train or no val rows, or they know no response.
    """
    inputs = tables.inputs(training.device)
    users = None if fold.share == 1 else fold_of_users(len(inputs.rows.first) - 1, fold)
    model, result = fit_simulator(
        inputs,
        simulator,
        training,
        work_dir=work_dir,
        identity={"data": tables.fingerprint(), "code": code_version()},
        users=users,
    )
    checkpoint = simulator_checkpoint(model, result)
    config = {
        **checkpoint.config,
        "training": training.model_dump(mode="json"),
        "fold": fold.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in model.parameters()),
        "best_epoch": result.best_epoch,
        "code_version": code_version(),
    }
    history = result.history.select(pl.lit(MAIN).alias("variant"), pl.all())
    return ModelCheckpoint(config, checkpoint.best, checkpoint.last), history


def judged(
    checkpoint: ModelCheckpoint,
    inputs: FeedInputs,
    *,
    seed: int,
    expected: Tensor | None,
) -> pl.DataFrame:
    """Predictions of all test rows; see ``models.feedback_accuracy.judged_rows``."""
    model = FeedbackSimulator.from_checkpoint(checkpoint.config, checkpoint.best, inputs.items)
    model.to(inputs.rows.item.device)
    return judged_rows(model, inputs, seed=seed, expected=expected)


def planted_responses(
    impressions: pl.DataFrame, truth: Truth, user_map: pl.DataFrame, item_map: pl.DataFrame
) -> Tensor:
    """True expected responses (R, 7) of a world's rows, in the order of ``FeedRows``; watch time in seconds, not winsorised."""
    log = impressions.sort("user_id", "ts_ms", "row_id")
    user, item = (
        mapping["raw_id"].to_numpy()[log[column].to_numpy()]
        for mapping, column in ((user_map, "user_id"), (item_map, "item_id"))
    )
    expected = truth.expected(user, item, log["ts_ms"].to_numpy(), log["scenario"].to_numpy())
    columns = [expected[name] for name in RESPONSES[:WATCH_TIME]]
    columns.append(expected["play_ms"] / 1000)
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
