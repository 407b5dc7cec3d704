"""Report pages: every version is kept, the newest lies where people look."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from reelrank.atomic import replace_file
from reelrank.datasets.versioned import LocalVersionedDataset


class ReportDataset(LocalVersionedDataset[str]):
    """One self-contained HTML page.

    A version is stored as ``versions/<run id>/<name>.html``; the newest is also at ``filepath`` itself.
    """

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
