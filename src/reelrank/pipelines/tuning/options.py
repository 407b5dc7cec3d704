"""Parameters of tuning: what is searched, how, and where the trials are kept."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options

Scalar = bool | int | float | str | None
Value = Scalar | list[Scalar]
EVALUATION_SEEDS = range(5)  # METHODS §1.8
PATH = r"^[a-z_0-9]+(\.[a-z_0-9]+)+$"
Seed = Annotated[int, Field(ge=len(EVALUATION_SEEDS))]


class FloatRange(Options):
    """Real numbers between two bounds."""

    kind: Literal["float"] = Field(description="float, int or categorical")
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="drawn evenly in the logarithm")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.low, self.high, log=self.log)
        return self


class IntRange(Options):
    """Whole numbers between two bounds."""

    kind: Literal["int"] = Field(description="float, int or categorical")
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value")
    log: bool = Field(False, description="drawn evenly in the logarithm")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.low, self.high, log=self.log)
        return self


class Choices(Options):
    """Named values, lists among them."""

    kind: Literal["categorical"] = Field(description="float, int or categorical")
    choices: tuple[Value, ...] = Field(min_length=2, description="values, without order")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"choices {list(self.choices)} name a value twice")
        return self


Range = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


class SpaceOptions(Options):
    """What is tuned of one system: the training node that is run, and the ranges of its parameters."""

    pipeline: str = Field(description="registered pipeline, whose name is the node's namespace")
    node: str = Field(
        description="training node, without the namespace; its history has validation metrics, the first decides"
    )
    metric: str = Field(description="what that metric is called in the report")
    seed: str = Field(pattern=PATH, description="parameter that seeds the training")
    fixed: dict[str, Value] = Field(
        {}, description="parameter → value that all trials share, such as fewer epochs"
    )
    space: dict[str, Range] = Field(min_length=1, description="parameter, by its full path → range")

    @model_validator(mode="after")
    def _paths(self) -> Self:
        for path in (*self.fixed, *self.space):
            if not re.match(PATH, path):
                raise ValueError(f"{path!r} is no path of a parameter: write ruie.training.lr")
        twice = ({self.seed} | set(self.fixed)) & set(self.space)
        if twice or self.seed in self.fixed:
            raise ValueError(
                f"{', '.join(sorted(twice)) or self.seed} is fixed, or the seed, and cannot be given twice"
            )
        return self


class SamplerOptions(Options):
    """How the values of a trial are drawn."""

    kind: Literal["tpe", "random"] = Field("tpe", description="tpe learns from earlier trials")
    startup_trials: int = Field(8, ge=1, description="trials drawn at random before tpe learns")
    seed: int = Field(0, ge=0, description="trial n is drawn with seed + n, in whichever process")


class PrunerOptions(Options):
    """When a trial is given up before its last epoch."""

    kind: Literal["median", "successive_halving", "none"] = Field(
        "median",
        description="median: worse than half of the others at this epoch; successive_halving: not in the best part at epoch 1, η, η² …",
    )
    startup_trials: int = Field(
        5, ge=0, description="median: finished trials before any is given up"
    )
    warm_up_epochs: int = Field(2, ge=0, description="median: epochs of a trial that are let be")
    reduction: int = Field(3, ge=2, description="successive_halving: η, one of so many goes on")
    first_epochs: int = Field(
        1, ge=1, description="successive_halving: epochs before the first cut"
    )


class TuningParameters(Options):
    """Block ``tuning``."""

    project: str = Field(description="folder of the Kedro project")
    environment: str = Field(description="that trials run in")
    folder: str = Field(description="logs and histories of trials; the study itself is in storage")
    storage: str = Field(
        description="sqlite:///FILE, journal:///FILE or any address that SQLAlchemy reads, as postgresql+psycopg://user@host/database; processes with the same address work on one study"
    )
    n_trials: int = Field(
        30, ge=1, description="trials of the study in all, those of earlier starts included"
    )
    workers: int = Field(1, ge=1, description="trials at a time in this call, each a process")
    training_seed: Seed = Field(
        1000, description="of every trial; evaluation has the seeds 0 to 4 (METHODS §1.8)"
    )
    confirming_seeds: tuple[Seed, ...] = Field(
        (), description="defaults and best trial are trained again with each, and compared"
    )
    lost_after_s: float = Field(
        120,
        ge=10,
        description="silence, in seconds, after which another machine's trial counts as killed",
    )
    sampler: SamplerOptions = SamplerOptions()
    pruner: PrunerOptions = PrunerOptions()
    systems: dict[str, SpaceOptions] = Field(description="name (system=…) → what is tuned")

    @model_validator(mode="after")
    def _new_seeds(self) -> Self:
        if self.training_seed in self.confirming_seeds:
            raise ValueError(
                f"confirming_seeds hold training_seed {self.training_seed}, by which the best trial was chosen"
            )
        if len(set(self.confirming_seeds)) < len(self.confirming_seeds):
            raise ValueError("confirming_seeds name a seed twice")
        return self


def _check_bounds(low: float, high: float, *, log: bool) -> None:
    if not low < high:
        raise ValueError(f"low {low} must be below high {high}")
    if log and low <= 0:
        raise ValueError(f"log needs low above 0, not {low}")
