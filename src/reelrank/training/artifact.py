"""What training leaves behind: the weights of the best and of the last epoch, and how to rebuild the model.

Nodes name this class in their signatures, so torch is imported only when weights are read or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ModelCheckpoint:
    """A trained model without its class: ``models.registry`` rebuilds it from ``config``."""

    config: Mapping[str, Any]  # JSON: registry name, options, input sizes, data fingerprint
    best: Mapping[str, Tensor]  # state dict of the epoch with the best validation metric
    last: Mapping[str, Tensor]  # state dict of the last epoch

    def write(self, folder: Path) -> None:
        """Write both state dicts as safetensors with the config as JSON beside each."""
        from reelrank.training.checkpoint import save_checkpoint  # noqa: PLC0415 (see module)

        save_checkpoint(folder / "best", self.best, self.config)
        save_checkpoint(folder / "last", self.last, self.config)

    @classmethod
    def read(cls, folder: Path) -> ModelCheckpoint:
        """Read what ``write`` wrote.

        Raises:
            CheckpointError: a file is missing or torn.
        """
        from reelrank.training.checkpoint import load_checkpoint  # noqa: PLC0415 (see module)

        best, config = load_checkpoint(folder / "best")
        last, _ = load_checkpoint(folder / "last")
        return cls(config, best, last)
