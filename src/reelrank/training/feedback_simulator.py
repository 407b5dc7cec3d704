"""Fits the feedback simulator: what the pipelines that use one share.

Source: METHODS §4.6 (Eq. 5), §1.8.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_windows import (
    TRAIN,
    VAL,
    RowRoles,
    Windows,
    batches_of_like_length,
    cut_windows,
    in_batches,
    row_roles,
    windows_with,
)
from reelrank.models.feedback_simulator import FeedbackSimulator, SimulatorOptions
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.loop import FitResult, fit
from reelrank.training.options import TrainOptions

log = logging.getLogger(__name__)


def fit_simulator(
    inputs: FeedInputs,
    options: SimulatorOptions,
    train: TrainOptions,
    *,
    work_dir: Path,
    identity: Mapping[str, object],
    users: Tensor | None = None,
) -> tuple[FeedbackSimulator, FitResult]:
    """Fit on the train rows, keep the epoch with the lowest validation loss, calibrate it on the validation rows.

    Args:
        inputs: on the device to train on; random exposures are read as history and never learnt.
        options: of the simulator.
        train: of the training; ``batch_size`` counts windows of users' rows.
        work_dir: parent of the run's own folder.
        identity: what the result depends on beside the options: fingerprint of the data and of the code.
        users: (n_users,) bool, learn from these only (a fold); None: all.

    Returns:
        The calibrated simulator in evaluation mode, and what training left.

    Raises:
        ValueError: no train or no val rows, or they know no response.
    """
    roles = row_roles(inputs)
    wanted = {split: roles.in_split(split) for split in (TRAIN, VAL)}
    if users is not None:
        of_users = users.repeat_interleave(inputs.rows.first.diff())
        wanted = {split: rows & of_users for split, rows in wanted.items()}
    every = cut_windows(inputs.rows.first, options.window, options.warm_up)
    windows = {split: windows_with(every, rows) for split, rows in wanted.items()}
    for name, split in (("train", TRAIN), ("val", VAL)):
        if not len(windows[split].user):
            raise ValueError(f"the {name} split shows no rows under the logging policy")
    torch.manual_seed(train.seed)
    model = FeedbackSimulator(options, FeedSpec.of(inputs), inputs.items)
    model.to(inputs.rows.item.device)
    model.set_scales(inputs.rows.response[wanted[TRAIN]])

    def step(model: FeedbackSimulator, rows: Tensor, g: torch.Generator) -> Mapping[str, Tensor]:
        return model.losses(inputs, roles, windows[TRAIN][rows], wanted[TRAIN], g)

    def validate(model: FeedbackSimulator) -> Mapping[str, float]:
        return {"negative_loss": -mean_loss(model, inputs, roles, windows[VAL], wanted[VAL])}

    order = torch.Generator().manual_seed(train.seed)
    result = fit(
        model,
        batches_of_like_length(windows[TRAIN], train.batch_size, order),
        step_fn=step,
        validate_fn=validate,
        options=train,
        work_dir=work_dir,
        identity=dict(identity) | options.model_dump(mode="json"),
    )
    predicted = model.predict_rows(inputs, roles, windows[VAL], wanted[VAL], seed=train.seed)
    missing = model.calibrate(predicted, inputs.rows.response)
    if missing:
        log.warning("not calibrated, no validation row knows them: %s", ", ".join(missing))
    return model.eval(), result


def mean_loss(
    model: FeedbackSimulator,
    inputs: FeedInputs,
    roles: RowRoles,
    windows: Windows,
    wanted: Tensor,
    batch_size: int = 64,
) -> float:
    """Σ over heads of Eq. 5 without dropout, a mean over batches by windows."""
    total = 0.0
    for some in in_batches(windows, batch_size):
        total += float(model.losses(inputs, roles, some, wanted, None)["loss"]) * len(some.user)
    return total / len(windows.user)


def simulator_checkpoint(model: FeedbackSimulator, result: FitResult) -> ModelCheckpoint:
    """The calibrated simulator as ``best``; ``last`` holds the last epoch's weights with the same calibration."""
    state = {name: t.detach().cpu() for name, t in model.state_dict().items()}
    calibration = {n: t for n, t in state.items() if n.startswith("calibration.")}
    return ModelCheckpoint(model.config(), state, dict(result.last) | calibration)
