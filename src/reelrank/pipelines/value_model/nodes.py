"""Thin nodes of the value model; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from reelrank.buckets import BucketedTable, EngineOptions, map_buckets
from reelrank.evaluation.results import results_frame
from reelrank.features.heads import HEADS
from reelrank.features.histories import HistoryOptions
from reelrank.features.value_encoder import ValueEncoder, ValueFeatureOptions
from reelrank.features.value_features import FEATURE_BY_NAME, NodeFeatures
from reelrank.pipelines.value_model.edges import edge_table
from reelrank.pipelines.value_model.options import (
    VARIANTS,
    EdgeMlpOptions,
    EdgeOptions,
    EvaluationOptions,
    FittingOptions,
    GnnOptions,
    LogisticOptions,
    StudyOptions,
    ValueModels,
)
from reelrank.provenance import config_hash, fingerprint
from reelrank.training.artifact import ModelCheckpoint
from reelrank.worlds.kuairec_options import WorldOptions

if TYPE_CHECKING:
    from reelrank.pipelines.value_model.assembly import Assembly, ValueTables
    from reelrank.pipelines.value_model.studies import Outcome, Studies

SYSTEM = "value_model"
# edges, interactions, splits, user_features, item_features
Log = tuple[BucketedTable, BucketedTable, BucketedTable, pl.DataFrame, pl.DataFrame]
# work_dir, bursts, split_cuts, raw_manifest, and the log
Studied = tuple[str, pl.DataFrame, dict[str, Any], dict[str, Any], *Log]


def build_nodes(users: pl.DataFrame, items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What never changes of each user and each item; row = dense id."""
    nodes = NodeFeatures.of(users, items)
    return nodes.users, nodes.items


def build_edges(
    interactions: BucketedTable,
    histories: BucketedTable,
    splits: BucketedTable,
    items: pl.DataFrame,
    bursts: pl.DataFrame,
    history: HistoryOptions,
    features: ValueFeatureOptions,
    edges: EdgeOptions,
    engine: EngineOptions,
) -> BucketedTable:
    """Labels and features of the interactions, bucket by bucket (METHODS §6.2, §6.3)."""
    tables = [interactions, histories, splits]
    function = partial(
        edge_table,
        items=items,
        bursts=bursts,
        heads=history.heads,
        options=edges,
        clock=features.clock,
    )
    made_of = fingerprint(*(t.meta for t in tables), bursts.to_dicts(), history, features.clock, edges)  # fmt: skip
    return map_buckets(function, tables, engine, "edges", made_of)


