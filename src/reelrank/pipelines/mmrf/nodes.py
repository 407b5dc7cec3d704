"""Thin nodes of MMRF and its baselines; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.evaluation.off_policy import BehaviourOptions
from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.models.feed_options import FeedDataOptions
from reelrank.options import Options
from reelrank.pipelines.mmrf.baselines.options import (
    BCOptions,
    DeepFMOptions,
    LTROptions,
    MASSAOptions,
    ParetoOptions,
    TSCACOptions,
    WideDeepOptions,
)
from reelrank.pipelines.mmrf.feed_tables import FeedTables, feed_log, feed_report
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.run_options import (
    LOGGED,
    MAIN,
    MMRF_VARIANTS,
    EvaluationOptions,
    MMRFOptions,
    PredictionOptions,
    RolloutOptions,
    ServingOptions,
    StudyOptions,
    variant_options,
)
from reelrank.provenance import result_columns
from reelrank.tables import CandidateSets
from reelrank.training.artifact import ModelCheckpoint
from reelrank.worlds.truth import Truth

if TYPE_CHECKING:
    from reelrank.models.feed import FeedInputs
    from reelrank.pipelines.mmrf.evaluate import Judge

Trained = tuple[ModelCheckpoint, pl.DataFrame, pl.DataFrame]


def make_feed(
    interactions: BucketedTable,
    splits: BucketedTable,
    items: pl.DataFrame,
    users: pl.DataFrame,
    candidate_sets: BucketedTable,
    data: FeedDataOptions,
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """The log with its split, the candidate sets that the track asks for, and what decisions they make."""
    log = feed_log(interactions.scan(), splits.scan(), data)
    sets = candidate_sets.scan().collect() if data.track == "request" else pl.DataFrame(schema=CandidateSets.polars_schema())  # fmt: skip
    inputs = FeedTables(log, items, users, sets).inputs(data, "cpu")
    return log, sets, feed_report(inputs, data)


def train_mmrf(
    model: MMRFOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Seven agents that share by attention, and simulated feedback to non-impressions. ``tables``: see ``_train``."""
    return _train_variant("mmrf", model, data, learning, replay, prediction, work_dir, tables)


