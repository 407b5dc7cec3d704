"""What MT-DQN claims on the sample world, judged against planted truth over several seeds: ``make claims``.

Each run is a whole ``kedro run --pipelines mt_dqn`` in ``base`` with its own data folder. The rows are stored like any
results (experiment ``claims``), the page is ``data/08_reporting/report/claims.html``; a claim that fails is shown as such, and
the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import polars as pl
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog, Version
from kedro.io.core import generate_timestamp
from torch import Tensor

from reelrank.datasets import ReportDataset, ResultsDataset
from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.evaluation.uncertainty import Estimate, UserBootstrap
from reelrank.features.events import shuffle_labels
from reelrank.models.inputs import ModelInputs
from reelrank.models.item_tokens import ItemTokens
from reelrank.options import digest
from reelrank.pipelines.mt_dqn.fitting import Tables, restore, train
from reelrank.pipelines.mt_dqn.options import LearningOptions, MTDQNOptions
from reelrank.pipelines.mt_dqn.predict import fusion_tables
from reelrank.reports.page import Section, plain_table, render_page
from reelrank.tables import MODALITIES
from reelrank.training.options import DeviceName, TrainOptions

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
NO_GAIN = 0.02  # margin in NDCG below which a gain counts as vanished
NOISED = "visual"
METRICS = (("true_ndcg@5", "catalogue", ""), ("ndcg@5", "logged", "binary"))


@dataclass(frozen=True)
class Verdict:
    """One claim on one seed."""

    claim: str
    rule: str
    seed: int
    row: ResultRow
    holds: bool


def run(params: Mapping[str, Any], data_root: Path, **kwargs: Any) -> DataCatalog:
    """Run the pipeline in ``base`` and return its catalog."""
    runtime = {**params, "data_root": str(data_root)}
    with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
        session.run(pipeline_names=["mt_dqn"], **kwargs)
    with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
        return session.load_context().catalog


def seeded(seed: int, **world: Any) -> dict[str, Any]:
    """Parameters of one seed: another world, other initial weights."""
    return {
        "worlds": {"kuairand": {"seed": seed, **world}},
        "mt_dqn": {"training": {"seed": seed}},
    }


def gain(catalog: DataCatalog, metric: str, group: str, weighting: str) -> ResultRow:
    """The paired difference of MT-DQN with popularity."""
    rows = catalog["mt_dqn.results"].load()
    row = rows.filter(
        metric=metric, group=group, weighting=weighting, variant="mt_dqn", paired_with="popularity"
    ).row(0, named=True)
    fields = ("variant", "metric", "value", "n", "ci_low", "ci_high", "reliable", "group", "weighting", "paired_with", "p_value")  # fmt: skip
    return ResultRow(**{name: row[name] for name in fields})


class FreshNoise(ItemTokens):
    """Item tokens of which one modality is noise, drawn anew at every reading.

    Noise that is fixed per video, such as a world's ``snr_db: -60``, would not do: it works as the video's id, from which the
    network learns videos by heart, and its gate rises.
    """

    def select(self, items: Tensor) -> Self:
        """The rows of items (M,), noise in place of ``NOISED``."""
        modalities = list(super().select(items).modalities)
        k = MODALITIES.index(NOISED)
        noise = torch.randn_like(modalities[k].x) * modalities[k].mask.unsqueeze(-1)
        modalities[k] = replace(modalities[k], x=noise)
        return type(self)(tuple(modalities))


class NoisyTables(Tables):
    """The tables of a run, read with :class:`FreshNoise`."""

    def model_inputs(self, device: DeviceName = "auto") -> ModelInputs:
        """Inputs whose noised modality tells nothing."""
        inputs = super().model_inputs(device)
        return replace(inputs, items=FreshNoise(inputs.items.modalities))


def gate_change(catalog: DataCatalog, seed: int, work_dir: Path) -> Estimate:
    """Mean change over items of the modality's gate weight when the model is trained and read with noise in its place."""
    tables = NoisyTables(
        *(catalog[f"{name}"].load() for name in ("mt_dqn.events", "kuairand.item_modal", "kuairand.items", "kuairand.users"))
    )  # fmt: skip
    options = {n: catalog[f"params:mt_dqn.{n}"].load() for n in ("learning", "training")}
    training = TrainOptions.model_validate(options["training"])
    checkpoint, _ = train(
        "mt_dqn",
        tables,
        catalog["mt_dqn.lists"].load(),
        model=MTDQNOptions.model_validate(catalog["params:mt_dqn.models.mt_dqn"].load()),
        learning=LearningOptions.model_validate(options["learning"]),
        training=training,
        work_dir=work_dir,
    )
    inputs = tables.model_inputs(training.device)
    noised, _ = fusion_tables(restore(checkpoint, inputs), inputs, block_rows=4096)
    before, after = (
        gates.sort("item_id")[f"gate_{NOISED}"].to_numpy()
        for gates in (catalog["mt_dqn.gates"].load(), noised)
    )
    return UserBootstrap(range(len(before)), seed=seed).mean(range(len(before)), after - before)


