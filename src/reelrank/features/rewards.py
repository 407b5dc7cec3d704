"""The three-part reward of MT-DQN and its discounted return, with censoring at the end of each split.

Source: METHODS §3.8 (MT-DQN Eq. 15).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field

from reelrank.features.histories import MS_PER_HOUR, WATCH_RATIO_CAP, require_time_order
from reelrank.features.splits import Cuts
from reelrank.models.behaviours import WatchRule, watched
from reelrank.options import Options
from reelrank.tables import Rewards

R_MIN, R_MAX = -1.0, 2.0  # range of r_immediate, METHODS §3.8 [D]
SIGNALS = {
    "watch": "watch_ratio",
    "like": "like",
    "forward": "forward",
    "follow": "follow",
    "comment": "comment",
    "hate": "hate",
}


class ImmediateWeights(Options):
    """Weights of the terms of r_immediate [D]."""

    watch: float = Field(0.5, description="per unit of min(watch_ratio, 2) [D]")
    like: float = Field(0.5, description="like [D]")
    forward: float = Field(0.5, description="forward [D]")
    follow: float = Field(0.5, description="follow [D]")
    comment: float = Field(0.3, description="comment [D]")
    hate: float = Field(-1.0, le=0, description="hate [D]")


class RewardOptions(Options):
    """MT-DQN's reward, Eq. 15: r = r_immediate + λ1 r_retention + λ2 r_interest."""

    weights: ImmediateWeights = Field(
        default_factory=ImmediateWeights, description="terms of r_immediate"
    )
    retention: Literal["within_window", "exp_gap"] = Field(
        "within_window",
        description="within_window: 1 if the user is back in time; exp_gap: exp(−gap / window) if back in time",
    )
    return_window_h: float = Field(
        24, gt=0, description="time in which a user must be back, hours [D]"
    )
    interest_alpha: float = Field(
        0.1, gt=0, le=1, description="weight of the newest watched video in the interest vector [D]"
    )
    lambda_retention: float = Field(0.3, ge=0, description="λ1 [D: below the immediate range]")
    lambda_interest: float = Field(0.2, ge=0, description="λ2 [D: below the immediate range]")
    gamma: float = Field(0.95, ge=0, lt=1, description="discount γ [S]")


def reward_terms(interactions: pl.LazyFrame) -> list[str]:
    """Names of the terms of r_immediate whose signal the source logs at all.

    Judged on the whole log, not on a bucket, so that every user is rewarded alike.

    Raises:
        ValueError: the source has none of the signals.
    """
    known = interactions.select(pl.col(column).count() for column in SIGNALS.values()).collect()
    terms = [term for term, column in SIGNALS.items() if known[column].item() > 0]
    if not terms:
        raise ValueError(
            f"interactions: all of {list(SIGNALS.values())} are null, so no reward can be formed"
        )
    return terms


def rewards(
    interactions: pl.DataFrame,
    splits: pl.DataFrame,
    item_vectors: npt.NDArray[np.float32],
    *,
    terms: Sequence[str],
    cuts: Cuts,
    options: RewardOptions,
    watch: WatchRule = "long_view",
) -> pl.DataFrame:
    """Rewards, returns and links to the next row (bucket function).

    A session's last row *in its split* carries the retention reward. It is censored (null) whenever the return window reaches past
    the end of the split, of its burst or of the data, even if the user is seen to return before: keeping only the observed returns would
    favour 1s near the cut. Then the reward of that row and the returns of its session are null as well.
    Source: METHODS §3.8 [D], MT-DQN Eq. 15 [S].

    Args:
        interactions: every row of some users, as ``Interactions``.
        splits: the same rows in the same order, as ``Splits``.
        item_vectors: (n_items, d) frozen pooled features, from ``modal.pooled_vectors``.
        terms: the terms of r_immediate that this source has, from ``reward_terms``.
        cuts: boundaries of the splits.
        options: weights and windows.
        watch: what tells that a video was watched, from ``watch_rule``.

    Returns:
        One row of ``Rewards`` per row, in the same order.

    Raises:
        ValueError: rows are not in order, or the two tables hold different rows.
    """
    require_time_order(interactions)
    if not interactions["row_id"].equals(splits["row_id"]):
        raise ValueError("splits: rows differ from those of interactions; rebuild splits from them")
    user = interactions["user_id"].to_numpy()
    ts_ms = interactions["ts_ms"].to_numpy()
    row_id = interactions["row_id"].to_numpy()
    part = splits["split"].to_physical().to_numpy()
    same_part = (user[1:] == user[:-1]) & (part[1:] == part[:-1])
    session = interactions["session_id"].to_numpy()
    has_next = np.append(same_part & (session[1:] == session[:-1]), False)[: len(user)]
    gap_ms = np.append(np.where(same_part, np.diff(ts_ms), np.inf), np.inf)[: len(user)]

    immediate = interactions.select(_immediate(terms, options.weights)).to_series().to_numpy()
    retention = _retention(ts_ms, gap_ms, has_next, cuts.observed_until(ts_ms, part), options)
    interest = _interest(
        user,
        interactions["item_id"].to_numpy(),
        interactions.select(watched(watch).fill_null(0) == 1).to_series().to_numpy(),
        item_vectors,
        options.interest_alpha,
    )
    # MT-DQN Eq. 15
    reward = (
        immediate + options.lambda_retention * retention + options.lambda_interest * interest
    ).astype(np.float32)
    frame = interactions.select("user_id", "row_id").with_columns(
        pl.Series("r_immediate", immediate),
        pl.Series("r_retention", retention).fill_nan(None),
        pl.Series("r_interest", interest),
        pl.Series("reward", reward).fill_nan(None),
        pl.Series("return", discounted_returns(reward, has_next, options.gamma)).fill_nan(None),
        pl.when(pl.Series(has_next)).then(pl.Series(np.roll(row_id, -1))).alias("next_row_id"),
    )
    return Rewards.conform(frame)


