"""Result rows of GV-05 … GV-07 and GV-11: weights, and what they are worth on held-out sessions.

Source: METHODS §6.6, §9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.evaluation.uncertainty import QUANTILES, UserBootstrap, paired
from reelrank.features.heads import HEADS
from reelrank.pipelines.head_weights.alternatives import AlternativeFit
from reelrank.pipelines.head_weights.embeddings import Embedding
from reelrank.pipelines.head_weights.estimate import HARD, SOFT, Estimated, refitted
from reelrank.pipelines.head_weights.inference import WeightInference, infer_soft
from reelrank.pipelines.head_weights.matching import Matching, cosine, matching
from reelrank.pipelines.head_weights.nulls import NullComparison, random_losses
from reelrank.pipelines.head_weights.options import InferenceOptions, SearchOptions, SoftOptions
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.run_options import VariantOptions
from reelrank.pipelines.head_weights.search import SoftFit, fit_soft, search

Doubles = npt.NDArray[np.float64]
POSTER = "poster_w_star"
ANNEALED = "annealed_soft_topk"
ESTIMATE, HELD_OUT = "estimate", "held out"


class Found(NamedTuple):
    """A number and where it belongs."""

    experiment: str
    cell: str
    part: str
    row: ResultRow


def frame_of(found: Sequence[Found], rule: str, **common: str | int | None) -> pl.DataFrame:
    """``Results``; ``common`` as ``results_frame`` but split, experiment and cell, with ``rule`` of the split."""
    keys = dict.fromkeys((f.experiment, f.cell, f.part) for f in found)
    return pl.concat(
        results_frame(
            [f.row for f in found if (f.experiment, f.cell, f.part) == key],
            **common, split=f"{rule}/{key[2]}", experiment=key[0], cell=key[1],
        )
        for key in keys
    )  # fmt: skip


def weight_rows(variant: str, inference: WeightInference) -> list[ResultRow]:
    """Weights with intervals, sign frequencies, and whether each and all are identified."""
    n = len(inference.replicates)
    rows = []
    for j, head in enumerate(HEADS):
        low, high = inference.ci[j]
        known = bool(inference.weight_identified[j])
        value = float(inference.weights[j])
        rows += [
            ResultRow(variant, "weight", value, n, float(low), float(high), known, head),
            _row(variant, "sign_frequency", inference.sign_frequency[j], n, head),
            _row(variant, "identified", float(known), n, head),
        ]
    rows += [
        _row(variant, "identified", float(inference.identified), n),
        _row(variant, "cosine_low", inference.cosine_low, n),
        _row(variant, "temperature", inference.temperature, n),
    ]
    return rows


def estimate_rows(found: Estimated) -> list[Found]:
    """GV-05 weights, GV-06 collinearity and profiles."""
    rows = [
        Found("GV-05", ESTIMATE, "val", row)
        for variant, inference in ((SOFT, found.soft_inference), (HARD, found.hard_inference))
        for row in weight_rows(variant, inference)
    ]
    rows.append(Found("GV-05", ESTIMATE, "val", _row(HARD, "evaluations", found.hard.n_evaluations, 1)))  # fmt: skip
    shared = found.soft_inference.collinearity
    about = [_row(SOFT, "condition_number", shared.condition_number, 4)]
    about += [_row(SOFT, "vif", shared.vif[j], 4, head) for j, head in enumerate(HEADS)]
    about += [
        _row(SOFT, "rise_z", found.profiles.rise_z[j, k], 1, f"angle {j + 1}, {end} end")
        for j in range(3)
        for k, end in enumerate(("lower", "upper"))
    ]
    return rows + [Found("GV-06", "heads", "val", row) for row in about]


def mean_cosine(vectors: npt.NDArray[np.float32]) -> Found:
    """How alike the item vectors (n, H) are: near 1, a mean over them tells sets apart by little, such as popularity."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    n = len(unit)
    value = (float(np.square(unit.sum(axis=0)).sum()) - n) / max(n * (n - 1), 1)
    return Found("GV-05", ESTIMATE, "val", _row(SOFT, "vector_cosine", value, n))


