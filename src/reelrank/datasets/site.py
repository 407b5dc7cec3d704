"""A site: a folder of pages, replaced as a whole."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from reelrank.atomic import replace_folder


class SiteDataset(AbstractDataset[dict[str, str], dict[str, str]]):
    """Address → text of every file under one folder; an interrupted save leaves the former site.

    Args:
        filepath: the folder.
        metadata: anything; Kedro-Viz reads its layer here.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> dict[str, str]:
        """Read every file."""
        files = sorted(file for file in self._folder.rglob("*") if file.is_file())
        return {str(f.relative_to(self._folder)): f.read_text(encoding="utf-8") for f in files}

    def save(self, data: dict[str, str]) -> None:
        """Write all files beside the folder, then take its place."""
        staged = self._folder.with_name(f".{self._folder.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            for address, text in data.items():
                file = staged / address
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            replace_folder(staged, self._folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _exists(self) -> bool:
        return (self._folder / "index.html").exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._folder)}
