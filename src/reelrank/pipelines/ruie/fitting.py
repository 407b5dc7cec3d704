"""From tables to a trained model and back: inputs, one training run, and a model rebuilt from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch

from reelrank.models import registry
from reelrank.models.sequence_data import Sequences
from reelrank.options import Options, digest
from reelrank.pipelines.ruie import model as _model  # noqa: F401 (registers RUIE)
from reelrank.pipelines.ruie.baselines import PopularityModel
from reelrank.pipelines.ruie.learning import learn
from reelrank.pipelines.ruie.protocol import SequenceModel, SequenceSpec
from reelrank.pipelines.ruie.ranking import IntArray, ranked_frame
from reelrank.pipelines.ruie.run_options import LearningOptions, RankingOptions
from reelrank.provenance import code_version
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.checkpoint import cpu_state
from reelrank.training.device import pick_device, seed_everything
from reelrank.training.options import DeviceName, TrainOptions

REGISTERED = {"popularity": "popularity_of_items"}  # another system holds the short name


@dataclass(frozen=True)
class SequenceTables:
    """What every model of this system reads.

    Attributes:
        events: of ``features.sequences.sequence_events``, by (user, time).
        items: item (code), item_id, available_ts.
        scenarios: scenario (code), raw_scenario.
        n_users: users, those without an event included.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    scenarios: pl.DataFrame
    n_users: int

    @classmethod
    def of(
        cls, events: pl.DataFrame, items: pl.DataFrame, scenarios: pl.DataFrame
    ) -> SequenceTables:
        """Tables as the catalog keeps them."""
        n_users = 1 + int(events["user_id"].max())  # type: ignore[arg-type]
        return cls(events.sort("user_id", "ts_ms", "row_id"), items, scenarios, n_users)

    def sequences(self, device: DeviceName = "auto") -> Sequences:
        """Tensors on a device."""
        log = Sequences.from_frame(
            self.events, self.n_users, self.items.height, self.scenarios.height
        )
        return log.to(pick_device(device))

    @property
    def available(self) -> IntArray:
        """(I,) time from which each item competes, UTC epoch ms (L7)."""
        return self.items["available_ts"].to_numpy()

    def fingerprint(self) -> str:
        """Digest of the tables' contents."""
        tables = (self.events, self.items, self.scenarios)
        return digest([int(table.hash_rows().sum()) for table in tables])


def train(
    variant: str,
    tables: SequenceTables,
    *,
    model: Options,
    learning: LearningOptions,
    training: TrainOptions,
    ranking: RankingOptions,
    work_dir: Path,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """Train one registered model.

    Args:
        variant: its name.
        tables: events, items, scenarios.
        model: its options.
        learning: what all models are given alike.
        training: length and rates.
        ranking: blocks of the ranking that chooses the epoch.
        work_dir: where an unfinished run keeps its state, and is taken up again.

    Returns:
        Checkpoint, and the history with a row per epoch.
    """
    log = tables.sequences(training.device)
    spec = SequenceSpec.of(log, learning.length)
    seed_everything(training.seed)
    network = registry.build(variant, model, spec, SequenceModel).to(log.user.device)
    result = learn(
        network,
        log,
        tables.available,
        learning=learning,
        training=training,
        ranking=ranking,
        work_dir=work_dir,
        identity={
            "name": variant,
            "model": model.model_dump(mode="json"),
            "data": tables.fingerprint(),
            "code": code_version(),
        },
    )
    config = {
        "name": variant,
        "options": model.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "learning": learning.model_dump(mode="json"),
        "parameters": sum(p.numel() for p in network.parameters()),
        "best_epoch": result.best_epoch,
        "code_version": code_version(),
    }
    history = result.history.select(pl.lit(variant).alias("variant"), pl.all())
    return ModelCheckpoint(config, result.best, result.last), history


def popularity(tables: SequenceTables, model: Options, length: int) -> ModelCheckpoint:
    """Fit popularity in closed form."""
    log = tables.sequences("cpu")
    spec = SequenceSpec.of(log, length)
    name = REGISTERED["popularity"]
    fitted = registry.build(name, model, spec, PopularityModel)
    fitted.fit(log)
    config = {
        "name": name,
        "options": model.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
        "code_version": code_version(),
    }
    return ModelCheckpoint(config, cpu_state(fitted), cpu_state(fitted))


def restore(checkpoint: ModelCheckpoint, device: torch.device) -> SequenceModel:
    """The model of a checkpoint with its best weights, ready to predict."""
    config = checkpoint.config
    network = registry.build(config["name"], config["options"], config["spec"], SequenceModel)
    network.load_state_dict(dict(checkpoint.best))
    return network.to(device).eval()


def predict(
    checkpoint: ModelCheckpoint,
    tables: SequenceTables,
    ranking: RankingOptions,
    device: DeviceName,
) -> pl.DataFrame:
    """Places of every val and test event; see ``ranking.ranked_frame``."""
    log = tables.sequences(device)
    model = restore(checkpoint, log.user.device)
    return ranked_frame(tables.events, model, log, tables.available, ranking)