def train_mmrf_co(
    model: MMRFOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Concatenation for attention. ``tables``: see ``_train``."""
    return _train_variant("mmrf_co", model, data, learning, replay, prediction, work_dir, tables)


def train_mmrf_da(
    model: MMRFOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Without non-impressions. ``tables``: see ``_train``."""
    return _train_variant("mmrf_da", model, data, learning, replay, prediction, work_dir, tables)


def train_mmrf_ns(
    model: MMRFOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Non-impressions as negatives. ``tables``: see ``_train``."""
    return _train_variant("mmrf_ns", model, data, learning, replay, prediction, work_dir, tables)


def train_bc(
    model: BCOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """What was shown, by cross-entropy. ``tables``: see ``_train``."""
    return _train("bc", model, data, learning, replay, prediction, work_dir, tables)


def train_wide_deep(
    model: WideDeepOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Crossed codes and an MLP, rows weighted by their utility. ``tables``: see ``_train``."""
    return _train("wide_deep", model, data, learning, replay, prediction, work_dir, tables)


def train_deepfm(
    model: DeepFMOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """A factorisation machine and an MLP, rows weighted by their utility. ``tables``: see ``_train``."""
    return _train("deepfm", model, data, learning, replay, prediction, work_dir, tables)


def train_pareto(
    model: ParetoOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """One actor along the min-norm mix of the responses' gradients. ``tables``: see ``_train``."""
    return _train("pareto", model, data, learning, replay, prediction, work_dir, tables)


def train_tscac(
    model: TSCACOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Auxiliary policies first, then the main one near them. ``tables``: see ``_train``."""
    return _train("tscac", model, data, learning, replay, prediction, work_dir, tables)


def train_massa(
    model: MASSAOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Agents that read a common signal. ``tables``: see ``_train``."""
    return _train("massa", model, data, learning, replay, prediction, work_dir, tables)


def train_ltr(
    model: LTROptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    *tables: pl.DataFrame,
) -> Trained:
    """Pairs of shown items: the A/B test's control. ``tables``: see ``_train``."""
    return _train("ltr", model, data, learning, replay, prediction, work_dir, tables)


def _train_variant(
    name: str,
    model: MMRFOptions,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    tables: Sequence[pl.DataFrame],
) -> Trained:
    own, own_replay = variant_options(name, model, replay)
    return _train(name, own, data, learning, own_replay, prediction, work_dir, tables)


def _train(
    name: str,
    options: Options,
    data: FeedDataOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    work_dir: str,
    tables: Sequence[pl.DataFrame],
) -> Trained:
    """Train a registered method; ``tables``: log, items, users, candidates."""
    from reelrank.pipelines.mmrf.training_run import train

    return train(
        name,
        FeedTables.of(tables),
        options=options,
        data=data,
        learning=learning,
        replay=replay,
        prediction=prediction,
        work_dir=Path(work_dir),
    )


def fit_propensities(
    data: FeedDataOptions,
    behaviour: BehaviourOptions,
    learning: LearningOptions,
    *tables: pl.DataFrame,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """π̂_b of every candidate of the val and test decisions, cross-fitted by user, and how good it is (§7.2)."""
    from reelrank.pipelines.mmrf.logged import logging_propensities
    from reelrank.training.device import pick_device

    inputs = FeedTables.of(tables).inputs(data, "cpu")
    return logging_propensities(inputs, behaviour, str(pick_device(learning.device)))


def predict(
    model: ModelCheckpoint,
    data: FeedDataOptions,
    learning: LearningOptions,
    prediction: PredictionOptions,
    *tables: pl.DataFrame,
) -> pl.DataFrame:
    """Scores of every candidate of the val and test decisions, and the heads' own of what was shown."""
    from reelrank.models.feed_policies import history_length, load_policy
    from reelrank.pipelines.mmrf.scoring import predictions

    inputs = FeedTables.of(tables).inputs(data, learning.device)
    policy = load_policy(model, inputs.rows.item.device)
    return predictions(policy, inputs, history_length(model), prediction)


def map_attention(
    model: ModelCheckpoint,
    data: FeedDataOptions,
    learning: LearningOptions,
    prediction: PredictionOptions,
    *tables: pl.DataFrame,
) -> pl.DataFrame:
    """MM-11: what each agent takes from each other, head by head, over the test decisions; empty without attention."""
    from reelrank.pipelines.mmrf.attention import attention_map

    return attention_map(model, FeedTables.of(tables).inputs(data, learning.device), prediction)


def evaluate(
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    propensities: pl.DataFrame,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    data: FeedDataOptions,
    learning: LearningOptions,
    evaluation: EvaluationOptions,
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    **predictions: pl.DataFrame,
) -> pl.DataFrame:
    """Result rows of every method (MM-01), of its lists (MM-04), over time (MM-06), and paired differences of MMRF with each."""
    from reelrank.pipelines.mmrf import evaluate as judging
    from reelrank.pipelines.mmrf.horizons import FIXED, HORIZONS, horizon_rows

    tables = FeedTables(feed_log, items, users, feed_candidates)
    inputs = tables.inputs(data, "cpu")
    judge = _judge(inputs, propensities, raw_manifest, user_map, item_map, data, evaluation)
    bootstrap = judge.bootstrap()
    found = {
        name: judging.judge_method(name, frame, judge, bootstrap)
        for name, frame in predictions.items()
    }
    cells: dict[tuple[str, str], list[ResultRow]] = {("MM-01", "main"): judging.logged_rows(judge, bootstrap)}  # fmt: skip
    for one in found.values():
        cells["MM-01", "main"] += one.main
        cells.setdefault(("MM-01", "random log"), []).extend(one.random)
        cells.setdefault(("MM-04", "main"), []).extend(one.lists)
        for temperature, rows in one.temperatures.items():
            cells.setdefault(("MM-01", temperature), []).extend(rows)
    for rival, one in found.items():
        if rival != MAIN:
            cells["MM-01", "main"] += judging.difference_rows(MAIN, found[MAIN].estimates, rival, one.estimates)  # fmt: skip
    cells[HORIZONS, FIXED] = horizon_rows(predictions, judge, inputs, bootstrap)
    common = _common(raw_manifest, split_cuts, learning, (system, shared, source, world))
    return _frames(cells, common)


def roll_out(
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    data: FeedDataOptions,
    learning: LearningOptions,
    rollout: RolloutOptions,
    evaluation: EvaluationOptions,
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    **models: ModelCheckpoint,
) -> pl.DataFrame:
    """True values of all methods in the world that wrote the log, really rolled out; empty on real rows."""
    common = _common(raw_manifest, split_cuts, learning, (system, shared, source, world))
    truth = Truth.behind(raw_manifest)
    if truth is None or not rollout.users:
        return results_frame([], **common)
    from reelrank.models.feed_policies import history_length, load_policy
    from reelrank.pipelines.mmrf import truth as planted

    inputs = FeedTables(feed_log, items, users, feed_candidates).inputs(data, "cpu")
    raw = user_map["raw_id"].to_numpy(), item_map["raw_id"].to_numpy()
    environments = {
        n: planted.world_environment(truth, inputs, *raw, rollout, n)
        for n in {history_length(model) for model in models.values()}
    }
    environment, chosen = environments[history_length(models[MAIN])]
    bootstrap = UserBootstrap(chosen, evaluation.replicates, evaluation.seed)
    found = {
        name: planted.rolled_out(name, policy, environment, rollout, bootstrap, data.k, temperature)
        for name, policy, temperature in (
            (planted.ORACLE, planted.oracle, 0.0),
            (LOGGED, planted.logging, 1.0),
            (planted.UNIFORM, planted.uniform, 1.0),
        )
    }
    for name, model in models.items():
        own, _ = environments[history_length(model)]
        found[name] = planted.rolled_out(name, load_policy(model), own, rollout, bootstrap, data.k)
    rows = [row for one in found.values() for row in one.rows]
    for rival, one in found.items():
        if rival != MAIN:
            rows += planted.differences(MAIN, found[MAIN], rival, one)
    return results_frame(rows, **common, experiment="MM-01", cell="rolled out")


def measure_serving(
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    data: FeedDataOptions,
    learning: LearningOptions,
    serving: ServingOptions,
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    **models: ModelCheckpoint,
) -> pl.DataFrame:
    """MM-13: latency and memory of one request, every method eagerly, MMRF also as ``serving.programs`` says; none if no request is asked for."""
    common = _common(raw_manifest, split_cuts, learning, (system, shared, source, world))
    common |= {"experiment": "MM-13", "cell": f"C = {serving.candidates}"}
    if not serving.requests:
        return results_frame([], **common)
    from reelrank.models.feed_policies import history_length, load_policy
    from reelrank.pipelines.mmrf.serving import requests_of, serving_rows

    inputs = FeedTables(feed_log, items, users, feed_candidates).inputs(data, learning.device)
    rows: list[ResultRow] = []
    for name, model in models.items():
        requests = requests_of(inputs, serving, history_length(model), learning.seed)
        policy = load_policy(model, inputs.rows.item.device)
        wanted = serving.programs if name == MAIN else ("eager",)
        rows += serving_rows(name, policy, requests, wanted, serving)
    return results_frame(rows, **common)


def study(
    feed_log: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    feed_candidates: pl.DataFrame,
    propensities: pl.DataFrame,
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    data: FeedDataOptions,
    mmrf: MMRFOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    prediction: PredictionOptions,
    evaluation: EvaluationOptions,
    studies: StudyOptions,
    work_dir: str,
    system: dict[str, Any],
    shared: dict[str, Any],
    source: dict[str, Any],
    world: dict[str, Any],
    **predictions: pl.DataFrame,
) -> pl.DataFrame:
    """Every cell that ``studies.run`` names, against the run's own models."""
    from reelrank.pipelines.mmrf.studies import Study

    common = _common(raw_manifest, split_cuts, learning, (system, shared, source, world))
    if not studies.chosen():
        return results_frame([], **common)
    tables = FeedTables(feed_log, items, users, feed_candidates)
    inputs = tables.inputs(data, "cpu")
    judge = _judge(inputs, propensities, raw_manifest, user_map, item_map, data, evaluation)
    made = Study(tables, data, mmrf, learning, replay, prediction, Path(work_dir)).run(
        studies,
        {name: predictions[f"{name}_scores"] for name in MMRF_VARIANTS},
        judge,
        judge.bootstrap(),
    )
    return _frames(made, common)


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows, in the order of the experiments."""
    return pl.concat(studies).sort("experiment", maintain_order=True)


def _judge(
    inputs: FeedInputs,
    propensities: pl.DataFrame,
    raw_manifest: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    data: FeedDataOptions,
    evaluation: EvaluationOptions,
) -> Judge:
    from reelrank.pipelines.mmrf.judging import judge_of
    from reelrank.worlds.feed_world import expected_responses

    truth = Truth.behind(raw_manifest)
    expected = None
    if truth is not None:
        raw = user_map["raw_id"].to_numpy(), item_map["raw_id"].to_numpy()
        expected = lambda part: expected_responses(truth, inputs, part.decision, *raw)  # noqa: E731
    return judge_of(inputs, propensities, expected, data.k, evaluation)


def _common(
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    learning: LearningOptions,
    blocks: Sequence[dict[str, Any]],
) -> dict[str, str | int | None]:
    """What all result rows of a run have in common."""
    split = f"{split_cuts['rule']}/test"
    return result_columns("mmrf", raw_manifest, learning.seed, blocks, split=split)


def _frames(
    cells: dict[tuple[str, str], list[ResultRow]], common: dict[str, str | int | None]
) -> pl.DataFrame:
    frames = [
        results_frame(rows, **common, experiment=experiment, cell=cell)
        for (experiment, cell), rows in cells.items()
    ]
    return pl.concat([results_frame([], **common), *frames])
