"""Propensities of a log that keeps none: a model of the policy that logged, cross-fitted by user and calibrated.

Source: METHODS §7.2 [S, A].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field
from scipy.optimize import minimize_scalar

from reelrank.evaluation.calibration import ece
from reelrank.evaluation.off_policy.estimators import FloatArray, IntArray
from reelrank.evaluation.off_policy.folds import FOLDS, user_folds
from reelrank.evaluation.off_policy.softening import mean_entropy, softened
from reelrank.options import Options

if TYPE_CHECKING:
    from reelrank.models.behaviour_policy import Choices, SoftmaxPolicy

_LOG_TEMPERATURE = (-3.0, 3.0)


class BehaviourOptions(Options):
    """How the logging policy is modelled."""

    kind: Literal["mlp", "logistic"] = Field(
        "mlp", description="softmax MLP, or multinomial logistic for small data"
    )
    hidden: tuple[int, ...] = Field((512, 256, 256), description="mlp: hidden widths [A]")
    epochs: int = Field(50, ge=1, description="mlp: passes over the train rows at most [D]")
    batch_size: int = Field(512, ge=1, description="mlp: rows of a step [A]")
    lr: float = Field(1e-4, gt=0, description="mlp: Adam's learning rate [A]")
    patience: int = Field(3, ge=1, description="mlp: epochs without a lower val log loss [D]")
    l2: float = Field(1.0, ge=0, description="logistic: ½·l2·|W|² beside the summed log loss [D]")
    folds: int = Field(FOLDS, ge=2, description="folds of users [S]")
    floor: float = Field(1e-4, gt=0, lt=1, description="smallest propensity [S]")
    seed: int = Field(0, ge=0, description="seed of folds, initialisation and batches")


@dataclass(frozen=True, slots=True)
class BehaviourRows:
    """Logged choices, as the model of the logging policy sees them.

    Attributes:
        user: (n,) ids.
        context: (n, d) what the logging policy may have looked at, known before the choice.
        action: (n,) 0 … A − 1.
        candidates: (n, C) actions that could be chosen, −1 = none; None = all A.
    """

    user: npt.NDArray[np.generic]
    context: FloatArray
    action: IntArray
    candidates: IntArray | None = None


@dataclass(frozen=True, slots=True)
class BehaviourPolicy:
    """A fitted logging policy π̂_b.

    Attributes:
        models: one per fold; the k-th has not seen the users of fold k.
        temperature: of all logits, fitted on val.
        options: how it was fitted.
        n_actions: A.
        report: a row for ``train`` (each row by the model that did not see its user) and one for ``val``: n, log_loss,
            log_loss_uniform (of equal chances), top1, ece (of the likeliest action), entropy (nats), floored (share of rows).
    """

    models: tuple[SoftmaxPolicy, ...]
    temperature: float
    options: BehaviourOptions
    n_actions: int
    report: pl.DataFrame

    def probabilities(self, rows: BehaviourRows) -> FloatArray:
        """(n, A) or (n, C): π̂_b of all actions, or of the candidates; rows sum to 1."""
        return softened(_logits(self.models, rows, self.n_actions, self.options), self.temperature)

    def propensity(self, rows: BehaviourRows) -> FloatArray:
        """(n,) π̂_b of the logged action, not below the floor."""
        target = _targets(rows, self.n_actions)
        own = np.take_along_axis(self.probabilities(rows), target[:, None], axis=1)[:, 0]
        return np.maximum(own, self.options.floor)


def fit_behaviour_policy(
    train: BehaviourRows,
    val: BehaviourRows,
    n_actions: int,
    options: BehaviourOptions | None = None,
    *,
    device: str = "cpu",
) -> BehaviourPolicy:
    """Fit π̂_b on train, a model per fold of users, and its temperature on val.

    Args:
        train: rows to learn from; rows to be evaluated may be among them, since no model judges a user that it saw.
        val: rows for the temperature and, for an MLP, the number of epochs.
        n_actions: A.
        options: model and sizes.
        device: torch device.

    Raises:
        ValueError: no rows, all train users in one fold, an action or a context that cannot be.
        FloatingPointError: training diverged.
    """
    import torch  # noqa: PLC0415 (estimates need no torch)

    from reelrank.models.behaviour_policy import fit_logistic, fit_mlp  # noqa: PLC0415 (see above)

    o = options or BehaviourOptions()
    fold = user_folds(train.user, o.seed, o.folds)
    if len(train.action) == 0 or len(val.action) == 0:
        raise ValueError(f"{len(train.action)} train and {len(val.action)} val rows: both are needed")  # fmt: skip
    if (fold == fold[0]).all():
        raise ValueError("all train users fall into one fold: cross-fitting needs more users")
    seen, held_out = (_choices(rows, n_actions).to(device) for rows in (train, val))
    models = []
    for k in range(o.folds):
        others = seen[torch.from_numpy(np.flatnonzero(fold != k)).to(device)]
        if o.kind == "logistic":
            models.append(fit_logistic(others, n_actions, l2=o.l2))
            continue
        models.append(
            fit_mlp(
                others, held_out, n_actions, hidden=o.hidden, epochs=o.epochs,
                batch_size=o.batch_size, lr=o.lr, patience=o.patience, seed=o.seed,
            )
        )  # fmt: skip
    fitted = tuple(models)
    val_logits = _logits(fitted, val, n_actions, o)
    temperature = _fit_temperature(val_logits, _targets(val, n_actions))
    report = [
        {"part": part, **_quality(softened(logits, temperature), _targets(rows, n_actions), o.floor)}
        for part, rows, logits in (
            ("train", train, _logits(fitted, train, n_actions, o)),
            ("val", val, val_logits),
        )
    ]  # fmt: skip
    return BehaviourPolicy(fitted, temperature, o, n_actions, pl.DataFrame(report))


def _fit_temperature(logits: FloatArray, target: IntArray) -> float:
    """The T with the lowest log loss of softmax(logits / T)."""

    def loss(log_t: float) -> float:
        own = np.take_along_axis(softened(logits, np.exp(log_t)), target[:, None], axis=1)
        return -float(np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURE, method="bounded").x))


def _quality(probabilities: FloatArray, target: IntArray, floor: float) -> dict[str, float]:
    own = np.take_along_axis(probabilities, target[:, None], axis=1)[:, 0]
    top = probabilities.max(axis=1)
    return {
        "n": target.size,
        "log_loss": -float(np.log(np.maximum(own, floor)).mean()),
        "log_loss_uniform": float(np.log((probabilities > 0).sum(axis=1)).mean()),
        # ties at the top count by their share
        "top1": float(((own == top) / (probabilities == top[:, None]).sum(axis=1)).mean()),
        "ece": ece((probabilities.argmax(axis=1) == target).astype(np.float64), top.clip(max=1.0)),
        "entropy": mean_entropy(probabilities),
        "floored": float((own < floor).mean()),
    }


def _logits(
    models: tuple[SoftmaxPolicy, ...], rows: BehaviourRows, n_actions: int, o: BehaviourOptions
) -> FloatArray:
    """(n, A or C) logits, each row's by the model that has not seen its user; −∞ = no candidate."""
    import torch  # noqa: PLC0415 (see above)

    fold = user_folds(rows.user, o.seed, o.folds)
    choices = _choices(rows, n_actions)
    width = n_actions if rows.candidates is None else rows.candidates.shape[1]
    logits = np.empty((len(rows.action), width))
    for k, model in enumerate(models):
        own = np.flatnonzero(fold == k)
        part = choices[torch.from_numpy(own)].to(str(model.mean.device))
        with torch.no_grad():
            logits[own] = model(part.context, part.candidates).cpu().numpy()
    return logits