def held_out_rows(
    problem: Matching,
    weights: Mapping[str, Doubles],
    nulls: Sequence[NullComparison],
    bootstrap: UserBootstrap,
) -> list[Found]:
    """GV-05: hard L on sessions that nothing was fitted on, of several weights and the nulls, and differences from the first weights.

    Args:
        problem: test sessions.
        weights: name → (4,), the first is the estimate.
        nulls: from ``compare_with_nulls`` with the same resamples.
        bootstrap: resamples of the users.
    """
    users = problem.sessions.user_id
    losses = {name: bootstrap.mean(users, problem.losses(w)) for name, w in weights.items()}
    own = next(iter(losses))
    losses |= {null.name: null.loss for null in nulls}
    rows = [ResultRow.from_estimate(name, "matching_loss", e) for name, e in losses.items()]
    rows += [
        ResultRow.from_difference(name, own, "matching_loss", paired(e, losses[own]))
        for name, e in losses.items()
        if name != own
    ]
    return [Found("GV-05", HELD_OUT, "test", row) for row in rows]


def compared(
    val: Matching,
    test: Matching,
    weights: Doubles,
    own: Doubles,
    variant: str,
    bootstrap: UserBootstrap,
) -> list[tuple[str, ResultRow]]:
    """A variant's weights beside the estimate: part and row of weights, cosine, hard L, and gain over random choice.

    Args:
        val: sessions that the variant was fitted on.
        test: sessions that it is judged on.
        weights: (4,) of the variant.
        own: (4,) ŵ.
        variant: its name.
        bootstrap: resamples of the test users.
    """
    users = test.sessions.user_id
    loss, random = test.losses(weights), random_losses(test)
    share = bootstrap.ratio(users, random - loss, random)
    estimate = bootstrap.mean(users, loss)
    rows = [
        ("val", _row(variant, "weight", weights[j], val.n_sessions, head))
        for j, head in enumerate(HEADS)
    ]
    rows += [
        ("val", _row(variant, "cosine_to_estimate", cosine(weights, own), val.n_sessions)),
        ("val", _row(variant, "matching_loss", val.losses(weights).mean(), val.n_sessions)),
        ("test", ResultRow.from_estimate(variant, "matching_loss", estimate)),
        ("test", ResultRow.from_estimate(variant, "gain_over_random", share)),
    ]
    if variant != SOFT:
        reference = bootstrap.mean(users, test.losses(own))
        difference = paired(estimate, reference)
        rows.append(("test", ResultRow.from_difference(variant, SOFT, "matching_loss", difference)))
    return rows


def method_rows(
    val: Matching, test: Matching, own: Doubles, options: VariantOptions, searching: SearchOptions
) -> list[Found]:
    """GV-05: each search of the hard loss on the same sessions."""
    bootstrap = UserBootstrap(test.users, options.replicates, options.seed)
    found = []
    for method in options.methods:
        trials = options.trials
        update = {"method": method, "directions": max(trials, 8), "trials": trials, "adam_steps": trials}  # fmt: skip
        best = search(val, searching.model_copy(update=update))
        name = ANNEALED if method == "soft_topk" else method  # not the joint fit
        rows = compared(val, test, best.weights, own, name, bootstrap)
        rows.append(("val", _row(name, "evaluations", best.n_evaluations, val.n_sessions)))
        found += [Found("GV-05", "search", part, row) for part, row in rows]
    return found


