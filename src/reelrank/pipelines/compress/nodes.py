"""Thin nodes of compression; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from reelrank.evaluation.results import results_frame
from reelrank.pipelines.compress.options import (
    MAGNITUDE,
    SHARES,
    STRUCTURED,
    DistillationOptions,
    LatencyOptions,
    PruningOptions,
    QuantisationOptions,
    StudentOptions,
    UntrainedOptions,
)
from reelrank.provenance import config_hash
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions


def distil(
    teacher: ModelCheckpoint,
    student: StudentOptions,
    distillation: DistillationOptions,
    training: TrainOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """A small network that learns from the teacher alone. ``tables``: events, item_modal, items, users."""
    from reelrank.pipelines.compress import distillation as distilling

    lesson = distilling.Lesson.of(teacher, tables, distillation, training)
    return distilling.distil(teacher, lesson, student, training, Path(work_dir))


def prune(
    teacher: ModelCheckpoint,
    pruning: PruningOptions,
    distillation: DistillationOptions,
    training: TrainOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint | pl.DataFrame, ...]:
    """The teacher without its least weights, and without its least units, each after some lessons; and their history."""
    from reelrank.pipelines.compress import distillation as distilling
    from reelrank.pipelines.compress.pruning import without_units, without_weights

    lesson = distilling.Lesson.of(teacher, tables, distillation, training)
    short = training.model_copy(update={"epochs": pruning.epochs, "lr": pruning.lr})
    made = []
    for names, cut, zeros in ((MAGNITUDE, without_weights, True), (STRUCTURED, without_units, False)):  # fmt: skip
        for variant, share in zip(names, SHARES, strict=True):
            pruned = cut(teacher, share / 100)
            made.append(
                distilling.recover(variant, pruned, teacher, lesson, short, Path(work_dir), keep_zeros=zeros)
            )  # fmt: skip
    return (*(model for model, _ in made), pl.concat([history for _, history in made]))


def quantise(
    teacher: ModelCheckpoint, student: ModelCheckpoint, quantisation: QuantisationOptions
) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    """Teacher and student in eight bits."""
    from reelrank.pipelines.compress.quantise import quantised

    return quantised(teacher, quantisation), quantised(student, quantisation)


def measure(
    events: pl.DataFrame,
    item_modal: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    latency: LatencyOptions,
    untrained: UntrainedOptions,
    **models: ModelCheckpoint,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """MT-05: percentiles of every variant, and its sizes, by module; on the CPU."""
    from reelrank.pipelines.compress.measuring import measure_all

    return measure_all((events, item_modal, items, users), latency, untrained, models)


def collect(
    quality: pl.DataFrame,
    latencies: pl.DataFrame,
    sizes: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    training: TrainOptions,
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
) -> pl.DataFrame:
    """All result rows: what every variant costs (MT-05) and is worth (MT-06)."""
    from reelrank.pipelines.compress import rows

    common = {
        "system": "compress",
        "source": raw_manifest["source"],
        "split": f"{split_cuts['rule']}/test",
        "seed": training.seed,
        "data_kind": "world" if raw_manifest["kind"] == "world" else "real",
        "config_hash": config_hash(system, shared, source, world),
    }
    frames = [
        results_frame(found, **common, experiment=experiment, cell=cell)
        for (experiment, cell), found in rows.all_rows(quality, latencies, sizes).items()
    ]
    judged = quality.with_columns(
        pl.lit("compress").alias("system"),
        pl.lit("MT-06").alias("experiment"),
        pl.lit(common["config_hash"]).alias("config_hash"),
        pl.lit(rows.TRAINED).alias("cell"),
    )
    return pl.concat([judged, *frames])
