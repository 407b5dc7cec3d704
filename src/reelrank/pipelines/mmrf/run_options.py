"""Parameters of a run of MMRF and its baselines: what is learnt, judged and studied; torch is not needed to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from reelrank.evaluation.off_policy import BehaviourOptions
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feedback_options import SimulatedRewardOptions, SimulatorOptions
from reelrank.options import Options
from reelrank.pipelines.mmrf.baselines.options import BaselineOptions
from reelrank.pipelines.mmrf.options import (
    AGENTS,
    ActorOptions,
    CriticOptions,
    LearningOptions,
    ReplayOptions,
    UpdateOptions,
)
from reelrank.training.options import InTurnOptions

LOGGED = "logged"  # the policy that logged, as a variant
MAIN = "mmrf"
MMRF_VARIANTS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    MAIN: {},
    "mmrf_co": {"actor": {"exchange": "concat"}},
    "mmrf_da": {"replay": {"non_impressions": "none"}},
    "mmrf_ns": {"replay": {"non_impressions": "negative"}},
}
"""What each variant changes (METHODS §4.7); all are one module."""
BASELINES = ("bc", "wide_deep", "deepfm", "pareto", "tscac", "massa", "ltr")
METHODS = (*MMRF_VARIANTS, *BASELINES)
"""Registry names of all methods; the 6 baselines of MM-01, the 4 of MMRF, and ltr, the control of the A/B test."""
Program = Literal["eager", "exported", "compiled"]
VariantName = Literal["mmrf", "mmrf_co", "mmrf_da", "mmrf_ns"]


class MMRFOptions(Options):
    """Networks and updates of MMRF and its variants."""

    actor: ActorOptions = Field(ActorOptions(), description="agents and their exchange")
    critic: CriticOptions = Field(CriticOptions(), description="critics, with their own encoder")
    update: UpdateOptions = Field(UpdateOptions(), description="one step of both")
    simulator: SimulatorOptions = Field(SimulatorOptions(), description="of feedback (Eq. 5)")
    in_turn: InTurnOptions = Field(InTurnOptions(), description="how the simulator learns")
    reward: SimulatedRewardOptions = Field(SimulatedRewardOptions(), description="Eq. 6")

    @model_validator(mode="after")
    def _one_history(self) -> Self:
        actor, critic = self.actor.encoder.history, self.critic.encoder.history
        if actor != critic:
            raise ValueError(
                f"actor.encoder.history {actor} and critic.encoder.history {critic} must be equal: they read one batch"
            )
        return self


class PredictionOptions(Options):
    """How decisions are scored, in training's validation and after it."""

    block: int = Field(1024, ge=1, description="decisions scored at once; bounds memory")
    validation_decisions: int = Field(
        20_000, ge=1, description="val decisions, of whole users, ranked after each epoch [D]"
    )


class EvaluationOptions(Options):
    """How policies are judged."""

    cap: float = Field(10.0, gt=0, description="c of NCIS [A: TSCAC]")
    caps: tuple[float, ...] = Field(
        (1, 2, 5, 10, 20, 50, 100),
        description="cap sweep of watch time's NCIS; no cap is always in it",
    )
    temperatures: tuple[float, ...] = Field(
        (0.5, 2.0), description="multiples of the equal-entropy temperature beside 1 [S]"
    )
    replicates: int = Field(1000, ge=20, description="bootstrap resamples of users [S]")
    seed: int = Field(0, ge=0, description="of the resamples")


class RolloutOptions(Options):
    """The policies' true value in a generated world."""

    users: int = Field(200, ge=0, description="users rolled out; 0: none are")
    days: int = Field(2, ge=1, description="simulated days")
    gamma: float = Field(0.99, ge=0, le=1, description="discount per row within a session")
    seed: int = Field(0, ge=0, description="of users and of all chance")


class ServingOptions(Options):
    """MM-13: what it costs to score one request."""

    candidates: int = Field(400, ge=1, description="candidates of a request [S]")
    requests: int = Field(300, ge=0, description="timed, one at a time; 0: none are")
    warm_up: int = Field(20, ge=0, description="requests scored before, untimed")
    threads: int = Field(1, ge=1, description="of torch")
    programs: tuple[Program, ...] = Field(
        ("eager", "exported"),
        description="of MMRF; the other methods run eagerly. compiled (AOTInductor) needs a C++ compiler",
    )


class Cell(Options):
    """One configuration of a study: a variant of MMRF with some options changed."""

    base: VariantName = Field("mmrf", description="variant whose options are changed")
    model: dict[str, Any] = Field({}, description="options of the networks that differ")
    replay: dict[str, Any] = Field({}, description="options of the replay that differ")
    retrain_days: int | None = Field(
        None, ge=1, description="days of the test part between two trainings (MM-06); null: one"
    )
    against: str | None = Field(
        None, description="cell of the same study it is compared with; null: the run's own model"
    )

    @model_validator(mode="after")
    def _retrained_against_own(self) -> Self:
        if self.retrain_days is not None and self.against is not None:
            raise ValueError(
                "retrain_days: such a cell is compared with the run's own model day by day, leave against out"
            )
        return self


