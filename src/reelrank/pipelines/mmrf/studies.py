"""MM-02 … MM-12: variants of MMRF with changed options against the run's own model, and what a fixed model loses with time.

Source: METHODS §9.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from reelrank.evaluation.grouped import group_auc
from reelrank.evaluation.regression import group_xauc
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, UserBootstrap
from reelrank.models.feed import RESPONSES, WATCH_TIME, FeedInputs
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feed_policies import history_length, load_policy
from reelrank.pipelines.mmrf import evaluate
from reelrank.pipelines.mmrf.feed_tables import FeedTables
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.run_options import (
    Cell,
    MMRFOptions,
    PredictionOptions,
    StudyOptions,
    cell_options,
)
from reelrank.pipelines.mmrf.scoring import predictions
from reelrank.pipelines.mmrf.training_run import train

log = logging.getLogger(__name__)
DAY_MS = 86_400_000
HORIZONS = "MM-06"
Rows = dict[tuple[str, str], list[ResultRow]]


@dataclass(frozen=True)
class Study:
    """What all cells share."""

    tables: FeedTables
    data: FeedDataOptions
    model: MMRFOptions
    learning: LearningOptions
    replay: ReplayOptions
    prediction: PredictionOptions
    work_dir: Path

    def run(
        self,
        studies: StudyOptions,
        own: Mapping[str, pl.DataFrame],
        judge: evaluate.Judge,
        bootstrap: UserBootstrap,
    ) -> Rows:
        """Result rows of each (experiment, cell) that is run.

        Args:
            studies: configurations.
            own: the run's own variants, name to predictions.
            judge: of the feed.
            bootstrap: of ``judge``.
        """
        found: Rows = {}
        chosen = [studies.cells[experiment][name] for experiment, name in studies.chosen()]
        known = {
            base: evaluate.judge_method(base, own[base], judge, bootstrap).estimates
            for base in {cell.base for cell in chosen if cell.against is None}
        }
        made: dict[tuple[str, str], evaluate.Estimates] = {}
        for experiment, name in studies.chosen():
            log.info("%s: %s", experiment, name)
            cell = studies.cells[experiment][name]
            judged = evaluate.judge_method(cell.base, self._predicted(cell), judge, bootstrap)
            made[experiment, name] = judged.estimates
            against = cell.base if cell.against is None else f"{cell.base}, {cell.against}"
            rival = known[cell.base] if cell.against is None else made[experiment, cell.against]
            found[experiment, name] = [
                *judged.main,
                *judged.lists,
                *evaluate.difference_rows(cell.base, judged.estimates, against, rival),
            ]
        return found

    def _predicted(self, cell: Cell) -> pl.DataFrame:
        """Train the cell's model and score the decisions that it is judged by."""
        model, replay = cell_options(cell, self.model, self.replay)
        checkpoint, _, _ = train(
            cell.base,
            self.tables,
            options=model,
            data=self.data,
            learning=self.learning,
            replay=replay,
            prediction=self.prediction,
            work_dir=self.work_dir,
        )
        inputs = self.tables.inputs(self.data, self.learning.device)
        policy = load_policy(checkpoint, inputs.rows.item.device)
        return predictions(policy, inputs, history_length(checkpoint), self.prediction)


def horizon_rows(
    frames: Mapping[str, pl.DataFrame],
    judge: evaluate.Judge,
    inputs: FeedInputs,
    bootstrap: UserBootstrap,
) -> list[ResultRow]:
    """MM-06, first half: GXAUC of watch time and GAUC of long view on each day after the last train decision, without retraining.

    ``slope`` is that of the daily values on the day, each day alike; its interval resamples users.
    """
    decisions = inputs.decisions
    ts = decisions.ts_ms.cpu().numpy()
    last_train = ts[(decisions.split == 0).cpu().numpy()].max()
    part = judge.test
    day = ((ts[part.decision] - last_train) // DAY_MS + 1)[part.of_row]
    rows: list[ResultRow] = []
    for name, frame in frames.items():
        at = np.searchsorted(frame["decision"].to_numpy(), part.decision)
        score = part.of_shown(frame["scores"].gather(at).to_numpy())
        for metric, k in (("gauc_final", WATCH_TIME), ("gauc_final", RESPONSES.index("long_view"))):
            by_day = []
            for d in np.unique(day):
                own = (day == d) & ~np.isnan(part.response[:, k])
                of = group_xauc if k == WATCH_TIME else group_auc
                groups = of(part.response[own, k], score[own], part.row_user[own])
                weight = groups.weights()
                if not weight.any():
                    continue
                estimate = bootstrap.ratio(groups.groups, np.nan_to_num(groups.value) * weight, weight, n=int(own.sum()))  # fmt: skip
                by_day.append((int(d), estimate))
                rows.append(ResultRow.from_estimate(name, metric, estimate, group=RESPONSES[k], weighting=f"day {d}"))  # fmt: skip
            if len(by_day) > 1:
                rows.append(_slope(name, metric, RESPONSES[k], by_day))
    return rows


def _slope(name: str, metric: str, response: str, by_day: list[tuple[int, Estimate]]) -> ResultRow:
    days = np.array([d for d, _ in by_day], np.float64)
    lever = (days - days.mean()) / ((days - days.mean()) ** 2).sum()
    drawn = np.stack([e.replicates for _, e in by_day])
    slopes = lever @ drawn
    value = float(lever @ np.array([e.value for _, e in by_day]))
    defined = slopes[~np.isnan(slopes)]
    low, high = (float(v) for v in np.quantile(defined, (0.025, 0.975))) if defined.size else (None, None)  # fmt: skip
    reliable = defined.size >= 0.95 * slopes.size and all(e.reliable for _, e in by_day)
    return ResultRow(name, f"{metric} slope", value, len(by_day), low, high, reliable, response)
