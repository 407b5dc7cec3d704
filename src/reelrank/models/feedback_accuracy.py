"""How good a feedback simulator is: accuracy per head, and whether its uncertainty knows where it errs.

Source: METHODS §9 MM-03, metrics of §2.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from reelrank.evaluation.calibration import ece
from reelrank.evaluation.classification import auc
from reelrank.evaluation.grouped import gauc
from reelrank.evaluation.regression import gxauc, mse, xauc
from reelrank.models.feed import RESPONSES, WATCH_TIME, FeedInputs
from reelrank.models.feed_windows import TEST, cut_windows, row_roles, windows_with
from reelrank.models.feedback_simulator import FeedbackSimulator

Doubles = NDArray[np.float64]


def simulator_accuracy(
    model: FeedbackSimulator,
    inputs: FeedInputs,
    *,
    seed: int,
    split: int = TEST,
    expected: Tensor | None = None,
) -> pl.DataFrame:
    """Accuracy on the rows of a split that the logging policy showed and on those shown at random at the same times.

    Watch time has XAUC and GXAUC in the place of AUC and GAUC and no ECE; groups are users. Errors are of the calibrated
    predictions, against winsorised watch time.

    Args:
        model: calibrated.
        inputs: the feed.
        seed: of the dropout behind the uncertainty.
        split: 0 train, 1 val, 2 test.
        expected: (R, 7) true expected responses of all rows, where a world knows them.

    Returns:
        exposure (standard, random), response, metric (auc, gauc, mse, mse_constant, ece, kl_error_spearman, kl_true_error_spearman),
        value (NaN where it is not defined), n (rows that know the response). ``mse_constant`` is that of the train mean;
        ``kl_true_error_spearman`` is against the distance to ``expected``, without the noise of a single answer.
    """
    roles = row_roles(inputs)
    every = cut_windows(inputs.rows.first, model.options.window, model.options.warm_up)
    user = np.repeat(np.arange(len(inputs.rows.first) - 1), _array(inputs.rows.first.diff()).astype(np.int64))  # fmt: skip
    rows = []
    for exposure, is_random in (("standard", False), ("random", True)):
        wanted = roles.in_split(split, is_random=is_random)
        found = model.predict_rows(inputs, roles, windows_with(every, wanted), wanted, seed=seed)
        truth = _array(model.winsorised(inputs.rows.response[found.row]))
        predicted, raw, kl = map(_array, (found.calibrated, found.response, found.kl))
        group = user[found.row.cpu().numpy()]
        for k, name in enumerate(RESPONSES):
            known = ~np.isnan(truth[:, k]) & ~np.isnan(predicted[:, k])
            y, p, s = truth[known, k], predicted[known, k], raw[known, k]
            values = _metrics(y, p, s, group[known], binary=k != WATCH_TIME)
            values["mse_constant"] = mse(y, np.full(len(y), float(model.mean[k])))
            values["kl_error_spearman"] = _spearman(kl[known, k], np.abs(y - p))
            if expected is not None:
                true_error = np.abs(_array(expected[found.row])[known, k] - p)
                values["kl_true_error_spearman"] = _spearman(kl[known, k], true_error)
            rows += [(exposure, name, metric, v, len(y)) for metric, v in values.items()]
    return pl.DataFrame(
        rows, schema=["exposure", "response", "metric", "value", "n"], orient="row"
    ).cast({"value": pl.Float64})


def _metrics(
    y: Doubles, p: Doubles, s: Doubles, group: NDArray[np.int64], *, binary: bool
) -> dict[str, float]:
    """Ranking by the score as predicted: calibration ties rows."""
    if not len(y):
        return dict.fromkeys(("auc", "gauc", "mse", "ece"), math.nan)
    if binary:
        return {
            "auc": auc(y, s),
            "gauc": gauc(y, s, group).value,
            "mse": mse(y, p),
            "ece": ece(y, p.clip(0, 1)),
        }
    return {
        "auc": xauc(y, s),
        "gauc": gxauc(y, s, group).value,
        "mse": mse(y, p),
        "ece": math.nan,
    }


def _spearman(a: Doubles, b: Doubles) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(spearmanr(a, b).statistic)


def _array(values: Tensor) -> Doubles:
    return values.cpu().numpy().astype(np.float64)
