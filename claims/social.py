"""Does attention over the followed users help where they are planted to matter, and only there? ``make claims``.

MT-DQN of ``base`` on the Weibo worlds of ``social_worlds.py``, once with one hop over who follows whom and once as the same network without edges; beside
them a hop over as many edges to anybody. Judged by the average precision of like, comment and forward on test rows. World and first weights change
with the seed; intervals are Student's over the seeds' paired differences. Where a forward is caught from a followed user's, the gain in AP of a model that
is told just that, and only that, beside its own logit is shown, too. Rows are stored like any results (experiment ``claims``); a claim that fails is shown as such, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).parent))
from over_seeds import ABOVE, Claim, Judged, Page, Rule, judge, publish
from social_worlds import LOG, WORLDS, forwarded_by_followed

from reelrank.options import digest
from reelrank.pipelines.mt_dqn import fitting
from reelrank.pipelines.mt_dqn.evaluate import logged_behaviours
from reelrank.pipelines.mt_dqn.options import LearningOptions, MTDQNOptions
from reelrank.pipelines.mt_dqn.predict import predict_impressions
from reelrank.training.options import TrainOptions

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
MARGIN = 0.01  # AP below which a gain counts as none
NETWORKS = {"no edges": {"hops": 0}, "one hop": {"hops": 1}, "to anybody": {"hops": 1}}
TOLD = "no edges, told"
NO_GAIN = Rule(f"the 95 % interval lies below +{MARGIN}", lambda _, high: high < MARGIN)


def measure(job: tuple[str, int, Path]) -> dict[tuple[str, str], float]:
    """AP by network and behaviour, and their mean (``macro``), in one world with one seed."""
    world, seed, data = job
    bootstrap_project(ROOT)
    with tempfile.TemporaryDirectory(dir=data) as scratch:
        runtime = {
            "data_root": scratch,
            "worlds": {"weibo": {**LOG, **WORLDS[world][1], "seed": seed}},
        }
        with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
            session.run(pipeline_names=["mt_dqn_weibo"], to_nodes=["mt_dqn_weibo.make_lists"])
        with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
            catalog = session.load_context().catalog
            events, lists = (catalog[f"mt_dqn_weibo.{n}"].load() for n in ("events", "lists"))
            read = (catalog[f"weibo.{n}"].load() for n in ("item_modal", "items", "users", "social_edges"))  # fmt: skip
            tables = fitting.Tables(events, *read)
            own, learning, training = (
                catalog[f"params:mt_dqn.{n}"].load()
                for n in ("models.mt_dqn", "learning", "training")
            )
            own_edges = tables.social_edges
            assert own_edges is not None
            found: dict[tuple[str, str], float] = {}
            for network, social in NETWORKS.items():
                edges = _to_anybody(own_edges, tables.users.height, seed) if network == "to anybody" else own_edges  # fmt: skip
                read_here = replace(tables, social_edges=edges)
                checkpoint, _ = fitting.train(
                    "mt_dqn",
                    read_here,
                    lists,
                    model=MTDQNOptions.model_validate({**own, "tgnn": {**own["tgnn"], "social": social}}),
                    learning=LearningOptions.model_validate(learning),
                    training=TrainOptions.model_validate({**training, "seed": seed}),
                    work_dir=Path(scratch),
                )  # fmt: skip
                inputs = read_here.model_inputs("cpu")
                said = predict_impressions(fitting.restore(checkpoint, inputs), inputs, 4096)
                found |= {(network, b): ap for b, ap in precision(said, events).items()}
                if network == "no edges":
                    told = forwarded_by_followed(events, own_edges)
                    found[TOLD, "share"] = told_precision(said, events, told)
    log.info("%s seed %d: %s", world, seed, {" ".join(k): round(v, 4) for k, v in found.items()})
    return found


def _to_anybody(edges: pl.DataFrame, n_users: int, seed: int) -> pl.DataFrame:
    """As many followed users of each, drawn from all others."""
    step = np.random.default_rng(seed).integers(1, n_users, edges.height)
    return edges.with_columns(dst=((edges["src"] + pl.Series(step)) % n_users).cast(edges.schema["dst"]))  # fmt: skip


def precision(said: pl.DataFrame, events: pl.DataFrame) -> dict[str, float]:
    """Average precision of each behaviour that is logged, and their mean, on test rows."""
    found = {}
    for behaviour, labels in logged_behaviours(events).items():
        rows = said.select("split", p=f"p_{behaviour}", y=labels.gather(said["position"])).filter(split="test").drop_nulls()  # fmt: skip
        found[behaviour] = float(average_precision_score(rows["y"], rows["p"]))
    return {**found, "macro": float(np.mean([*found.values()]))}


def told_precision(said: pl.DataFrame, events: pl.DataFrame, told: pl.Series) -> float:
    """AP of a forward on test rows by the model's logit and whether a followed user has forwarded the post, weighed on val rows."""
    labels = logged_behaviours(events)["share"]
    rows = said.select("split", p="p_share", y=labels.gather(said["position"]), told=told.gather(said["position"]))  # fmt: skip
    (x_val, y_val), (x, y) = (
        (np.column_stack([logit(own["p"].clip(1e-6, 1 - 1e-6)), own["told"].cast(pl.Float64)]), own["y"])
        for own in (rows.filter(split=s) for s in ("val", "test"))
    )  # fmt: skip
    weighed = LogisticRegression().fit(x_val, y_val)
    return float(average_precision_score(y, weighed.decision_function(x)))


PAIRS = (
    (Claim("taste", ("one hop", "no edges"), "attention over the followed foretells what is done better where taste is taken from them", ABOVE), "macro"),
    (Claim("taste", ("to anybody", "no edges"), "edges to anybody do not, there", NO_GAIN), "macro"),
    (Claim("strangers", ("one hop", "no edges"), "it gains nothing where the followed are strangers", NO_GAIN), "macro"),
    (Claim("post", ("one hop", "no edges"), "it foretells forwards better where a post is caught from a followed user", ABOVE), "share"),
    (Claim("post", (TOLD, "no edges"), "what the fact itself is worth, told beside the logit", None), "share"),
    (Claim("strangers", (TOLD, "no edges"), "the same fact where nothing is caught", None), "share"),
)  # fmt: skip


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
    judged: list[Judged] = []
    for claim, behaviour in PAIRS:
        if claim.world in found:
            own, other = ([m[name, behaviour] for m in found[claim.world]] for name in claim.pair)
            judged.append(judge(claim, own, other, metric="ap", n=len(own), group=behaviour))
    page = Page(
        "claims_social", "Claims on social diffusion", " ".join(f"{name}: {says}." for name, (says, _) in WORLDS.items()),
        ("Who follows whom", "Differences over seeds of the average precision on test rows. States of users are what diffuses: a taste that followed users share is"
         " in them; that one of them forwarded this very post is a fact about a user and a post, which no state of the user alone can hold."),
        [], "python claims/social.py",
    )  # fmt: skip
    return publish(
        judged, page, given.data, system="mt_dqn", seed=given.seeds[0], source="weibo", split="weibo/test",
        config_hash=digest(MARGIN, LOG, {name: own for name, (_, own) in WORLDS.items()}, NETWORKS),
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    sys.exit(main())
