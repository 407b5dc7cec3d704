"""Thin nodes of RUIE; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.evaluation.results import results_frame
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.features.candidates import availability_ts
from reelrank.features.sequences import SequenceOptions, sequence_events
from reelrank.options import Options
from reelrank.pipelines.ruie import evaluate as judge
from reelrank.pipelines.ruie.options import (
    CaserOptions,
    DinOptions,
    GRU4RecOptions,
    NextItNetOptions,
    PepNetOptions,
    PopularityOptions,
    RuieOptions,
    SASRecOptions,
    StarOptions,
)
from reelrank.pipelines.ruie.run_options import (
    MAIN,
    VARIANTS,
    EvaluationOptions,
    LearningOptions,
    RankingOptions,
    RuieModels,
    StudyOptions,
)
from reelrank.provenance import config_hash
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions


def make_sequences(
    interactions: BucketedTable,
    splits: BucketedTable,
    items: pl.DataFrame,
    sequences: SequenceOptions,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Events with dense codes, items with the time from which they compete, scenarios, and what was left out."""
    parts = splits.scan().select("row_id", "split")
    rows = interactions.scan()
    made = sequence_events(rows.join(parts, on="row_id"), sequences)
    shown = rows.select("item_id", "ts_ms").collect()
    available = pl.Series("available_ts", availability_ts(shown, items))
    known = items.select("item_id").with_columns(available)
    codes = made.items.cast({"item_id": items.schema["item_id"]}).join(
        known, on="item_id", how="left", maintain_order="left"
    )
    return made.events, codes, made.scenarios, made.report


def train_ruie(
    model: RuieOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Backbone, contextual Q estimator and intent, trained jointly. ``tables``: see ``_train``."""
    return _train("ruie", model, learning, training, ranking, work_dir, tables)


def train_nextitnet(
    model: NextItNetOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """RUIE's backbone alone. ``tables``: see ``_train``."""
    return _train("nextitnet", model, learning, training, ranking, work_dir, tables)


def train_sasrec(
    model: SASRecOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Causal self-attention. ``tables``: see ``_train``."""
    return _train("sasrec", model, learning, training, ranking, work_dir, tables)


def train_gru4rec(
    model: GRU4RecOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """A recurrent network. ``tables``: see ``_train``."""
    return _train("gru4rec", model, learning, training, ranking, work_dir, tables)


def train_caser(
    model: CaserOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Convolutions over a window. ``tables``: see ``_train``."""
    return _train("caser", model, learning, training, ranking, work_dir, tables)


def train_din(
    model: DinOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Attention of each candidate over the history. ``tables``: see ``_train``."""
    return _train("din", model, learning, training, ranking, work_dir, tables)


def train_pepnet(
    model: PepNetOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Gates by scenario and user. ``tables``: see ``_train``."""
    return _train("pepnet", model, learning, training, ranking, work_dir, tables)


def train_star(
    model: StarOptions,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Shared weights times weights of each scenario. ``tables``: see ``_train``."""
    return _train("star", model, learning, training, ranking, work_dir, tables)


def _train(
    variant: str,
    model: Options,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: str,
    tables: Sequence[pl.DataFrame],
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Train a registered model; ``tables``: events, items, scenarios."""
    from reelrank.pipelines.ruie.fitting import SequenceTables, train

    return train(
        variant,
        SequenceTables.of(*tables),
        model=model,
        learning=learning,
        training=training,
        ranking=ranking,
        work_dir=Path(work_dir),
    )


def fit_popularity(
    model: PopularityOptions, learning: LearningOptions, *tables: pl.DataFrame
) -> ModelCheckpoint:
    """Train events per item, in closed form. ``tables``: see ``_train``."""
    from reelrank.pipelines.ruie.fitting import SequenceTables, popularity

    return popularity(SequenceTables.of(*tables), model, learning.length)


def predict(
    model: ModelCheckpoint, ranking: RankingOptions, training: TrainOptions, *tables: pl.DataFrame
) -> pl.DataFrame:
    """Places of every val and test event among all items. ``tables``: see ``_train``."""
    from reelrank.pipelines.ruie import fitting

    return fitting.predict(model, fitting.SequenceTables.of(*tables), ranking, training.device)


def evaluate(
    scenarios: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    evaluation: EvaluationOptions,
    training: TrainOptions,
    scenario_names: dict[str, str],
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    **predictions: pl.DataFrame,
) -> pl.DataFrame:
    """Result rows of every model (RU-01), paired differences of RUIE with each, and RU-10's metric forensics."""
    tests = {variant: predictions[variant].filter(split="test") for variant in VARIANTS}
    if tests[MAIN].is_empty():
        raise ValueError(
            "no test event of an item and a user of train: a longer log or a lower sequences.k_core is needed"
        )
    bootstrap = UserBootstrap(tests[MAIN]["user_id"], evaluation.replicates, evaluation.seed)
    labels = judge.scenario_labels(scenarios, scenario_names)
    found = {
        variant: judge.estimates(test, labels, evaluation.cutoffs, bootstrap)
        for variant, test in tests.items()
    }
    common = _common(raw_manifest, split_cuts, training, (system, shared, source, world))
    rows = judge.result_rows(found, MAIN)
    frames = [results_frame(rows, **common, experiment="RU-01", cell="main")]
    for form, printed in judge.forensic_rows(tests[MAIN], MAIN, evaluation.cutoffs, bootstrap).items():  # fmt: skip
        track = "honest" if form == "correct" else "paper_literal"
        frames.append(results_frame(printed, **common, experiment="RU-10", cell=form, track=track))
    return pl.concat(frames)


def study(
    studies: StudyOptions,
    models: RuieModels,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    evaluation: EvaluationOptions,
    work_dir: str,
    scenario_names: dict[str, str],
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    events: pl.DataFrame,
    items: pl.DataFrame,
    scenarios: pl.DataFrame,
    **predictions: pl.DataFrame,
) -> pl.DataFrame:
    """Every cell of the experiments that ``studies.run`` names, against the run's own models."""
    from reelrank.pipelines.ruie.fitting import SequenceTables
    from reelrank.pipelines.ruie.studies import Study

    made = Study(
        SequenceTables.of(events, items, scenarios),
        judge.scenario_labels(scenarios, scenario_names),
        models,
        learning,
        training,
        ranking,
        evaluation,
        Path(work_dir),
    ).run(studies, predictions)
    common = _common(raw_manifest, split_cuts, training, (system, shared, source, world))
    frames = [
        results_frame(rows, **common, experiment=experiment, cell=cell)
        for (experiment, cell), rows in made.items()
    ]
    return pl.concat([results_frame([], **common), *frames])


def _common(
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    training: TrainOptions,
    blocks: Sequence[dict[str, Any]],
) -> dict[str, str | int | None]:
    """What all result rows of a run have in common."""
    return {
        "system": "ruie",
        "source": raw_manifest["source"],
        "split": f"{split_cuts['rule']}/test",
        "seed": training.seed,
        "data_kind": "world" if raw_manifest["kind"] == "world" else "real",
        "config_hash": config_hash(*blocks),
    }


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows, in the order of the experiments."""
    return pl.concat(studies).sort("experiment", maintain_order=True)
