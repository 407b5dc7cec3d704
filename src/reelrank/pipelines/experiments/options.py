"""Parameters of the registry: which question is answered by which runs."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, model_validator

from reelrank.evaluation.verdicts import Question
from reelrank.options import Options

IDENTIFIER = r"^[A-Z]{2}-\d{2}$"


class CellOptions(Options):
    """One node of a system's pipeline, whose result rows answer a question."""

    pipeline: str = Field(description="registered pipeline, whose name is the node's namespace")
    node: str = Field(description="node that makes tables of result rows, without the namespace")
    rows_of: str | None = Field(
        None, description="experiment as the node names it in its rows; null: this one"
    )
    named: str | None = Field(
        None,
        description="put before the cell's name in the rows; tells two sources of the same rows apart",
    )


class StudyOptions(Options):
    """All cells that a system's own parameters describe for this experiment; a cell is a run of one node."""

    pipeline: str = Field(description="registered pipeline")
    node: str = Field("study", description="node that takes the studies, without the namespace")
    block: str | None = Field(
        None, description="parameters that describe the cells; null: <pipeline>.studies"
    )
    by_experiment: bool = Field(
        True,
        description="cells lie under their experiment's id; false: all cells of the block are this experiment's",
    )
    only: tuple[str, ...] = Field(
        (), description="cells that are run; none: all that are described"
    )
    named: str | None = Field(
        None,
        description="put before the names of the cells; tells two sources of the same cell apart",
    )

    def place(self) -> str:
        """Path of the block."""
        return self.block or f"{self.pipeline}.studies"


class ExperimentOptions(Question):
    """A question, and the runs that answer it; what they are is described by their systems' own parameters."""

    cells: dict[str, CellOptions] = Field({}, description="name → node")
    studies: tuple[StudyOptions, ...] = Field((), description="cells that systems describe")
    minutes: float = Field(
        1.0, gt=0, description="guess of a cell's time on two cores, while nothing was measured"
    )

    def own_systems(self) -> set[str]:
        """Pipelines whose own runs answer it too, with rows under its id."""
        own = {cell.pipeline for cell in self.cells.values() if cell.rows_of is None}
        return own | {study.pipeline for study in self.studies}

    @model_validator(mode="after")
    def _runs_or_says_why_not(self) -> Self:
        if not self.cells and not self.studies and self.status is None:
            raise ValueError("an experiment needs cells or studies, or a status that says why not")
        return self


class ExperimentsParameters(Options):
    """Block ``experiments``."""

    project: str = Field(description="folder of the Kedro project")
    environment: str = Field(description="that cells run in")
    folder: str = Field(description="what cells left: tables, logs and times")
    workers: int = Field(1, ge=1, description="cells at a time, each a process")
    prepare_minutes: dict[str, float] = Field(
        {}, description="guess of what the inputs of a pipeline's cells take, from raw files on"
    )
    registry: dict[str, ExperimentOptions] = Field(description="id → experiment")

    @model_validator(mode="after")
    def _known_form(self) -> Self:
        for name in self.registry:
            if not re.match(IDENTIFIER, name):
                raise ValueError(f"registry names {name!r}: an id is like RU-03")
        return self
