"""Thin nodes: find the rows, look at the tables on disk, draw the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
from pydantic_core import to_jsonable_python

from reelrank.evaluation.stored import answering, read_rows, runs
from reelrank.evaluation.verdicts import Question, verdicts
from reelrank.pipelines.reporting import pages
from reelrank.pipelines.reporting import rows as kept
from reelrank.pipelines.reporting.options import ReportingParameters
from reelrank.pipelines.reporting.site_model import GLOSSARY, NAV, Site
from reelrank.pipelines.reporting.stored_data import describe
from reelrank.pipelines.reporting.tuned import studies
from reelrank.pipelines.reporting.words import explained
from reelrank.reports.site import SitePage, render_site
from reelrank.sources import events, kuairand_schema, kuairec_schema, kuaisar_schema, weibo_schema

LICENCES = {
    "kuairand": kuairand_schema.LICENCE,
    "kuairec": kuairec_schema.LICENCE,
    "kuaisar": kuaisar_schema.LICENCE,
    "weibo": weibo_schema.LICENCES["tianchi"],
    "events": events.LICENCE,
}


def collect_rows(reporting: ReportingParameters) -> pl.DataFrame:
    """Every result row that any run has stored, with its namespace; none is no error."""
    folder = Path(reporting.data_root) / "08_reporting/results" / reporting.kind
    return read_rows(file for files in runs(folder).values() for file in files)


def describe_data(reporting: ReportingParameters) -> dict[str, list[dict[str, Any]]]:
    """Of every data set what is on disk, the reported kind first, then those to compare with."""
    kinds = dict.fromkeys((reporting.kind, *reporting.compared))
    if reporting.kind not in reporting.compared:  # a test run is compared with nothing
        kinds = dict.fromkeys([reporting.kind])
    root = Path(reporting.data_root)
    return {
        source: [describe(root, kind, source) for kind in kinds] for source in reporting.sources
    }


def find_studies(reporting: ReportingParameters) -> list[dict[str, Any]]:
    """Of every study of tuning what it has found."""
    return studies(Path(reporting.data_root), reporting.kind)


def draw(
    rows: pl.DataFrame,
    data: dict[str, Any],
    tuned: list[dict[str, Any]],
    reporting: ReportingParameters,
    experiments: dict[str, Any],
) -> dict[str, str]:
    """Every file of the site.

    Args:
        rows: ``Results`` with ``namespace``.
        data: of :func:`describe_data`.
        tuned: of :func:`find_studies`.
        reporting: what is said of systems, data sets and models, and what was printed.
        experiments: block ``experiments``, for its registry.
    """
    registry = to_jsonable_python(experiments)["registry"]
    questions = {name: _question(entry) for name, entry in registry.items()}
    own = [(name, pipeline) for name, entry in registry.items() for pipeline in _own(entry)]
    systems = kept.of_systems(rows)
    shown = kept.shown(systems)
    site = Site(
        rows=rows,
        shown=shown,
        older=kept.older(systems),
        claims=kept.claims(rows),
        verdicts=verdicts(answering(rows, own), questions),
        questions=questions,
        own=own,
        data=data,
        studies=tuned,
        licences=LICENCES,
        options=reporting,
    )
    drawn = [
        SitePage(p.path, p.title, p.subtitle, explained(p.sections), p.data_kind)
        if p.path != GLOSSARY
        else p
        for p in pages.all_pages(site)
    ]
    newest = rows["run_id"].max() if rows.height else "none"
    meta = {"kind": reporting.kind, "newest run": str(newest), "command": reporting.command}
    return render_site(drawn, NAV, meta, pages.row_files(site))


def _question(entry: dict[str, Any]) -> Question:
    return Question.model_validate({k: v for k, v in entry.items() if k in Question.model_fields})


def _own(entry: dict[str, Any]) -> set[str]:
    """Pipelines whose own runs answer it too."""
    cells = entry.get("cells", {}).values()
    return {c["pipeline"] for c in cells if c.get("rows_of") is None} | {s["pipeline"] for s in entry.get("studies", ())}  # fmt: skip
