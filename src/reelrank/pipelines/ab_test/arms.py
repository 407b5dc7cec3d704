"""The test itself: every policy serves every user for all days, the control alone the first of them.

All arms share their chance (the same seed in the same environment), so that two of them differ in what they show alone, and two that are
one policy not at all. Who is treated in an experiment that parts the users is decided afterwards, from the same lives.

Source: METHODS §4.8 (MM-10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reelrank.models.feed import WATCH_TIME, FeedBatch, FeedPolicy, scores_of
from reelrank.models.feed_environment import (
    COMMENT,
    FOLLOW,
    GREEDY,
    FeedEnvironment,
    RollOut,
    TruthPolicy,
    roll_out,
)
from reelrank.models.feed_policies import history_length, load_policy
from reelrank.pipelines.ab_test.columns import (
    BEST,
    COUNT_SUMS,
    DAYS_SCHEMA,
    RESPONSE_SUMS,
    SUMS,
)
from reelrank.pipelines.ab_test.run_options import DesignOptions
from reelrank.training.artifact import ModelCheckpoint

AnyPolicy = FeedPolicy | TruthPolicy
_RESPONSE = {"watch_time": WATCH_TIME, "follow": FOLLOW, "comment": COMMENT}


class Served:
    """A trained policy as a roll-out asks it: with its own length of history, on its own device, in units of its temperature."""

    def __init__(self, policy: nn.Module, history: int, temperature: float = 1.0) -> None:
        self._policy, self._history, self._temperature = policy, history, temperature
        self._device = next(policy.parameters()).device

    def scores(self, batch: FeedBatch) -> Tensor:
        """(B, C) of the policy, divided by the temperature."""
        own = replace(
            batch,
            history=batch.history[:, -self._history :],
            feedback=batch.feedback[:, -self._history :],
        ).to(self._device)
        return scores_of(self._policy, own) / self._temperature


def trained_arms(
    models: Mapping[str, ModelCheckpoint], device: torch.device | str, temperatures: Mapping[str, float] | None = None
) -> dict[str, Served]:  # fmt: skip
    """Policies of checkpoints by name, in units of their temperatures, if these are given."""
    return {
        name: Served(load_policy(model, device), history_length(model), (temperatures or {}).get(name, 1.0))
        for name, model in models.items()
    }  # fmt: skip


def longest_history(models: Mapping[str, ModelCheckpoint]) -> int:
    """Rows of history that an environment must show, so that each policy finds its own."""
    return max(history_length(model) for model in models.values())


def run_arms(
    environment: FeedEnvironment,
    users: NDArray[np.int64],
    arms: Mapping[str, AnyPolicy],
    control: str,
    test: DesignOptions,
    *,
    lives: int,
    k: int,
    serving: str = BEST,
) -> pl.DataFrame:
    """What every user does under every arm, day by day, as ``DAYS_SCHEMA`` says.

    Args:
        environment: of B users for ``test.days`` days.
        users: (B,) their ids.
        arms: policies by name.
        control: which of them serves the first days of all, and all days of its own arm.
        test: length and seed.
        lives: how often the days are lived, with other chance each time.
        k: items ranked at a decision.
        serving: ``greedy``, or ``softened``: drawn from the softmax of the scores.

    Raises:
        ValueError: there is no such control, or the environment lives other days.
    """
    if control not in arms:
        raise ValueError(f"the control {control!r} is not among the arms {sorted(arms)}")
    if environment.n_days != test.days:
        raise ValueError(f"the environment lives {environment.n_days} days, the test {test.days}")
    frames = []
    for name, policy in arms.items():
        sums: dict[str, NDArray[np.float64]] = {}
        for life in range(lives):
            got = roll_out(
                environment,
                policy,
                seed=test.seed + life,
                k=k,
                temperature=GREEDY if serving == BEST else 1.0,
                control=arms[control],
                # also of the control's own arm: its batches then have the same sizes, and its sums the same last bits
                control_days=test.control_days,
            )
            for column, values in _columns(got).items():
                sums[column] = sums.get(column, 0.0) + values
        frames.append(_frame(name, serving, users, lives, sums))
    return pl.concat(frames)


def no_days() -> pl.DataFrame:
    """The table of an environment that does not exist."""
    return pl.DataFrame(schema=DAYS_SCHEMA)


def _columns(got: RollOut) -> dict[str, NDArray[np.float64]]:
    """Sums (B, D) of a life."""
    counts = {name: getattr(got, name).astype(np.float64) for name in COUNT_SUMS}
    return {name: got.response[:, :, place] for name, place in _RESPONSE.items()} | counts


def _frame(
    arm: str,
    serving: str,
    users: NDArray[np.int64],
    lives: int,
    sums: Mapping[str, NDArray[np.float64]],
) -> pl.DataFrame:
    n, days = sums["rows"].shape
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(users, days),
            "day": np.tile(np.arange(days), n),
            **{name: sums[name].ravel() for name in SUMS},
        }
    )
    known = frame.with_columns(pl.col(RESPONSE_SUMS).fill_nan(None))
    own = known.with_columns(arm=pl.lit(arm), serving=pl.lit(serving), lives=pl.lit(lives))
    return own.select(pl.col(name).cast(dtype) for name, dtype in DAYS_SCHEMA.items())
