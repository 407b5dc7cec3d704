"""Thin nodes of MT-DQN; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from reelrank.buckets import BucketedTable, EngineOptions, map_buckets
from reelrank.evaluation.results import results_frame
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.features.candidates import availability_ts
from reelrank.features.events import assemble_events
from reelrank.features.modal import pooled_vectors
from reelrank.features.rewards import SIGNALS, RewardOptions, reward_terms, rewards
from reelrank.features.splits import Cuts, train_items
from reelrank.models.behaviours import watch_rule
from reelrank.options import Options
from reelrank.pipelines.mt_dqn import evaluate as judge
from reelrank.pipelines.mt_dqn import truth as planted
from reelrank.pipelines.mt_dqn.options import (
    ConcatModalOptions,
    EvaluateOptions,
    LearningOptions,
    ListOptions,
    MTDQNOptions,
    PopularityOptions,
    PredictOptions,
    SizeOptions,
    VanillaDQNOptions,
)
from reelrank.pipelines.mt_dqn.study_options import NOTHING, Setting, StudyOptions
from reelrank.provenance import config_hash, fingerprint
from reelrank.sources.manifest import Manifest
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions
from reelrank.worlds.truth import Truth
from reelrank.worlds.weibo_truth import WeiboTruth

MAIN = "mt_dqn"
VARIANTS = ("mt_dqn", "concat_modal", "vanilla_dqn", "popularity")
SUPERVISED = ("concat_modal", "popularity")  # their score is no Q


def describe_sizes(
    sizes: SizeOptions,
    mt_dqn: MTDQNOptions,
    concat_modal: ConcatModalOptions,
    vanilla_dqn: VanillaDQNOptions,
) -> pl.DataFrame:
    """Parameters of every module at the configured sizes, without data and without memory for them."""
    from reelrank.pipelines.mt_dqn.sizes import module_sizes

    options = {"mt_dqn": mt_dqn, "concat_modal": concat_modal, "vanilla_dqn": vanilla_dqn}
    return module_sizes(options, sizes)


def compute_rewards(
    interactions: BucketedTable,
    splits: BucketedTable,
    item_modal: pl.DataFrame,
    split_cuts: dict[str, Any],
    reward: RewardOptions,
    engine: EngineOptions,
) -> BucketedTable:
    """The three-part reward and the discounted return of each row (MT-DQN Eq. 15)."""
    vectors = pooled_vectors(item_modal, train_items(interactions, splits))
    function = partial(
        rewards,
        item_vectors=vectors,
        terms=reward_terms(interactions.scan()),
        cuts=Cuts(**split_cuts),
        options=reward,
        watch=watch_rule(interactions.scan()),
    )
    made_of = fingerprint(interactions.meta, splits.meta, split_cuts, reward)
    return map_buckets(function, [interactions, splits], engine, "rewards", made_of)


def assemble(
    interactions: BucketedTable, splits: BucketedTable, rewards: BucketedTable
) -> pl.DataFrame:
    """All events in the order of time, with their labels and links."""
    return assemble_events(interactions, splits, rewards)


def make_lists(events: pl.DataFrame, lists: ListOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lists of logged impressions to rank, and how many were left out for which reason."""
    from reelrank.pipelines.mt_dqn.lists import build_lists

    built = build_lists(events, lists)
    return built.rows, built.counts


