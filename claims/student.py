"""Does the small student keep what the teacher of the published widths knows? ``make claims``.

MT-DQN at the widths of ``conf/paper`` (6 layers, 12 heads, d = 768; graph of 3 layers) learns the KuaiRand sample world of ``base``, its products in
bfloat16, and the student of the same file (2 layers, d = 96) learns from it alone. Both rank the catalogue and are judged by the planted expected
reward, on the same resamples of the users; both are timed side by side on a call of one video that was never seen, its fusion done anew, and of one
whose vector is cached. Rows are stored like any results (experiment ``claims``); a claim that fails is shown as such, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from kedro.config import OmegaConfigLoader
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog

sys.path.insert(0, str(Path(__file__).parent))
from over_seeds import ABOVE, Claim, Judged, Page, judge, publish

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.features.rewards import RewardOptions
from reelrank.options import digest
from reelrank.pipelines.compress.distillation import Lesson, distil
from reelrank.pipelines.compress.latency import Server, measure, sizes
from reelrank.pipelines.compress.options import (
    CACHED,
    WHOLE,
    DistillationOptions,
    LatencyOptions,
    StudentOptions,
)
from reelrank.pipelines.mt_dqn import fitting, nodes
from reelrank.pipelines.mt_dqn.options import (
    EvaluateOptions,
    LearningOptions,
    MTDQNOptions,
    PredictOptions,
)
from reelrank.reports.page import Section, plain_table
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
KEPT, FASTER = (
    0.98,
    10.0,
)  # share of the teacher's true NDCG@5, and times as fast, that is asked of it
TABLES = ("mt_dqn.events", "kuairand.item_modal", "kuairand.items", "kuairand.users")
# a smaller rate than that of the narrow network of base [D]; the student learns as in base
TEACHER_TRAINING = {"precision": "bfloat16", "lr": 3e-4, "checkpoint_every_steps": 50}
ROUNDS = 3
PLACE = {"batch": 1, "threads": 1}


def prepared(data_root: Path) -> DataCatalog:
    """Events, features and lists of the sample world."""
    runtime = {"data_root": str(data_root)}
    with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
        session.run(pipeline_names=["mt_dqn"], to_nodes=["mt_dqn.make_lists"])
    with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
        return session.load_context().catalog


def published() -> dict[str, Any]:
    """Parameters of ``conf/paper``."""
    parameters: dict[str, Any] = OmegaConfigLoader(str(ROOT / "conf"), env="paper", base_env="base")["parameters"]  # fmt: skip
    return parameters


def learnt(
    catalog: DataCatalog, seed: int, data: Path
) -> tuple[dict[str, ModelCheckpoint], dict[str, pl.DataFrame]]:
    """Teacher and student, and their histories."""
    paper, work_dir = published(), data / "06_models" / "sample" / ".training"
    tables = [catalog[name].load() for name in TABLES]

    def training(block: str, changes: Mapping[str, Any]) -> TrainOptions:
        own = TrainOptions.model_validate(catalog[f"params:{block}.training"].load())
        return own.model_copy(update={**changes, "seed": seed})

    teacher, teacher_history = fitting.train(
        "mt_dqn",
        fitting.Tables(*tables),
        catalog["mt_dqn.lists"].load(),
        model=MTDQNOptions.model_validate(paper["mt_dqn"]["models"]["mt_dqn"]),
        learning=LearningOptions.model_validate(catalog["params:mt_dqn.learning"].load()),
        training=training("mt_dqn", TEACHER_TRAINING),
        work_dir=work_dir,
    )
    how = DistillationOptions.model_validate(catalog["params:compress.distillation"].load())
    own = training("compress", {})
    student, student_history = distil(
        teacher,
        Lesson.of(teacher, tables, how, own),
        StudentOptions.model_validate(paper["compress"]["student"]),
        own,
        work_dir,
    )
    histories = {"teacher": teacher_history, "student": student_history}
    return {"teacher": teacher, "student": student}, histories


def quality(
    catalog: DataCatalog, models: Mapping[str, ModelCheckpoint]
) -> tuple[list[ResultRow], Judged]:
    """True NDCG@5 of both, and what is kept beyond the bound."""
    tables = [catalog[name].load() for name in TABLES]
    evaluation = EvaluateOptions.model_validate(catalog["params:mt_dqn.evaluation"].load())
    reward = RewardOptions.model_validate(catalog["params:mt_dqn.reward"].load())
    prediction = PredictOptions.model_validate(catalog["params:mt_dqn.prediction"].load())
    training = TrainOptions.model_validate(catalog["params:mt_dqn.training"].load())
    lists = catalog["mt_dqn.lists"].load()
    catalogues = {
        name: nodes.predict(model, *tables, lists, prediction, training)[2]
        for name, model in models.items()
    }
    events, _, items, _ = tables
    truth = nodes.judge_against_truth(
        *(catalog[f"kuairand.{name}"].load() for name in ("raw_manifest", "user_map", "item_map")),
        events, items, evaluation, reward, **catalogues,
    )  # fmt: skip
    test = events.filter(pl.col("split") == "test", pl.col("is_rand") == 0)
    bootstrap = UserBootstrap(test["user_id"], evaluation.replicates, evaluation.seed)
    wide = truth.pivot("variant", index=["context_id", "user_id"], values="value")
    metric = f"true_ndcg@{evaluation.k}"
    found = {
        name: bootstrap.mean(wide["user_id"], wide[name])
        for name in ("teacher", "student", "random")
    }
    rows = [
        ResultRow.from_estimate(name, metric, e, group="catalogue") for name, e in found.items()
    ]
    beyond = bootstrap.mean(wide["user_id"], wide["student"] - KEPT * wide["teacher"])
    claim = Claim("base", ("student", f"{KEPT} × teacher"), f"the student keeps {KEPT:.0%} of the teacher's true NDCG@5", ABOVE)  # fmt: skip
    row = ResultRow.from_estimate("student", metric, beyond, group="catalogue")
    return rows, Judged(claim, row, beyond.ci_low > 0)


def times(
    catalog: DataCatalog, models: Mapping[str, ModelCheckpoint], seed: int
) -> tuple[pl.DataFrame, pl.DataFrame, list[Judged]]:
    """Medians of each round, sizes, and how many times as fast the student is."""
    inputs = fitting.Tables(*(catalog[name].load() for name in TABLES)).model_inputs("cpu")
    test = torch.nonzero((inputs.stream.split == 2) & ~inputs.stream.is_rand).squeeze(1)
    servers = {name: Server(fitting.restore(model, inputs), inputs) for name, model in models.items()}  # fmt: skip
    options = LatencyOptions(requests=300, seconds=2.0, batches=(1, 32), threads=(1, 2), export="none", published=False, seed=seed)  # fmt: skip
    rounds = pl.concat(
        measure(servers, test, options).with_columns(round=pl.lit(number))
        for number in range(ROUNDS)
    )
    judged = []
    for module, rule in ((WHOLE, ABOVE), (CACHED, None)):
        own = rounds.filter(module=module, **PLACE).sort("round")
        median = {name: own.filter(variant=name)["p50_ms"].to_numpy() for name in servers}
        ratio = median["teacher"] / median["student"]
        says = f"a call of one video by one thread is over {FASTER:.0f} times as fast, {module}"
        claim = Claim("base", ("teacher's time / student's", f"{FASTER:.0f}"), says, rule)
        judged.append(judge(claim, ratio, np.full(ROUNDS, FASTER), metric="latency_ratio", n=int(own["n"].sum()), group=module))  # fmt: skip
    sized = pl.concat(sizes(name, server, test) for name, server in servers.items())
    return rounds, sized, judged


def main() -> int:
    """Train, judge, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    bootstrap_project(ROOT)
    with tempfile.TemporaryDirectory(dir=given.data) as scratch:
        catalog = prepared(Path(scratch))
        models, histories = learnt(catalog, given.seed, given.data)
        values, kept = quality(catalog, models)
        rounds, sized, faster = times(catalog, models, given.seed)
    medians = rounds.group_by("module", "batch", "threads", "variant", maintain_order=True).agg(
        pl.col("p50_ms", "p95_ms", "p99_ms").median().round(3), pl.col("n").sum()
    )
    tables = [
        plain_table("Quality", ["network", "metric", "value", "low", "high", "n"],
                    [[r.variant, r.metric, r.value, r.ci_low, r.ci_high, r.n] for r in values]),
        plain_table("Latency, ms, median of the rounds", medians.columns, [list(r) for r in medians.rows()]),
        plain_table("Sizes; MFLOPs of one row", sized.columns, [list(r) for r in sized.rows()]),
    ]  # fmt: skip
    epochs = [
        plain_table(f"Epochs of the {name}", ["epoch", "validation", "seconds"],
                    [[r["epoch"], r[headline], r["seconds"]] for r in h.iter_rows(named=True)])
        for name, h in histories.items()
        for headline in [next(c for c in h.columns if c.startswith("val_"))]
    ]  # fmt: skip
    page = Page(
        "claims_student", "Claims on the student", "KuaiRand sample world, base sizes; networks of the published widths.",
        ("Student", "Differences from the bound: NDCG@5 by the planted expected reward over resamples of the users, times over rounds."),
        [Section("What was measured", "Values and times of both networks.", tables=tables),
         Section("How they learnt", "A row per epoch.", tables=epochs)],
        "python claims/student.py",
    )  # fmt: skip
    parts = (KEPT, FASTER, TEACHER_TRAINING, published()["mt_dqn"]["models"]["mt_dqn"])  # fmt: skip
    return publish(
        [kept, *faster], page, given.data, system="compress", seed=given.seed, config_hash=digest(*parts),
        source="kuairand", split="kuairand_time/test",
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    sys.exit(main())
