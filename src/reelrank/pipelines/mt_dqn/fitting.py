"""From tables to a trained model and back: inputs, one training run, and a model rebuilt from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reelrank.features.candidates import availability_ts, item_popularity
from reelrank.models import registry
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.negatives import NegativeSampler
from reelrank.models.policy import RankingModel
from reelrank.options import Options, digest
from reelrank.pipelines.mt_dqn import baselines as _baselines  # noqa: F401 (registers them)
from reelrank.pipelines.mt_dqn import model as _model  # noqa: F401 (registers MT-DQN)
from reelrank.pipelines.mt_dqn import variants as _variants  # noqa: F401 (registers them)
from reelrank.pipelines.mt_dqn.baselines import fit_popularity
from reelrank.pipelines.mt_dqn.learning import learn
from reelrank.pipelines.mt_dqn.options import LearningOptions, PopularityOptions
from reelrank.provenance import code_version
from reelrank.training import ranking
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.checkpoint import cpu_state
from reelrank.training.device import pick_device, seed_everything
from reelrank.training.options import DeviceName, TrainOptions

restore = ranking.restore


@dataclass(frozen=True)
class Tables:
    """What every model of this system reads."""

    events: pl.DataFrame
    item_modal: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    social_edges: pl.DataFrame | None = None  # who follows whom, where the source says so

    def model_inputs(self, device: DeviceName = "auto") -> ModelInputs:
        """Tensors on a device; moments and vocabularies are fitted on train rows (L2)."""
        tables = (self.events, self.item_modal, self.items, self.users)
        return ModelInputs.from_tables(*tables, pick_device(device), self.social_edges)

    def fingerprint(self) -> str:
        """Digest of the tables' contents."""
        tables = [self.events, self.item_modal, self.items, self.users]
        if self.social_edges is not None:
            tables.append(self.social_edges)
        return digest([int(table.hash_rows().sum()) for table in tables])


def train(
    name: str,
    tables: Tables,
    lists: pl.DataFrame,
    *,
    model: Options,
    learning: LearningOptions,
    training: TrainOptions,
    work_dir: Path,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Train one registered model.

    Args:
        name: in ``models.registry``.
        tables: events, items, users.
        lists: evaluation lists; the val part chooses the epoch.
        model: its options.
        learning: targets and losses.
        training: length and rates.
        work_dir: where an unfinished run keeps its state, and is taken up again.

    Returns:
        Checkpoint, and the history with a row per epoch.
    """
    inputs = tables.model_inputs(training.device)
    train_rows = tables.events.filter(pl.col("split") == "train", pl.col("is_rand") == 0)
    popularity = item_popularity(train_rows["item_id"].to_numpy(), tables.items.height)
    available = availability_ts(tables.events, tables.items)
    sampler = NegativeSampler.fit(available, popularity, inputs.device)
    spec = InputSpec.of(inputs)
    seed_everything(training.seed)
    network = registry.build(name, model, spec, RankingModel).to(inputs.device)
    result = learn(
        network,
        inputs,
        lists.filter(pl.col("split") == "val"),
        sampler,
        train=training,
        learning=learning,
        work_dir=work_dir,
        identity={
            "name": name,
            "model": model.model_dump(mode="json"),
            "data": tables.fingerprint(),
            "lists": digest(int(lists.hash_rows().sum())),
            "code": code_version(),
        },
    )
    config = {
        "name": name,
        "options": model.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "learning": learning.model_dump(mode="json"),
        "best_epoch": result.best_epoch,
        "code_version": code_version(),
    }
    history = result.history.select(pl.lit(name).alias("variant"), pl.all())
    return ModelCheckpoint(config, result.best, result.last), history


def popularity(tables: Tables, options: PopularityOptions) -> ModelCheckpoint:
    """Fit popularity in closed form."""
    inputs = tables.model_inputs("cpu")
    fitted = fit_popularity(inputs, options)
    config = {
        "name": "popularity",
        "options": options.model_dump(mode="json"),
        "spec": fitted.spec.model_dump(mode="json"),
        "code_version": code_version(),
    }
    return ModelCheckpoint(config, cpu_state(fitted), cpu_state(fitted))
