"""What our versioned datasets share."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from kedro.io.core import AbstractVersionedDataset, Version

T = TypeVar("T")


class LocalVersionedDataset(AbstractVersionedDataset[T, T]):
    """A file or folder on this machine, one per version if ``versioned: true``.

    Args:
        filepath: the file, or with ``versioned: true`` the folder of versions.
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

    def _exists(self) -> bool:
        return Path(self._get_load_path()).exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "version": self._version}
