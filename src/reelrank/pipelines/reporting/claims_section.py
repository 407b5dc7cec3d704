"""Claims of planted truth, as sections of a page."""

from __future__ import annotations

import polars as pl

from reelrank.pipelines.reporting.site_model import Site
from reelrank.reports.page import Section, Table, plain_table


def claims_sections(site: Site, claims: pl.DataFrame) -> list[Section]:
    """What claims of planted truth say, those that failed first."""
    heading = "Claims of planted truth"
    if claims.is_empty():
        return [Section(heading, "No claims have been tested here; make claims does so.")]
    failed, held = claims.filter(pl.col("failed") > 0), claims.filter(failed=0)
    text = (
        f"Worlds with a planted truth test what the code claims, over several seeds: {claims.height} claims were judged, {failed.height} failed at least once. "
        "A claim that fails is a finding, and stays."
    )
    bad = [_claims_table(site, failed, "Claims that failed")] if failed.height else []
    good = [_claims_table(site, held, "Claims that held")] if held.height else []
    return [Section(heading, text, tables=bad), *([Section("Claims that held", tables=good, folded=True)] if good else [])]  # fmt: skip


def _claims_table(site: Site, claims: pl.DataFrame, caption: str) -> Table:
    names = ["system", "source", "claim", "held", "failed", "low", "high", "n", "code_version", "run_id"]  # fmt: skip
    columns = ["system", "data set", "claim", "held", "failed", "lowest value", "highest value", "least n", "code version", "run"]  # fmt: skip
    body = [[site.system(s).title, site.source_title(d), *rest] for s, d, *rest in claims.select(names).rows()]  # fmt: skip
    return plain_table(caption, columns, body)
