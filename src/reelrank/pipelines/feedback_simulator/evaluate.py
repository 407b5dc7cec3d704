"""From predictions to result rows: each response, on rows that the logging policy chose and on random ones.

Source: METHODS §9 MM-03, MM-04, MM-07.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.stats import rankdata

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, UserBootstrap, paired
from reelrank.models.feedback_accuracy import (
    CONSTANT,
    EXPOSURES,
    SIMULATOR,
    Key,
    accuracy,
    errors,
    knows_truth,
    reward_errors,
)
from reelrank.pipelines.feedback_simulator.run_options import EvaluationOptions, RewardGrid

Rows = dict[str, list[ResultRow]]
"""Result rows by exposure."""
PARTS = {"standard": "test", "random": "test_random"}
"""Exposure to the part that result rows name in ``split``."""
DECILES = 10
WEIGHTINGS = {"gauc": "impressions", "gxauc": "impressions"}


def bootstrap_of(responses: pl.DataFrame, options: EvaluationOptions) -> UserBootstrap:
    """Resamples of the users that have test rows.

    Raises:
        ValueError: there are none.
    """
    if responses.is_empty():
        raise ValueError("the test split shows no rows: a longer log or another split is needed")
    return UserBootstrap(responses["user_id"], options.replicates, options.seed)


def main_rows(
    responses: pl.DataFrame, options: EvaluationOptions, bootstrap: UserBootstrap
) -> tuple[Rows, dict[Key, Estimate]]:
    """MM-03: every metric, and the simulator's paired differences from the train mean."""
    found = accuracy(responses, bootstrap, options.responses)
    rows = value_rows(found)
    for key, estimate in found.items():
        if key.variant == CONSTANT and key.metric != "bias":
            own = found[key._replace(variant=SIMULATOR)]
            rows[key.exposure].append(_difference(key, SIMULATOR, own, CONSTANT, estimate))
    return rows, found


def cell_rows(
    responses: pl.DataFrame,
    options: EvaluationOptions,
    bootstrap: UserBootstrap,
    main: Mapping[Key, Estimate],
) -> Rows:
    """A cell's metrics, and their paired differences from the run's own simulator."""
    found = accuracy(responses, bootstrap, options.responses)
    found = {key: estimate for key, estimate in found.items() if key.variant == SIMULATOR}
    rows = value_rows(found)
    for key, estimate in found.items():
        rows[key.exposure].append(_difference(key, SIMULATOR, estimate, SIMULATOR, main[key]))
    return rows


def value_rows(found: Mapping[Key, Estimate]) -> Rows:
    """Estimates as rows."""
    rows: Rows = {exposure: [] for exposure in EXPOSURES}
    for key, estimate in found.items():
        row = ResultRow.from_estimate(
            key.variant, key.metric, estimate, group=key.response, weighting=_weighting(key)
        )
        rows[key.exposure].append(row)
    return rows


def exposure_deciles(impressions: pl.DataFrame) -> pl.DataFrame:
    """How often train shows each row's video.

    Args:
        impressions: rows of ``Interactions`` with their split.

    Returns:
        ``row`` (of ``FeedRows``), ``item_id``, ``exposures`` (train rows of the logging policy), ``decile``: tenths of the videos that any
        row shows, 1 the least exposed; equal exposures are parted by item id.
    """
    log = impressions.sort("user_id", "ts_ms", "row_id").with_row_index("row")
    is_train = (pl.col("split") == "train") & (pl.col("is_rand") == 0)
    place = pl.int_range(pl.len()) * DECILES // pl.len()
    of_item = log.group_by("item_id").agg(exposures=is_train.sum().cast(pl.Int64))
    of_item = of_item.sort("exposures", "item_id").with_columns(decile=place + 1)
    rows = log.select(pl.col("row").cast(pl.Int64), "item_id")
    return rows.join(of_item, on="item_id", maintain_order="left")


