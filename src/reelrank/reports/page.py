"""A report as one HTML file that needs no network: text, tables and figures of one run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import chain
from typing import Any, Literal

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from reelrank.reports import theme

DataKind = Literal["world", "real"]
BADGE = "synthetic data"
SENTENCE, TALL = 40, 16  # characters of a cell, rows of a table


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: what is shown, a second line under it, the value it sorts by (null last), whether it is greyed, and where it leads."""

    text: str
    detail: str = ""
    sort: float | str | None = None
    muted: bool = False
    href: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns of numbers are aligned right, columns of words left."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    csv: str = ""  # address of the same table as a file
    measured: bool = (
        True  # false: it holds no numbers of the data, so a generated world does not mark it
    )

    @property
    def words(self) -> frozenset[int]:
        """Columns that hold words: the first, and those that sort by them."""
        sorts = {i for row in self.rows for i, cell in enumerate(row) if isinstance(cell.sort, str)}
        return frozenset({0} | sorts)

    @property
    def prose(self) -> frozenset[int]:
        """Columns of words that hold whole sentences, which want room."""
        return frozenset(
            i for i in self.words if any(len(row[i].text) > SENTENCE for row in self.rows)
        )

    @property
    def tall(self) -> bool:
        """Whether it scrolls in a box of its own."""
        return len(self.rows) > TALL


@dataclass(frozen=True, slots=True)
class Fact:
    """One number to see first, with its name and what it rests on."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An address and what it is called."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: heading, explanation in plain words (empty lines part paragraphs), then links, facts, tables, figures.

    ``folded`` hides all but the heading until the reader opens it; figures need the room, so a folded section has none.
    """

    heading: str
    text: str = ""
    figures: Sequence[go.Figure] = field(default=())
    tables: Sequence[Table] = field(default=())
    facts: Sequence[Fact] = field(default=())
    links: Sequence[Link] = field(default=())
    folded: bool = False


def render_page(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    meta: Mapping[str, str],
    data_kind: DataKind,
    *,
    nav: Sequence[Link] = (),
    plotly_src: str = "",
) -> str:
    """The page as one string of HTML.

    Args:
        title: of the page; a generated world adds the badge "synthetic data".
        subtitle: one sentence under it.
        sections: in order; their headings are the contents.
        meta: the footer: run id, code version, config hash, and under ``command`` the command that repeats the run.
        data_kind: ``world`` marks the title and every table caption as synthetic.
        nav: other pages of the same site.
        plotly_src: address of plotly.js beside the page; empty: it is written into the page.

    Raises:
        ValueError: a table without a caption, or with rows of another width than its header; a folded section with figures.
    """
    for section in sections:
        if section.folded and section.figures:
            raise ValueError(f"section {section.heading!r} is folded and cannot hold figures")
        for table in section.tables:
            _check_table(table)
    drawn = any(section.figures for section in sections)
    environment = Environment(
        loader=PackageLoader("reelrank.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        badge=BADGE if data_kind == "world" else "",
        sections=_sections(sections),
        meta=meta,
        nav=nav,
        plotly_src=plotly_src,
        drawn=drawn,
        plotly=Markup(get_plotlyjs()) if drawn and not plotly_src else "",
        themes=_script_json({mode: template_json(mode == "dark") for mode in ("light", "dark")}),
    )


def plain_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table of numbers and words; numbers are shown with thousands separators or 4 significant digits."""
    return Table(caption, columns, [[_plain(value) for value in row] for row in rows])


def table_csv(table: Table) -> str:
    """The table as CSV: values as they are sorted, and a second line of a cell in a column of its own."""
    detailed = [any(row[i].detail for row in table.rows) for i in range(len(table.columns))]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [[name, f"{name}, detail"] if more else [name] for name, more in zip(table.columns, detailed, strict=True)]  # fmt: skip
    writer.writerow(chain.from_iterable(names))
    for row in table.rows:
        writer.writerow(chain.from_iterable(_csv(cell, more) for cell, more in zip(row, detailed, strict=True)))  # fmt: skip
    return text.getvalue()


def _csv(cell: Cell, detailed: bool) -> list[object]:
    value = cell.text if cell.sort is None or isinstance(cell.sort, str) else cell.sort
    return [value, cell.detail] if detailed else [value]


def template_json(dark: bool) -> dict[str, Any]:
    """The template as the page's script takes it."""
    loaded: dict[str, Any] = json.loads(theme.template(dark=dark).to_json())
    return loaded


def _plain(value: object) -> Cell:
    match value:
        case Cell():
            return value
        case bool():
            return Cell("yes" if value else "no", sort=int(value))
        case int():
            return Cell(f"{value:,}", sort=value)
        case float():
            return Cell(f"{value:.4g}", sort=value)
        case None:
            return Cell("–", muted=True)
        case _:
            return Cell(str(value), sort=str(value))


def _sections(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """As the template takes them; of two equal headings the later gets a number in its address."""
    seen: dict[str, int] = {}
    shown = []
    for section in sections:
        name = re.sub(r"\W+", "-", section.heading.lower()).strip("-")
        seen[name] = seen.get(name, 0) + 1
        shown.append(_section(section, name if seen[name] == 1 else f"{name}-{seen[name]}"))
    return shown


def _section(section: Section, address: str) -> dict[str, Any]:
    return {
        "id": address,
        "heading": section.heading,
        "paragraphs": [_unbroken(p.strip()) for p in section.text.split("\n\n") if p.strip()],
        "facts": section.facts,
        "links": section.links,
        "folded": section.folded,
        "tables": section.tables,
        "figures": [_figure(figure) for figure in section.figures],
    }


def _figure(figure: go.Figure) -> dict[str, Any]:
    """Title and caption as text (they wrap and can be searched), the rest for the page's script."""
    loaded = json.loads(figure.to_json())
    layout = loaded["layout"]
    title = layout.pop("title", {})
    layout.pop("template", None)  # the page sets the one for the reader's colour scheme
    return {
        "title": title.get("text", ""),
        "caption": title.get("subtitle", {}).get("text", ""),
        "height": layout.get("height", 360),
        "json": _script_json({"data": loaded["data"], "layout": layout}),
    }


def _unbroken(text: str) -> str:
    """A number keeps its percent sign beside it."""
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", text)


def _script_json(value: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def _check_table(table: Table) -> None:
    if not table.caption.strip():
        raise ValueError(f"the table with columns {list(table.columns)} has no caption")
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(
                f"table {table.caption!r}: a row has {len(row)} cells, the header {len(table.columns)}"
            )
