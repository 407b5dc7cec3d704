"""MT-02 … MT-16 as configurations: what a cell changes of the run's model, learning, reward and data.

Source: METHODS §9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self, TypeVar

from pydantic import Field, model_validator

from reelrank.features.rewards import R_MAX, RewardOptions
from reelrank.options import Options
from reelrank.pipelines.mt_dqn.options import (
    BehaviourMTDQNOptions,
    LearningOptions,
    MTDQNOptions,
    SupervisedMTDQNOptions,
)
from reelrank.training.options import TrainOptions

Own = TypeVar("Own", bound=Options)
Modality = Literal["visual", "audio", "text"]
BaseName = Literal["mt_dqn", "mt_dqn_supervised", "mt_dqn_behaviours"]
BASES: dict[BaseName, type[MTDQNOptions]] = {
    "mt_dqn": MTDQNOptions,
    "mt_dqn_supervised": SupervisedMTDQNOptions,
    "mt_dqn_behaviours": BehaviourMTDQNOptions,
}


class NoiseOptions(Options):
    """Gaussian noise on a modality's standardised features, drawn anew at every reading."""

    modality: Modality = Field("audio", description="that is noised")
    snr_db: float = Field(description="power of the signal over that of the noise, in decibels")


class MisalignOptions(Options):
    """Some items have another item's tokens of a modality."""

    modality: Modality = Field("audio", description="that is shuffled")
    share: float = Field(gt=0, le=1, description="of the items that have it")


class LagOptions(Options):
    """A modality comes late: silent at first, its end cut off."""

    modality: Modality = Field("audio", description="that is late")
    seconds: float = Field(gt=0, description="by how much", json_schema_extra={"unit": "s"})
    token_seconds: float = Field(
        1.0,
        gt=0,
        description="what one token covers [D: METHODS §8.2, a patch or frame a second]",
        json_schema_extra={"unit": "s"},
    )


class Perturbation(Options):
    """What is done to the inputs of a model; all of it together. Source: METHODS §3.10, §9 MT-04, MT-07 … MT-09, MT-11, MT-12, MT-16."""

    absent: tuple[Modality, ...] = Field((), description="modalities that no item has")
    noise: NoiseOptions | None = Field(None, description="MT-04")
    misaligned: MisalignOptions | None = Field(None, description="MT-11")
    lag: LagOptions | None = Field(None, description="MT-08, MT-16")
    rewired_follows: bool = Field(
        False, description="as many users are followed, but drawn from everybody (MT-07)"
    )
    dropped_edges: float = Field(
        0.0, ge=0, le=1, description="share of the events that the graph does not hold (MT-09)"
    )
    permuted_times: bool = Field(
        False, description="each user's events change places in time, inside their split (MT-12)"
    )


NOTHING = Perturbation()


class Cell(Options):
    """One configuration of a study; what is not named is the run's own. A cell whose training is unchanged takes the run's own model."""

    base: BaseName = Field("mt_dqn", description="model whose options are changed")
    model: dict[str, Any] = Field({}, description="options of the model that differ")
    learning: dict[str, Any] = Field({}, description="options of the targets that differ")
    training: dict[str, Any] = Field({}, description="options of the training that differ")
    reward: dict[str, Any] = Field(
        {},
        description="options of the reward that differ; γ is learnt with, too, and learning.r_max is raised where λ1 and λ2 need it",
    )
    perturb: Perturbation = Field(NOTHING, description="what is done to the inputs")
    at: Literal["train_and_test", "test"] = Field(
        "train_and_test", description="where the inputs are perturbed"
    )
    against: str | None = Field(
        None, description="cell of the same study it is compared with; null: the run's own model"
    )
    over: tuple[str, ...] = Field(
        (),
        description="earlier cells of the same study: instead of a model, the sd over them of the value's errors (MT-08)",
    )

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if self.over and (self.model or self.learning or self.training or self.reward or self.perturb != NOTHING):  # fmt: skip
            raise ValueError("over measures other cells: it has no options of its own")
        if len(self.over) == 1:
            raise ValueError(f"over {self.over} needs two cells or more")
        if self.perturb.permuted_times and self.at == "test":
            raise ValueError("permuted_times change what is judged: at must be train_and_test")
        return self


class StudyOptions(Options):
    """MT-02 … MT-16; ``run`` names those that are run, whole or cell by cell."""

    run: tuple[str, ...] = Field(
        (), description="experiments, or single cells as experiment.cell, that are run"
    )
    cells: dict[str, dict[str, Cell]] = Field({}, description="experiment → name → configuration")

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = {*self.cells, *(f"{e}.{name}" for e, cells in self.cells.items() for name in cells)}
        if unknown := sorted(set(self.run) - known):
            raise ValueError(f"run names {unknown}, which cells does not describe")
        chosen = set(self.chosen())
        for experiment, cells in self.cells.items():
            earlier: set[str] = set()
            for name, cell in cells.items():
                rival = cell.against
                needed = [(rival, "against")] if rival is not None else []
                for other, how in [*needed, *((o, "over") for o in cell.over)]:
                    if other not in earlier:
                        raise ValueError(
                            f"{experiment}.{name}: {how} {other!r} must name an earlier cell of {experiment}"
                        )
                    if (experiment, name) in chosen and (experiment, other) not in chosen:
                        verb = "is compared with" if how == "against" else "measures"
                        raise ValueError(f"run {experiment}.{other} too: {name} {verb} it")
                if rival is not None and bool(cell.over) != bool(cells[rival].over):
                    raise ValueError(
                        f"{experiment}.{name}: a spread is compared with a spread, a model with a model: not with {rival}"
                    )
                earlier.add(name)
        return self

    def chosen(self) -> list[tuple[str, str]]:
        """(experiment, cell) of what is run, in the order of the cells."""
        return [
            (experiment, name)
            for experiment, cells in self.cells.items()
            for name in cells
            if experiment in self.run or f"{experiment}.{name}" in self.run
        ]


class Setting(NamedTuple):
    """All options of a training run."""

    base: BaseName
    model: MTDQNOptions
    learning: LearningOptions
    training: TrainOptions
    reward: RewardOptions
    perturb: Perturbation  # of what is learnt from


def changed(own: Setting, cell: Cell) -> Setting:
    """The run's own setting with what the cell changes.

    Raises:
        pydantic.ValidationError: a key or value is wrong.
        ValueError: learning and reward name two discounts.
    """
    reward = _changed(own.reward, cell.reward)
    learning = {"gamma": reward.gamma, **cell.learning}
    if learning["gamma"] != reward.gamma:
        raise ValueError(
            f"learning.gamma {learning['gamma']} and reward.gamma {reward.gamma} must be equal: set reward.gamma alone"
        )
    largest = R_MAX + reward.lambda_retention + reward.lambda_interest
    if largest > own.learning.r_max + 1e-9:
        learning = {"r_max": largest, **learning}
    model = BASES[cell.base].model_validate(_merged(own.model.model_dump(), cell.model))
    return Setting(
        cell.base,
        model,
        _changed(own.learning, learning),
        _changed(own.training, cell.training),
        reward,
        cell.perturb if cell.at == "train_and_test" else own.perturb,
    )


def _changed(own: Own, changes: Mapping[str, Any]) -> Own:
    return type(own).model_validate(_merged(own.model_dump(), changes))


def _merged(own: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(own)
    for key, value in changes.items():
        old = own.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged
