"""Thin nodes of the head weights; torch is imported where it is needed, so that listing pipelines stays fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.features.candidate_features import CandidateOptions
from reelrank.features.heads import HEADS
from reelrank.features.histories import HistoryOptions
from reelrank.features.value_encoder import ValueEncoder, ValueFeatureOptions
from reelrank.features.value_features import NodeFeatures
from reelrank.pipelines.head_weights.debias import DebiasOptions
from reelrank.pipelines.head_weights.diagnostics import DiagnosticOptions
from reelrank.pipelines.head_weights.options import (
    AlternativeOptions,
    InferenceOptions,
    NullOptions,
    SearchOptions,
    SoftOptions,
)
from reelrank.pipelines.head_weights.residual import ResidualOptions
from reelrank.pipelines.head_weights.run_options import (
    MainEmbedding,
    PublishedOptions,
    RankedSetOptions,
    VariantOptions,
)
from reelrank.pipelines.head_weights.selectivity import SelectivityOptions
from reelrank.provenance import config_hash
from reelrank.sources.manifest import Manifest
from reelrank.training.artifact import ModelCheckpoint
from reelrank.worlds.kuairec_options import WorldOptions
from reelrank.worlds.truth import Truth

if TYPE_CHECKING:
    from reelrank.pipelines.head_weights.embeddings import Embedding
    from reelrank.pipelines.head_weights.evaluate import Found
    from reelrank.pipelines.head_weights.problem import RankingSessions
    from reelrank.pipelines.head_weights.ranked import Ranked, RankingLog, Scorer
    from reelrank.pipelines.head_weights.unexplained import Categories

SYSTEM = "head_weights"
TRUTH_EMBEDDING: MainEmbedding = "whitened_heads"  # [D] of recovery on worlds, beside the run's own
# interactions, histories, splits, items, bursts
Log = tuple[BucketedTable, BucketedTable, BucketedTable, pl.DataFrame, pl.DataFrame]
# raw_manifest, split_cuts, system, source, world
Origin = tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], WorldOptions]


def rank_sessions(
    ranking: RankedSetOptions,
    candidates: CandidateOptions,
    history: HistoryOptions,
    features: ValueFeatureOptions,
    model: ModelCheckpoint,
    encoder: dict[str, Any],
    user_features: pl.DataFrame,
    item_features: pl.DataFrame,
    *log: *Log,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Sessions of val and test with their candidates and p̂, the model's item vectors, and what was left out. ``log``: see ``Log``."""
    from reelrank.pipelines.head_weights import ranked

    known = _log(history, features, log)
    scorer = _scorer(model, encoder, NodeFeatures(user_features, item_features), ranking)
    sessions, counts = ranked.find_sessions(known, ranking)
    made = ranked.rank_sessions(known, sessions, candidates, scorer.function())
    vectors = scorer.item_vectors()
    table = pl.DataFrame({"item_id": np.arange(len(vectors), dtype=np.int32), "vector": vectors})
    counts["candidates"] = made.candidates.height
    return made.sessions, made.candidates, table.with_columns(pl.col("vector").arr.to_list()), counts  # fmt: skip


