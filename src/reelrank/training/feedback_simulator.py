"""Fits the feedback simulator: what the pipelines that use one share.

Source: METHODS §4.6 (Eq. 5), §1.8.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reelrank.features.splits import row_uniforms
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
from reelrank.models.feedback_options import SimulatorOptions, UserFold
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.models.tensor_record import TensorRecord
from reelrank.options import digest
from reelrank.tables import SPLITS
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.loop import FitResult, fit
from reelrank.training.options import TrainOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Impressions(TensorRecord):
    """What a simulator learns from, or is judged by.

    Attributes:
        rows: (R,) bool.
        windows: those that predict at least one of them.
    """

    rows: Tensor
    windows: Windows


def fold_of_users(n_users: int, fold: UserFold) -> Tensor:
    """(n_users,) bool, dense user ids that lie in a fold; with ``complement`` exactly the others."""
    inside = row_uniforms(np.arange(n_users), fold.seed) < fold.share
    return torch.from_numpy(inside != fold.complement)


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
    learnt, val = (impressions(inputs, roles, options, split, users) for split in (TRAIN, VAL))
    model = new_simulator(inputs, options, learnt, train.seed)

    def step(model: FeedbackSimulator, rows: Tensor, g: torch.Generator) -> Mapping[str, Tensor]:
        return model.losses(inputs, roles, learnt.windows[rows], learnt.rows, g)

    def validate(model: FeedbackSimulator) -> Mapping[str, float]:
        return {"negative_loss": -mean_loss(model, inputs, roles, val.windows, val.rows)}

    order = torch.Generator().manual_seed(train.seed)
    result = fit(
        model,
        batches_of_like_length(learnt.windows, train.batch_size, order),
        step_fn=step,
        validate_fn=validate,
        options=train,
        work_dir=work_dir,
        identity=dict(identity) | options.model_dump(mode="json") | _fold_identity(users),
    )
    predicted = model.predict_rows(inputs, roles, val.windows, val.rows, seed=train.seed)
    missing = model.calibrate(predicted, inputs.rows.response)
    if missing:
        log.warning("not calibrated, no validation row knows them: %s", ", ".join(missing))
    return model.eval(), result


def _fold_identity(users: Tensor | None) -> dict[str, object]:
    return {} if users is None else {"users": digest(users.nonzero().squeeze(1).tolist())}


def impressions(
    inputs: FeedInputs,
    roles: RowRoles,
    options: SimulatorOptions,
    split: int,
    users: Tensor | None = None,
) -> Impressions:
    """Rows of a split that the logging policy showed, random exposures apart, and the windows that hold them.

    Args:
        inputs: a log.
        roles: of its rows.
        options: window and warm-up.
        split: 0 train, 1 val, 2 test.
        users: (n_users,) bool, of these only; None: all.

    Raises:
        ValueError: there are none.
    """
    rows = roles.in_split(split)
    if users is not None:
        rows &= users.to(rows.device).repeat_interleave(inputs.rows.first.diff())
    every = cut_windows(inputs.rows.first, options.window, options.warm_up)
    windows = windows_with(every, rows)
    if not len(windows.user):
        of = "" if users is None else f" to the {int(users.sum())} users of the fold"
        raise ValueError(f"the {SPLITS[split]} split shows no rows under the logging policy{of}")
    return Impressions(rows, windows)


def new_simulator(
    inputs: FeedInputs, options: SimulatorOptions, learnt: Impressions, seed: int
) -> FeedbackSimulator:
    """Fresh weights on the device of ``inputs``, with the scales of the train rows; torch's global generator is left as it was.

    Raises:
        ValueError: the rows know no response.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FeedbackSimulator(options, FeedSpec.of(inputs), inputs.items)
    model.to(inputs.rows.item.device)
    model.set_scales(inputs.rows.response[learnt.rows])
    return model


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
