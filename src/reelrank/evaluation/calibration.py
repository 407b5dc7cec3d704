"""Are predicted probabilities what they say? Reliability table, ECE, Brier score, log loss.

Source: METHODS §2 [S].
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import rankdata

from reelrank.evaluation.classification import labels_and_scores
from reelrank.evaluation.columns import require

FloatArray = npt.NDArray[np.float64]

BINS = 15  # METHODS §2 [S]


def reliability_table(y: npt.ArrayLike, p: npt.ArrayLike, bins: int = BINS) -> pl.DataFrame:
    """Predicted and observed rates in bins of equal mass.

    A row's bin follows from its rank; equal predictions share a rank and so a bin, which keeps the table independent of
    row order. With many ties bins are unequal, and some hold no row and are absent.

    Args:
        y: (n,) labels, 0 or 1.
        p: (n,) predicted probabilities.
        bins: number of bins.

    Returns:
        By bin, ascending: ``bin``, ``n``, ``lowest``, ``highest`` and ``predicted`` (the mean) of p, ``observed`` (mean of y).

    Raises:
        ValueError: lengths differ, a label is not 0/1, a prediction is outside [0, 1], or ``bins`` < 1.

    Source: METHODS §2 [S].
    """
    if bins < 1:
        raise ValueError(f"bins must be ≥ 1, not {bins}")
    label, probability = _labels_and_probabilities(y, p)
    # ranks are halves at most: whole numbers keep rows at the edge of a bin where they belong
    place = (2 * rankdata(probability) - 1).astype(np.int64) * bins // (2 * max(label.size, 1))
    return (
        pl.DataFrame({"bin": place, "y": label, "p": probability})
        .group_by("bin")
        .agg(
            n=pl.len().cast(pl.Int64),
            lowest=pl.col("p").min(),
            highest=pl.col("p").max(),
            predicted=pl.col("p").mean(),
            observed=pl.col("y").mean(),
        )
        .sort("bin")
    )


def ece(y: npt.ArrayLike, p: npt.ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error Σ n_b / n |observed − predicted| over bins of equal mass; NaN without rows.

    Arguments and errors as :func:`reliability_table`.
    """
    table = reliability_table(y, p, bins)
    gap = np.abs(table["observed"].to_numpy() - table["predicted"].to_numpy())
    return float(np.average(gap, weights=table["n"].to_numpy())) if table.height else math.nan


def brier(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Mean of (p − y)²; NaN without rows. Arguments and errors as :func:`reliability_table`."""
    label, probability = _labels_and_probabilities(y, p)
    return float(((probability - label) ** 2).mean()) if label.size else math.nan


def log_loss(y: npt.ArrayLike, p: npt.ArrayLike) -> float:
    """Mean of −ln of the probability given to what happened: +inf if that was once 0; NaN without rows.

    Arguments and errors as :func:`reliability_table`.
    """
    label, probability = _labels_and_probabilities(y, p)
    of_outcome = np.where(label == 1, probability, 1 - probability)
    with np.errstate(divide="ignore"):
        return float(-np.log(of_outcome).mean()) if label.size else math.nan


def _labels_and_probabilities(y: npt.ArrayLike, p: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    label, probability = labels_and_scores(y, p)
    inside = (probability >= 0) & (probability <= 1)
    require("prediction", probability, inside, "a probability: calibrate scores first")
    return label, probability
