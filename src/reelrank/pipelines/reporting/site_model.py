"""What every page of the site is drawn from, and the addresses of pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from reelrank.evaluation.verdicts import Question
from reelrank.pipelines.reporting import rows as kept
from reelrank.pipelines.reporting.options import ReportingParameters, SystemOptions
from reelrank.reports.page import DataKind, Link

INDEX, EXPERIMENTS, VALIDITY = "index.html", "experiments.html", "validity.html"
MODELS, TUNING, GLOSSARY = "models.html", "tuning.html", "glossary.html"
NAV = (
    Link("Overview", INDEX),
    Link("Experiments", EXPERIMENTS),
    Link("Off-policy validity", VALIDITY),
    Link("Models", MODELS),
    Link("Tuning", TUNING),
    Link("Glossary", GLOSSARY),
)
VALUES = kept.VALUES


@dataclass(frozen=True, slots=True)
class Site:
    """All that pages are drawn from."""

    rows: pl.DataFrame  # every stored row, with its namespace
    shown: pl.DataFrame  # newest rows of systems
    older: pl.DataFrame  # their history
    claims: pl.DataFrame
    verdicts: pl.DataFrame
    questions: Mapping[str, Question]
    own: Sequence[tuple[str, str]]  # (experiment, namespace) whose rows answer it
    data: Mapping[str, Sequence[Mapping[str, Any]]]  # source → kinds, the reported one first
    studies: Sequence[Mapping[str, Any]]  # of tuning
    licences: Mapping[str, str]
    options: ReportingParameters

    def system(self, namespace: str) -> SystemOptions:
        """What is said of a system; of an unknown one its name."""
        named = SystemOptions(title=namespace.replace("_", " "), about="No description is given.")
        return self.options.systems.get(namespace, named)

    def source_title(self, source: str) -> str:
        """A data set as readers know it."""
        known = self.options.sources.get(source)
        return known.title if known else source


def system_path(namespace: str) -> str:
    """Address of a system's page."""
    return f"system-{namespace}.html"


def experiment_path(name: str) -> str:
    """Address of an experiment's page."""
    return f"experiment-{name.lower()}.html"


def source_path(source: str) -> str:
    """Address of a data set's page."""
    return f"data-{source}.html"


def rows_path(name: str) -> str:
    """Address of a file of result rows."""
    return f"rows/{name}.csv"


def source_titles(site: Site, rows: pl.DataFrame) -> str:
    """Data sets of some rows, as readers know them."""
    return ", ".join(map(site.source_title, rows["source"].unique().sort()))


def kind_of_rows(rows: pl.DataFrame) -> DataKind:
    """Generated if any row is."""
    return "world" if rows["data_kind"].eq("world").any() else "real"
