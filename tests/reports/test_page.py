"""One self-contained page: marks generated data, escapes what it is given, refuses what it cannot show."""

import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page

META = {"run id": "r1", "command": "kedro run --pipelines mt_dqn"}
TABLE = plain_table("Counts", ["what", "n", "share"], [["rows", 12345, 0.5], ["none", None, True]])


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.stack, self.text, self.tags = [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.stack.append(tag)

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self.stack:
            self.text.setdefault(self.stack[-1], []).append(data.strip())


def render(kind="world", **section):
    sections = [Section("First part", "One.\n\nTwo.", tables=[TABLE], **section)]
    return render_page("A title", "A subtitle", sections, META, kind)


def test_nothing_is_fetched():
    page = Page(render(figures=[go.Figure(go.Bar(x=[1], y=[2]))]))
    asked = [v for _, attrs in page.tags for k, v in attrs.items() if k in {"src", "href"}]
    assert all(v.startswith("#") for v in asked)
    assert ("meta", "default-src 'none'") in [
        (tag, (attrs.get("content") or "").split(";")[0]) for tag, attrs in page.tags
    ]


@pytest.mark.parametrize(("kind", "badges"), [("world", 2), ("real", 0)])
def test_generated_data_is_marked_in_title_and_captions(kind, badges):
    html = render(kind)
    assert html.count('class="badge"') == badges
    assert ("synthetic data" in html) == (kind == "world")


def test_text_is_escaped_everywhere():
    nasty = "<script>alert(1)</script>"
    table = plain_table(nasty, [nasty, "n"], [[nasty, 1]])
    figure = go.Figure(go.Bar(x=[nasty], y=[1]), layout={"title": {"text": nasty}})
    html = render_page(
        nasty, nasty, [Section(nasty, nasty, [figure], [table], [Fact(nasty, nasty)])], {"a": nasty}, "real"
    )  # fmt: skip
    assert "<script>alert" not in html


def test_numbers_are_aligned_and_sorted_as_numbers_and_words_as_words():
    assert TABLE.words == {0}
    assert [cell.text for cell in TABLE.rows[0]] == ["rows", "12,345", "0.5"]
    assert TABLE.rows[0][1].sort == 12345
    html = render()
    assert re.search(r'<td class="words whole"[^>]*data-sort="rows">', html)
    assert re.search(r'<td class=""[^>]*data-sort="12345">12,345', html)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (Table(" ", ["a"], [[Cell("1")]]), "no caption"),
        (Table("t", ["a", "b"], [[Cell("1")]]), "1 cells, the header 2"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        render_page("t", "s", [Section("h", tables=[table])], META, "real")


def test_paragraphs_contents_and_footer():
    page = Page(render())
    assert {"One.", "Two."} <= set(page.text["p"])
    assert ("a", {"href": "#first-part"}) in page.tags
    assert META["command"] in page.text["code"]
