"""Do MT-DQN's comparisons on Weibo outlive another draw of the first weights? ``make claims``.

A run's own intervals resample users and know nothing of how far two trainings of one model lie apart. Here the world and its log stay, and only what
``training.seed`` draws changes, such as first weights, dropout and negatives: MT-DQN of ``base``, the same without its graph (MT-02), Concat-Modal and Vanilla-DQN. Intervals are Student's over the trainings' paired
differences. Rows are stored like any results (experiment ``claims``); a claim that fails is shown as such, and the exit status is 1.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import polars as pl

sys.path.insert(0, str(Path(__file__).parent))
from over_seeds import ABOVE, Claim, Page, judge, publish
from runs import ROOT, run

from reelrank.options import digest
from reelrank.reports.page import Section, plain_table

log = logging.getLogger("reelrank.claims")
PIPELINE, ABLATION = "mt_dqn_weibo", "no_graph"
OTHERS = {
    ABLATION: "its graph is worth something",
    "concat_modal": "it is above Concat-Modal",
    "vanilla_dqn": "it is above Vanilla-DQN",
}
# metric, group, weighting, in words
METRICS = (
    ("ndcg@5", "logged", "binary", "lists of what was shown, by the log's likes, comments and forwards"),
    ("true_ndcg@5", "catalogue", "", "the whole catalogue, by the world's truth"),
)  # fmt: skip


def measure(job: tuple[int, Path]) -> dict[tuple[str, str], float]:
    """Value by model and metric of one training of each."""
    seed, data = job
    with tempfile.TemporaryDirectory(dir=data) as scratch:
        params = {"mt_dqn": {"training": {"seed": seed}, "studies": {"run": [f"MT-02.{ABLATION}"]}}}
        catalog = run(PIPELINE, [f"{PIPELINE}.{node}" for node in ("evaluate", "study")], params, scratch)  # fmt: skip
        models, cells = (catalog[f"{PIPELINE}.{name}"].load() for name in ("study_main", "study_cells"))  # fmt: skip
    found = {}
    for metric, group, weighting, _ in METRICS:
        asked = (pl.col("metric") == metric) & (pl.col("group") == group) & (pl.col("weighting") == weighting) & pl.col("paired_with").is_null()  # fmt: skip
        for model in ("mt_dqn", *OTHERS):
            own = cells.filter(cell=model) if model == ABLATION else models.filter(variant=model)
            found[model, metric] = own.filter(asked)["value"].item()
    log.info("training %d: %s", seed, {" ".join(k): round(v, 4) for k, v in found.items()})
    return found


def main() -> int:
    """Judge every claim, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(8)])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    if len(given.seeds) < 2:
        parser.error("an interval needs at least two seeds")
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        found = [*pool.map(measure, [(seed, given.data) for seed in given.seeds])]
    judged = [
        judge(
            Claim(f"weibo, {group}", ("mt_dqn", other), says, ABOVE),
            [own["mt_dqn", metric] for own in found],
            [own[other, metric] for own in found],
            metric=metric,
            n=len(found),
            group=group,
        )
        for metric, group, *_ in METRICS
        for other, says in OTHERS.items()
    ]
    values = [
        [model, metric, seed, own[model, metric]]
        for metric, *_ in METRICS
        for model in ("mt_dqn", *OTHERS)
        for seed, own in zip(given.seeds, found, strict=True)
    ]
    page = Page(
        "claims_trainings", "Claims over trainings",
        "MT-DQN of base on the Weibo sample world, trained anew from other first weights; world and log are the same.",
        ("MT-DQN", "Differences over trainings: " + "; ".join(f"{metric}: {words}" for metric, *_, words in METRICS) + "."),
        [Section("Trainings", "Every value.", tables=[plain_table("Values", ["model", "metric", "seed", "value"], values)])],
        "python claims/trainings.py",
    )  # fmt: skip
    return publish(
        judged, page, given.data, system="mt_dqn", seed=given.seeds[0], source="weibo", split="kuairand_time_fraction/test",
        config_hash=digest(PIPELINE, ABLATION, METRICS),
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    sys.exit(main())