def train_mt_dqn(
    model: MTDQNOptions,
    learning: LearningOptions,
    training: TrainOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Fusion, temporal graph network and Q-network, trained jointly. ``tables``: see ``_train``."""
    return _train("mt_dqn", model, learning, training, work_dir, tables)


def train_concat_modal(
    model: ConcatModalOptions,
    learning: LearningOptions,
    training: TrainOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Concatenated modalities, supervised. ``tables``: see ``_train``."""
    return _train("concat_modal", model, learning, training, work_dir, tables)


def train_vanilla_dqn(
    model: VanillaDQNOptions,
    learning: LearningOptions,
    training: TrainOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Ids and the last items; learns from the immediate reward only (METHODS §3.10 [S])."""
    immediate = learning.model_copy(update={"reward": "immediate"})
    return _train("vanilla_dqn", model, immediate, training, work_dir, tables)


def _train(
    name: str,
    model: Options,
    learning: LearningOptions,
    training: TrainOptions,
    work_dir: str,
    tables: Sequence[pl.DataFrame],
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Train a registered model; ``tables``: events, item_modal, items, users, lists."""
    from reelrank.pipelines.mt_dqn.fitting import Tables, train

    *read, lists = tables
    return train(
        name,
        Tables(*read),
        lists,
        model=model,
        learning=learning,
        training=training,
        work_dir=Path(work_dir),
    )


def fit_popularity(
    events: pl.DataFrame,
    item_modal: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    model: PopularityOptions,
) -> ModelCheckpoint:
    """Train long views per item, in closed form."""
    from reelrank.pipelines.mt_dqn.fitting import Tables, popularity

    return popularity(Tables(events, item_modal, items, users), model)


def predict(
    model: ModelCheckpoint,
    events: pl.DataFrame,
    item_modal: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    lists: pl.DataFrame,
    prediction: PredictOptions,
    training: TrainOptions,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Impressions, lists, the catalogue's best, and the places of the relevant items in it."""
    from reelrank.pipelines.mt_dqn import predict as predictor
    from reelrank.pipelines.mt_dqn.fitting import Tables, restore

    inputs = Tables(events, item_modal, items, users).model_inputs(training.device)
    available = availability_ts(events, items)
    made = predictor.predict(restore(model, inputs), inputs, lists, available, prediction)
    return made.impressions, made.lists, made.catalogue, made.targets


def export_fusion(
    model: ModelCheckpoint,
    events: pl.DataFrame,
    item_modal: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    prediction: PredictOptions,
    training: TrainOptions,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The gate of every item and the attention between modalities: what tells a collapsed fusion."""
    from reelrank.pipelines.mt_dqn import predict as predictor
    from reelrank.pipelines.mt_dqn.fitting import Tables, restore

    inputs = Tables(events, item_modal, items, users).model_inputs(training.device)
    return predictor.fusion_tables(restore(model, inputs), inputs, prediction.block_rows)


def judge_against_truth(
    raw_manifest: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    events: pl.DataFrame,
    items: pl.DataFrame,
    evaluation: EvaluateOptions,
    reward: RewardOptions,
    **catalogues: pl.DataFrame,
) -> pl.DataFrame:
    """NDCG of each catalogue ranking against the planted expected reward; empty on real data."""
    truth = _truth(raw_manifest)
    if truth is None:
        return pl.DataFrame(schema=planted.SCHEMA)
    weights = reward.weights.model_dump()
    return planted.true_ndcg(
        catalogues,
        truth,
        planted.raw_numbers(user_map),
        planted.raw_numbers(item_map),
        availability_ts(events, items),
        evaluation.k,
        {SIGNALS[term]: weights[term] for term in reward_terms(events.lazy())},
    )


def _truth(raw_manifest: dict[str, Any]) -> Truth | WeiboTruth | None:
    """What the world behind the raw files knows; None for real ones."""
    manifest = Manifest.from_dict(raw_manifest)
    if manifest.kind != "world":
        return None
    # an official release is a folder inside the world's
    is_weibo = manifest.source == "weibo"
    return WeiboTruth.load(manifest.root) if is_weibo else Truth.load(manifest.root.parent)


def evaluate(
    events: pl.DataFrame,
    true_ndcg: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    evaluation: EvaluateOptions,
    training: TrainOptions,
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    **predictions: pl.DataFrame,
) -> pl.DataFrame:
    """Result rows of every variant with predictions, and paired differences of MT-DQN with each of them (MT-01)."""
    variants = [name.removesuffix("_lists") for name in predictions if name.endswith("_lists")]
    test = events.filter(pl.col("split") == "test", pl.col("is_rand") == 0)
    bootstrap = UserBootstrap(test["user_id"], evaluation.replicates, evaluation.seed)
    estimates = {
        variant: judge.variant_estimates(
            predictions[f"{variant}_impressions"],
            predictions[f"{variant}_lists"],
            predictions[f"{variant}_targets"],
            events,
            bootstrap,
            k=evaluation.k,
            learns_q=variant not in SUPERVISED,
        )
        for variant in variants
    }
    estimates[planted.RANDOM] = judge.list_estimates(
        predictions[f"{MAIN}_lists"].with_columns(score=0.0), bootstrap, evaluation.k
    )
    for variant, table in judge.truth_estimates(true_ndcg, bootstrap, evaluation.k).items():
        estimates[variant] = {**table, **estimates[variant]}
    common = _common(raw_manifest, split_cuts, training, (system, shared, source, world))
    rows = judge.result_rows(estimates, MAIN)
    return results_frame(rows, **common, experiment="MT-01", cell="main")


def study(
    studies: StudyOptions,
    model: MTDQNOptions,
    learning: LearningOptions,
    training: TrainOptions,
    reward: RewardOptions,
    list_options: ListOptions,
    prediction: PredictOptions,
    evaluation: EvaluateOptions,
    work_dir: str,
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    events: pl.DataFrame,
    item_modal: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    lists: pl.DataFrame,
    own_model: ModelCheckpoint,
    own_history: pl.DataFrame,
    own_gates: pl.DataFrame,
    own_impressions: pl.DataFrame,
    own_lists: pl.DataFrame,
    own_catalogue: pl.DataFrame,
    own_targets: pl.DataFrame,
    social_edges: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Every cell of the experiments that ``studies.run`` names, against the run's own model."""
    from reelrank.pipelines.mt_dqn.fitting import Tables
    from reelrank.pipelines.mt_dqn.predict import Predictions
    from reelrank.pipelines.mt_dqn.studies import Learnt, Study
    from reelrank.pipelines.mt_dqn.study_measures import Measures, Seen, World

    tables = Tables(events, item_modal, items, users, social_edges)
    numbers = (planted.raw_numbers(ids) for ids in (user_map, item_map))
    made = Study(
        own=Setting("mt_dqn", model, learning, training, reward, NOTHING),
        main=Learnt(own_model, own_history, tables, lists),
        seen=Seen(Predictions(own_impressions, own_lists, own_catalogue, own_targets), own_gates),
        cuts=Cuts(**split_cuts),
        lists=list_options,
        prediction=prediction,
        measures=Measures.of(tables, evaluation, World(_truth(raw_manifest), *numbers)),
        work_dir=Path(work_dir),
    ).run(studies)
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
        "system": "mt_dqn",
        "source": raw_manifest["source"],
        "split": f"{split_cuts['rule']}/test",
        "seed": training.seed,
        "data_kind": "world" if raw_manifest["kind"] == "world" else "real",
        "config_hash": config_hash(*blocks),
    }


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows, in the order of the experiments."""
    return pl.concat(studies).sort("experiment", maintain_order=True)
