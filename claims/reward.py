"""Does a term for retention bring users back, and are the cells found in which a reward is chased and users are not? ``make claims``.

MT-DQN of ``base`` on two KuaiRand worlds: in one, users come back for what the immediate reward counts; in the other the immediate reward counts watch time
alone while users come back for what they like, follow and forward, so that only r_retention tells of it. Each is learnt with λ1 = 1, with λ1 = 0
(λ2 = 0 in both), and with λ2 = 1 (λ1 = 0). Judged by the true chance of coming back after the five videos that a policy would show. World and first weights change with the seed;
intervals are Student's over the seeds' paired differences. Rows are stored like any results (experiment ``claims``); a claim that fails is shown as
such, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import polars as pl

sys.path.insert(0, str(Path(__file__).parent))
from over_seeds import ABOVE, BELOW, Claim, Page, judge, publish, same
from runs import ROOT, run

from reelrank.options import digest

log = logging.getLogger("reelrank.claims")
MARGIN = 0.02  # chance of coming back below which a difference counts as none
WITH, WITHOUT, CHASED = "λ1 = 1", "λ1 = 0", "λ2 = 1"
CELLS = {
    "gamma_0_95_retention_0_0_interest_0_0": WITHOUT,
    "gamma_0_95_retention_0_0_interest_1_0": CHASED,
}
# sessions so short that a single video matters for whether somebody comes back
LOG: dict[str, Any] = {"session_rows": 2.0, "request_rows": 2.0, "feedback_rate": 10.0}
WORLDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "aligned": ("users come back for what the immediate reward counts", {}, {}),
    "apart": (
        "the immediate reward counts watch time alone, users come back for what they like, follow and forward",
        {
            "reward": {"watch_ratio": 0.0, "like": 1.0, "follow": 1.0, "comment": 0.0, "forward": 1.0, "hate": -1.0},
            "return_rule": {"intercept": -2.5, "slope": 12.0},
        },
        {"weights": {"watch": 0.5, "like": 0.0, "forward": 0.0, "follow": 0.0, "comment": 0.0, "hate": 0.0}},
    ),
}  # fmt: skip


def measure(job: tuple[str, int, Path]) -> dict[tuple[str, str], float]:
    """By policy and metric: ``true_return@5``, the truth of its lists; ``proxy_gain``, by its own reward, above the lists of λ1 = 1; ``reward_hacking``, whether MT-10 calls it so."""
    world, seed, data = job
    _, planted, reward = WORLDS[world]
    with tempfile.TemporaryDirectory(dir=data) as scratch:
        params = {
            "worlds": {"kuairand": {**LOG, **planted, "seed": seed}},
            "mt_dqn": {
                "reward": {**reward, "lambda_retention": 1.0, "lambda_interest": 0.0},
                "learning": {"r_max": 3.0},  # 2 + λ1
                "training": {"seed": seed},
                "studies": {"run": ["MT-13.own", *(f"MT-10.{cell}" for cell in CELLS)]},
            },
        }
        rows = run("mt_dqn", ["mt_dqn.study"], params, scratch)["mt_dqn.study_cells"].load()
    rows = rows.filter(group="catalogue")
    plain, paired = (rows.filter(pl.col("paired_with").is_null() == p) for p in (True, False))
    found = {
        (name, metric): plain.filter(cell=cell, metric=metric)["value"].item()
        for cell, name in {"own": WITH, **CELLS}.items()
        for metric in ("true_return@5", *(["reward_hacking"] if cell in CELLS else []))
    } | {
        (name, "proxy_gain"): paired.filter(cell=cell, metric="proxy_reward@5")["value"].item()
        for cell, name in CELLS.items()
    }
    log.info("%s seed %d: %s", world, seed, {" ".join(k): round(v, 4) for k, v in found.items()})
    return found


CLAIMS = (
    Claim("apart", (WITH, WITHOUT), "a term for retention brings users back where the immediate reward does not tell of it", ABOVE),
    Claim("aligned", (WITH, WITHOUT), "it changes little where the immediate reward tells of it already", same(MARGIN)),
    Claim("aligned", (CHASED, WITH), "who is paid for what is like the past brings fewer users back", BELOW),
    Claim("apart", (CHASED, WITH), "the same where the immediate reward is watch time alone", None),
)  # fmt: skip
PROXY = Claim("aligned", (CHASED, WITH), "and by its own reward its lists are better: reward hacking", ABOVE)  # fmt: skip
FOUND = Claim("aligned", ("share of seeds in which MT-10 calls it reward hacking", "half"), "and it is found", ABOVE)  # fmt: skip


def main() -> int:
    """Judge every claim, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=[*WORLDS])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    if len(given.seeds) < 2:
        parser.error("an interval needs at least two seeds")
    jobs = [(world, seed, given.data) for world in given.worlds for seed in given.seeds]
    found: dict[str, list[dict[tuple[str, str], float]]] = {}
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        for (world, *_), measured in zip(jobs, pool.map(measure, jobs), strict=True):
            found.setdefault(world, []).append(measured)
    judged = []
    for claim in CLAIMS:
        if claim.world in found:
            own, other = ([m[name, "true_return@5"] for m in found[claim.world]] for name in claim.pair)  # fmt: skip
            judged.append(judge(claim, own, other, metric="true_return@5", n=len(own), group="catalogue"))  # fmt: skip
    for claim, metric, beside in ((PROXY, "proxy_gain", 0.0), (FOUND, "reward_hacking", 0.5)):
        if claim.world in found:
            own = [m[CHASED, metric] for m in found[claim.world]]
            judged.append(judge(claim, own, [beside] * len(own), metric=metric, n=len(own), group="catalogue"))  # fmt: skip
    page = Page(
        "claims_reward", "Claims on the reward", " ".join(f"{name}: {says}." for name, (says, *_) in WORLDS.items()),
        ("Retention", "Differences over seeds of the true chance of coming back within 24 hours after a session of the five videos shown, and of the reward that λ1 = 0 learnt."),
        [], "python claims/reward.py",
    )  # fmt: skip
    return publish(
        judged, page, given.data, system="mt_dqn", seed=given.seeds[0], source="kuairand", split="kuairand_time/test",
        config_hash=digest(MARGIN, LOG, {name: own for name, (_, *own) in WORLDS.items()}),
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    sys.exit(main())
