"""RU-03: rewards that know nothing, and rewards that are learnt from who goes on.

Source: METHODS §9 RU-03.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.models.sequence_options import BEHAVIOURS
from reelrank.pipelines.ruie.options import RewardOptions

SESSION_GAP_MS = 1_800_000  # METHODS §1.3 [D: 30 minutes]
RIDGE = 1e-3  # of the margin's weights [D]
STEPS = 2000  # of the sub-gradient; 2 to the 4 patterns of feedback are all that is looked at


def shuffled_feedback(events: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Train events with the feedback of other train events: rewards of the same distribution that tell nothing."""
    train = np.flatnonzero((events["split"] == "train").to_numpy())
    source = np.arange(events.height)
    source[train] = np.random.default_rng(seed).permutation(train)
    return events.with_columns(events.select(BEHAVIOURS)[source])


def learned_reward(
    events: pl.DataFrame, base: RewardOptions, gap_ms: int = SESSION_GAP_MS
) -> RewardOptions:
    """Weights under which the feedback of events after which users go on stands apart from that of a session's last events.

    The widest margin: min ½ρ‖w‖² + mean over both classes alike of max(0, 1 − y (w·b + b₀)), y = 1 where the user's next train
    event follows within ``gap_ms``. Weights below 0 become 0, a click keeps its base weight (every event has one), and the others are
    scaled to the base's mean reward beyond clicks; where none is left, only clicks count.

    Args:
        events: of ``features.sequences.sequence_events``, by (user, time).
        base: the reward whose scale is kept.
        gap_ms: longest gap inside a session, ms.

    Raises:
        ValueError: every train event is a session's last, or none is.
    """
    train = events.filter(split="train").sort("user_id", "ts_ms", "row_id")
    gap = (pl.col("ts_ms").shift(-1) - pl.col("ts_ms")).over("user_id")
    goes_on = train.select((gap <= gap_ms).fill_null(value=False)).to_series().to_numpy()
    if goes_on.all() or not goes_on.any():
        raise ValueError(
            f"{goes_on.mean():.0%} of the train events are followed within {gap_ms} ms: there is nothing to learn a reward from"
        )
    rest = BEHAVIOURS[1:]
    feedback = np.column_stack([train[name].fill_null(0).to_numpy() > 0 for name in rest])
    weight = np.maximum(_widest_margin(feedback.astype(float), np.where(goes_on, 1.0, -1.0)), 0.0)
    wanted = (feedback @ [getattr(base, name) for name in rest]).mean()
    mean = (feedback @ weight).mean()
    scaled = weight * (wanted / mean if mean > 0 else 0.0)
    return base.model_copy(update=dict(zip(rest, scaled.tolist(), strict=True)))


def _widest_margin(
    b: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Weights of the linear rule with the least hinge loss, both classes counted alike, by averaged sub-gradients."""
    pattern, index = np.unique(np.column_stack([b, y]), axis=0, return_inverse=True)
    x, sign = np.column_stack([pattern[:, :-1], np.ones(len(pattern))]), pattern[:, -1]
    mass = np.bincount(index.ravel()).astype(float)
    for side in (-1.0, 1.0):
        mass[sign == side] /= 2 * mass[sign == side].sum()
    w, mean = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for step in range(1, STEPS + 1):
        active = sign * (x @ w) < 1
        gradient = -(mass * sign * active) @ x
        gradient[:-1] += RIDGE * w[:-1]
        w = w - gradient / step**0.5
        mean += (w - mean) / step
    found: npt.NDArray[np.float64] = mean[:-1]
    return found
