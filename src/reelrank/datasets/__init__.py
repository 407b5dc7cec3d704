"""Kedro datasets of our own."""

from reelrank.datasets.bucketed import BucketedTableDataset
from reelrank.datasets.checkpoint import CheckpointDataset
from reelrank.datasets.report import ReportDataset
from reelrank.datasets.site import SiteDataset
from reelrank.datasets.table import ResultsDataset, TableDataset

__all__ = [
    "BucketedTableDataset",
    "CheckpointDataset",
    "ReportDataset",
    "ResultsDataset",
    "SiteDataset",
    "TableDataset",
]