def judge(seed: int, scratch: Path) -> Iterator[Verdict]:
    """Every claim on one seed."""
    log.info("seed %d: as it is", seed)
    plain = run(seeded(seed), scratch / "plain")
    for metric in METRICS:
        row = gain(plain, *metric)
        yield Verdict(
            f"MT-DQN's {row.metric} ({row.group}) is above popularity's",
            "the paired 95 % interval lies above 0",
            seed,
            row,
            row.ci_low is not None and row.ci_low > 0,
        )

    log.info("seed %d: labels shuffled", seed)
    folder = scratch / "shuffled"
    prepared = run(seeded(seed), folder, to_nodes=["mt_dqn.assemble", "mt_dqn.describe_sizes"])
    prepared["mt_dqn.events"].save(shuffle_labels(prepared["mt_dqn.events"].load(), seed))
    shuffled = run(seeded(seed), folder, from_inputs=["mt_dqn.events"])
    # Not "equal to a random order": in test it still reads true feedback from the graph, through weights that mean
    # nothing, so its order of items is arbitrary but the same for all, and falls on either side of random.
    for metric in METRICS:
        row = gain(shuffled, *metric)
        yield Verdict(
            f"with train labels shuffled the gain in {row.metric} ({row.group}) vanishes",
            f"the paired 95 % interval lies below +{NO_GAIN}",
            seed,
            row,
            row.ci_high is not None and row.ci_high < NO_GAIN,
        )

    log.info("seed %d: %s replaced by noise", seed, NOISED)
    change = gate_change(plain, seed, scratch / "noised")
    yield Verdict(
        f"with {NOISED} replaced by noise its mean gate weight falls",
        "the 95 % interval over items of the change lies below 0",
        seed,
        ResultRow.from_estimate("mt_dqn", "gate_weight_change", change, group=NOISED),
        change.ci_high < 0,
    )


def page(verdicts: list[Verdict], results: pl.DataFrame) -> str:
    """The claims as one page."""
    rows = [
        [v.claim, v.seed, v.row.value, v.row.ci_low, v.row.ci_high, v.row.n, v.rule, "holds" if v.holds else "FAILS"]
        for v in verdicts
    ]  # fmt: skip
    table = plain_table(
        "Claims by seed", ["claim", "seed", "value", "low", "high", "n", "rule", "verdict"], rows
    )
    held = sum(v.holds for v in verdicts)
    first = results.row(0, named=True)
    return render_page(
        "Claims on planted truth",
        f"{held} of {len(verdicts)} hold. MT-DQN on the KuaiRand sample world, base sizes.",
        [Section("MT-DQN", "Values are MT-DQN minus popularity, or the change of a gate weight. "
                 "Seeds change the world and the initial weights together. Noise is drawn anew at every reading: fixed per video it would be an id.", tables=[table])],
        {
            "run id": first["run_id"],
            "code version": first["code_version"],
            "config hash": first["config_hash"],
            "command": "make claims",
        },
        "world",
    )  # fmt: skip


def main() -> int:
    """Judge every seed, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    arguments = parser.parse_args()
    bootstrap_project(ROOT)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(dir=arguments.data) as scratch:
        for seed in arguments.seeds:
            for verdict in judge(seed, Path(scratch) / str(seed)):
                verdicts.append(verdict)
                log.warning("%s seed %d: %s", "holds" if verdict.holds else "FAILS", seed, verdict.claim)  # fmt: skip
    run_id = generate_timestamp()
    frames = [
        results_frame(
            [v.row], system="mt_dqn", source="kuairand",
            split="kuairand_time/test", seed=v.seed, data_kind="world", experiment="claims",
            config_hash=digest(NO_GAIN, NOISED), cell=f"{v.claim}: {'holds' if v.holds else 'fails'}",
        )
        for v in verdicts
    ]  # fmt: skip
    version = Version(run_id, run_id)
    folder = arguments.data / "08_reporting"
    stored = ResultsDataset(filepath=str(folder / "results" / "sample" / "claims"), version=version)
    stored.save(pl.concat(frames))
    report = folder / "report" / "claims.html"
    ReportDataset(filepath=str(report), version=version).save(page(verdicts, stored.load()))
    log.warning("report: %s", report)
    return int(not all(v.holds for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
