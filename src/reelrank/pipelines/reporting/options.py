"""Parameters of the site: where results lie, what each system is, and what its paper printed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options

Selector = str | tuple[str, ...] | None
Comparability = Literal["exact", "approximate", "not_comparable"]
Statistic = Literal["value", "relative_percent"]


class LostCell(Options):
    """A published number that the text at hand lost, and the bounds that its table leaves for it."""

    method: str = Field(description="model")
    response: str = Field(description="column")
    metric: str = Field(description="what of the table; matched with `quantity`")
    low: float = Field(description="lower bound")
    high: float = Field(description="upper bound")
    note: str = Field("", description="what speaks against the bounds")


class PublishedOptions(Options):
    """A table that was printed, and the result rows that answer it."""

    systems: tuple[str, ...] = Field(description="namespaces of result rows that it is set beside")
    title: str = Field(min_length=1, description="what was printed, and where")
    data: str = Field(min_length=1, description="data set of the paper")
    comparability: Comparability = Field(
        description="exact: same public data, same rule known; approximate: same public data, some rule unknown; "
        "not_comparable: private or unavailable data"
    )
    why: str = Field(min_length=1, description="why ours may differ, as sentences")
    statistic: Statistic = Field(
        "value",
        description="value: the number itself; relative_percent: change from `baseline`, in percent of its value",
    )
    baseline: str | None = Field(None, description="model that a relative change is counted from")
    quantity: str = Field("", description="metric by which `lost` names this table's cells")
    where: dict[str, Selector] | None = Field(
        None, description="column of result rows → value or values (* for anything); null: no row of ours answers it"
    )  # fmt: skip
    along: Literal["group", "metric"] = Field(
        "group", description="column of result rows that the table's columns are values of"
    )
    columns: tuple[str, ...] = Field(min_length=1, description="values of `along`")
    scale: float = Field(1.0, gt=0, description="printed number × scale = our unit")
    rows: dict[str, tuple[float | None, ...] | None] = Field(
        description="model → printed numbers; null: not in the text at hand"
    )
    lost: tuple[LostCell, ...] = Field((), description="cells that are lost but bounded")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for model, values in self.rows.items():
            if values is not None and len(values) != len(self.columns):
                raise ValueError(
                    f"{self.title}: row {model} has {len(values)} numbers for {len(self.columns)} columns"
                )
        if (self.statistic == "relative_percent") != (self.baseline is not None):
            raise ValueError(f"{self.title}: a relative change, and nothing else, needs a baseline")
        return self


class RemarkOptions(Options):
    """Something that a paper says which is no number of a table."""

    systems: tuple[str, ...] = Field(description="namespaces of result rows")
    says: str = Field(min_length=1, description="what is claimed")
    found: str = Field(min_length=1, description="what its own numbers say")


class SystemOptions(Options):
    """What a reader should know of a system before its numbers."""

    title: str = Field(min_length=1, description="name")
    about: str = Field(min_length=1, description="what it does, in a sentence or two")
    paper: str = Field("", description="where it was published")
    headline: dict[str, Selector] = Field(
        {}, description="column of result rows → value or values, of the rows that are drawn first"
    )
    use: str = Field("", description="what its models are meant for")
    limits: str = Field("", description="what its models must not be taken for")


class SourceOptions(Options):
    """What a reader should know of a data set."""

    title: str = Field(min_length=1, description="name")
    about: str = Field(min_length=1, description="what it holds")


class ReportingParameters(Options):
    """Block ``reporting``."""

    command: str = Field(description="shown in the footer")
    data_root: str = Field(description="folder of all tables and results")
    kind: str = Field(description="folder under each layer that is reported")
    compared: tuple[str, ...] = Field(
        ("sample", "real"), description="kinds whose tables are set side by side where both exist"
    )
    most_rows: int = Field(
        300, ge=10, description="rows of a table in the page; its CSV file has all"
    )
    most_marks: int = Field(30, ge=2, description="values in one panel of a figure")
    systems: dict[str, SystemOptions] = Field(description="namespace → system")
    sources: dict[str, SourceOptions] = Field(description="source → data set")
    models: dict[str, str] = Field(description="trained model → what it is")
    published: tuple[PublishedOptions, ...] = Field((), description="printed tables")
    remarks: tuple[RemarkOptions, ...] = Field((), description="claims in words")
