"""Parameters of a run of the feedback simulator; torch is not needed to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from reelrank.models.feed_options import RESPONSE_NAMES, ResponseName
from reelrank.models.feedback_options import SimulatedRewardOptions, SimulatorOptions, UserFold
from reelrank.options import Options
from reelrank.training.options import TrainOptions

MAIN = "feedback_simulator"


class EvaluationOptions(Options):
    """How the simulator is judged."""

    responses: tuple[ResponseName, ...] = Field(
        RESPONSE_NAMES, min_length=1, description="those that are judged"
    )
    headline: ResponseName = Field("watch_time", description="the response of the study's figure")
    replicates: int = Field(1000, ge=20, description="bootstrap resamples of users [S]")
    seed: int = Field(0, ge=0, description="of the resamples, and of the dropout that is judged")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if len(set(self.responses)) != len(self.responses):
            raise ValueError(f"responses {self.responses}: each once")
        if self.headline not in self.responses:
            raise ValueError(f"headline {self.headline} must be one of responses {self.responses}")
        return self


class RewardGrid(Options):
    """MM-07 on logged answers: forms of Eq. 6 and κ."""

    forms: tuple[Literal["additive", "multiplicative", "exp"], ...] = Field(
        ("additive", "multiplicative", "exp"), min_length=1, description="of Eq. 6"
    )
    kappas: tuple[float, ...] = Field((0.0, 0.03, 0.1, 0.3, 1.0), min_length=1, description="κ")
    cap: float = Field(1.0, gt=0, description="KL counts up to here")

    def cells(self) -> dict[str, SimulatedRewardOptions]:
        """Name to options; with κ = 0 all forms are one."""
        found = {}
        for form in self.forms:
            for kappa in self.kappas:
                name = f"{form}, κ = {kappa:g}" if kappa else "no bonus"
                found[name] = SimulatedRewardOptions(form=form, kappa=kappa, cap=self.cap)
        return found


class Cell(Options):
    """One configuration of a study: a simulator fitted anew with some options changed."""

    simulator: dict[str, Any] = Field({}, description="its options that differ from the run's")
    fold: UserFold | None = Field(None, description="users that it learns from; null: the run's")


class StudyOptions(Options):
    """Variants of METHODS §4.6 as configurations; ``run`` names those that are run."""

    run: tuple[str, ...] = Field((), description="cells that are run")
    cells: dict[str, Cell] = Field({}, description="name → configuration")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := sorted(set(self.run) - set(self.cells)):
            raise ValueError(f"run names {unknown}, which cells does not describe")
        return self


class FeedbackSimulatorParameters(Options):
    """Block ``feedback_simulator``."""

    command: str = Field(description="shown in the report")
    work_dir: str = Field(description="folder of unfinished training runs")
    simulator: SimulatorOptions = Field(description="sizes and losses")
    training: TrainOptions = Field(description="length and rates")
    fold: UserFold = Field(description="users that it learns from")
    evaluation: EvaluationOptions = Field(description="metrics and intervals")
    rewards: RewardGrid = Field(description="MM-07 on logged answers")
    studies: StudyOptions = Field(description="variants of §4.6")

    @model_validator(mode="after")
    def _cells_are_options(self) -> Self:
        for name, cell in self.studies.cells.items():
            try:
                changed(self.simulator, cell.simulator)
            except ValueError as error:
                raise ValueError(f"studies.cells.{name}.simulator: {error}") from error
        return self


def changed(options: SimulatorOptions, changes: Mapping[str, Any]) -> SimulatorOptions:
    """Options with changes.

    Raises:
        pydantic.ValidationError: a key or value is wrong.
    """
    return SimulatorOptions.model_validate({**options.model_dump(), **changes})