def embedding_rows(
    parts: Mapping[str, RankingSessions],
    embeddings: Mapping[str, Mapping[str, Embedding]],
    own: Doubles,
    options: VariantOptions,
    soft: SoftOptions,
) -> list[Found]:
    """GV-05: the smooth fit with each embedding. L of different embeddings cannot be compared; gains over random can.

    Args:
        parts: val and test → sessions.
        embeddings: name → part → embedding.
        own: (4,) ŵ.
        options: sizes.
        soft: of the fits.
    """
    found = []
    for name, by_part in embeddings.items():
        val, test = (
            matching(parts[part], by_part[part]).sample(options.sessions, options.seed)
            for part in ("val", "test")
        )
        bootstrap = UserBootstrap(test.users, options.replicates, options.seed)
        fit = refitted(val, soft, own)
        if not np.isfinite(fit.weights).all():
            continue
        rows = compared(val, test, fit.weights, own, name, bootstrap)
        found += [Found("GV-05", "embedding", part, row) for part, row in rows]
    return found


def set_rows(
    place: tuple[str, str, str],
    parts: Sequence[Matching],
    own: Doubles,
    options: VariantOptions,
    soft: SoftOptions,
) -> list[Found]:
    """The smooth fit on other sessions or candidates, judged on its own test sessions.

    Args:
        place: experiment, cell, variant.
        parts: sessions of val, of test.
        own: (4,) ŵ.
        options: resamples.
        soft: of the fit.
    """
    experiment, cell, variant = place
    val, test = parts
    fit = refitted(val, soft, own)
    if not np.isfinite(fit.weights).all():
        return []
    bootstrap = UserBootstrap(test.users, options.replicates, options.seed)
    rows = compared(val, test, fit.weights, own, variant, bootstrap)
    rows.append(("val", _row(variant, "candidates", np.diff(val.sessions.first).mean(), val.n_sessions)))  # fmt: skip
    rows.append(("val", _row(variant, "shown", val.n_shown.mean(), val.n_sessions)))
    return [Found(experiment, cell, part, row) for part, row in rows]


def first_shown(sessions: RankingSessions, depth: int) -> RankingSessions:
    """Only the first ``depth`` shown items count as shown; the later ones are candidates that had not come yet."""
    rank = sessions.rank_shown
    return replace(sessions, rank_shown=np.where(rank <= depth, rank, 0).astype(np.int32))


def recovery_rows(
    problem: Matching,
    embedding: Embedding,
    planted: Doubles,
    options: VariantOptions,
    soft: SoftOptions,
    inference: InferenceOptions,
) -> list[Found]:
    """GV-06: weights planted on these very candidates and predictions, rankings drawn anew at several noises, and found again.

    What cannot be found even so cannot be found in the log.
    """
    covariance = problem.score_sd(planted)
    found = []
    for temperature in options.temperatures:
        cosines, identified = [], []
        for repetition in range(options.repetitions):
            rng = np.random.default_rng([options.seed, repetition])
            drawn = drawn_ranking(problem, planted, temperature * covariance, rng)
            again = matching(drawn, embedding)
            fit = fit_soft(again, soft)
            if not np.isfinite(fit.weights).all():
                cosines.append(0.0)
                identified.append(0.0)
                continue
            cosines.append(float(cosine(fit.weights, planted)))
            identified.append(float(infer_soft(again, fit, inference, soft).identified))
        low, high = min(cosines), max(cosines)
        n = len(cosines)
        name = f"{temperature:g} sd"
        found += [
            Found("GV-06", "planted recovery", "val", ResultRow(SOFT, "cosine_to_truth", float(np.mean(cosines)), n, low, high, n > 1, name)),
            Found("GV-06", "planted recovery", "val", _row(SOFT, "identified", np.mean(identified), n, name)),
        ]  # fmt: skip
    return found


def drawn_ranking(
    problem: Matching, weights: Doubles, temperature: float, rng: np.random.Generator
) -> RankingSessions:
    """The same sessions with K_s items drawn by softmax(w·p̂ / T) without replacement."""
    score = weights @ problem.heads / temperature + rng.gumbel(size=len(problem.row))
    first = problem.sessions.first
    size = np.diff(first)
    order = np.lexsort((-score, np.repeat(np.arange(len(size)), size)))
    place = np.empty(len(score), np.int32)
    place[order] = np.arange(len(score)) - np.repeat(first[:-1], size) + 1
    shown = np.where(place <= np.repeat(problem.n_shown, size), place, 0)
    return replace(problem.sessions, rank_shown=shown.astype(np.int32))


