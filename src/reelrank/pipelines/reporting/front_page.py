"""The front page: what ran, on what, and what may be believed."""

from __future__ import annotations

import polars as pl

from reelrank.evaluation.verdicts import NOT_RUN
from reelrank.pipelines.reporting import rows as kept
from reelrank.pipelines.reporting.claims_section import claims_sections
from reelrank.pipelines.reporting.experiment_pages import verdict_table
from reelrank.pipelines.reporting.site_model import (
    EXPERIMENTS,
    INDEX,
    Site,
    kind_of_rows,
    source_path,
    source_titles,
    system_path,
)
from reelrank.pipelines.reporting.stored_data import kind_of_report
from reelrank.reports.page import Cell, Fact, Link, Section, Table, plain_table
from reelrank.reports.site import SitePage


def index_page(site: Site) -> SitePage:
    """What ran, on what, and what may be believed."""
    options = site.options
    if site.rows.is_empty():
        text = (
            f"No result rows were found under {options.data_root}/08_reporting/results/{options.kind}. "
            "Run a system first, for example: kedro run --pipelines ruie; then kedro run --pipelines reporting."
        )
        empty = [Section("Nothing has run yet", text), _data_section(site)]
        return SitePage(INDEX, "reelrank: results", "No results yet.", empty)
    shown, failed = site.shown, site.claims.filter(pl.col("failed") > 0)
    unreliable = shown.filter(~pl.col("reliable")).height
    read = site.verdicts.filter("newest", pl.col("verdict") != NOT_RUN)
    facts = [
        Fact("systems", f"{shown['namespace'].n_unique()}", source_titles(site, shown)),
        Fact("numbers shown", f"{shown.height:,}", f"{site.older.height:,} more of earlier runs"),
        Fact("not reliable", f"{unreliable:,}", f"of {shown.height:,}; marked †, not to be ranked"),
        Fact("claims that failed", f"{failed.height}", f"of {site.claims.height} judged"),
        Fact("experiments run", f"{read['experiment'].n_unique()}", f"of {len(site.questions)} in the registry"),
    ]  # fmt: skip
    sections = [
        Section("At a glance", _believe(site), facts=facts),
        Section(
            "What ran",
            "Each line is one system on one data set; the newest run of every cell is shown, and rows of two versions of the code stay in tables of their own.",
            tables=[_runs_table(site)],
        ),
        *claims_sections(site, site.claims),
        _verdict_section(site),
        _data_section(site),
    ]
    return SitePage(
        INDEX,
        "reelrank: results",
        f"Ranking policies from logs of short videos: every result under data/08_reporting/results/{options.kind}.",
        sections,
        kind_of_rows(site.rows),
    )


def _believe(site: Site) -> str:
    kinds = site.shown["data_kind"].unique().to_list()
    parts = []
    if "world" in kinds:
        parts.append(
            "Numbers from a generated world carry the badge “synthetic data”: they check the methods against a known truth and say nothing about real users."
        )
    if "real" in kinds:
        parts.append("Numbers from real rows are about those logs alone.")
    parts.append(
        "† marks a number that rests on too little, or on weights that are too uneven; it must not be ranked. An interval that crosses 0 is no evidence of a difference. "
        "A paper's number is a reference line, never a bar to pass."
    )
    return "\n\n".join(parts)


def _runs_table(site: Site) -> Table:
    body: list[list[object]] = []
    for (namespace, source), part in site.shown.group_by("namespace", "source", maintain_order=True):  # fmt: skip
        old = site.older.filter(namespace=namespace, source=source)["run_id"].unique()
        newest = part.filter(pl.col("run_id") == pl.col("run_id").max())
        title = site.system(str(namespace)).title
        body.append(
            [
                Cell(title, sort=title, href=system_path(str(namespace))),
                Cell(site.source_title(str(source)), sort=str(source), href=source_path(str(source)) if source in site.data else ""),
                "synthetic" if newest["data_kind"][0] == "world" else "real",
                newest["run_id"][0],
                kept.listed(newest["code_version"]),
                kept.listed(part["seed"]),
                part["variant"].n_unique(),
                part.height,
                part.filter(~pl.col("reliable")).height,
                len(set(old) - set(part["run_id"].unique())),
            ]
        )  # fmt: skip
    columns = ["system", "data set", "data", "newest run", "code version", "seeds", "models", "numbers", "not reliable", "earlier runs"]  # fmt: skip
    return plain_table("Systems and data sets", columns, body)


def _verdict_section(site: Site) -> Section:
    rows = site.verdicts.filter("newest", pl.col("verdict") != NOT_RUN)
    waiting = site.verdicts.filter(verdict=NOT_RUN).height
    text = f"{rows.height} experiments have rows; {waiting} have not been run."
    tables = [verdict_table(rows, "Verdicts")] if rows.height else []
    return Section("Experiments", text, tables=tables, links=[Link("All experiments", EXPERIMENTS)])


def _data_section(site: Site) -> Section:
    body: list[list[object]] = []
    for source, kinds in site.data.items():
        newest = kinds[0]
        report = newest["report"]
        title = site.source_title(source)
        body.append(
            [
                Cell(title, sort=title, href=source_path(source)),
                kind_of_report(report),
                report["steps"][0]["rows"] if report else None,
                report["steps"][-1]["rows"] if report else None,
                report.get("users") if report else None,
                report.get("items") if report else None,
            ]
        )
    columns = ["data set", "data", "rows read", "canonical rows", "users", "items"]
    return Section("Data sets", tables=[plain_table("Data sets on disk", columns, body)] if body else [])  # fmt: skip
