"""From predictions to result rows: each response, on rows that the logging policy chose and on random ones.

Source: METHODS §9 MM-03, MM-07.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, UserBootstrap, paired
from reelrank.models.feedback_accuracy import (
    CONSTANT,
    EXPOSURES,
    SIMULATOR,
    Key,
    accuracy,
    reward_errors,
)
from reelrank.pipelines.feedback_simulator.run_options import EvaluationOptions, RewardGrid

Rows = dict[str, list[ResultRow]]
"""Result rows by exposure."""
PARTS = {"standard": "test", "random": "test_random"}
"""Exposure to the part that result rows name in ``split``."""
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


def _difference(
    key: Key, variant: str, own: Estimate, paired_with: str, other: Estimate
) -> ResultRow:
    return ResultRow.from_difference(
        variant, paired_with, key.metric, paired(own, other), group=key.response, weighting=_weighting(key)
    )  # fmt: skip


def _weighting(key: Key) -> str:
    return WEIGHTINGS.get(key.metric, "")
