"""What the log alone says of the same policies: NCIS, DR and DM on the test decisions, as sums by user that one bootstrap can resample.

In a world also what is true of them: Σ_c π(c|s) E[r|s,c], a mean over the same rows.

Each policy is the softmax of its scores at the temperature at which it is as random as the logging policy on val (equal entropy). All three
estimate a value per shown video in the contexts that the log visited, with the log's candidate sets.

Source: METHODS §7.1 to §7.3. Shapes: D decisions, C candidates, n shown rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from reelrank.evaluation.off_policy import (
    Diagnostics,
    equal_entropy_temperature,
    mean_entropy,
    softened,
)
from reelrank.evaluation.off_policy import estimators as estimate
from reelrank.evaluation.off_policy.estimators import FloatArray, IntArray, Terms
from reelrank.evaluation.off_policy.reward_model import action_means
from reelrank.evaluation.uncertainty import Ratio
from reelrank.models.feed import RESPONSES, FeedInputs
from reelrank.pipelines.ab_test.columns import (
    BANDIT,
    ESTIMATORS,
    JUDGED,
    OFF_POLICY_SCHEMA,
    TEMPERATURE_SCHEMA,
)
from reelrank.pipelines.ab_test.run_options import EvaluationOptions

VAL, TEST = 1, 2
FLOOR = 1e-4  # of π̂_b, METHODS §7.2


@dataclass(frozen=True, slots=True)
class LoggedRows:
    """Test rows of the logging policy.

    Attributes:
        decision: (D,) positions in ``Decisions``.
        of_row: (n,) place of each row's decision among the D.
        column: (n,) place of each shown item among the candidates.
        candidates: (D, C) item ids, −1 beyond the end.
        user: (n,).
        response: (n, 7).
    """

    decision: IntArray
    of_row: IntArray
    column: IntArray
    candidates: IntArray
    user: IntArray
    response: FloatArray


def decisions_of(inputs: FeedInputs, split: int) -> IntArray:
    """Positions of a split's decisions that the logging policy made."""
    decisions = inputs.decisions
    found = torch.nonzero((decisions.split == split) & ~decisions.is_rand).squeeze(1)
    return found.cpu().numpy().astype(np.int64)


def logged_rows(inputs: FeedInputs) -> LoggedRows:
    """The rows that policies are judged on."""
    index = decisions_of(inputs, TEST)
    decisions = inputs.decisions
    shown = decisions.shown[index].numpy()
    of_row, column = np.nonzero(shown)
    return LoggedRows(
        decision=index,
        of_row=of_row,
        column=column,
        candidates=decisions.candidates[index].numpy(),
        user=decisions.user[index].numpy()[of_row],
        response=decisions.response[index].numpy()[of_row, column].astype(np.float64),
    )


def off_policy_sums(
    scores: Mapping[str, pl.DataFrame],
    propensities: pl.DataFrame,
    inputs: FeedInputs,
    options: EvaluationOptions,
    expected: NDArray[np.float32] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sums of every estimate by user, and the temperature of every arm.

    Args:
        scores: by arm: ``decision`` and ``scores``, a list of C, of the val and test decisions.
        propensities: ``decision`` and ``probabilities``, a list of C: π̂_b of the same.
        inputs: the log, on the CPU.
        options: cap, and seed of q̂'s folds.
        expected: (D, C, 7) of ``worlds.feed_world.expected_responses`` of the test decisions; None on real rows.

    Raises:
        ValueError: decisions of the feed are missing.
    """
    val, rows = decisions_of(inputs, VAL), logged_rows(inputs)
    behaviour = [_of(propensities, "probabilities", index) for index in (val, rows.decision)]
    entropy = mean_entropy(behaviour[0])
    logged = np.maximum(behaviour[1][rows.of_row, rows.column], FLOOR)
    temperatures, sums = [], []
    for arm, frame in scores.items():
        # L9: fitted on val
        temperature = equal_entropy_temperature(_of(frame, "scores", val), entropy)
        temperatures.append((arm, temperature, len(val)))
        policy = softened(_of(frame, "scores", rows.decision), temperature)
        weight = policy[rows.of_row, rows.column] / logged
        for response in JUDGED:
            sums += _sums(arm, response, policy, weight, rows, options)
            if expected is not None:
                true = np.nan_to_num(expected[..., RESPONSES.index(response)])
                value = (policy * true).sum(axis=1)[rows.of_row]
                ones = np.ones(len(value))
                sums.append(_frame(arm, BANDIT, response, rows.user, ones, Terms((Ratio(value, ones),), ones)))  # fmt: skip
    return (
        pl.concat([pl.DataFrame(schema=OFF_POLICY_SCHEMA), *sums]),
        pl.DataFrame(temperatures, TEMPERATURE_SCHEMA, orient="row"),
    )


def _sums(
    arm: str,
    response: str,
    policy: FloatArray,
    weight: FloatArray,
    rows: LoggedRows,
    options: EvaluationOptions,
) -> list[pl.DataFrame]:
    reward = rows.response[:, RESPONSES.index(response)]
    known = ~np.isnan(reward)
    if not known.any():
        return []
    reward, weight, user = reward[known], weight[known], rows.user[known]
    of_row, column = rows.of_row[known], rows.column[known]
    actions = rows.candidates[of_row]
    q = action_means(user, column, actions, reward, options.seed)
    q_policy = (policy[of_row] * q).sum(axis=1)
    q_logged = np.take_along_axis(q, column[:, None], axis=1)[:, 0]
    terms = {
        "ncis": estimate.ncis(reward, weight, options.cap),
        "dr": estimate.dr(reward, weight, q_policy, q_logged),
        "dm": estimate.dm(weight, q_policy),
    }
    return [_frame(arm, name, response, user, weight, terms[name]) for name in ESTIMATORS]


def _frame(
    arm: str, estimator: str, response: str, user: IntArray, weight: FloatArray, terms: Terms
) -> pl.DataFrame:
    (part,) = terms.parts
    made = pl.DataFrame(
        {"user_id": user, "numerator": part.numerator, "denominator": np.array(part.denominator)}
    )
    by_user = made.group_by("user_id").agg(pl.col("numerator", "denominator").sum(), rows=pl.len())
    d = Diagnostics.of(weight, terms.weight, capped=estimator == "ncis")
    constants = {
        "arm": arm, "estimator": estimator, "response": response, "reliable": not d.reasons(),
        "mean_weight": d.mean_weight, "ess": d.ess, "clip_rate": d.clip_fraction, "max_share": d.max_share,
    }  # fmt: skip
    whole = by_user.sort("user_id").with_columns(**{n: pl.lit(v) for n, v in constants.items()})
    return whole.select(pl.col(name).cast(dtype) for name, dtype in OFF_POLICY_SCHEMA.items())


def _of(frame: pl.DataFrame, column: str, decisions: IntArray) -> FloatArray:
    """Values (D, C) of decisions.

    Raises:
        ValueError: the frame lacks some.
    """
    known = frame["decision"].to_numpy().astype(np.int64)
    at = np.searchsorted(known, decisions).clip(max=max(len(known) - 1, 0))
    if not (len(known) and np.array_equal(known[at], decisions)):
        raise ValueError(
            f"column {column} lacks decisions of the feed: predict again from the same tables"
        )
    return frame[column].gather(at).to_numpy().astype(np.float64)
