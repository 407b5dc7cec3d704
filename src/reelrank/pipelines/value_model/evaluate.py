"""What predictions of the heads are worth, with user-cluster intervals.

Source: METHODS §2, §6.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.calibration import ece, reliability_table
from reelrank.evaluation.classification import auc
from reelrank.evaluation.grouped import Weighting, group_auc
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, UserBootstrap, macro, paired
from reelrank.features.heads import HEADS
from reelrank.pipelines.value_model.options import BASELINES

MEAN = "mean"  # group of a mean over the four heads
WEIGHTINGS: tuple[Weighting, ...] = ("impressions", "positives", "uniform")


class Key(NamedTuple):
    """What is measured."""

    metric: str
    group: str
    weighting: str = ""


Estimates = dict[Key, Estimate]


def auc_estimates(judged: pl.DataFrame, bootstrap: UserBootstrap) -> Estimates:
    """AUC of each head and their mean.

    Args:
        judged: predictions of one part: user_id, the heads (0, 1, null = unknown) and p_<head>.
        bootstrap: resamples of its users.
    """
    found = {Key("auc", head): bootstrap.auc(*_columns(judged, head)) for head in HEADS}
    return {**found, Key("auc", MEAN): macro(list(found.values()))}


def estimates(judged: pl.DataFrame, bootstrap: UserBootstrap, bins: int) -> Estimates:
    """AUC, AP, log loss, ECE and GAUC by user of each head, their means, and micro AUC.

    ECE has no interval: it is biased upwards by noise, and resamples are noisier than the rows.
    GAUC's weights are rows, positive rows or 1 for each user with both classes; what is left out is told.
    Arguments as :func:`auc_estimates`; ``bins`` of equal mass for ECE.
    """
    found = auc_estimates(judged, bootstrap)
    for head in HEADS:
        users, y, p = _columns(judged, head)
        found[Key("ap", head)] = bootstrap.average_precision(users, y, p)
        found[Key("log_loss", head)] = bootstrap.mean(users, _losses(y, p))
        found[Key("ece", head)] = _point(ece(y, p, bins), len(y))
        values = group_auc(y, p, users)
        for weighting in WEIGHTINGS:
            weights = values.weights(weighting)
            found[Key("gauc", head, weighting)] = bootstrap.ratio(
                values.groups, np.nan_to_num(values.value) * weights, weights, n=len(y)
            )
        left = values.mean("uniform")
        found[Key("groups_excluded", head)] = _point(left.groups_excluded, len(values.groups))
        found[Key("rows_excluded", head)] = _point(left.rows_excluded, len(y))
    for metric, how in (("ap", ""), ("log_loss", ""), ("ece", ""), *(("gauc", w) for w in WEIGHTINGS)):  # fmt: skip
        each = [found[Key(metric, head, how)] for head in HEADS]
        found[Key(metric, MEAN, how)] = macro(each)
    pooled = zip(*(_columns(judged, head) for head in HEADS), strict=True)
    found[Key("auc", "all", "micro")] = bootstrap.auc(*(np.concatenate(c) for c in pooled))
    return found


def warmth_estimates(
    judged: pl.DataFrame, train_items: npt.NDArray[np.integer], bootstrap: UserBootstrap
) -> Estimates:
    """Mean AUC over the heads on rows of items with and without a train interaction; a group without rows has none."""
    warm = judged["item_id"].is_in(train_items)
    return {
        Key("auc", name): auc_estimates(rows, bootstrap)[Key("auc", MEAN)]
        for name, rows in (("warm items", judged.filter(warm)), ("cold items", judged.filter(~warm)))
        if rows.height
    }  # fmt: skip


def best_baseline(predictions: Mapping[str, pl.DataFrame]) -> str:
    """The model without a graph with the best mean AUC on val (L9)."""
    return max(
        (v for v in predictions if v in BASELINES), key=lambda v: mean_auc(predictions[v], "val")
    )


def mean_auc(predictions: pl.DataFrame, part: str) -> float:
    """Mean AUC over the heads where it is defined."""
    judged = predictions.filter(split=part)
    found = [auc(*_columns(judged, head)[1:]) for head in HEADS]
    return float(np.mean([value for value in found if not math.isnan(value)]))


def result_rows(tables: Mapping[str, Estimates], baseline: str | None = None) -> list[ResultRow]:
    """Every estimate as a row, and each model's differences from the baseline on the same rows.

    Args:
        tables: variant to its estimates, from one bootstrap.
        baseline: variant that the others are compared with; None: no differences.
    """
    rows = [
        ResultRow.from_estimate(variant, key.metric, found, group=key.group, weighting=key.weighting)
        for variant, table in tables.items()
        for key, found in table.items()
    ]  # fmt: skip
    if baseline is None:
        return rows
    return rows + [
        ResultRow.from_difference(
            variant, baseline, key.metric, paired(found, tables[baseline][key]), group=key.group, weighting=key.weighting
        )
        for variant, table in tables.items()
        for key, found in table.items()
        if variant != baseline and not math.isnan(found.ci_low)
    ]  # fmt: skip


def reliability(predictions: Mapping[str, pl.DataFrame], bins: int) -> pl.DataFrame:
    """Reliability tables of the test part: variant, group (head) and the columns of ``reliability_table``."""
    tables = []
    for variant, table in predictions.items():
        judged = table.filter(split="test")
        for head in HEADS:
            _, y, p = _columns(judged, head)
            found = reliability_table(y, p, bins)
            tables.append(found.select(pl.lit(variant).alias("variant"), pl.lit(head).alias("group"), pl.all()))  # fmt: skip
    return pl.concat(tables)


def _columns(
    judged: pl.DataFrame, head: str
) -> tuple[
    npt.NDArray[np.int32], npt.NDArray[np.int8], npt.NDArray[np.float32]
]:  # users, labels, probabilities
    """Of the rows whose label is known."""
    known = judged.select("user_id", head, f"p_{head}").drop_nulls(head)
    return known["user_id"].to_numpy(), known[head].to_numpy(), known[f"p_{head}"].to_numpy()


def _losses(y: npt.NDArray[np.int8], p: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """−ln of the probability given to what happened; float32 rounds a sure prediction to 0 or 1: half a step is left."""
    wide = np.clip(p.astype(np.float64), 2.0**-25, 1 - 2.0**-25)
    return np.asarray(-np.log(np.where(y == 1, wide, 1 - wide)))


def _point(value: float, n: int) -> Estimate:
    """A value without an interval."""
    return Estimate(value, math.nan, math.nan, n, not math.isnan(value), np.array([math.nan]))