def _choices(rows: BehaviourRows, n_actions: int) -> Choices:
    """The rows as tensors, checked."""
    import torch  # noqa: PLC0415 (see above)

    from reelrank.models.behaviour_policy import Choices  # noqa: PLC0415 (see above)

    finite = np.isfinite(rows.context).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {np.flatnonzero(~finite)[0]}: its context is not finite")
    return Choices(
        torch.from_numpy(rows.context.astype(np.float32)),
        None if rows.candidates is None else torch.from_numpy(rows.candidates.astype(np.int64)),
        torch.from_numpy(_targets(rows, n_actions)),
    )


def _targets(rows: BehaviourRows, n_actions: int) -> IntArray:
    """(n,) column of the logged action among the candidates, or among all actions."""
    bad = (rows.action < 0) | (rows.action >= n_actions)
    target = rows.action.astype(np.int64)
    if rows.candidates is not None:
        found = rows.candidates == rows.action[:, None]
        bad |= ~found.any(axis=1) | (rows.candidates >= n_actions).any(axis=1)
        target = found.argmax(axis=1)
    if bad.any():
        row = np.flatnonzero(bad)[0]
        raise ValueError(
            f"row {row}: action {rows.action[row]} is not among its candidates, or not in 0 … {n_actions - 1}"
        )
    return target
