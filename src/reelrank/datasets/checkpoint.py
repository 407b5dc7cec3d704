"""Trained models in the catalog: safetensors and JSON, nothing that could run code on loading."""

from __future__ import annotations

import json
import uuid
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io.core import AbstractVersionedDataset, Version
from kedro_datasets._typing import JSONPreview

from reelrank.datasets.atomic import replace_folder
from reelrank.training.artifact import ModelCheckpoint


class CheckpointDataset(AbstractVersionedDataset[ModelCheckpoint, ModelCheckpoint]):
    """A folder with ``best`` and ``last`` weights and the JSON to rebuild the model.

    Args:
        filepath: the folder, or with ``versioned: true`` the folder of versions.
        version: set by Kedro.
        metadata: anything; Kedro-Viz reads its layer here.
    """

    def __init__(
        self,
        *,
        filepath: str,
        version: Version | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.metadata = metadata
        super().__init__(filepath=PurePosixPath(filepath), version=version)

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

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "version": self._version}
