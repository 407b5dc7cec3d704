"""Trained models in the catalog: safetensors and JSON, nothing that could run code on loading."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from kedro_datasets._typing import JSONPreview

from reelrank.atomic import replace_folder
from reelrank.datasets.versioned import LocalVersionedDataset
from reelrank.training.artifact import ModelCheckpoint


class CheckpointDataset(LocalVersionedDataset[ModelCheckpoint]):
    """A folder with ``best`` and ``last`` weights and the JSON to rebuild the model."""

    def load(self) -> ModelCheckpoint:
        """Read both state dicts and the config."""
        return ModelCheckpoint.read(Path(self._get_load_path()))

    def save(self, data: ModelCheckpoint) -> None:
        """Write a folder beside the target, then rename it."""
        target = Path(self._get_save_path())
        staged = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
        data.write(staged)
        replace_folder(staged, target)

    def preview(self) -> JSONPreview:
        """The config for Kedro-Viz."""
        stored = json.loads((Path(self._get_load_path()) / "best" / "checkpoint.json").read_text())
        return JSONPreview(json.dumps(stored["config"]))