def rescaling(terms: Sequence[str], weights: ImmediateWeights) -> float:
    """The factor of r_immediate by which the terms at hand together can reach ``R_MAX``, as all six can.

    Source: METHODS §3.8 [D].
    """
    highest = sum(
        max(w, 0.0) * (WATCH_RATIO_CAP if term == "watch" else 1.0)
        for term, w in weights.model_dump(include=set(terms)).items()
    )
    return R_MAX / highest if 0 < highest < R_MAX else 1.0


def _immediate(terms: Sequence[str], weights: ImmediateWeights) -> pl.Expr:
    """r_immediate, rescaled.

    A null in a signal that the source has (no duration, so no watch ratio) counts as no signal and is not rescaled: rows stay comparable.
    """
    scaled: dict[str, float] = weights.model_dump(include=set(terms))
    signals = {t: pl.col(SIGNALS[t]).cast(pl.Float64).fill_null(0.0) for t in scaled}
    if "watch" in signals:
        signals["watch"] = signals["watch"].clip(upper_bound=WATCH_RATIO_CAP)
    total = pl.sum_horizontal(signals[t] * w for t, w in scaled.items()) * rescaling(terms, weights)
    return total.clip(R_MIN, R_MAX).cast(pl.Float32).alias("r_immediate")


def _retention(
    ts_ms: npt.NDArray[np.int64],
    gap_ms: npt.NDArray[np.float64],
    has_next: npt.NDArray[np.bool_],
    end_ms: npt.NDArray[np.int64],
    options: RewardOptions,
) -> npt.NDArray[np.float32]:
    window_ms = options.return_window_h * MS_PER_HOUR
    value = (
        np.ones_like(gap_ms)
        if options.retention == "within_window"
        else np.exp(-gap_ms / window_ms)
    )
    last = np.where(gap_ms <= window_ms, value, 0.0)
    last[ts_ms + window_ms >= end_ms] = np.nan
    return np.where(has_next, 0.0, last).astype(np.float32)


@njit(cache=True)
def _interest(
    user: npt.NDArray[np.int32],
    item: npt.NDArray[np.int32],
    seen: npt.NDArray[np.bool_],
    vectors: npt.NDArray[np.float32],
    alpha: float,
) -> npt.NDArray[np.float32]:
    """Cosine of each row's item with the moving average of what the user watched before it; 0 without one."""
    out = np.zeros(len(user), np.float32)
    taste = np.zeros(vectors.shape[1], np.float64)
    empty = True
    for i in range(len(user)):
        if i == 0 or user[i] != user[i - 1]:
            empty = True
        x = vectors[item[i]]
        if not empty:
            dot = xx = tt = 0.0
            for k in range(len(taste)):
                dot += x[k] * taste[k]
                xx += x[k] * x[k]
                tt += taste[k] * taste[k]
            if xx > 0.0 and tt > 0.0:
                out[i] = dot / np.sqrt(xx * tt)
        if seen[i]:
            weight = 1.0 if empty else alpha
            for k in range(len(taste)):
                taste[k] = (1.0 - weight) * taste[k] + weight * x[k]
            empty = False
    return out


@njit(cache=True)
def discounted_returns(
    reward: npt.NDArray[np.float32], has_next: npt.NDArray[np.bool_], gamma: float
) -> npt.NDArray[np.float32]:
    """G_i = r_i + γ G_{i+1} while ``has_next``, else r_i; NaN where a NaN follows (METHODS §3.9).

    Args:
        reward: (n,) rewards in time order, sessions one after the other.
        has_next: (n,) true where the next row continues the session.
        gamma: discount γ.
    """
    out = np.empty(len(reward), np.float32)
    following = 0.0
    for i in range(len(reward) - 1, -1, -1):
        following = reward[i] + (gamma * following if has_next[i] else 0.0)
        out[i] = following
    return out
