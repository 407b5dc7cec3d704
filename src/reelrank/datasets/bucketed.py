"""The catalog's side of tables kept in user buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io.core import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from reelrank.atomic import replace_folder
from reelrank.buckets import BucketedTable
from reelrank.datasets.table import table_preview


class BucketedTableDataset(AbstractDataset[BucketedTable, BucketedTable]):
    """A folder of one Parquet file per user bucket; loading gives a handle, no rows.

    Args:
        filepath: the folder.
        metadata: anything; Kedro-Viz reads its layer here.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath)
        self.metadata = metadata

    def load(self) -> BucketedTable:
        """Open the stored table."""
        try:
            return BucketedTable.open(self._path)
        except FileNotFoundError as error:
            raise DatasetError(f"{error}; run the pipeline that makes it") from error

    def save(self, data: BucketedTable) -> None:
        """Move the staged folder here in one step."""
        replace_folder(data.path, self._path)

    def _exists(self) -> bool:
        try:
            BucketedTable.open(self._path)
        except FileNotFoundError:
            return False
        return True

    def preview(self, nrows: int = 20) -> TablePreview:
        """First rows of the first bucket for Kedro-Viz."""
        return table_preview(BucketedTable.open(self._path).scan().head(nrows).collect())

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
