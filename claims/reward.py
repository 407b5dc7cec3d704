"""Does a term for retention bring users back, and are the cells found in which a reward is chased and users are not? ``make claims``.

MT-DQN of ``base`` on two KuaiRand worlds: in one, users come back for what the immediate reward counts; in the other the immediate reward counts watch time
alone while users come back for what they like, follow and forward, so that only r_retention tells of it. Each is learnt with λ1 = 1 and λ1 = 0
(λ2 = 0). Judged by the true chance of coming back after the five videos that a policy would show. World and first weights change with the seed;
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
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

sys.path.insert(0, str(Path(__file__).parent))
from over_seeds import ABOVE, BELOW, Claim, Page, judge, publish, same

from reelrank.options import digest

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
MARGIN = 0.02  # chance of coming back below which a difference counts as none
WITH, WITHOUT = "λ1 = 1", "λ1 = 0"
NAMES = {"own": WITH, "gamma_0_95_retention_0_0_interest_0_0": WITHOUT}
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
    """What each policy's lists bring, by the truth: ``true_return@5``, ``true_long_view@5``; ``proxy_reward@5`` by what λ1 = 0 learnt, and whether that is hacked."""
    world, seed, data = job
    bootstrap_project(ROOT)
    _, planted, reward = WORLDS[world]
    _, cell = NAMES
    with tempfile.TemporaryDirectory(dir=data) as scratch:
        runtime = {
            "data_root": scratch,
            "worlds": {"kuairand": {**LOG, **planted, "seed": seed}},
            "mt_dqn": {
                "reward": {**reward, "lambda_retention": 1.0, "lambda_interest": 0.0},
                "learning": {"r_max": 3.0},  # 2 + λ1
                "training": {"seed": seed},
                "studies": {"run": ["MT-13.own", f"MT-10.{cell}"]},
            },
        }
        with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
            session.run(pipeline_names=["mt_dqn"], to_nodes=["mt_dqn.study"])
        with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
            rows = session.load_context().catalog["mt_dqn.study_cells"].load()
    rows = rows.filter(group="catalogue")
    plain, paired = (rows.filter(pl.col("paired_with").is_null() == p) for p in (True, False))
    found = {
        (NAMES[row["cell"]], row["metric"]): row["value"]
        for row in plain.iter_rows(named=True)
        if row["metric"].startswith(("true_", "proxy_")) or row["metric"] == "reward_hacking"
    }
    # its own reward, of its lists minus of those with λ1 = 1
    found["proxy", "gain"] = paired.filter(cell=cell, metric="proxy_reward@5")["value"].item()
    log.info("%s seed %d: %s", world, seed, {" ".join(k): round(v, 4) for k, v in found.items()})
    return found


CLAIMS = (
    Claim("apart", (WITH, WITHOUT), "a term for retention brings users back where the immediate reward does not tell of it", ABOVE),
    Claim("aligned", (WITH, WITHOUT), "it changes little where the immediate reward tells of it already", same(MARGIN)),
)  # fmt: skip
PROXY = Claim("apart", (WITHOUT, WITH), "without it the immediate reward is higher", ABOVE)
FALLEN = Claim("apart", (WITHOUT, WITH), "and fewer come back: reward hacking", BELOW)
FOUND = Claim("apart", ("seeds in which the cell is called reward hacking", "half"), "and the cell is found", ABOVE)  # fmt: skip


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
    for claim in (*CLAIMS, FALLEN):
        if claim.world in found:
            own, other = (
                [m[name, "true_return@5"] for m in found[claim.world]] for name in claim.pair
            )
            judged.append(
                judge(claim, own, other, metric="true_return@5", n=len(own), group="catalogue")
            )
    if "apart" in found:
        gain = [m["proxy", "gain"] for m in found["apart"]]
        hacked = [m[WITHOUT, "reward_hacking"] for m in found["apart"]]
        judged.append(
            judge(
                PROXY,
                gain,
                [0.0] * len(gain),
                metric="proxy_reward@5",
                n=len(gain),
                group="catalogue",
            )
        )
        judged.append(
            judge(
                FOUND,
                hacked,
                [0.5] * len(hacked),
                metric="reward_hacking",
                n=len(hacked),
                group="catalogue",
            )
        )
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