def rank_requests(
    ranking: RankedSetOptions,
    raw_manifest: dict[str, Any],
    user_map: pl.DataFrame,
    item_map: pl.DataFrame,
    sessions: pl.DataFrame,
    candidates: pl.DataFrame,
    history: HistoryOptions,
    features: ValueFeatureOptions,
    model: ModelCheckpoint,
    encoder: dict[str, Any],
    user_features: pl.DataFrame,
    item_features: pl.DataFrame,
    *log: *Log,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """On a world: true probabilities of the sessions' candidates, and its requests with their own candidates; else empty tables."""
    from reelrank.pipelines.head_weights import ranked

    truth = _truth(raw_manifest)
    if truth is None:
        nothing = candidates.clear().with_columns(
            pl.lit(None, pl.Float32).alias(f"true_{head}") for head in HEADS
        )
        return sessions.clear(), nothing, nothing.select("position", "item_id", pl.col("^true_.*$"))
    known = _log(history, features, log)
    scorer = _scorer(model, encoder, NodeFeatures(user_features, item_features), ranking)
    requests, pairs = ranked.find_requests(known, truth, item_map, ranking)
    made = ranked.rank_requests(known, requests, pairs, scorer.function())
    made = ranked.with_truth(made, truth, user_map, item_map)
    of_sessions = ranked.with_truth(
        ranked.Ranked(sessions, candidates), truth, user_map, item_map
    ).candidates
    return made.sessions, made.candidates, of_sessions.select("position", "item_id", pl.col("^true_.*$"))  # fmt: skip


def estimate(
    sessions: pl.DataFrame,
    candidates: pl.DataFrame,
    item_vectors: pl.DataFrame,
    items: pl.DataFrame,
    embedding: MainEmbedding,
    search: SearchOptions,
    soft: SoftOptions,
    inference: InferenceOptions,
    *origin: *Origin,
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Weights by both losses with intervals and verdict, from val (L9)."""
    from reelrank.pipelines.head_weights import estimate as estimation
    from reelrank.pipelines.head_weights import evaluate
    from reelrank.pipelines.head_weights.matching import matching

    val = _ranked(sessions, candidates).problem("val")
    found = estimation.estimate(
        matching(val, _embedding(embedding, val, item_vectors, items)), search, soft, inference
    )
    planted = _planted(origin[0])
    similar = evaluate.mean_cosine(_vectors(item_vectors))
    rows = [*evaluate.estimate_rows(found), similar]
    known = {} if planted is None or not planted.any() else {"planted": (planted / np.abs(planted).sum()).tolist()}  # fmt: skip
    return found.to_dict() | known, _frame(rows, origin, search.seed)


def judge(
    sessions: pl.DataFrame,
    candidates: pl.DataFrame,
    item_vectors: pl.DataFrame,
    weights: dict[str, Any],
    embedding: MainEmbedding,
    nulls: NullOptions,
    alternatives: AlternativeOptions,
    published: PublishedOptions,
    history: HistoryOptions,
    features: ValueFeatureOptions,
    interactions: BucketedTable,
    histories: BucketedTable,
    splits: BucketedTable,
    items: pl.DataFrame,
    bursts: pl.DataFrame,
    *origin: *Origin,
) -> pl.DataFrame:
    """GV-05 and GV-07 on the test part: ŵ against nulls, the poster's w* and other objectives."""
    from reelrank.pipelines.head_weights import alternatives as others
    from reelrank.pipelines.head_weights import estimate as estimation
    from reelrank.pipelines.head_weights import evaluate, ranked
    from reelrank.pipelines.head_weights.matching import matching
    from reelrank.pipelines.head_weights.nulls import compare_with_nulls

    tables = _ranked(sessions, candidates)
    log = _log(history, features, (interactions, histories, splits, items, bursts))
    category = _categories(items)
    test_sessions = tables.problem("test")
    test = matching(test_sessions, _embedding(embedding, test_sessions, item_vectors, items))
    n_users = int(interactions.scan().select(pl.max("user_id")).collect().item()) + 1
    popularity, watched = ranked.train_counts(log, category.code, category.n, n_users)
    own = _weights(weights, estimation.SOFT)
    _, beside = compare_with_nulls(
        test, own, nulls, popularity=popularity, category=category.code, history=watched
    )
    bootstrap = UserBootstrap(test.users, nulls.replicates, nulls.seed)
    fixed = {
        estimation.SOFT: own,
        estimation.HARD: _weights(weights, estimation.HARD),
        evaluate.POSTER: np.array(published.weights),
    }
    val = tables.problem("val")
    fits = [
        others.bradley_terry(val, alternatives),
        others.plackett_luce(val, alternatives),
        others.category_cross_entropy(val, category.code, alternatives),
    ]
    rows = evaluate.held_out_rows(test, fixed, beside, bootstrap)
    rows += evaluate.objective_rows(fits, test, own, bootstrap)
    return _frame(rows, origin, nulls.seed)


def study_variants(
    sessions: pl.DataFrame,
    candidates: pl.DataFrame,
    item_vectors: pl.DataFrame,
    items: pl.DataFrame,
    item_modal: pl.DataFrame,
    weights: dict[str, Any],
    embedding: MainEmbedding,
    search: SearchOptions,
    soft: SoftOptions,
    inference: InferenceOptions,
    published: PublishedOptions,
    variants: VariantOptions,
    *origin: *Origin,
) -> pl.DataFrame:
    """GV-05, GV-06, GV-11: other searches, embeddings, planted weights, lengths and depths."""
    from reelrank.pipelines.head_weights import estimate as estimation
    from reelrank.pipelines.head_weights import evaluate, ranked
    from reelrank.pipelines.head_weights.matching import Matching, matching

    tables = _ranked(sessions, candidates)
    parts = {part: tables.problem(part) for part in ranked.PARTS}
    own = _weights(weights, estimation.SOFT)

    def laid_out(problem: RankingSessions) -> Matching:
        made = matching(problem, _embedding(embedding, problem, item_vectors, items))
        return made.sample(variants.sessions, variants.seed)

    val, test = (laid_out(parts[part]) for part in ranked.PARTS)
    rows = evaluate.method_rows(val, test, own, variants, search)
    text = ranked.text_vectors(item_modal, items.height)
    made = {
        name: {
            part: estimation.embedding_of(
                name, problem, _vectors(item_vectors), _categories(items).code, text
            )
            for part, problem in parts.items()
        }
        for name in variants.embeddings
    }
    known: dict[str, dict[str, Embedding]] = {
        name: {part: e for part, e in by_part.items() if e is not None}
        for name, by_part in made.items()
        if None not in by_part.values()
    }
    rows += evaluate.embedding_rows(parts, known, own, variants, soft)
    rows += evaluate.recovery_rows(
        val,
        _embedding(embedding, val.sessions, item_vectors, items),
        np.array(published.weights),
        variants,
        soft,
        inference,
    )
    for length in variants.lengths:
        long = ranked.Ranked(tables.sessions.filter(pl.col("n_rows") >= length), candidates)
        if set(long.sessions["split"].cast(pl.String)) < set(ranked.PARTS):
            continue
        fewer = [laid_out(long.problem(part)) for part in ranked.PARTS]
        place = ("GV-11", "least length", f"{length} rows")
        rows += evaluate.set_rows(place, fewer, own, variants, soft)
    for depth in variants.depths:
        first = [laid_out(evaluate.first_shown(parts[part], depth)) for part in ranked.PARTS]
        place = ("GV-11", "first shown", f"first {depth}")
        rows += evaluate.set_rows(place, first, own, variants, soft)
    return _frame(rows, origin, variants.seed)


def study_sets(
    ranking: RankedSetOptions,
    candidates: CandidateOptions,
    item_vectors: pl.DataFrame,
    weights: dict[str, Any],
    embedding: MainEmbedding,
    soft: SoftOptions,
    variants: VariantOptions,
    raw_manifest: dict[str, Any],
    split_cuts: dict[str, Any],
    system: dict[str, Any],
    source: dict[str, Any],
    world: WorldOptions,
    history: HistoryOptions,
    features: ValueFeatureOptions,
    model: ModelCheckpoint,
    encoder: dict[str, Any],
    user_features: pl.DataFrame,
    item_features: pl.DataFrame,
    *log: *Log,
) -> pl.DataFrame:
    """GV-05 and GV-11: other candidates, and sessions by other gaps."""
    from reelrank.pipelines.head_weights import estimate as estimation
    from reelrank.pipelines.head_weights import evaluate, ranked
    from reelrank.pipelines.head_weights.matching import matching

    known = _log(history, features, log)
    scorer = _scorer(model, encoder, NodeFeatures(user_features, item_features), ranking)
    score, own = scorer.function(), _weights(weights, estimation.SOFT)
    fewer = ranking.model_copy(update={"sessions": variants.sessions})
    rows: list[Found] = []

    def add(experiment: str, cell: str, variant: str, found: pl.DataFrame, how: CandidateOptions) -> None:  # fmt: skip
        made = ranked.rank_sessions(known, found, how, score)
        problems = [made.problem(part) for part in ranked.PARTS]
        laid_out = [
            matching(p, _embedding(embedding, p, item_vectors, known.items)) for p in problems
        ]
        rows.extend(evaluate.set_rows((experiment, cell, variant), laid_out, own, variants, soft))

    sessions, _ = ranked.find_sessions(known, fewer)
    for catalogue, exclude in (("available", True), ("available", False), ("all", True), ("all", False)):  # fmt: skip
        how = candidates.model_copy(update={"catalogue": catalogue, "exclude_seen": exclude})
        add("GV-05", "candidates", f"{catalogue}, {'unseen' if exclude else 'seen too'}", sessions, how)  # fmt: skip
    for gap_s in variants.gaps_s:
        found, _ = ranked.find_sessions(known, fewer, gap_s)
        if set(found["split"].cast(pl.String)) < set(ranked.PARTS):
            continue
        add("GV-11", "session gap", f"{gap_s} s", found, candidates)
    return _frame(rows, (raw_manifest, split_cuts, system, source, world), variants.seed)


def study_truth(
    sessions: pl.DataFrame,
    candidates: pl.DataFrame,
    true_heads: pl.DataFrame,
    requests: pl.DataFrame,
    request_candidates: pl.DataFrame,
    item_vectors: pl.DataFrame,
    items: pl.DataFrame,
    embedding: MainEmbedding,
    search: SearchOptions,
    soft: SoftOptions,
    inference: InferenceOptions,
    variants: VariantOptions,
    *origin: *Origin,
) -> pl.DataFrame:
    """How much is lost by learned p̂ and by constructed candidates: planted weights found again under either (worlds only)."""
    from reelrank.pipelines.head_weights import evaluate, ranked
    from reelrank.pipelines.head_weights.matching import matching

    planted = _planted(origin[0])
    rows: list[Found] = []
    if planted is None or not planted.any():
        return _frame(rows, origin, inference.seed)
    joined = candidates.join(true_heads, on=["position", "item_id"], maintain_order="left")
    built, own = ranked.Ranked(sessions, joined), ranked.Ranked(requests, request_candidates)
    arms = {
        "learned probabilities, constructed candidates": built.problem("val", "learned"),
        "true probabilities, constructed candidates": built.problem("val", "true"),
        "learned probabilities, the feed's own candidates": own.problem("val", "learned"),
        "true probabilities, the feed's own candidates": own.problem("val", "true"),
        # nothing is learned here, so that train may be used
        "true probabilities, the feed's own candidates, all parts": own.problem(None, "true"),
    }
    quick = search.model_copy(update={"directions": max(variants.trials, 8), "starts": 1})
    for cell, problem in arms.items():
        for name in dict.fromkeys((embedding, TRUTH_EMBEDDING)):
            laid_out = matching(problem, _embedding(name, problem, item_vectors, items))
            rows += evaluate.truth_rows(
                laid_out, f"{cell}, by {name}", planted, soft, quick, inference
            )
    return _frame(rows, origin, inference.seed)


def export_residuals(
    sessions: pl.DataFrame,
    candidates: pl.DataFrame,
    item_vectors: pl.DataFrame,
    items: pl.DataFrame,
    weights: dict[str, Any],
    embedding: MainEmbedding,
    soft: SoftOptions,
    residuals: ResidualOptions,
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """The two tables of METHODS §6.7, each user's by weights of other users' val sessions; and those weights."""
    from reelrank.pipelines.head_weights import estimate as estimation
    from reelrank.pipelines.head_weights.matching import matching
    from reelrank.pipelines.head_weights.residual import fit_temperature, residual_tables

    tables = _ranked(sessions, candidates)
    val, every = tables.problem("val"), tables.problem()
    laid_out = matching(val, _embedding(embedding, val, item_vectors, items))
    by_fold = estimation.cross_fitted(laid_out, soft, _weights(weights, estimation.SOFT), residuals.seed)  # fmt: skip
    # from val alone, as the weights are (L9)
    temperature = fit_temperature(val, by_fold, residuals)
    category = _categories(items)
    made = residual_tables(
        every, by_fold, tables.sessions["split"].cast(pl.String).to_numpy(), _unit(item_vectors),
        category.code, category.n, temperature, residuals,
    )  # fmt: skip
    folds = {"weights": by_fold.tolist(), "temperature": temperature.tolist()}
    return made.session, made.candidate, folds


def study_residuals(
    sessions: pl.DataFrame,
    candidates: pl.DataFrame,
    session_residuals: pl.DataFrame,
    folds: dict[str, Any],
    item_vectors: pl.DataFrame,
    items: pl.DataFrame,
    residuals: ResidualOptions,
    diagnostics: DiagnosticOptions,
    selectivity: SelectivityOptions,
    debias: DebiasOptions,
    nulls: NullOptions,
    *origin: *Origin,
) -> tuple[pl.DataFrame, dict[str, Any], pl.DataFrame]:
    """GV-08, GV-09, GV-10: rows, the diagnosis in words and numbers, and category shares."""
    from reelrank.pipelines.head_weights import unexplained

    tables = _ranked(sessions, candidates)
    problem, weights = tables.problem(), np.array(folds["weights"])
    diagnosis, rows = unexplained.diagnosis(session_residuals, tables, diagnostics)
    chosen, more = unexplained.selectivity(
        problem, session_residuals, tables, weights, residuals, selectivity
    )
    category = _categories(items)
    without, last = unexplained.debiased(
        problem, tables, weights, _unit(item_vectors), category, residuals, debias, nulls.replicates
    )
    shares = unexplained.category_shares(problem, session_residuals, category, items)
    told = {**diagnosis, "selectivity": chosen, "debias": without}
    return _frame(rows + more + last, origin, residuals.seed), told, shares


def collect(*studies: pl.DataFrame) -> pl.DataFrame:
    """All result rows, in the order of the experiments."""
    return pl.concat(studies).sort("experiment", maintain_order=True)


def _log(history: HistoryOptions, features: ValueFeatureOptions, parts: Log) -> RankingLog:
    from reelrank.pipelines.head_weights.ranked import RankingLog

    interactions, histories, splits, items, bursts = parts
    return RankingLog(interactions, histories, splits, items, bursts, history, features.clock)


def _scorer(
    model: ModelCheckpoint, encoder: dict[str, Any], nodes: NodeFeatures, ranking: RankedSetOptions
) -> Scorer:
    from reelrank.pipelines.head_weights.ranked import Scorer

    return Scorer.of(model, ValueEncoder.model_validate(encoder), nodes, ranking.block_rows)


def _truth(raw_manifest: dict[str, Any]) -> Truth | None:
    manifest = Manifest.from_dict(raw_manifest)
    return Truth.load(manifest.root.parent) if manifest.kind == "world" else None


def _planted(raw_manifest: dict[str, Any]) -> npt.NDArray[np.float64] | None:
    """(4,) weights that the world ranks by; None without a world."""
    truth = _truth(raw_manifest)
    if truth is None:
        return None
    named = truth.params["options"]["value_weights"]
    return np.array([named[head] for head in HEADS])


def _ranked(sessions: pl.DataFrame, candidates: pl.DataFrame) -> Ranked:
    from reelrank.pipelines.head_weights.ranked import Ranked

    return Ranked(sessions, candidates)


def _weights(found: dict[str, Any], loss: str) -> npt.NDArray[np.float64]:
    return np.array(found[loss]["weights"], np.float64)


def _vectors(item_vectors: pl.DataFrame) -> npt.NDArray[np.float32]:
    stacked: npt.NDArray[np.float32] = np.stack(item_vectors["vector"].to_list())
    return stacked.astype(np.float32)


def _unit(item_vectors: pl.DataFrame) -> npt.NDArray[np.float32]:
    """Of length 1, as sets are compared by default."""
    from reelrank.pipelines.head_weights.embeddings import l2_normalised

    return l2_normalised(_vectors(item_vectors)).vectors


def _categories(items: pl.DataFrame) -> Categories:
    from reelrank.pipelines.head_weights.ranked import category_codes
    from reelrank.pipelines.head_weights.unexplained import Categories

    return Categories(*category_codes(items))


def _embedding(
    name: MainEmbedding, problem: RankingSessions, item_vectors: pl.DataFrame, items: pl.DataFrame
) -> Embedding:
    from reelrank.pipelines.head_weights.estimate import embedding_of

    found = embedding_of(name, problem, _vectors(item_vectors), _categories(items).code, None)
    assert found is not None  # only text may be lacking
    return found


def _frame(rows: Sequence[Found], origin: Origin, seed: int) -> pl.DataFrame:
    from reelrank.pipelines.head_weights.evaluate import frame_of
    from reelrank.tables import Results

    raw_manifest, split_cuts, system, source, world = origin
    if not rows:
        return Results.conform(pl.DataFrame(schema=Results.polars_schema()))
    return frame_of(
        rows,
        split_cuts["rule"],
        system=SYSTEM,
        source=raw_manifest["source"],
        seed=seed,
        data_kind="world" if raw_manifest["kind"] == "world" else "real",
        config_hash=config_hash(system, source, world),
    )
