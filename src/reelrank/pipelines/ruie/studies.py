"""RU-02 … RU-13: models with changed options, or a log with some events left out, against the run's own model.

Source: METHODS §9.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.features.splits import row_uniforms
from reelrank.pipelines.ruie import evaluate as judge
from reelrank.pipelines.ruie.fitting import SequenceTables, predict, train
from reelrank.pipelines.ruie.options import RuieOptions
from reelrank.pipelines.ruie.q_calibration import q_frame, q_rows
from reelrank.pipelines.ruie.rewards import learned_reward, shuffled_feedback
from reelrank.pipelines.ruie.run_options import (
    MAIN,
    Cell,
    EvaluationOptions,
    LearningOptions,
    RankingOptions,
    RuieModels,
    StudyOptions,
    changed_options,
)
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """What all cells share."""

    tables: SequenceTables
    labels: list[str]
    models: RuieModels
    learning: LearningOptions
    training: TrainOptions
    ranking: RankingOptions
    evaluation: EvaluationOptions
    work_dir: Path

    def run(
        self, studies: StudyOptions, predictions: Mapping[str, pl.DataFrame]
    ) -> dict[tuple[str, str], list[ResultRow]]:
        """Result rows of each (experiment, cell) that ``studies.run`` names.

        Args:
            studies: configurations.
            predictions: the run's own models, variant to its ``ranked_frame``.
        """
        users = predictions[MAIN].filter(split="test")["user_id"]
        bootstrap = UserBootstrap(users, self.evaluation.replicates, self.evaluation.seed)
        found: dict[tuple[str, str], list[ResultRow]] = {}
        frames: dict[tuple[str, str], pl.DataFrame] = {}
        for experiment, name in studies.chosen():
            log.info("%s: %s", experiment, name)
            cell = studies.cells[experiment][name]
            checkpoint, tables, history = self._trained(cell)
            if cell.measure == "q":
                found[experiment, name] = self._judged_q(checkpoint, tables, bootstrap)
                continue
            own = predict(checkpoint, tables, self.ranking, self.training.device)
            frames[experiment, name] = own
            rival = cell.against
            reference = predictions[cell.base] if rival is None else frames[experiment, rival]
            against = cell.base if rival is None else f"{cell.base}, {rival}"
            found[experiment, name] = self._rows(cell.base, own, reference, against, bootstrap)
            found[experiment, name] += monitor_rows(cell.base, history, self.labels)
        return found

    def _trained(self, cell: Cell) -> tuple[ModelCheckpoint, SequenceTables, pl.DataFrame]:
        """The cell's model, the tables that it learnt from, and a row per epoch."""
        tables = replace(self.tables, events=thinned(self.tables, cell, self.training.seed))
        learning, options = self.learning, changed_options(self.models, cell)
        if cell.length is not None:
            learning = learning.model_copy(update={"length": cell.length})
        if cell.reward == "shuffled":
            tables = replace(tables, events=shuffled_feedback(tables.events, self.training.seed))
        elif isinstance(options, RuieOptions) and cell.reward == "learned":
            reward = learned_reward(tables.events, options.reward)
            log.info("learned reward: %s", reward.model_dump())
            options = options.model_copy(update={"reward": reward})
        checkpoint, history = train(
            cell.base,
            tables,
            model=options,
            learning=learning,
            training=self.training,
            ranking=self.ranking,
            work_dir=self.work_dir,
        )
        return checkpoint, tables, history

    def _judged_q(
        self, checkpoint: ModelCheckpoint, tables: SequenceTables, bootstrap: UserBootstrap
    ) -> list[ResultRow]:
        """Rows of RU-06 on test events."""
        frame = q_frame(checkpoint, tables, self.training.device).filter(split="test")
        return q_rows(MAIN, frame, self.labels, bootstrap)

    def _rows(
        self,
        variant: str,
        own: pl.DataFrame,
        reference: pl.DataFrame,
        against: str,
        bootstrap: UserBootstrap,
    ) -> list[ResultRow]:
        """Values of the cell, and differences from its reference on the targets that both have."""
        k = (self.evaluation.headline,)
        test, other = (
            frame.filter(pl.col("split") == "test", pl.col("rank").is_not_null())
            for frame in (own, reference)
        )
        other = other.join(test.select("row_id"), on="row_id", how="semi")
        test_both = test.join(other.select("row_id"), on="row_id", how="semi")
        if not test_both.height:
            return []
        table = judge.estimates(test_both.sort("row_id"), self.labels, k, bootstrap)
        rival = judge.estimates(other.sort("row_id"), self.labels, k, bootstrap)
        return judge.value_rows(variant, table) + judge.difference_rows(variant, table, against, rival)  # fmt: skip


MONITORS = ("gate_at_low", "gate_at_high", "p_sd", "td_abs")
MONITORS_BY_SCENARIO = ("q_scenario", "gate_share")
LOSS_VARIANCE = "triplet_variance"


def monitor_rows(variant: str, history: pl.DataFrame, labels: Sequence[str]) -> list[ResultRow]:
    """What RUIE's gate and Q did in its last epoch: means over the steps (n), and how the gated loss varied between them.

    Args:
        variant: the model; others than RUIE have no such rows.
        history: of ``training.loop.fit``.
        labels: names of the scenario codes.

    Source: METHODS §5.7, §9 RU-03 (stability of Q), RU-08 (clip shares, variance of the loss).
    """
    if variant != MAIN:
        return []
    last = history.row(-1, named=True)
    n = int(last["step"]) // history.height
    variance = max(last["train_triplet_square"] - last["train_triplet"] ** 2, 0.0)
    rows = [ResultRow(variant, name, last[f"train_{name}"], n) for name in MONITORS]
    rows.append(ResultRow(variant, LOSS_VARIANCE, variance, n))
    return rows + [
        ResultRow(variant, name, last[f"train_{name}_{code}"], n, group=label)
        for name in MONITORS_BY_SCENARIO
        for code, label in enumerate(labels)
    ]


def thinned(tables: SequenceTables, cell: Cell, seed: int) -> pl.DataFrame:
    """Events that a cell may see: a share of the scenario's train events, and with ``alone`` no other scenario's.

    Which train events go is drawn row by row: a smaller share is part of a larger one.

    Raises:
        ValueError: the scenario is not among the log's, or none of its train events is left.
    """
    if cell.scenario is None:
        return tables.events
    train = pl.col("split") == "train"
    if cell.scenario == "smallest":
        sizes = tables.events.filter(train).group_by("scenario").len().sort("len", "scenario")
        code = int(sizes["scenario"][0])
    else:
        named = tables.scenarios.filter(raw_scenario=cell.scenario)
        if named.is_empty():
            raise ValueError(
                f"scenario {cell.scenario} has no event; the log has {tables.scenarios['raw_scenario'].to_list()}"
            )
        code = int(named["scenario"][0])
    own = pl.col("scenario") == code
    drawn = pl.Series(row_uniforms(tables.events["row_id"].to_numpy(), seed) < cell.share)
    kept = tables.events.filter(~(train & own) | drawn)
    kept = kept.filter(own) if cell.alone else kept
    if kept.filter(train & own).is_empty():
        raise ValueError(
            f"share {cell.share} leaves no train event of scenario code {code}: raise it"
        )
    return kept
