"""Sizes of the validity studies; all [D] where METHODS §7 states none."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.evaluation.off_policy import BehaviourOptions
from reelrank.options import Options


class RepetitionOptions(Options):
    """How often logs are redrawn, and how large they are."""

    sizes: tuple[int, ...] = Field(
        (500, 2_000, 8_000, 20_000), min_length=1, description="rows of a log, ascending"
    )
    repetitions: int = Field(200, ge=2, description="logs of each size with true propensities")
    repetitions_estimated: int = Field(
        60, ge=2, description="logs of each size with estimated propensities"
    )
    rows_per_user: int = Field(20, ge=1, description="contexts of each drawn user")
    replicates: int = Field(1000, ge=20, description="resamples of users for an interval")
    seed: int = Field(0, ge=0, description="of every draw")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes {self.sizes} must ascend")
        if self.sizes[0] < 2 * self.rows_per_user:
            raise ValueError(
                f"sizes[0] = {self.sizes[0]} must hold two users of {self.rows_per_user} rows each"
            )
        return self


class BanditOptions(RepetitionOptions):
    """OP-01, 02, 05 … 08, on the requests of the KuaiRand world."""

    policies: tuple[
        Literal["uniform", "popularity", "noisy_reward", "reward", "near_greedy"], ...
    ] = Field(
        ("uniform", "popularity", "noisy_reward", "reward", "near_greedy"),
        min_length=2,
        description="policies whose value is estimated",
    )
    train_share: float = Field(0.7, gt=0, lt=1, description="of the requests, by time: π̂_b's train")
    val_share: float = Field(0.1, gt=0, lt=1, description="of the requests, next: its calibration")
    small_caps: tuple[float, ...] = Field(
        (2.0, 5.0, 10.0), min_length=1, description="caps at which NCIS and PieceNCIS are compared"
    )
    sweep_repetitions: int = Field(20, ge=2, description="logs of the sweeps (OP-05 … OP-08)")
    behaviour: BehaviourOptions = Field(BehaviourOptions(), description="model of π_b")


class MatrixOptions(RepetitionOptions):
    """OP-03, on KuaiRec's small matrix."""

    max_users: int = Field(300, ge=2, description="users of the matrix at most, drawn by seed")
    max_items: int = Field(300, ge=10, description="items of the matrix at most, drawn by seed")
    temperature: float = Field(
        1.0, gt=0, description="of the softmax that logs, in sd of its scores"
    )
    fit_rows: int = Field(4_000, ge=50, description="rows of the log that π̂_b learns from")
    behaviour: BehaviourOptions = Field(BehaviourOptions(), description="model of π_b")


class RandomLogOptions(Options):
    """OP-04, on KuaiRand's random log."""

    entropy_share: float = Field(
        0.9, gt=0, lt=1, description="entropy of every policy, as a share of the uniform one's"
    )
    smoothing: float = Field(20.0, gt=0, description="rows of the mean added to an item's own")
    replicates: int = Field(1000, ge=20, description="resamples of users for an interval")
    seed: int = Field(0, ge=0, description="of resamples")


class RankingOptions(Options):
    """OP-09 … OP-11, on the logged test rows of KuaiRand."""

    smoothing: float = Field(20.0, gt=0, description="rows of the mean added to an item's own")
    ranks: tuple[int, ...] = Field(
        (2, 8, 32), min_length=1, description="factors of the truncated SVDs"
    )
    k: int = Field(20, ge=1, description="cut-off of NDCG in the whole catalogue")
    k_lists: int = Field(
        5, ge=1, description="cut-off of DCG of the watch-time gain in a user's rows"
    )
    n_sampled: int = Field(99, ge=1, description="items drawn beside each target [S: METHODS §2]")
    replicates: int = Field(1000, ge=20, description="resamples of users for an interval")
    seed: int = Field(0, ge=0, description="of draws and resamples")
