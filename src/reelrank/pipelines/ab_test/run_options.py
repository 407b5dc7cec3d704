"""Parameters of a run of the A/B test; torch is not needed to read them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reelrank.models.feedback_options import UserFold
from reelrank.options import Options

CONTROL = "ltr"
METHODS = (
    "mmrf", "mmrf_co", "mmrf_da", "mmrf_ns", "bc", "wide_deep", "deepfm", "pareto", "tscac", "massa", CONTROL,
)  # fmt: skip
"""Policies of a feed, the control of the test last."""


class DesignOptions(Options):
    """Length of the test; the same in every environment."""

    days: int = Field(10, ge=2, le=1_000, description="simulated days [S]")
    control_days: int = Field(
        3, ge=1, description="first days on which the control serves everyone: the A/A period [S]"
    )
    treated_share: float = Field(
        0.5, gt=0, lt=1, description="of the users, in the experiment that parts them [D]"
    )
    seed: int = Field(0, ge=0, description="of all chance, shared by the policies")

    @model_validator(mode="after")
    def _some_days_are_left(self) -> Self:
        if self.control_days >= self.days:
            raise ValueError(
                f"control_days {self.control_days} must be less than days {self.days}: nothing would be tested"
            )
        return self


class PopulationOptions(Options):
    """Who lives through the test, and how often."""

    users: int = Field(0, ge=0, description="users at most; 0: all")
    lives: int = Field(
        1, ge=1, description="times that each user lives the days, with other chance [D]"
    )


class SimulatorPopulation(PopulationOptions):
    """The same in a fitted simulator."""

    candidates: int = Field(40, ge=1, le=100_000, description="C, as track K2")
    repeats: bool = Field(
        True, description="an item may be a candidate again in the session that showed it"
    )


class MatrixPopulation(PopulationOptions):
    """The same in KuaiRec's small matrix."""

    candidates: int = Field(40, ge=1, le=100_000, description="C, drawn from the observed pairs")
    max_videos: int = Field(50, ge=1, description="videos after which a user leaves [METHODS §4.8]")
    short_play_s: float = Field(2.0, gt=0, description="a play under this is a short one")
    short_plays: int = Field(3, ge=1, description="consecutive short plays: the user leaves")


class EvaluationOptions(Options):
    """How effects are judged."""

    cap: float = Field(10.0, gt=0, description="c of NCIS [A]")
    replicates: int = Field(1000, ge=20, description="bootstrap resamples of users [S]")
    seed: int = Field(0, ge=0, description="of the resamples, and of the folds of q̂")


class ABTestSettings(Options):
    """What a run needs of its own; everything else is shared by ``ab_test`` and ``ab_test_kuairand``."""

    command: str = Field(description="shown in the report")


class ABTestParameters(ABTestSettings):
    """Block ``ab_test``."""

    work_dir: str = Field(description="folder of unfinished training runs")
    fold: UserFold = Field(
        description="users that the simulator learns from; the others are rolled out"
    )
    test: DesignOptions = Field(description="length")
    in_world: PopulationOptions = Field(description="(a) the generated world itself")
    in_simulator: SimulatorPopulation = Field(description="(b) a simulator")
    in_matrix: MatrixPopulation = Field(description="(c) KuaiRec's small matrix")
    evaluation: EvaluationOptions = Field(description="intervals")

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        if self.fold.share == 1:
            raise ValueError("fold.share must be below 1: nobody would be left to roll out")
        return self
