"""Whether the evaluation itself may be believed."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from reelrank.evaluation.verdicts import NOT_RUN
from reelrank.pipelines.reporting import drawings
from reelrank.pipelines.reporting.experiment_pages import verdict_table
from reelrank.pipelines.reporting.site_model import (
    VALIDITY,
    VALUES,
    Site,
    kind_of_rows,
    rows_path,
    system_path,
)
from reelrank.reports import theme
from reelrank.reports.page import Cell, Section, plain_table
from reelrank.reports.result_tables import JUDGED
from reelrank.reports.site import SitePage

OPE_SYSTEM = "ope_validity"
OPE_METRICS = ("ncis", "snipw", "ipw", "dr", "dm", "piece-ncis", "ncis-trajectory")


def validity_page(site: Site) -> SitePage:
    """Whether the evaluation itself may be believed: verdicts on OP-01…, coverage, and flags of every off-policy value."""
    verdicts = site.verdicts.filter("newest", pl.col("experiment").str.starts_with("OP-"))
    found = verdicts.filter(pl.col("verdict") != NOT_RUN)
    rows = site.shown.filter(namespace=OPE_SYSTEM)
    subtitle = "May an estimate that was made from another policy's log be believed?"
    sections = []
    if rows.is_empty():
        heading = "No run of its own" if found.height else "Not studied"
        sections.append(Section(heading, "Coverage of every estimator is drawn from rows of the pipeline itself, and none were found: kedro run --pipelines ope_validity makes them."))  # fmt: skip
    if found.height:
        sections.append(Section("Verdicts", tables=[verdict_table(found, "Questions to the evaluation")]))  # fmt: skip
    covered = rows.filter(VALUES & pl.col("metric").eq("ci_coverage"))
    for name, part in drawings.blocks(covered):
        sections.append(_coverage_section(name, part, site))
    sections += _flag_sections(site)
    return SitePage(VALIDITY, "Off-policy validity", subtitle, sections, kind_of_rows(rows if rows.height else site.shown))  # fmt: skip


def _coverage_section(name: str, rows: pl.DataFrame, site: Site) -> Section:
    """Coverage at the largest log."""
    size = pl.col("group").str.extract(r"n=(\d+)").cast(pl.Int64)
    largest = rows.filter(size.eq(size.max()) | size.max().is_null())
    judged = largest.filter(pl.col("weighting").is_in(["snipw", "dr"]))
    caption = f"Coverage of 95 % intervals: {name or 'all'}, {largest['group'][0]}"
    drawn = drawings.interval_figures(judged, f"Coverage, {name}", site.options.most_marks) if judged.height else []  # fmt: skip
    text = "Share of repeated logs whose 95 % interval holds the planted value; n counts the logs, and the interval of the share itself is binomial. About 0.95 is right: the line in the figure."
    for figure in drawn:
        figure.add_vline(x=0.95, line={"color": theme.NEUTRAL, "width": 1.5})
    tables = [
        replace(t, note=t.note.replace(JUDGED, "In brackets: 95 % binomial interval. n: repeated logs."))
        for t in drawings.tables_of(largest, caption, site.options.most_rows, rows_path(OPE_SYSTEM))
    ]  # fmt: skip
    return Section(f"Do the intervals hold? {name}", text, drawn, tables)


def _flag_sections(site: Site) -> list[Section]:
    """How many off-policy values of every system may be ranked."""
    values = site.shown.filter(VALUES, pl.col("metric").is_in(OPE_METRICS), pl.col("namespace") != OPE_SYSTEM)  # fmt: skip
    if values.is_empty():
        return []
    counts = values.group_by("namespace", "source", "metric", "code_version", maintain_order=True).agg(
        n=pl.len(), unreliable=(~pl.col("reliable")).sum()
    )  # fmt: skip
    body = [[Cell(site.system(s).title, sort=s, href=system_path(s)), *rest] for s, *rest in counts.rows()]  # fmt: skip
    text = "A value is not reliable if fewer than 200 rows or one in a hundred count effectively, one row has over 5 % of the weight, or the mean weight is further than 0.2 from 1."
    columns = ["system", "data set", "estimator", "code version", "values", "not reliable"]
    return [Section("Off-policy values of the systems", text, tables=[plain_table("Values that may not be ranked", columns, body)])]  # fmt: skip
