"""Report pages: every version is kept, the newest lies where people look."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io.core import AbstractVersionedDataset, Version

from reelrank.datasets.atomic import replace_file


class ReportDataset(AbstractVersionedDataset[str, str]):
    """One self-contained HTML page.

    A version is stored as ``versions/<run id>/<name>.html``; the newest is also at ``filepath`` itself.

    Args:
        filepath: where people open the page.
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

    def load(self) -> str:
        """Read the page."""
        return Path(self._get_load_path()).read_text(encoding="utf-8")

    def save(self, data: str) -> None:
        """Store the version, then put the page in its place."""
        for target in (Path(self._get_save_path()), Path(self._filepath)):
            with replace_file(target) as temporary:
                temporary.write_text(data, encoding="utf-8")

    def _get_versioned_path(self, version: str) -> PurePosixPath:
        return self._filepath.parent / "versions" / version / self._filepath.name

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "version": self._version}
