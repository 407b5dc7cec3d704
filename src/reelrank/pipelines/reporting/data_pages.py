"""A page per data set: rows from raw files to model input, marginals, world beside real rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reelrank.pipelines.reporting import drawings
from reelrank.pipelines.reporting.site_model import Site, source_path, system_path
from reelrank.pipelines.reporting.stored_data import kind_of_report
from reelrank.reports import figures
from reelrank.reports.page import Cell, Link, Section, plain_table
from reelrank.reports.result_tables import files_table
from reelrank.reports.site import SitePage


def data_page(site: Site, source: str) -> SitePage:
    """Rows from raw files to model input, marginals, and the world beside real rows where both are there."""
    known = site.options.sources.get(source)
    first, kinds = site.data[source][0], site.data[source]
    there = [part for part in kinds if part["report"] or part["marginals"]]
    title = site.source_title(source)
    about = known.about if known else "No description is given."
    licence = f"Licence: {site.licences[source]}." if source in site.licences else ""
    sections = [Section("What it is", f"{about}\n\n{licence}", links=_systems_on(site, source))]
    if not there:
        text = (
            f"No table of {title} is on disk for kind {first['kind']}: its ingestion has not run."
        )
        return SitePage(source_path(source), title, about, [*sections, Section("Nothing on disk", text)])  # fmt: skip
    for part in there:
        sections += _kind_sections(part)
    rated = [(part["kind"], part["marginals"]["rates"]) for part in there if part["marginals"] and part["marginals"]["rates"]]  # fmt: skip
    quantiles = [(p["kind"], q) for p in there if p["marginals"] for q in p["marginals"]["quantiles"]]  # fmt: skip
    if rated:
        both = "Generated and real rows side by side. " if len(rated) > 1 else f"Only kind {rated[0][0]} is on disk, so there is nothing to set beside it. "  # fmt: skip
        rates = [[kind, r["feedback"].replace("_", " "), _rate_cell(r), r["n"]] for kind, rates in rated for r in rates]  # fmt: skip
        columns = ["what", *(["kind"] if len(rated) > 1 else []), "10 % below", "median", "90 % below", "n"]  # fmt: skip
        spread = [[q["what"], *([kind] if len(rated) > 1 else []), *(_quantile_cell(q[p]) for p in ("p10", "p50", "p90")), q["n"]] for kind, q in quantiles]  # fmt: skip
        sections.append(
            Section(
                "Marginals",
                f"{both}Feedback that a source does not log is left out, never counted as zero.",
                [drawings.feedback_rates(rated)],
                [plain_table("How often each feedback is given", ["kind", "feedback", "share of exposures", "n"], rates),
                 plain_table("Quantiles", columns, spread)],
            )
        )  # fmt: skip
    else:
        sections.append(Section("Marginals", "The table of interactions is missing, so nothing can be said of its columns."))  # fmt: skip
    world = any(kind_of_report(part["report"]) == "synthetic" for part in there)
    return SitePage(source_path(source), title, about, sections, "world" if world else "real")


def _kind_sections(part: Mapping[str, Any]) -> Iterator[Section]:
    report, kind = part["report"], part["kind"]
    sizes = [
        [t["layer"], t["table"].replace("_", " "), Cell("missing", muted=True) if t["rows"] is None else t["rows"]]
        for t in part["tables"]
    ]  # fmt: skip
    tables = [plain_table(f"Tables on disk ({kind})", ["layer", "table", "rows"], sizes)] if sizes else []  # fmt: skip
    if report is None:
        yield Section(f"From raw files to model input ({kind})", "The report of ingestion is missing.", tables=tables)  # fmt: skip
        return
    yield Section(
        f"From raw files to model input ({kind})",
        "Rows that are left after each step; nothing is dropped without being counted.",
        [figures.ingestion_steps(report)],
        [plain_table(f"Rows after each step ({kind})", ["step", "rows"], [[s["step"], s["rows"]] for s in report["steps"]]),
         files_table(report), *tables],
    )  # fmt: skip


def _rate_cell(rate: Mapping[str, Any]) -> Cell:
    return drawings.value_cell({**rate, "reliable": True})


def _quantile_cell(value: float) -> Cell:
    return Cell(drawings.number(value), sort=value)


def _systems_on(site: Site, source: str) -> list[Link]:
    names = site.shown.filter(source=source)["namespace"].unique().sort().to_list()
    return [Link(f"Results: {site.system(n).title}", system_path(n)) for n in names]
