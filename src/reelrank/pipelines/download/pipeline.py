"""Wiring of the download."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.download.nodes import download


def create_pipeline() -> Pipeline:
    """One node without outputs: the raw files lie outside the catalog until ingestion lists them."""
    node = Node(download, "params:download", None, name="fetch_release", tags=["download"])
    return Pipeline([node])
