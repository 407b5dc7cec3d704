"""Do 95 % intervals hold? The off-policy claim on the sample world with known propensities: ``make claims``.

Logs of n rows are drawn again and again from the world's requests: users, contexts, actions (by the known π_b) and rewards (from the planted
response) are new each time. The share of intervals of SNIPW and DR that hold the planted bandit value must lie within the binomial 99 %
bounds of exact 95 % intervals, for every policy that is judged. With estimated propensities the shortfall is printed and not judged.
Rows are stored like any results (experiment ``claims``); a claim that fails is shown as such, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from kedro.io import Version
from kedro.io.core import generate_timestamp

from reelrank.buckets import EngineOptions
from reelrank.datasets import ReportDataset, ResultsDataset
from reelrank.evaluation.off_policy import BehaviourOptions
from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.options import digest
from reelrank.pipelines.ope_validity.bandit import parts_by_time
from reelrank.pipelines.ope_validity.feed import (
    Feed,
    fit_logging_policy,
    fitted_probabilities,
    read_feed,
)
from reelrank.pipelines.ope_validity.options import BanditOptions
from reelrank.pipelines.ope_validity.population import FloatArray, target_policies, values
from reelrank.pipelines.ope_validity.repetitions import (
    ESTIMATED,
    TRUE,
    coverage_bounds,
    repeat,
    share_interval,
    summarise,
)
from reelrank.reports.page import Section, plain_table, render_page
from reelrank.sources.ingest import LogOptions
from reelrank.sources.kuairand import find_files, ingest
from reelrank.worlds.kuairand import WorldOptions, write_world

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
ESTIMATORS = ("snipw", "dr")
ROWS = 20_000
ROWS_PER_USER = 20
BEHAVIOUR = BehaviourOptions(hidden=(64,), epochs=15, lr=0.002)


@dataclass(frozen=True)
class Verdict:
    """Coverage of one estimator for one policy."""

    row: ResultRow
    cell: str
    bias: float
    reliable_share: float
    holds: bool | None  # None: shown, not judged


def sample_feed(seed: int, scratch: Path) -> Feed:
    """The requests of a sample world of base size."""
    root = write_world(WorldOptions(variant="pure", seed=seed), scratch / "kuairand")
    manifest = find_files(root, "pure", "world")
    tables = ingest(manifest, LogOptions(), EngineOptions(n_buckets=1, staging=scratch / "staging"))
    interactions = tables.interactions.scan().collect()
    return read_feed(manifest, interactions, tables.user_map, tables.item_map, tables.items)


def judge(
    feed: Feed, propensity: FloatArray, cell: str, repetitions: int, seed: int
) -> Iterator[Verdict]:
    """Coverage of every judged estimator and policy; only known propensities are judged."""
    population = feed.population
    policies = target_policies(population, feed.popularity, seed)
    repeated = repeat(
        population, policies, propensity, n=ROWS, repetitions=repetitions,
        rows_per_user=ROWS_PER_USER, replicates=1000, seed=seed, estimators=ESTIMATORS,
    )  # fmt: skip
    low, high = coverage_bounds(repetitions)
    for found in summarise(repeated, values(population, policies)).iter_rows(named=True):
        share = found["ci_coverage"]
        row = ResultRow(
            found["policy"], "ci_coverage", share, repetitions,
            *share_interval(round(share * repetitions), repetitions),
            group=f"n={ROWS}", weighting=found["estimator"], reliable=found["reliable_share"] >= 0.5,
        )  # fmt: skip
        holds = low <= share <= high if cell == TRUE else None
        yield Verdict(row, cell, found["bias"], found["reliable_share"], holds)


def table_rows(verdicts: list[Verdict], seeds: list[int]) -> list[list[object]]:
    """What is printed and shown, a row per verdict."""
    words = {True: "holds", False: "FAILS", None: "shown only"}
    return [
        [v.row.weighting, v.row.variant, v.cell, seed, v.row.value, v.row.n, v.bias, v.reliable_share, words[v.holds]]
        for seed, v in zip(seeds, verdicts, strict=True)
    ]  # fmt: skip


def main() -> int:
    """Judge, print, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--estimated-repetitions", type=int, default=40)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    arguments = parser.parse_args()
    verdicts: list[Verdict] = []
    seeds: list[int] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory(dir=arguments.data) as scratch:
            feed = sample_feed(seed, Path(scratch))
        train, val, _ = parts_by_time(feed, BanditOptions())
        fitted = fit_logging_policy(feed, train, val, BEHAVIOUR)
        for cell, propensity, repetitions in (
            (TRUE, feed.population.behaviour, arguments.repetitions),
            (ESTIMATED, fitted_probabilities(feed, fitted), arguments.estimated_repetitions),
        ):
            log.warning("seed %d, %s: %d logs of %d rows", seed, cell, repetitions, ROWS)
            found = list(judge(feed, propensity, cell, repetitions, seed))
            verdicts += found
            seeds += [seed] * len(found)
    low, high = coverage_bounds(arguments.repetitions)
    columns = ["estimator", "policy", "propensities", "seed", "coverage", "logs", "bias", "flagged reliable", "verdict"]  # fmt: skip
    rows = table_rows(verdicts, seeds)
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_width_chars=160):
        log.warning("bounds %.3f … %.3f\n%s", low, high, pl.DataFrame(rows, columns, orient="row"))
    judged = [v for v in verdicts if v.holds is not None]
    run_id = generate_timestamp()
    frames = [
        results_frame(
            [v.row], system="ope_validity", source="kuairand", split="requests", seed=seed,
            data_kind="world", experiment="claims", config_hash=digest(ROWS, ROWS_PER_USER, BEHAVIOUR),
            cell=f"{v.cell}: {'shown' if v.holds is None else 'holds' if v.holds else 'fails'}",
        )
        for seed, v in zip(seeds, verdicts, strict=True)
    ]  # fmt: skip
    version = Version(run_id, run_id)
    folder = arguments.data / "08_reporting"
    stored = ResultsDataset(filepath=str(folder / "results" / "sample" / "claims_ope"), version=version)  # fmt: skip
    stored.save(pl.concat(frames))
    first = stored.load().row(0, named=True)
    table = plain_table(f"Coverage of 95 % intervals at n = {ROWS:,}", columns, rows)
    text = (
        f"Exact intervals cover in a share between {low:.3f} and {high:.3f} of {arguments.repetitions} logs (binomial, 99 %). "
        f"{sum(bool(v.holds) for v in judged)} of {len(judged)} claims hold. Users, contexts, actions and rewards are drawn anew for each log. "
        "With estimated propensities the shortfall is shown and not judged."
    )
    html = render_page(
        "Claims on off-policy intervals", "KuaiRand sample world, base sizes.",
        [Section("Coverage", text, tables=[table])],
        {
            "run id": first["run_id"], "code version": first["code_version"],
            "config hash": first["config_hash"], "command": "python claims/ope.py",
        },
        "world",
    )  # fmt: skip
    target = folder / "report" / "claims_ope.html"
    ReportDataset(filepath=str(target), version=version).save(html)
    log.warning("report: %s", target)
    return int(not all(v.holds for v in judged))


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    sys.exit(main())