def objective_rows(
    fits: Sequence[AlternativeFit], test: Matching, own: Doubles, bootstrap: UserBootstrap
) -> list[Found]:
    """GV-07: weights by other objectives, their signs beside ŵ's, and hard L on test."""
    users = test.sessions.user_id
    reference = bootstrap.mean(users, test.losses(own))
    found = []
    for fit in fits:
        rows = [
            ("val", _row(fit.name, "objective", fit.objective, fit.n)),
            ("val", _row(fit.name, "objective_without_heads", fit.baseline, fit.n)),
        ]
        if np.isfinite(fit.weights).all():
            judged = bootstrap.mean(users, test.losses(fit.weights))
            difference = paired(judged, reference)
            rows += [("val", _row(fit.name, "weight", fit.weights[j], fit.n, h)) for j, h in enumerate(HEADS)]  # fmt: skip
            rows += [
                ("val", _row(fit.name, "sign_agreement", fit.sign_agreement(own), 4)),
                ("val", _row(fit.name, "cosine_to_estimate", cosine(fit.weights, own), fit.n)),
                ("test", ResultRow.from_estimate(fit.name, "matching_loss", judged)),
                ("test", ResultRow.from_difference(fit.name, SOFT, "matching_loss", difference)),
            ]
        found += [Found("GV-07", "objective", part, row) for part, row in rows]
    return found


def truth_rows(
    problem: Matching,
    cell: str,
    truth: Doubles,
    soft: SoftOptions,
    searching: SearchOptions,
    inference: InferenceOptions,
) -> list[Found]:
    """Cosine with the planted weights of either loss, and whether the smooth intervals hold them (worlds only).

    Args:
        problem: sessions with some p̂ and some candidates.
        cell: which.
        truth: (4,) planted.
        soft: smooth loss.
        searching: hard loss.
        inference: resamples.
    """
    hard = search(problem, searching)
    fit = fit_soft(problem, soft, hard.weights)
    n = problem.n_sessions
    rows = [_row(HARD, "cosine_to_truth", cosine(hard.weights, truth), n)]
    if np.isfinite(fit.weights).all():
        found = infer_soft(problem, fit, inference, soft)
        rows += cosine_rows(fit, found, truth, n)
    return [Found("GV-05", cell, "val", row) for row in rows]


def cosine_rows(fit: SoftFit, found: WeightInference, truth: Doubles, n: int) -> list[ResultRow]:
    """Cosine of the smooth fit with the truth over resamples, which weights' intervals hold it, and the verdict."""
    low, high = np.quantile(cosine(found.replicates, truth), QUANTILES)
    scaled = truth / np.abs(truth).sum()
    rows = [
        ResultRow(SOFT, "cosine_to_truth", float(cosine(fit.weights, truth)), n, float(low), float(high), found.identified),
        _row(SOFT, "identified", float(found.identified), n),
        _row(SOFT, "temperature", fit.temperature, n),
    ]  # fmt: skip
    for j, head in enumerate(HEADS):
        low, high = found.ci[j]
        rows.append(ResultRow(SOFT, "weight", float(fit.weights[j]), n, float(low), float(high), group=head))  # fmt: skip
        rows.append(_row(SOFT, "covers_truth", float(low <= scaled[j] <= high), n, head))
    return rows


def _row(variant: str, metric: str, value: float | np.generic | Doubles, n: int, group: str = "all") -> ResultRow:  # fmt: skip
    """A number without an interval."""
    number = float(value)
    return ResultRow(variant, metric, number, n, reliable=not math.isnan(number), group=group)