def fit_encoder(
    features: ValueFeatureOptions, *tables: *Log
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scalers and vocabularies of train edges (L2), and which features lack values for which reason. ``tables``: see ``Log``."""
    edges, interactions, splits, _, _ = tables
    encoder = _tables(EdgeOptions(), tables).fit_encoder(splits.read, features)
    counts = edges.scan().group_by("split").agg(pl.len().alias("rows"), pl.col(HEADS).mean())
    missing = encoder.missing()
    report = {
        "features": len(FEATURE_BY_NAME),
        "left_out": sorted(name for name, found in missing.items() if found["share"] == 1),
        "dropped_groups": list(features.drop_groups),
        "missing": missing,
        "heads": counts.sort("split").cast({"split": pl.String}).collect().to_dicts(),
        "edges": edges.n_rows,
        "interactions": interactions.n_rows,
    }
    return encoder.model_dump(mode="json"), report


def train_logistic(
    model: LogisticOptions,
    fitting: FittingOptions,
    work_dir: str,
    edges: EdgeOptions,
    encoder: dict[str, Any],
    *tables: *Log,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """One regression per head. ``tables``: see ``Log``."""
    return _train("logistic", model, fitting, work_dir, _assembly(edges, encoder, tables))


def train_edge_mlp(
    model: EdgeMlpOptions,
    fitting: FittingOptions,
    work_dir: str,
    edges: EdgeOptions,
    encoder: dict[str, Any],
    *tables: *Log,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """The features alone. ``tables``: see ``Log``."""
    return _train("edge_mlp", model, fitting, work_dir, _assembly(edges, encoder, tables))


def train_gnn_64(
    model: GnnOptions,
    fitting: FittingOptions,
    work_dir: str,
    edges: EdgeOptions,
    encoder: dict[str, Any],
    *tables: *Log,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Features and node vectors of width 64. ``tables``: see ``Log``."""
    return _train("gnn_64", model, fitting, work_dir, _assembly(edges, encoder, tables))


def train_gnn_128(
    model: GnnOptions,
    fitting: FittingOptions,
    work_dir: str,
    edges: EdgeOptions,
    encoder: dict[str, Any],
    *tables: *Log,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Features and node vectors of width 128. ``tables``: see ``Log``."""
    return _train("gnn_128", model, fitting, work_dir, _assembly(edges, encoder, tables))


def _train(
    variant: str,
    model: LogisticOptions | EdgeMlpOptions,
    fitting: FittingOptions,
    work_dir: str,
    assembly: Assembly,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    from reelrank.pipelines.value_model.training import train

    return train(variant, assembly.examples, model, fitting, Path(work_dir))


def predict(
    model: ModelCheckpoint,
    fitting: FittingOptions,
    edges: EdgeOptions,
    encoder: dict[str, Any],
    *tables: *Log,
) -> pl.DataFrame:
    """Probabilities and labels of val and test edges. ``tables``: see ``Log``."""
    from reelrank.pipelines.value_model import training

    return training.predict(model, _assembly(edges, encoder, tables), fitting.block_rows)


def evaluate(
    interactions: BucketedTable,
    splits: BucketedTable,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    evaluation: EvaluationOptions,
    fitting: FittingOptions,
    system: dict[str, Any],
    source: dict[str, Any],
    world: WorldOptions,
    **predictions: pl.DataFrame,
) -> pl.DataFrame:
    """The headline of GV-01: every model on the test part, and differences from the best model without a graph."""
    from reelrank.evaluation.uncertainty import UserBootstrap
    from reelrank.features.splits import train_items
    from reelrank.pipelines.value_model import evaluate as judge

    tests = {str(variant): predictions[variant].filter(split="test") for variant in VARIANTS}
    users = tests[VARIANTS[0]]["user_id"]
    bootstrap = UserBootstrap(users, evaluation.replicates, evaluation.seed)
    shown = train_items(interactions, splits)
    found = {
        variant: judge.estimates(test, bootstrap, evaluation.bins)
        | judge.warmth_estimates(test, shown, bootstrap)
        for variant, test in tests.items()
    }
    rows = judge.result_rows(found, judge.best_baseline(predictions))
    common = _common(raw_manifest, fitting.seed, config_hash(system, source, world))
    rule = split_cuts["rule"]
    return results_frame(rows, **common, split=f"{rule}/test", experiment="GV-01", cell=rule)


def study_protocols(
    studies: StudyOptions,
    logistic: LogisticOptions,
    edge_mlp: EdgeMlpOptions,
    gnn_64: GnnOptions,
    gnn_128: GnnOptions,
    features: ValueFeatureOptions,
    edges: EdgeOptions,
    evaluation: EvaluationOptions,
    *inputs: *Studied,
) -> pl.DataFrame:
    """GV-01 under other splits and by the poster's rules. ``inputs``: see ``Studied``."""
    models = ValueModels(logistic=logistic, edge_mlp=edge_mlp, gnn_64=gnn_64, gnn_128=gnn_128)
    made, common = _studies(studies, models, features, edges, evaluation, inputs)
    return _frame("GV-01", made.protocols(), common)


def study_leaks(
    studies: StudyOptions,
    logistic: LogisticOptions,
    edge_mlp: EdgeMlpOptions,
    gnn_64: GnnOptions,
    gnn_128: GnnOptions,
    features: ValueFeatureOptions,
    edges: EdgeOptions,
    evaluation: EvaluationOptions,
    *inputs: *Studied,
) -> pl.DataFrame:
    """GV-02: what each leak is worth. ``inputs``: see ``Studied``."""
    models = ValueModels(logistic=logistic, edge_mlp=edge_mlp, gnn_64=gnn_64, gnn_128=gnn_128)
    made, common = _studies(studies, models, features, edges, evaluation, inputs)
    return _frame("GV-02", made.leaks(), common)


def study_sweeps(
    studies: StudyOptions,
    logistic: LogisticOptions,
    edge_mlp: EdgeMlpOptions,
    gnn_64: GnnOptions,
    gnn_128: GnnOptions,
    features: ValueFeatureOptions,
    edges: EdgeOptions,
    evaluation: EvaluationOptions,
    *inputs: *Studied,
) -> pl.DataFrame:
    """GV-03: learning rates and batch sizes, judged on val. ``inputs``: see ``Studied``."""
    models = ValueModels(logistic=logistic, edge_mlp=edge_mlp, gnn_64=gnn_64, gnn_128=gnn_128)
    made, common = _studies(studies, models, features, edges, evaluation, inputs)
    return _frame("GV-03", made.sweeps(), common)


def study_groups(
    studies: StudyOptions,
    logistic: LogisticOptions,
    edge_mlp: EdgeMlpOptions,
    gnn_64: GnnOptions,
    gnn_128: GnnOptions,
    features: ValueFeatureOptions,
    edges: EdgeOptions,
    evaluation: EvaluationOptions,
    *inputs: *Studied,
) -> pl.DataFrame:
    """GV-04: what is lost without a group of features. ``inputs``: see ``Studied``."""
    models = ValueModels(logistic=logistic, edge_mlp=edge_mlp, gnn_64=gnn_64, gnn_128=gnn_128)
    made, common = _studies(studies, models, features, edges, evaluation, inputs)
    return _frame("GV-04", made.groups(), common)


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows, in the order of the experiments."""
    return pl.concat(studies).sort("experiment", maintain_order=True)


def _studies(
    studies: StudyOptions,
    models: ValueModels,
    features: ValueFeatureOptions,
    edges: EdgeOptions,
    evaluation: EvaluationOptions,
    inputs: Studied,
) -> tuple[Studies, dict[str, Any]]:
    """The studies, and what their result rows have in common."""
    from reelrank.pipelines.value_model.studies import Studies

    work_dir, bursts, split_cuts, raw_manifest, *_ = inputs
    log = inputs[-5:]
    _, _, splits, _, _ = log
    made = Studies(
        _tables(edges, log),
        splits.read,
        split_cuts["rule"],
        bursts,
        features,
        models,
        studies,
        evaluation.bins,
        Path(work_dir),
    )
    hashed = config_hash(edges, features, models, studies, raw_manifest["source"])
    return made, _common(raw_manifest, studies.fitting.seed, hashed)


def _frame(experiment: str, outcomes: Iterable[Outcome], common: Mapping[str, Any]) -> pl.DataFrame:
    frames = [
        results_frame(found.rows, **common, split=found.split, track=found.track, experiment=experiment, cell=found.cell)
        for found in outcomes
    ]  # fmt: skip
    return pl.concat(frames)


def _common(raw_manifest: dict[str, Any], seed: int, hashed: str) -> dict[str, Any]:
    return {
        "system": SYSTEM,
        "source": raw_manifest["source"],
        "seed": seed,
        "data_kind": "world" if raw_manifest["kind"] == "world" else "real",
        "config_hash": hashed,
    }


def _tables(options: EdgeOptions, log: Log) -> ValueTables:
    from reelrank.pipelines.value_model.assembly import ValueTables

    edges, interactions, _, users, items = log
    return ValueTables(edges, interactions, NodeFeatures(users, items), options)


def _assembly(options: EdgeOptions, encoder: dict[str, Any], log: Log) -> Assembly:
    """Examples of the stored split, encoded by the stored encoder."""
    _, _, splits, _, _ = log
    return _tables(options, log).assemble(splits.read, ValueEncoder.model_validate(encoder))
