"""Parameters of a run of RUIE and its baselines: what is learnt, ranked, judged and studied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from reelrank.features.sequences import SequenceOptions
from reelrank.options import Options
from reelrank.pipelines.ruie.options import (
    CaserOptions,
    DinOptions,
    GRU4RecOptions,
    NextItNetOptions,
    PepNetOptions,
    PopularityOptions,
    RuieOptions,
    SASRecOptions,
    StarOptions,
)
from reelrank.training.options import TrainOptions

MAIN = "ruie"
TRAINED = (MAIN, "nextitnet", "sasrec", "gru4rec", "caser", "din", "pepnet", "star")
VARIANTS = (*TRAINED, "popularity")
PUBLISHED_K = (5, 10, 15, 20)
PREDICTED, OBSERVED = "mean_p", "rate_of_scenario"  # metrics of a bin of RU-06
VariantName = Literal["ruie", "nextitnet", "sasrec", "gru4rec", "caser", "din", "pepnet", "star"]


class RuieModels(Options):
    """Sizes of every model."""

    ruie: RuieOptions = Field(RuieOptions(), description="RUIE")
    nextitnet: NextItNetOptions = Field(NextItNetOptions(), description="RUIE's backbone alone")
    sasrec: SASRecOptions = Field(SASRecOptions(), description="self-attention")
    gru4rec: GRU4RecOptions = Field(GRU4RecOptions(), description="recurrent")
    caser: CaserOptions = Field(CaserOptions(), description="convolutions over a window")
    din: DinOptions = Field(DinOptions(), description="attention of each candidate")
    pepnet: PepNetOptions = Field(PepNetOptions(), description="gates by scenario and user")
    star: StarOptions = Field(StarOptions(), description="weights of each scenario")
    popularity: PopularityOptions = Field(PopularityOptions(), description="train events")


class LearningOptions(Options):
    """What all models are given alike."""

    length: int = Field(20, ge=2, description="events of a history [A]")
    last_place_batch: int = Field(
        1024,
        ge=1,
        description="events of a step of Caser and DIN, which answer at one place; training.batch_size counts windows",
    )
    validation_targets: int | None = Field(
        20_000, ge=1, description="val events ranked after each epoch, drawn once; null: all [D]"
    )


class RankingOptions(Options):
    """How targets are ranked among all items."""

    block_rows: int = Field(4096, ge=1, description="targets ranked at once; bounds memory")
    block_pairs: int = Field(
        1024,
        ge=1,
        description="target × item pairs that DIN scores at once; bounds memory, and fits a CPU's cache",
    )
    pair_limit: int = Field(
        2_000_000_000,
        ge=0,
        description="target × item pairs above which DIN is ranked among sampled items only [D: hours on a CPU]",
    )
    in_place: int = Field(
        999,
        ge=1,
        description="items among which DIN is ranked in place of all above pair_limit [S: METHODS §5.6]",
    )
    sampled: int = Field(99, ge=1, description="items of the sampled ranking [R: UniSAR]")
    seed: int = Field(0, ge=0, description="of the sampled items")


class EvaluationOptions(Options):
    """How ranks are judged."""

    cutoffs: tuple[int, ...] = Field(
        (5, 10, 15, 20), min_length=1, description="K of NDCG, HR and MRR [S]"
    )
    headline: int = Field(10, ge=1, description="K of the comparisons with each baseline [D]")
    replicates: int = Field(1000, ge=20, description="bootstrap resamples of users [D]")
    seed: int = Field(0, ge=0, description="of the resamples")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.headline not in self.cutoffs:
            raise ValueError(f"headline {self.headline} must be one of cutoffs {self.cutoffs}")
        return self


class Cell(Options):
    """One configuration of a study: a model with some options changed, on a log with some events left out."""

    base: VariantName = Field("ruie", description="model whose options are changed")
    model: dict[str, Any] = Field({}, description="options that differ from the run's")
    length: int | None = Field(None, ge=2, description="events of a history; null: the run's")
    scenario: int | Literal["smallest"] | None = Field(
        None, description="scenario (raw value) that share and alone are about; smallest: by train events"
    )  # fmt: skip
    share: float = Field(1.0, gt=0, le=1, description="of the scenario's train events that is kept")
    alone: bool = Field(False, description="learn from that scenario's events only")
    reward: Literal["weights", "shuffled", "learned"] = Field(
        "weights",
        description="what Q learns: the model's reward; shuffled: train events have the feedback of other train events; "
        "learned: weights from who goes on with a session (RU-03)",
    )
    measure: Literal["ranks", "q"] = Field(
        "ranks",
        description="what is judged: ranks; or Q against realised returns, and p against the scenario that followed (RU-06)",
    )
    against: str | None = Field(
        None, description="cell of the same study it is compared with; null: the run's own model"
    )

    @model_validator(mode="after")
    def _names_a_scenario(self) -> Self:
        if (self.share < 1 or self.alone) and self.scenario is None:
            raise ValueError("share and alone need a scenario")
        if self.base != "ruie" and (self.reward != "weights" or self.measure != "ranks"):
            raise ValueError(f"reward and measure need base ruie, not {self.base}")
        return self


class StudyOptions(Options):
    """RU-02 … RU-13 as configurations; ``run`` names those that are run, whole or cell by cell."""

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
                other = cell.against
                if other is not None and other not in earlier:
                    raise ValueError(
                        f"{experiment}.{name}: against {other!r} must name an earlier cell of {experiment}"
                    )
                if (experiment, name) in chosen and other and (experiment, other) not in chosen:
                    raise ValueError(f"run {experiment}.{other} too: {name} is compared with it")
                if cell.measure == "q" and cell.against is not None:
                    raise ValueError(
                        f"{experiment}.{name}: measure q is not compared: drop against"
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


class RuieSettings(Options):
    """What a source needs of its own; everything else is shared by ``ruie``, ``ruie_kuairand`` and ``ruie_events``."""

    command: str = Field(description="shown in the report")
    sequences: SequenceOptions = Field(description="which rows are events")
    scenario_names: dict[str, str] = Field({}, description="raw scenario → what readers call it")


class RuieParameters(RuieSettings):
    """Block ``ruie``."""

    work_dir: str = Field(description="folder of unfinished training runs")
    learning: LearningOptions = Field(description="what all models are given alike")
    training: TrainOptions = Field(description="length and rates")
    models: RuieModels = Field(description="sizes")
    ranking: RankingOptions = Field(description="full and sampled ranking")
    evaluation: EvaluationOptions = Field(description="metrics and intervals")
    studies: StudyOptions = Field(description="ablations and the like")
    published: tuple[float, float, float, float] = Field(
        description="RUIE's NDCG at 5, 10, 15 and 20, in percent [S]; a reference only"
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.models.caser.length != self.learning.length:
            raise ValueError(
                f"models.caser.length {self.models.caser.length} must be learning.length {self.learning.length}"
            )
        for experiment, cells in self.studies.cells.items():
            for name, cell in cells.items():
                try:
                    changed_options(self.models, cell)
                except ValueError as error:
                    raise ValueError(f"studies.cells.{experiment}.{name}.model: {error}") from error
        return self


def changed_options(models: RuieModels, cell: Cell) -> Options:
    """Options of a cell's model.

    Raises:
        pydantic.ValidationError: a key or value is wrong.
    """
    base: Options = getattr(models, cell.base)
    return type(base).model_validate(_merged(base.model_dump(), cell.model))


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the changes; a block of another name (another backbone) is replaced, but keeps its width."""
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        if not (isinstance(value, Mapping) and isinstance(old, Mapping)):
            merged[key] = value
        elif value.get("name", old.get("name")) == old.get("name"):
            merged[key] = _merged(old, value)
        else:
            merged[key] = {"dim": old["dim"], **value}
    return merged