def decile_rows(
    responses: pl.DataFrame,
    impressions: pl.DataFrame,
    options: EvaluationOptions,
    bootstrap: UserBootstrap,
) -> dict[str, Rows]:
    """MM-04: errors of the simulator and of the train mean on videos of each decile of exposure, and whether errors fall with exposures.

    Cells ``decile 1`` … ``decile 10`` hold ``mse``, ``bias`` and, in a world, ``true_mse``; ``train_exposures`` is a video's mean. Cell
    ``main`` holds Spearman's correlation of exposures and |error|, ``exposure_error_spearman`` (``exposure_true_error_spearman``: distance from
    the truth): negative where little shown videos are answered worse.
    """
    deciles = exposure_deciles(impressions)
    judged = responses.join(deciles, on="row", maintain_order="left")
    judged = judged.drop_nulls(["logged", "predicted"])
    cells: dict[str, Rows] = {"main": {exposure: [] for exposure in EXPOSURES}}
    for exposure in EXPOSURES:
        for response in options.responses:
            own = judged.filter(exposure=exposure, response=response)
            cells["main"][exposure] += _exposure_correlations(own, response, bootstrap)
    videos = deciles.unique("item_id")
    for decile in range(1, DECILES + 1):
        rows: Rows = {exposure: [] for exposure in EXPOSURES}
        shown = videos.filter(decile=decile)["exposures"].to_numpy()
        for exposure in EXPOSURES:
            if len(shown):
                rows[exposure].append(ResultRow(SIMULATOR, "train_exposures", float(shown.mean()), len(shown)))  # fmt: skip
            for response in options.responses:
                own = judged.filter(exposure=exposure, response=response, decile=decile)
                rows[exposure] += [
                    ResultRow.from_estimate(variant, metric, estimate, group=response)
                    for variant, column in ((SIMULATOR, "predicted"), (CONSTANT, "constant"))
                    for metric, estimate in errors(own, column, bootstrap).items()
                ]
        cells[f"decile {decile}"] = rows
    return cells


def reward_rows(
    responses: pl.DataFrame,
    grid: RewardGrid,
    options: EvaluationOptions,
    bootstrap: UserBootstrap,
) -> dict[str, Rows]:
    """MM-07 on logged answers: error and bias of the simulated reward, by form of Eq. 6."""
    cells: dict[str, Rows] = {}
    for cell, reward in grid.cells().items():
        rows: Rows = {exposure: [] for exposure in EXPOSURES}
        for (exposure, response), metrics in reward_errors(responses, reward, bootstrap).items():
            if response in options.responses:
                rows[exposure] += [
                    ResultRow.from_estimate(SIMULATOR, metric, estimate, group=response)
                    for metric, estimate in metrics.items()
                ]
        cells[cell] = rows
    return cells


def _exposure_correlations(
    own: pl.DataFrame, response: str, bootstrap: UserBootstrap
) -> list[ResultRow]:
    users = own["user_id"].to_numpy()
    seen = rankdata(own["exposures"].to_numpy())
    predicted = own["predicted"].cast(pl.Float64).to_numpy()
    against = {"exposure_error_spearman": "logged"}
    if knows_truth(own):
        against["exposure_true_error_spearman"] = "expected"
    found = []
    for metric, column in against.items():
        error = np.abs(predicted - own[column].cast(pl.Float64).to_numpy())
        estimate = bootstrap.correlation(users, seen, rankdata(error))
        found.append(ResultRow.from_estimate(SIMULATOR, metric, estimate, group=response))
    return found


def _difference(
    key: Key, variant: str, own: Estimate, paired_with: str, other: Estimate
) -> ResultRow:
    return ResultRow.from_difference(
        variant, paired_with, key.metric, paired(own, other), group=key.response, weighting=_weighting(key)
    )  # fmt: skip


def _weighting(key: Key) -> str:
    return WEIGHTINGS.get(key.metric, "")
