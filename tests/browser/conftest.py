"""A small site and a single report in a real browser, without a network."""

import shutil
from pathlib import Path

import pytest
from support import figure_frames
from support.site_rows import draw, store

from reelrank.datasets import SiteDataset
from reelrank.reports.page import Fact, Section, plain_table, render_page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """Chromium, or a skip that says what is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")  # fmt: skip
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on the path: none of {', '.join(NAMES)}")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The site of two runs, ``tables.html``, and ``report.html`` with every kind of figure written into it."""
    site = tmp_path_factory.mktemp("site") / "site"
    SiteDataset(filepath=str(site)).save(draw(store(tmp_path_factory.mktemp("data"))))
    numbers = [["ten", 10, 0.5], ["nine", 9, 1e-3], ["none", None, None], ["thousand", 1000, -2.5]]
    many = [[f"row {k}", k, k / 7] for k in range(40)]
    sections = [
        Section("Facts", "In plain words.", facts=[Fact("rows", "1,234", "of 2,000")]),
        Section("Tables", tables=[plain_table("Numbers", ["name", "count", "share"], numbers), plain_table("Many", ["name", "count", "share"], many)]),
        Section("Folded", tables=[plain_table("Hidden", ["a"], [["x"]])], folded=True),
    ]  # fmt: skip
    drawn = [Section("Figures", figures=figure_frames.figures())]
    for name, parts in (("tables", sections), ("report", drawn)):
        page = render_page("A report", "Of one run.", parts, {"command": "kedro run"}, "world")
        (site / f"{name}.html").write_text(page, encoding="utf-8")
    return site


class Opened:
    """A page with all that it said and asked for."""

    def __init__(self, browser, file: Path, *, width=1280, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme, accept_downloads=True)  # fmt: skip
        self.page = self.context.new_page()
        self.said, self.asked = [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.settle()

    def settle(self):
        """Let what was asked for be drawn: a page draws in the frame after a change."""
        self.page.evaluate(
            "new Promise((done) => { let left = 3; const next = () => (left-- ? requestAnimationFrame(next) : done()); next(); })"
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture(scope="session")
def show(browser, folder):
    """Open a file of the site."""

    def open_file(name, **kwargs):
        return Opened(browser, folder / name, **kwargs)

    return open_file
