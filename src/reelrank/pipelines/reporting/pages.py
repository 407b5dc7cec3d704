"""The pages of the site, as page models: frames in, headings, tables and figures out."""

from __future__ import annotations

import polars as pl

from reelrank.evaluation.verdicts import NOT_RUN
from reelrank.pipelines.reporting import tuned
from reelrank.pipelines.reporting.data_pages import data_page
from reelrank.pipelines.reporting.experiment_pages import (
    experiment_page,
    experiment_rows,
    experiments_page,
    experiments_run,
)
from reelrank.pipelines.reporting.front_page import index_page
from reelrank.pipelines.reporting.model_page import models_page
from reelrank.pipelines.reporting.site_model import GLOSSARY, Site, rows_path
from reelrank.pipelines.reporting.system_pages import system_page
from reelrank.pipelines.reporting.validity_page import validity_page
from reelrank.pipelines.reporting.words import glossary
from reelrank.reports.page import Section
from reelrank.reports.site import SitePage


def row_files(site: Site) -> dict[str, str]:
    """CSV files of result rows: shown and older ones of each system, and those of each experiment."""
    parts: dict[str, pl.DataFrame] = {}
    for namespace in site.shown["namespace"].unique().to_list():
        parts[namespace] = site.shown.filter(namespace=namespace)
        history = site.older.filter(namespace=namespace)
        if history.height:
            parts[f"{namespace}-older"] = history
    for name in site.verdicts.filter(pl.col("verdict") != NOT_RUN)["experiment"].unique().to_list():
        parts[f"experiment-{name.lower()}"] = experiment_rows(site, name)
    return {rows_path(name): part.write_csv() for name, part in parts.items()}


def all_pages(site: Site) -> list[SitePage]:
    """Every page."""
    return [
        index_page(site),
        *(system_page(site, n) for n in sorted(site.shown["namespace"].unique().to_list())),
        experiments_page(site),
        *(experiment_page(site, name) for name in experiments_run(site)),
        *(data_page(site, source) for source in site.data),
        validity_page(site),
        models_page(site),
        tuned.tuning_page(site.studies, "real" if site.options.kind == "real" else "world"),
        SitePage(GLOSSARY, "Glossary", "What the words and abbreviations mean.", [Section("Terms", tables=[glossary()])]),
    ]  # fmt: skip
