"""Take the README's pictures: the site's front page, MT-DQN's page (desktop, and phone in the dark), and the lineage in Kedro-Viz.

``make screenshots`` builds what is looked at, `kedro run --pipelines reporting` and `kedro viz build`; this needs a Chromium on the path.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
WIDTH, MOST = 1200, 300_000  # pixels, bytes of a picture


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """No access log."""


def chromium() -> str:
    """The program, or an end that says what is missing."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise SystemExit(f"no browser on the path: none of {', '.join(NAMES)}; apt-get install chromium")  # fmt: skip
    return found


def save(page: Page, path: Path) -> None:
    """What the window shows.

    Raises:
        SystemExit: the picture is too large for a README.
    """
    page.screenshot(path=path)
    if path.stat().st_size > MOST:
        raise SystemExit(f"{path} has {path.stat().st_size:,} bytes, more than {MOST:,}: show less of the page")  # fmt: skip


def report(browser: Browser, site: Path, pictures: Path) -> None:
    """The site: its front page, and the results of MT-DQN on a desk and on a phone."""
    for name, file, part, width, height, scheme in (
        ("site", "index.html", "", WIDTH, 1000, "light"),
        ("mt_dqn", "system-mt_dqn.html", "results", WIDTH, 900, "light"),
        ("mt_dqn_phone", "system-mt_dqn.html", "results", 390, 780, "dark"),
    ):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto((site / file).as_uri() + (f"#{part}" if part else ""))
        page.wait_for_timeout(1000)
        save(page, pictures / f"{name}.png")
        page.close()


def lineage(browser: Browser, viz: Path, pictures: Path) -> None:
    """The pipeline mt_dqn in Kedro-Viz, a box per namespace."""
    handler = functools.partial(_Quiet, directory=str(viz))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(viewport={"width": WIDTH, "height": 800})
    page.goto(f"http://127.0.0.1:{server.server_port}/?pid=mt_dqn&expandAllPipelines=false")
    page.locator(".pipeline-node").first.wait_for()
    for hint in page.locator("[class*='feature-hint'] [class*='close']").all():  # a first visit's
        hint.click()
    for shown in ("Hide menu", "Turn minimap off"):  # room for the graph
        page.get_by_label(shown).click()
    page.mouse.move(1150, 400)  # away from the button, which would tell its name
    page.wait_for_timeout(4000)  # the graph flies into place
    save(page, pictures / "lineage.png")
    page.close()
    server.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "data/08_reporting/site/sample")
    parser.add_argument("--viz", type=Path, default=ROOT / "build", help="what `kedro viz build` wrote")  # fmt: skip
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs/pictures")
    given = parser.parse_args()
    for wanted in (given.site / "index.html", given.viz / "index.html"):
        if not wanted.is_file():
            raise SystemExit(f"{wanted} is missing; run `make screenshots`")
    given.pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        report(opened, given.site.resolve(), given.pictures)
        lineage(opened, given.viz, given.pictures)
        opened.close()
