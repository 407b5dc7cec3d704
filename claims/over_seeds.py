"""Claims judged over seeds: Student's interval of paired differences against a rule, stored as rows and shown as a page."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from kedro.io import Version
from kedro.io.core import generate_timestamp
from scipy.stats import t as student

from reelrank.datasets import ReportDataset, ResultsDataset
from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.reports.page import Section, plain_table, render_page

log = logging.getLogger("reelrank.claims")
HEADINGS = ["claim", "world", "pair", "difference", "low", "high", "n", "rule", "verdict"]


@dataclass(frozen=True)
class Rule:
    """When a difference's interval bears a claim out.

    Attributes:
        says: in words.
        holds: of its low and high end.
    """

    says: str
    holds: Callable[[float, float], bool]


ABOVE = Rule("the 95 % interval lies above 0", lambda low, _: low > 0)
BELOW = Rule("the 95 % interval lies below 0", lambda _, high: high < 0)


def no_loss(margin: float) -> Rule:
    """Nothing is lost but ``margin``."""
    return Rule(f"the 95 % interval lies above −{margin}", lambda low, _: low > -margin)


def same(margin: float) -> Rule:
    """No difference but ``margin``."""
    return Rule(f"the 95 % interval lies within ±{margin}", lambda low, high: low > -margin and high < margin)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A difference of two cells of a world.

    Attributes:
        world: its name.
        pair: cell, and the one it is compared with.
        says: in words.
        rule: when it holds; None: shown, not judged.
    """

    world: str
    pair: tuple[str, str]
    says: str
    rule: Rule | None


@dataclass(frozen=True)
class Judged:
    """A claim over the seeds; ``holds`` is None where it is not judged."""

    claim: Claim
    row: ResultRow
    holds: bool | None

    @property
    def verdict(self) -> str:
        """In a word."""
        return {None: "shown", True: "holds", False: "fails"}[self.holds]


def judge(
    claim: Claim, own: Sequence[float], other: Sequence[float], *, metric: str, n: int, group: str = ""
) -> Judged:  # fmt: skip
    """Student's interval over the seeds' differences.

    Args:
        claim: what is claimed.
        own: the cell's values, a seed each.
        other: those of the cell it is compared with, the same seeds.
        metric: what was measured.
        n: how much was measured, over all seeds.
        group: on what.

    Raises:
        ValueError: fewer than two seeds, or not as many on both sides.
    """
    if len(own) != len(other) or len(own) < 2:
        raise ValueError(f"{claim.says}: {len(own)} and {len(other)} seeds; an interval needs the same two or more")  # fmt: skip
    difference = np.subtract(own, other)
    mean = float(difference.mean())
    error = difference.std(ddof=1) / len(difference) ** 0.5
    half = float(student.ppf(0.975, len(difference) - 1) * error)
    low, high = mean - half, mean + half
    row = ResultRow(claim.pair[0], metric, mean, n, low, high, group=group, paired_with=claim.pair[1])  # fmt: skip
    return Judged(claim, row, None if claim.rule is None else claim.rule.holds(low, high))


@dataclass(frozen=True)
class Page:
    """What a page says beside the claims.

    Attributes:
        name: of the page and of its rows, such as ``claims_ruie``.
        title: heading.
        lead: behind the count of what holds.
        section: heading over the claims, and what their differences are of.
        more: sections behind the claims.
        command: that makes it.
    """

    name: str
    title: str
    lead: str
    section: tuple[str, str]
    more: Sequence[Section]
    command: str


def publish(judged: Sequence[Judged], page: Page, data: Path, *, system: str, seed: int, config_hash: str, **common: str) -> int:  # fmt: skip
    """Store rows (experiment ``claims``) and page below ``data``; the exit status, 1 if a claim fails.

    Args:
        judged: every claim.
        page: what is said beside them.
        data: the folder of data.
        system: that the claims are about.
        seed: the first one.
        config_hash: of what was run.
        common: source and split, as of ``results_frame``.
    """
    for j in judged:
        log.warning("%s %s: %s: %+.4f [%+.4f, %+.4f]", j.verdict, j.claim.world, j.claim.says, j.row.value, j.row.ci_low, j.row.ci_high)  # fmt: skip
    frames = [
        results_frame([j.row], system=system, data_kind="world", experiment="claims", config_hash=config_hash, seed=seed,
                      cell=f"{j.claim.world} | {j.claim.says}: {j.verdict}", **common)
        for j in judged
    ]  # fmt: skip
    run_id = generate_timestamp()
    version = Version(run_id, run_id)
    folder = data / "08_reporting"
    stored = ResultsDataset(filepath=str(folder / "results" / "sample" / page.name), version=version)  # fmt: skip
    stored.save(pl.concat(frames))
    report = folder / "report" / f"{page.name}.html"
    ReportDataset(filepath=str(report), version=version).save(_rendered(judged, page, stored.load()))  # fmt: skip
    log.warning("report: %s", report)
    return int(any(j.holds is False for j in judged))


def _rendered(judged: Sequence[Judged], page: Page, results: pl.DataFrame) -> str:
    rows = [
        [j.claim.says, j.claim.world, " − ".join(j.claim.pair), j.row.value, j.row.ci_low, j.row.ci_high, j.row.n,
         "" if j.claim.rule is None else j.claim.rule.says, j.verdict.replace("fails", "FAILS")]
        for j in judged
    ]  # fmt: skip
    heading, of = page.section
    counted = [j for j in judged if j.holds is not None]
    first = results.row(0, named=True)
    return render_page(
        page.title,
        f"{sum(bool(j.holds) for j in counted)} of {len(counted)} hold. {page.lead}",
        [Section(heading, of, tables=[plain_table("Claims", HEADINGS, rows)]), *page.more],
        {"run id": first["run_id"], "code version": first["code_version"], "config hash": first["config_hash"], "command": page.command},
        "world",
    )  # fmt: skip
