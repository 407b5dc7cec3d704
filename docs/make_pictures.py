"""Take the README's pictures: the report of the newest sample run and the lineage graph.

Needs `pip install playwright` and a Chromium (`CHROMIUM=/usr/bin/chromium`); run `make run` and `kedro viz build` first.
"""

from __future__ import annotations

import functools
import http.server
import os
import threading
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
REPORT = ROOT / "data/08_reporting/report/sample/mt_dqn.html"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """No access log."""


def report(browser: Browser) -> None:
    """The top of the report."""
    page = browser.new_page(viewport={"width": 1100, "height": 1500})
    page.goto(REPORT.as_uri())
    page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / "report.png")


def lineage(browser: Browser) -> None:
    """The mt_dqn pipeline in Kedro-Viz, namespaces collapsed and open."""
    handler = functools.partial(_Quiet, directory=str(ROOT / "build"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(viewport={"width": 1700, "height": 1000})
    page.goto(f"http://127.0.0.1:{server.server_port}/?pid=mt_dqn&expandAllPipelines=true")
    page.wait_for_timeout(5000)
    page.locator(
        "[class*='feature-hint'] [class*='close']"
    ).first.click()  # the tour of a first visit
    page.wait_for_timeout(9000)
    page.screenshot(path=IMAGES / "lineage.png")
    server.shutdown()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        report(opened)
        lineage(opened)
        opened.close()
