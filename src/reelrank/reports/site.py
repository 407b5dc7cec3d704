"""Several pages that belong together: one set of files that links only to itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from plotly.offline import get_plotlyjs

from reelrank.reports.page import DataKind, Link, Section, render_page, table_csv

PLOTLY = "plotly.min.js"


@dataclass(frozen=True, slots=True)
class SitePage:
    """One page before it is HTML; ``path`` is its address from the site's folder."""

    path: str
    title: str
    subtitle: str
    sections: Sequence[Section]
    data_kind: DataKind = "real"


def render_site(
    pages: Sequence[SitePage],
    nav: Sequence[Link],
    meta: Mapping[str, str],
    files: Mapping[str, str],
) -> dict[str, str]:
    """Address → text of every file: pages, a CSV file per table, plotly.js once, and what is handed in.

    Args:
        pages: all in one folder.
        nav: on top of every page.
        meta: the footer of every page.
        files: others that pages link to.

    Raises:
        ValueError: two files of one name, or a link to a file that is not there.
    """
    site = dict(files)
    for page in pages:
        stored = _with_files(page)
        tables = {t.csv: table_csv(t) for s in stored.sections for t in s.tables if t.csv not in files}  # fmt: skip
        drawn = any(section.figures for section in page.sections)
        html = render_page(
            page.title,
            page.subtitle,
            stored.sections,
            meta,
            page.data_kind,
            nav=nav,
            plotly_src=PLOTLY,
        )
        added = {page.path: html, **tables, **({PLOTLY: get_plotlyjs()} if drawn else {})}
        twice = (added.keys() & site.keys()) - {PLOTLY}
        if twice:
            raise ValueError(f"two files of the site are called {sorted(twice)[0]!r}")
        site |= added
    for page in pages:
        missing = [h for h in _addresses(page, nav) if h.partition("#")[0] not in site]
        if missing:
            raise ValueError(f"{page.path} links to {missing[0]!r}, which the site does not have")
    return site


def _with_files(page: SitePage) -> SitePage:
    """Every table that has no file yet gets one."""
    stem = page.path.removesuffix(".html")
    sections = []
    for i, section in enumerate(page.sections, start=1):
        tables = [
            t if t.csv else replace(t, csv=f"tables/{stem}-{i}-{k}.csv")
            for k, t in enumerate(section.tables, start=1)
        ]
        sections.append(replace(section, tables=tables))
    return replace(page, sections=sections)


def _addresses(page: SitePage, nav: Sequence[Link]) -> Iterator[str]:
    yield from (link.href for link in nav)
    for section in page.sections:
        yield from (link.href for link in section.links)
        for table in section.tables:
            yield from (cell.href for row in table.rows for cell in row if cell.href)
