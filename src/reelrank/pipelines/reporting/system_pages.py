"""A page per system: facts, paper against ours, figures, tables, claims, history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from reelrank.evaluation.verdicts import matching
from reelrank.pipelines.reporting import drawings, published
from reelrank.pipelines.reporting import rows as kept
from reelrank.pipelines.reporting.claims_section import claims_sections
from reelrank.pipelines.reporting.experiment_pages import experiments_run
from reelrank.pipelines.reporting.options import (
    PublishedOptions,
    SystemOptions,
)
from reelrank.pipelines.reporting.site_model import (
    Site,
    experiment_path,
    kind_of_rows,
    rows_path,
    source_titles,
    system_path,
)
from reelrank.reports import theme
from reelrank.reports.page import Cell, Fact, Link, Section, Table, plain_table
from reelrank.reports.site import SitePage

COMPARABLE = {
    "exact": "exact: same public data, same rule known",
    "approximate": "approximate: same public data, some rule unknown",
    "not_comparable": "not comparable: private or unavailable data",
}


def system_page(site: Site, namespace: str) -> SitePage:
    """Facts, paper against ours, figures, tables, claims and history of one system."""
    system, rows = site.system(namespace), site.shown.filter(namespace=namespace)
    history = site.older.filter(namespace=namespace)
    newest = rows.filter(pl.col("run_id") == pl.col("run_id").max())
    unreliable = rows.filter(~pl.col("reliable")).height
    facts = [
        Fact("numbers", f"{rows.height:,}", f"{unreliable:,} not reliable"),
        Fact("models", f"{rows['variant'].n_unique()}", f"seeds {kept.listed(rows['seed'])}"),
        Fact("data", source_titles(site, rows), "generated" if kind_of_rows(rows) == "world" else "real rows"),
        Fact("newest run", str(newest["run_id"][0])[:10], f"code {kept.listed(newest['code_version'])}"),
    ]  # fmt: skip
    links = [Link("All numbers shown here, as CSV", rows_path(namespace))]
    if history.height:
        links.append(Link("Numbers of earlier runs, as CSV", rows_path(f"{namespace}-older")))
    experiments = [n for n in experiments_run(site) if n in set(rows["experiment"].drop_nulls())]
    links += [Link(f"Experiment {name}", experiment_path(name)) for name in experiments]
    sections = [
        Section("What it is", _about(system), facts=facts, links=links),
        *_paper_sections(site, namespace, rows),
        *_headline_sections(site, namespace, rows),
    ]
    claims = site.claims.filter(system=str(rows["system"][0]))
    if claims.height:
        sections += claims_sections(site, claims)
    if history.height:
        sections.append(_history_section(history, system))
    return SitePage(
        system_path(namespace), system.title, system.about, sections, kind_of_rows(rows)
    )


def _about(system: SystemOptions) -> str:
    limits = f"Limits: {system.limits}" if system.limits else ""
    return "\n\n".join(p for p in (f"Published as: {system.paper}" if system.paper else "", limits) if p)  # fmt: skip


def _headline_sections(site: Site, namespace: str, rows: pl.DataFrame) -> list[Section]:
    """What is drawn first, and the whole block that it stands in."""
    wanted = {"paired_with": ("*",), **site.system(namespace).headline}
    first = pl.concat([matching(rows, site.system(namespace).headline), matching(rows, wanted)]).unique(maintain_order=True)  # fmt: skip
    if not site.system(namespace).headline or first.is_empty():
        table = drawings.long_table(rows, "Numbers", site.options.most_rows, rows_path(namespace))
        return [Section("Numbers", "No headline is named for this system, or no row answers it.", tables=[table])]  # fmt: skip
    sections = []
    for name, part in drawings.blocks(first):
        whole = rows.join(part.select(drawings.APART).unique(), on=drawings.APART, how="semi", nulls_equal=True)  # fmt: skip
        heading = f"Results: {name}" if name else "Results"
        origin = f"Code version {part['code_version'][0]}, run {part['run_id'][0]}."
        sections.append(
            Section(
                heading,
                f"{origin} Dots and bars carry 95 % intervals; pale ones are not reliable. Paired differences compare two models on the same rows.",
                figures=drawings.headline_figures(part, site.options.most_marks),
                tables=drawings.tables_of(whole, heading, site.options.most_rows, rows_path(namespace)),
            )
        )  # fmt: skip
    return sections


def _history_section(history: pl.DataFrame, system: SystemOptions) -> Section:
    """Earlier runs, each for itself."""
    runs = (
        history.group_by("run_id", "code_version")
        .agg(
            pl.col("config_hash").unique().sort().str.join(", "),
            pl.col("seed").unique().sort().cast(pl.String).str.join(", "),
            rows=pl.len(),
        )
        .sort("run_id", "code_version", descending=True)
    )
    tables = [plain_table("Earlier runs", ["run", "code version", "config hash", "seeds", "numbers"], runs.rows())]  # fmt: skip
    first = matching(history, system.headline) if system.headline else history.clear()
    for (run_id, version), part in first.group_by("run_id", "code_version", maintain_order=True):
        caption = f"Headline of run {run_id}, code version {version}"
        tables.append(drawings.long_table(part, caption, 60, ""))
    text = "Numbers that a newer run has replaced, by version of the code. They are in no table and in no mean above."
    return Section("Earlier runs and versions of the code", text, tables=tables, folded=True)


def _paper_sections(site: Site, namespace: str, rows: pl.DataFrame) -> list[Section]:
    """Paper against ours, a section for all tables that differ from ours for the same reasons."""
    together: dict[tuple[str, str, str, str], list[Table]] = {}
    for table in site.options.published:
        if namespace not in table.systems:
            continue
        parts = rows.partition_by("source", maintain_order=True) if table.where else [rows.clear()]
        for part in parts:
            source = "" if part.is_empty() else site.source_title(str(part["source"][0]))
            key = (table.data, source, table.comparability, table.why)
            together.setdefault(key, []).append(_paper_table(table, part))
    sections = [
        Section(
            f"Paper against ours: {data}{f', beside {source}' if source else ', without a counterpart'}",
            f"{f'Beside ours on {source}. ' if source else ''}Comparability: {COMPARABLE[comparability]}. Why they may differ: {why}",
            tables=tables,
        )
        for (data, source, comparability, why), tables in together.items()
    ]
    remarks = [[r.says, r.found] for r in site.options.remarks if namespace in r.systems]
    if remarks:
        said = plain_table("Said in words", ["the paper says", "its own numbers say"], remarks)
        sections.append(
            Section("What the paper says in words", tables=[replace(said, measured=False)])
        )
    if not sections:
        return [Section("Paper against ours", "No published number is known for this system.")]
    return sections


def _paper_table(table: PublishedOptions, rows: pl.DataFrame) -> Table:
    found = published.against(rows, table)
    lost = found.filter(pl.col("printed").is_null()).height
    compared = found.filter(pl.col("difference").is_not_null()).height
    change = table.statistic == "relative_percent"
    columns = ["model", "what", f"paper{' (change, %)' if change else ''}", f"ours{' (change, %)' if change else ''}",
               "ours − paper", "in % of the paper's", "n", "comparability"]  # fmt: skip
    note = f"Printed: {found.height}; of these beside a number of ours: {compared}."
    if lost:
        note += f" Lost or not in the text at hand: {lost}; bounds follow if the cell was its column's second best."
    note += " In brackets: 95 % interval; where ours is a change the baseline counts as known."
    body = [_paper_row(row, table) for row in found.iter_rows(named=True)]
    return Table(f"{table.title}: paper against ours", columns, body, note, measured=compared > 0)


def _paper_row(row: Mapping[str, Any], table: PublishedOptions) -> list[Cell]:
    model = theme.variant_label(row["model"])
    if table.baseline:
        model += f" against {theme.variant_label(table.baseline)}"
    column = row["column"].replace("_", " ")
    return [
        Cell(model, sort=model),
        Cell(column, sort=column),
        _printed_cell(row),
        _ours_cell(row, table),
        _gap_cell(row["difference"], ""),
        _gap_cell(row["relative"], " %"),
        Cell("–", muted=True) if row["n"] is None else Cell(f"{row['n']:,}", sort=row["n"]),
        Cell(table.comparability.replace("_", " "), sort=table.comparability),
    ]


def _printed_cell(row: Mapping[str, Any]) -> Cell:
    if row["printed"] is not None:
        return Cell(drawings.number(row["printed"]), sort=row["printed"])
    if row["bound_low"] is None:
        return Cell("lost", "not in the text at hand", muted=True)
    bounds = f"between {drawings.number(row['bound_low'])} and {drawings.number(row['bound_high'])}"
    return Cell("lost", f"{bounds}. {row['note']}".removesuffix(". "), muted=True)


def _ours_cell(row: Mapping[str, Any], table: PublishedOptions) -> Cell:
    if row["answers"] > 1:
        return Cell("ambiguous", f"{row['answers']} rows fit; narrow `where`", muted=True)
    if row["answers"] == 0:
        return Cell("not run" if table.where else "no counterpart", muted=True)
    return drawings.value_cell({**row, "value": row["ours"]})


def _gap_cell(value: float | None, unit: str) -> Cell:
    return Cell("–", muted=True) if value is None else Cell(f"{drawings.number(value, '+')}{unit}", sort=value)  # fmt: skip