class StudyOptions(Options):
    """MM-02 … MM-12 as configurations; ``run`` names those that are run, whole or cell by cell."""

    run: tuple[str, ...] = Field(
        (), description="experiments, or single cells as experiment.cell, that are run"
    )
    cells: dict[str, dict[str, Cell]] = Field({}, description="experiment → name → configuration")

    @model_validator(mode="after")
    def _known(self) -> Self:
        for named in self.run:
            experiment, _, part = named.partition(".")
            if experiment not in self.cells or (part and part not in self.cells[experiment]):
                raise ValueError(f"run names {named!r}, which cells does not describe")
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


class LostCell(Options):
    """A number that the paper's text at hand lacks; bounds follow if it is the column's second best."""

    method: str = Field(description="row of the table")
    response: str = Field(description="column of the table")
    metric: Literal["gauc", "ncis"] = Field(description="which of the two")
    low: float = Field(description="the column's next number below")
    high: float = Field(description="the column's best")


class PublishedRow(Options):
    """A method's row of Table 1, responses in the order of ``options.AGENTS``; null = lost."""

    gauc: tuple[float | None, ...] = Field(description="GAUC")
    ncis: tuple[float | None, ...] = Field(
        description="NCIS in the responses' units, not the printed scale"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not len(self.gauc) == len(self.ncis) == len(AGENTS):
            raise ValueError(f"a row has one number per response: {', '.join(AGENTS)}")
        return self


class PublishedTable(Options):
    """Block ``mmrf_published``: Table 1 on KuaiRand-1K; a reference only."""

    rows: dict[str, PublishedRow] = Field(description="registry name → numbers")
    lost: tuple[LostCell, ...] = Field((), description="cells that are lost, with bounds")

    @model_validator(mode="after")
    def _lost_is_lost(self) -> Self:
        for cell in self.lost:
            if cell.method not in self.rows or cell.response not in AGENTS:
                raise ValueError(f"lost names {cell.method}/{cell.response}, which rows has not")
            values = getattr(self.rows[cell.method], cell.metric)
            if values[AGENTS.index(cell.response)] is not None:
                raise ValueError(f"{cell.method}/{cell.response}/{cell.metric} is not lost")
        return self


class MMRFSettings(Options):
    """What a track needs of its own; everything else is shared by ``mmrf`` and ``mmrf_top_videos``."""

    command: str = Field(description="shown in the report")
    data: FeedDataOptions = Field(description="track, and how a log becomes decisions")


def changed(options: Options, changes: Mapping[str, Any]) -> Any:  # noqa: ANN401 (the type of ``options``)
    """Options with nested changes.

    Raises:
        pydantic.ValidationError: a key or value is wrong.
    """
    return type(options).model_validate(_merged(options.model_dump(), changes))


def variant_options(
    name: str, model: MMRFOptions, replay: ReplayOptions
) -> tuple[MMRFOptions, ReplayOptions]:
    """Options of MMRF's variant ``name``. Source: METHODS §4.7."""
    changes = MMRF_VARIANTS[name]
    own = {key: value for key, value in changes.items() if key != "replay"}
    return changed(model, own), changed(replay, changes.get("replay", {}))


def cell_options(
    cell: Cell, model: MMRFOptions, replay: ReplayOptions
) -> tuple[MMRFOptions, ReplayOptions]:
    """Options of a study's cell.

    Raises:
        pydantic.ValidationError: a key or value is wrong.
    """
    base, own_replay = variant_options(cell.base, model, replay)
    return changed(base, cell.model), changed(own_replay, cell.replay)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merged(old, value) if both else value  # type: ignore[arg-type]  # both are
    return merged


class MMRFModels(BaselineOptions):
    """Sizes of every method."""

    mmrf: MMRFOptions = Field(MMRFOptions(), description="MMRF and its variants")


class MMRFParameters(MMRFSettings):
    """Block ``mmrf``."""

    work_dir: str = Field(description="folder of unfinished training runs")
    learning: LearningOptions = Field(description="Algorithm 1")
    replay: ReplayOptions = Field(description="what policies learn from")
    models: MMRFModels = Field(description="sizes")
    prediction: PredictionOptions = Field(description="how decisions are scored")
    behaviour: BehaviourOptions = Field(description="model of the policy that logged (§7.2)")
    evaluation: EvaluationOptions = Field(description="metrics and intervals")
    rollout: RolloutOptions = Field(description="true values in a world")
    serving: ServingOptions = Field(description="cost of a request (MM-13)")
    studies: StudyOptions = Field(description="MM-02 … MM-12")

    @model_validator(mode="after")
    def _cells_are_valid(self) -> Self:
        for experiment, cells in self.studies.cells.items():
            for name, cell in cells.items():
                try:
                    cell_options(cell, self.models.mmrf, self.replay)
                except ValueError as error:
                    raise ValueError(f"studies.cells.{experiment}.{name}: {error}") from error
        return self
