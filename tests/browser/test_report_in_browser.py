"""What a reader sees: pages draw, fit a phone, sort, download, and pass axe in light and dark."""

import csv
import io
from itertools import pairwise

import pytest

pytestmark = pytest.mark.browser
PAGES = (
    "index.html", "system-ruie.html", "experiments.html", "experiment-ru-01.html", "data-kuaisar.html", "validity.html", "models.html", "tuning.html",
    "glossary.html", "tables.html", "report.html",
)  # fmt: skip
DRAWN = ("system-ruie.html", "experiment-ru-01.html", "data-kuaisar.html", "report.html")
PLOTS = """[...document.querySelectorAll(".plot")].map((plot) => {
  const [box, drawn] = [plot.querySelector("svg.main-svg").getBoundingClientRect(), plot.querySelectorAll(".point, .js-line, .bars path, .hm image")];
  return {width: box.width, height: box.height, room: plot.clientWidth, marks: drawn.length};
})"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_in_silence_from_disk_alone_and_fits_its_window(show, name, width):
    with show(name, width=width) as opened:
        assert opened.said == []
        assert [url for url in opened.asked if not url.startswith(("file:", "data:", "blob:"))] == []  # fmt: skip
        assert opened.page.evaluate(OVERFLOW) <= 0
        plots = opened.page.evaluate(PLOTS)
    assert bool(plots) == (name in DRAWN)
    for plot in plots:
        assert plot["height"] > 0 and plot["marks"] > 0
        assert 0 < plot["width"] <= plot["room"]


def column(page, caption, i):
    cells = page.locator("figure.table", has_text=caption).first.locator("tbody tr")
    return cells.evaluate_all("(rows, i) => rows.map((row) => row.cells[i].firstChild.textContent)", i)  # fmt: skip


def test_a_click_on_a_head_sorts_by_value_and_what_is_not_known_comes_last(show):
    with show("tables.html") as opened:
        table = opened.page.locator("figure.table", has_text="Numbers").first
        heads = table.locator("thead th")
        assert column(opened.page, "Numbers", 1) == ["10", "9", "–", "1,000"]
        heads.nth(1).locator("button").click()
        assert column(opened.page, "Numbers", 1) == ["9", "10", "1,000", "–"]
        assert heads.nth(1).get_attribute("aria-sort") == "ascending"
        heads.nth(1).locator("button").press("Enter")
        assert column(opened.page, "Numbers", 1) == ["1,000", "10", "9", "–"]
        heads.nth(2).locator("button").click()
        assert column(opened.page, "Numbers", 2) == ["-2.5", "0.001", "0.5", "–"]
        assert heads.nth(1).get_attribute("aria-sort") is None
        heads.nth(0).locator("button").click()
        assert column(opened.page, "Numbers", 0) == ["nine", "none", "ten", "thousand"]


def test_a_long_table_scrolls_under_its_head(show):
    with show("tables.html") as opened:
        box = opened.page.locator("figure.table", has_text="Many").locator(".scroll")
        head = box.locator("thead th").first
        before = head.bounding_box()["y"] - box.bounding_box()["y"]
        assert box.evaluate("(box) => { box.scrollTop = 300; return box.scrollTop; }") == 300
        assert head.bounding_box()["y"] - box.bounding_box()["y"] == pytest.approx(before, abs=1)


def test_the_download_has_the_rows_of_the_table(show):
    with show("system-ruie.html") as opened:
        figure = opened.page.locator("figure.table", has_text="paper against ours").first
        shown = figure.locator("tbody tr").evaluate_all("(rows) => rows.map((row) => [...row.cells].map((cell) => cell.dataset.sort ?? cell.firstChild.textContent))")  # fmt: skip
        with opened.page.expect_download() as waiting:
            figure.get_by_text("Download as CSV").click()
        text = waiting.value.path().read_text(encoding="utf-8")
        assert waiting.value.suggested_filename.endswith(".csv")
    head, *stored = csv.reader(io.StringIO(text))
    kept = [i for i, name in enumerate(head) if not name.endswith(", detail")]
    assert len(shown) == len(stored) > 1
    numbers = [i for i, name in enumerate(head) if name in ("paper", "ours", "n")]
    for seen, row in zip(shown, stored, strict=True):
        for i in numbers:
            assert seen[kept.index(i)] == row[i]


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_in_light_or_dark(show, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed (extra dev)")  # fmt: skip
    told = []
    with show(name) as opened:
        opened.page.locator("details").evaluate_all("(all) => all.forEach((one) => { one.open = true; })")  # fmt: skip
        for scheme in ("light", "dark"):
            opened.page.emulate_media(color_scheme=scheme)
            opened.settle()
            found = axe.Axe().run(opened.page, options={"runOnly": RULES}).response["violations"]
            told += [f"{scheme}: {v['id']} ({v['help']}): {n['target']} {n['failureSummary']}" for v in found for n in v["nodes"]]  # fmt: skip
    assert told == [], "\n".join(told)


def test_dark_and_light_differ_and_figures_follow_a_change(show):
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    ground = "getComputedStyle(document.body).backgroundColor"
    with show("report.html") as opened:
        light = opened.page.evaluate(ink), opened.page.evaluate(ground)
        opened.page.emulate_media(color_scheme="dark")
        opened.settle()
        assert opened.page.evaluate(ink) != light[0]
        assert opened.page.evaluate(ground) != light[1]


def test_the_keyboard_reaches_links_heads_and_boxes_and_each_shows_its_focus(show):
    outline = "[document.activeElement.tagName, document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle, parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
    seen = {}
    with show("tables.html") as opened:
        for _ in range(22):
            opened.page.keyboard.press("Tab")
            tag, name, style, width = opened.page.evaluate(outline)
            seen[tag] = name
            assert tag == "BODY" or (style != "none" and width >= 1), f"{tag} {name}"
    assert {"A", "DIV", "BUTTON", "SUMMARY"} <= seen.keys()
    assert "scroll" in seen["DIV"]


def test_on_paper_everything_is_shown_and_nothing_scrolls(show):
    with show("tables.html", scheme="dark") as opened:
        opened.page.emulate_media(media="print", color_scheme="dark")
        assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"  # fmt: skip
        cut = opened.page.locator(".scroll").evaluate_all("(all) => all.filter((one) => getComputedStyle(one).overflowY !== 'visible').length")  # fmt: skip
        assert cut == 0
        assert len(opened.page.pdf()) > 10_000


def test_names_beside_bars_do_not_overlap_on_a_phone(show):
    boxes = """[...document.querySelectorAll(".plot")].map((plot) => [...plot.querySelectorAll(".yaxislayer-above, .yaxislayer-below")].map(
      (axis) => [...axis.querySelectorAll(".ytick text, [class$=tick] text")].map((text) => { const {top, bottom} = text.getBoundingClientRect(); return [top, bottom]; })))"""
    with show("report.html", width=390) as opened:
        plots = opened.page.evaluate(boxes)
    names = [sorted(axis) for plot in plots for axis in plot if axis]
    assert names
    for axis in names:
        for (_, low), (high, _) in pairwise(axis):
            assert high >= low - 2
