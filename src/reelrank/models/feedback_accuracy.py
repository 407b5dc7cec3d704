"""How good a feedback simulator is: accuracy per head, and whether its uncertainty knows where it errs.

Source: METHODS §9 MM-03, metrics of §2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from reelrank.evaluation.calibration import ece
from reelrank.evaluation.grouped import GroupValues, group_auc
from reelrank.evaluation.regression import group_xauc, xauc
from reelrank.evaluation.uncertainty import Estimate, Ratio, UserBootstrap
from reelrank.models.feed import HATE, RESPONSES, WATCH_TIME, FeedInputs
from reelrank.models.feed_windows import TEST, cut_windows, row_roles, windows_with
from reelrank.models.feedback_options import SimulatedRewardOptions
from reelrank.models.feedback_simulator import FeedbackSimulator, eq6

Doubles = NDArray[np.float64]
EXPOSURES = ("standard", "random")
SIMULATOR, CONSTANT, CEILING = "feedback_simulator", "train_mean", "planted_truth"


class Key(NamedTuple):
    """Which number an estimate is."""

    exposure: str
    response: str
    variant: str
    metric: str


def judged_rows(
    model: FeedbackSimulator,
    inputs: FeedInputs,
    *,
    seed: int,
    split: int = TEST,
    expected: Tensor | None = None,
) -> pl.DataFrame:
    """Predictions of the rows of a split that the logging policy showed, and of those shown at random at the same times.

    Args:
        model: calibrated.
        inputs: the feed.
        seed: of the dropout behind the uncertainty.
        split: 0 train, 1 val, 2 test.
        expected: (R, 7) true expected responses of all rows, where a world knows them.

    Returns:
        A row per exposure × response: user_id, row (of ``FeedRows``), exposure (standard, random), response, logged (watch time
        winsorised; null: not logged), score (as predicted), predicted (calibrated; null: a response that train never saw), constant
        (the train mean), sd (of train), kl, expected (null without a truth).
    """
    roles = row_roles(inputs)
    every = cut_windows(inputs.rows.first, model.options.window, model.options.warm_up)
    counts = inputs.rows.first.diff().cpu().numpy()
    user = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    parts = []
    for exposure in EXPOSURES:
        wanted = roles.in_split(split, is_random=exposure == "random")
        found = model.predict_rows(inputs, roles, windows_with(every, wanted), wanted, seed=seed)
        row = found.row.cpu().numpy()
        columns = {
            "logged": model.winsorised(inputs.rows.response[found.row]),
            "score": found.response,
            "predicted": found.calibrated,
            "kl": found.kl,
        }
        if expected is not None:
            columns["expected"] = expected[found.row]
        arrays = {name: values.cpu().numpy().astype(np.float32) for name, values in columns.items()}
        for k, name in enumerate(RESPONSES):
            of_response = {column: values[:, k] for column, values in arrays.items()}
            parts.append(
                pl.DataFrame({"user_id": user[row], "row": row} | of_response).with_columns(
                    exposure=pl.lit(exposure, pl.Enum(EXPOSURES)),
                    response=pl.lit(name, pl.Enum(RESPONSES)),
                    constant=pl.lit(float(model.mean[k]), pl.Float32),
                    sd=pl.lit(float(model.sd[k]), pl.Float32),
                )
            )
    judged = pl.concat(parts).with_columns(pl.col(pl.Float32).fill_nan(None))
    if expected is None:
        judged = judged.with_columns(expected=pl.lit(None, pl.Float32))
    return judged


def accuracy(
    judged: pl.DataFrame, bootstrap: UserBootstrap, responses: Sequence[str] = RESPONSES
) -> dict[Key, Estimate]:
    """Every metric of every response under every exposure, of the simulator and of the train mean.

    Args:
        judged: of :func:`judged_rows`.
        bootstrap: holds all its users.
        responses: those that are judged.

    Returns:
        Of the simulator: auc and gauc by user (watch time: xauc and gxauc), mse and bias (mean of prediction − response) of the calibrated
        predictions, ece (binary responses), ``kl_error_spearman``: uncertainty against |error|; where ``expected`` is known also true_mse,
        true_spearman (prediction against truth) and ``kl_true_error_spearman``, free of the noise of single answers. Of the train mean: mse, bias,
        true_mse. Of the planted truth, which nobody can beat: auc and gauc (xauc and gxauc), mse. xauc and ece have no interval; nothing is reliable, and values are NaN, where no row knows the response.
    """
    found: dict[Key, Estimate] = {}
    for exposure in EXPOSURES:
        for response in responses:
            own = judged.filter(exposure=exposure, response=response)
            own = own.drop_nulls(["logged", "predicted"])
            for variant, column in ((SIMULATOR, "predicted"), (CONSTANT, "constant")):
                found |= {
                    Key(exposure, response, variant, metric): estimate
                    for metric, estimate in errors(own, column, bootstrap).items()
                }
            found |= {
                Key(exposure, response, SIMULATOR, metric): estimate
                for metric, estimate in _judgement(own, response, bootstrap).items()
            }
            if knows_truth(own):
                ceiling = _order(own, "expected", response, bootstrap)
                ceiling["mse"] = errors(own, "expected", bootstrap)["mse"]
                found |= {Key(exposure, response, CEILING, m): e for m, e in ceiling.items()}
    return found


def reward_errors(
    judged: pl.DataFrame, options: SimulatedRewardOptions, bootstrap: UserBootstrap
) -> dict[tuple[str, str], dict[str, Estimate]]:
    """How far Eq. 6's simulated reward lies from the reward of the answer that was given, train sds.

    Args:
        judged: of :func:`judged_rows`.
        options: form, κ, cap; noise is left out.
        bootstrap: holds all its users.

    Returns:
        (exposure, response) to ``reward_mse`` and ``reward_bias`` (mean of r̂ − r).
    """
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    for exposure in EXPOSURES:
        for response in RESPONSES:
            own = judged.filter(exposure=exposure, response=response)
            own = own.drop_nulls(["logged", "predicted"])
            sign = -1.0 if response == RESPONSES[HATE] else 1.0
            reward, mean = (sign * own[c].cast(pl.Float64) / own["sd"] for c in ("logged", "score"))
            simulated = eq6(mean.to_torch(), own["kl"].cast(pl.Float64).to_torch(), options)
            gap = simulated.numpy() + options.bias - reward.to_numpy()
            users, ones = own["user_id"].to_numpy(), np.ones(len(gap))
            made = bootstrap.ratios(users, [[Ratio(gap**2, ones)], [Ratio(gap, ones)]])
            found[exposure, response] = dict(zip(("reward_mse", "reward_bias"), made, strict=True))
    return found


def errors(own: pl.DataFrame, column: str, bootstrap: UserBootstrap) -> dict[str, Estimate]:
    """Errors of one prediction."""
    users, predicted, logged = (_array(own, c) for c in ("user_id", column, "logged"))
    gap = predicted - logged
    values = {"mse": gap**2, "bias": gap}
    if knows_truth(own):
        values["true_mse"] = (predicted - _array(own, "expected")) ** 2
    ones = np.ones(len(gap))
    made = bootstrap.ratios(users, [[Ratio(value, ones)] for value in values.values()])
    return dict(zip(values, made, strict=True))


def _judgement(own: pl.DataFrame, response: str, bootstrap: UserBootstrap) -> dict[str, Estimate]:
    """Order by the score as predicted (calibration ties rows), calibration, and what the uncertainty knows."""
    users, y, p, s, kl = (_array(own, c) for c in ("user_id", "logged", "predicted", "score", "kl"))  # fmt: skip
    found = _order(own, "score", response, bootstrap)
    if response != RESPONSES[WATCH_TIME]:
        found["ece"] = point(ece(y, p.clip(0, 1)), len(y))
    found["kl_error_spearman"] = _spearman(bootstrap, users, kl, np.abs(y - p))
    if knows_truth(own):
        truth = _array(own, "expected")
        found["true_spearman"] = _spearman(bootstrap, users, s, truth)
        found["kl_true_error_spearman"] = _spearman(bootstrap, users, kl, np.abs(truth - p))
    return found


def _order(
    own: pl.DataFrame, column: str, response: str, bootstrap: UserBootstrap
) -> dict[str, Estimate]:
    users, y, s = (_array(own, c) for c in ("user_id", "logged", column))
    if response == RESPONSES[WATCH_TIME]:
        return {"xauc": point(xauc(y, s), len(y)), "gxauc": _grouped(group_xauc, y, s, users, bootstrap)}  # fmt: skip
    return {"auc": bootstrap.auc(users, y, s), "gauc": _grouped(group_auc, y, s, users, bootstrap)}


def knows_truth(own: pl.DataFrame) -> bool:
    """Whether rows of :func:`judged_rows` come from a world."""
    return own["expected"].null_count() < own.height


def point(value: float, n: int) -> Estimate:
    """A number without an interval."""
    return Estimate(value, math.nan, math.nan, n, not math.isnan(value), np.zeros(0))


def _grouped(
    by_group: Callable[[Doubles, Doubles, Doubles], GroupValues],
    y: Doubles,
    s: Doubles,
    users: Doubles,
    bootstrap: UserBootstrap,
) -> Estimate:
    """Mean over users, weighted by their rows."""
    values = by_group(y, s, users)
    weight = values.weights()
    return bootstrap.ratio(values.groups, np.nan_to_num(values.value) * weight, weight, len(y))


def _spearman(bootstrap: UserBootstrap, users: Doubles, a: Doubles, b: Doubles) -> Estimate:
    return bootstrap.correlation(users, rankdata(a), rankdata(b))


def _array(frame: pl.DataFrame, column: str) -> Doubles:
    return frame[column].cast(pl.Float64).to_numpy()
