"""Parquet tables written whole or not at all, versioned if asked."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import polars as pl
from kedro.io.core import VersionNotFoundError
from kedro_datasets._typing import TablePreview

from reelrank.atomic import replace_file
from reelrank.datasets.versioned import LocalVersionedDataset


class TableDataset(LocalVersionedDataset[pl.DataFrame]):
    """One Polars frame in one Parquet file."""

    def load(self) -> pl.DataFrame:
        """Read the frame."""
        return pl.read_parquet(Path(self._get_load_path()))

    def save(self, data: pl.DataFrame) -> None:
        """Write to a temporary file beside the target, then rename."""
        with replace_file(Path(self._get_save_path())) as temporary:
            data.write_parquet(temporary)

    def preview(self, nrows: int = 20) -> TablePreview:
        """First rows for Kedro-Viz; lists are shown by their first values."""
        frame = pl.scan_parquet(Path(self._get_load_path())).head(nrows).collect()
        return table_preview(frame)


class ResultsDataset(TableDataset):
    """Result rows, one file per run: ``<folder>/<run id>.parquet`` (ARCHITECTURE choice 6).

    The run id is Kedro's save version; it is written into the ``run_id`` column.
    """

    def save(self, data: pl.DataFrame) -> None:
        """Write the rows with this run's id."""
        run_id = self.resolve_save_version() or ""
        super().save(data.with_columns(run_id=pl.lit(run_id)))

    def _get_versioned_path(self, version: str) -> PurePosixPath:
        return self._filepath / f"{version}.parquet"

    def _get_version_from_path(self, path: str) -> str:
        return Path(path).stem

    def _fetch_latest_load_version(self) -> str:
        # Kedro takes the parent folder's name, which is not the version in this layout.
        versions = self.list_versions(full_path=False)
        if not versions:
            raise VersionNotFoundError(f"Did not find any versions for {self}")
        return versions[0]


def table_preview(frame: pl.DataFrame) -> TablePreview:
    """Kedro-Viz's split-oriented form of a small frame, every cell JSON-safe."""
    rows = [[_cell(value) for value in row] for row in frame.rows()]
    return TablePreview(
        {"index": list(range(frame.height)), "columns": frame.columns, "data": rows}
    )


def _cell(value: object) -> object:
    if isinstance(value, list):
        shown = ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in value[:4])
        return f"[{shown}{', …' if len(value) > 4 else ''}]"
    return value if value is None or isinstance(value, int | float | bool) else str(value)
