"""A card per trained model."""

from __future__ import annotations

import polars as pl

from reelrank.evaluation.verdicts import matching
from reelrank.pipelines.reporting import drawings
from reelrank.pipelines.reporting import rows as kept
from reelrank.pipelines.reporting.site_model import MODELS, VALUES, Site, kind_of_rows, system_path
from reelrank.reports import theme
from reelrank.reports.page import Link, Section, plain_table
from reelrank.reports.panels import metric_title
from reelrank.reports.site import SitePage


def models_page(site: Site) -> SitePage:
    """A card per trained model."""
    cards = site.shown.filter(VALUES, pl.col("variant").is_in(list(site.options.models)))
    sections = [_card(site, part) for part in cards.partition_by("namespace", "variant", maintain_order=True)]  # fmt: skip
    if not sections:
        sections = [Section("No model", "No trained model has result rows yet.")]
    return SitePage(MODELS, "Model cards", "What each trained model is meant for, what it learnt from, and what it must not be taken for.", sections, kind_of_rows(cards))  # fmt: skip


def _card(site: Site, rows: pl.DataFrame) -> Section:
    namespace, variant = rows.row(0, named=True)["namespace"], rows.row(0, named=True)["variant"]
    system = site.system(namespace)
    generated = kind_of_rows(rows) == "world"
    sources = rows["source"].unique().sort().to_list()
    licences = "; ".join(f"{site.source_title(s)}: {site.licences.get(s, 'not known')}" for s in sources)  # fmt: skip
    first = matching(rows, system.headline) if system.headline else rows.clear()
    told = "; ".join(
        f"{metric_title(r['metric'], r['group'], r['weighting'])} {drawings.value_cell(r).text} {drawings.value_cell(r).detail} (n = {r['n']:,})"
        for r in first.head(4).iter_rows(named=True)
    )
    unreliable = rows.filter(~pl.col("reliable")).height
    body: list[list[object]] = [
        ["intended use", system.use or "study of the method; nothing else was asked of it"],
        ["trained on", f"{', '.join(map(site.source_title, sources))}{' (generated world)' if generated else ''}"],
        ["licence of the data", licences + ("; generated rows are under no licence of the data set" if generated else "")],
        ["measured", told or "see the system's page"],
        ["seeds", kept.listed(rows["seed"])],
        ["run and code version", f"{kept.listed(rows['run_id'])}; {kept.listed(rows['code_version'])}"],
        ["limits", " ".join(filter(None, [system.limits, f"{unreliable} of its {rows.height} numbers are not reliable.", "Nothing is known about real users." if generated else ""]))],
    ]  # fmt: skip
    heading = f"{theme.variant_label(variant)} ({system.title})"
    return Section(heading, site.options.models[variant], tables=[plain_table(f"Card of {heading}", ["about", "this model"], body)], links=[Link(f"Results: {system.title}", system_path(namespace))])  # fmt: skip
