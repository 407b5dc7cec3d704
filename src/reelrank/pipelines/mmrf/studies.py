"""MM-02 … MM-12: variants of MMRF with changed options, or trained again and again, against the run's own model.

Source: METHODS §9.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feed_policies import history_length, load_policy
from reelrank.pipelines.mmrf import evaluate, horizons
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
            for base in {c.base for c in chosen if c.against is None and c.retrain_days is None}
        }
        made: dict[tuple[str, str], evaluate.Estimates] = {}
        for experiment, name in studies.chosen():
            log.info("%s: %s", experiment, name)
            cell = studies.cells[experiment][name]
            if cell.retrain_days is not None:
                found[experiment, name] = self._retrained(cell, cell.retrain_days, own[cell.base], judge, bootstrap)  # fmt: skip
                continue
            judged = evaluate.judge_method(
                cell.base, self._predicted(cell, self.tables), judge, bootstrap
            )
            made[experiment, name] = judged.estimates
            against = cell.base if cell.against is None else f"{cell.base}, {cell.against}"
            rival = known[cell.base] if cell.against is None else made[experiment, cell.against]
            found[experiment, name] = [
                *judged.main,
                *judged.lists,
                *evaluate.difference_rows(cell.base, judged.estimates, against, rival),
            ]
        return found

    def _retrained(
        self,
        cell: Cell,
        every: int,
        fixed: pl.DataFrame,
        judge: evaluate.Judge,
        bootstrap: UserBootstrap,
    ) -> list[ResultRow]:
        """MM-06: a model per block of days against the run's own on all of them."""
        if self.data.track != "request":
            log.warning("track %s: its candidates follow train, so that days of two trainings do not compare; not run", self.data.track)  # fmt: skip
            return []
        inputs = self.tables.inputs(self.data, "cpu")
        day, _ = horizons.decision_days(inputs)
        served = fixed
        for block in horizons.later_blocks(inputs, every):
            log.info("trained anew for days %d to %d", block.first, block.stop - 1)
            own = self._predicted(cell, block.tables(self.tables))
            of_block = pl.Series(day[own["decision"].to_numpy()])
            own = own.filter((of_block >= block.first) & (of_block < block.stop))
            rest = ~served["decision"].is_in(own["decision"].implode())
            served = pl.concat([served.filter(rest), own]).sort("decision")
        values = [horizons.day_values(f, judge, inputs, bootstrap) for f in (served, fixed)]
        return horizons.retrained_rows(cell.base, *values)

    def _predicted(self, cell: Cell, tables: FeedTables) -> pl.DataFrame:
        """Train the cell's model and score the decisions that it is judged by."""
        model, replay = cell_options(cell, self.model, self.replay)
        checkpoint, _, _ = train(
            cell.base,
            tables,
            options=model,
            data=self.data,
            learning=self.learning,
            replay=replay,
            prediction=self.prediction,
            work_dir=self.work_dir,
        )
        inputs = tables.inputs(self.data, self.learning.device)
        policy = load_policy(checkpoint, inputs.rows.item.device)
        return predictions(policy, inputs, history_length(checkpoint), self.prediction)
