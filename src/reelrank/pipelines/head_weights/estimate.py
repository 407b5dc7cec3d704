"""One estimation of head weights: the smooth fit for inference, the hard search beside it, both with intervals, profiles and verdict.

Source: METHODS §6.6.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelrank.evaluation.off_policy.folds import FOLDS, user_folds
from reelrank.features.heads import HEADS
from reelrank.pipelines.head_weights.embeddings import (
    Embedding,
    category_one_hot,
    l2_normalised,
    predicted_heads,
    unnormalised,
    whitened,
)
from reelrank.pipelines.head_weights.inference import (
    Profiles,
    WeightInference,
    infer_hard,
    infer_soft,
    profiles,
)
from reelrank.pipelines.head_weights.matching import Matching
from reelrank.pipelines.head_weights.options import InferenceOptions, SearchOptions, SoftOptions
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.run_options import EmbeddingName
from reelrank.pipelines.head_weights.search import SearchResult, SoftFit, fit_soft, search

Doubles = npt.NDArray[np.float64]
SOFT, HARD = "soft_topk", "hard_top_k"
REFIT_SESSIONS = 100  # [D] that the start of a refit is chosen on


@dataclass(frozen=True)
class Estimated:
    """What one set of sessions says.

    Attributes:
        soft: minimum of the smooth loss.
        soft_inference: its intervals and verdict: the default.
        hard: minimum of the hard loss.
        hard_inference: its intervals: descriptive.
        profiles: of the hard loss, around the smooth fit.
    """

    soft: SoftFit
    soft_inference: WeightInference
    hard: SearchResult
    hard_inference: WeightInference
    profiles: Profiles

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; NaN becomes null."""
        return {
            "heads": list(HEADS),
            SOFT: plain({**_inferred(self.soft_inference), "fit": asdict(self.soft)}),
            HARD: plain({**_inferred(self.hard_inference), "fit": asdict(self.hard)}),
            "collinearity": plain(asdict(self.soft_inference.collinearity)),
            "profiles": plain(asdict(self.profiles)),
        }


def estimate(
    problem: Matching, searching: SearchOptions, soft: SoftOptions, inference: InferenceOptions
) -> Estimated:
    """Fit both losses with their inference.

    Args:
        problem: sessions of val (L9).
        searching: hard loss.
        soft: smooth loss.
        inference: resamples, profiles, rule.
    """
    hard = search(problem, searching)
    smooth = fit_soft(problem, soft, hard.weights)
    return Estimated(
        smooth,
        infer_soft(problem, smooth, inference, soft),
        hard,
        infer_hard(problem, hard.weights, inference, searching),
        profiles(problem, smooth.weights, inference, searching),
    )


def refitted(problem: Matching, soft: SoftOptions, weights: npt.ArrayLike) -> SoftFit:
    """The smooth fit where a fit of much the same is known: one start, chosen on few sessions.

    Args:
        problem: sessions.
        soft: of the fit.
        weights: (4,) of the known fit; other directions are tried beside it.
    """
    fewer = {"starts": 1, "sessions": min(soft.sessions, REFIT_SESSIONS)}
    return fit_soft(problem, soft.model_copy(update=fewer), weights)


def cross_fitted(
    problem: Matching, soft: SoftOptions, weights: npt.ArrayLike, seed: int
) -> Doubles:
    """(5, 4) row f: smooth weights without the users of fold f.

    Args:
        problem: sessions of val.
        soft: of the fits.
        weights: (4,) a start.
        seed: of the folds.

    Raises:
        ValueError: all users are in one fold.
    """
    fold = user_folds(problem.sessions.user_id, seed)
    rows = []
    for f in range(FOLDS):
        others = np.flatnonzero(fold != f)
        if not len(others):
            raise ValueError("all users fall into one fold: cross-fitting needs more users")
        rows.append(refitted(problem.subset(others), soft, weights).weights)
    return np.stack(rows)


def embedding_of(
    name: EmbeddingName,
    sessions: RankingSessions,
    vectors: npt.NDArray[np.float32],
    category: npt.NDArray[np.int64],
    text: npt.NDArray[np.float32] | None,
) -> Embedding | None:
    """An embedding by its name; None where the source has nothing to make it of.

    Args:
        name: which.
        sessions: of the problem, for ``heads``.
        vectors: (n_items, H) of the value model.
        category: (n_items,) codes, −1 = unknown.
        text: (n_items, D), None = the source has no text.
    """
    if name == "category":
        return category_one_hot(category, int(category.max(initial=-1)) + 1)
    if name == "heads":
        return predicted_heads(sessions)
    if name == "whitened_heads":
        return whitened_heads(sessions)
    if name == "text":
        return None if text is None else l2_normalised(text, "text")
    makers = {"l2": l2_normalised, "unnormalised": unnormalised, "whitened": whitened}
    return makers[name](vectors)


def whitened_heads(sessions: RankingSessions) -> Embedding:
    """Predicted heads turned to unit covariance over all candidates, so that rare heads count as much as common ones [D]."""
    return Embedding("whitened_heads", whitened(sessions.heads).vectors, per_candidate=True)


def _inferred(found: WeightInference) -> dict[str, Any]:
    fields = {**asdict(found), "verdict": found.verdict}
    del fields["collinearity"]
    return fields


def plain(value: Any) -> Any:  # noqa: ANN401 (any nesting of records)
    """JSON values: lists for arrays, null for what is not finite."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
