"""Wiring of the shared features."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.features.nodes import (
    build_histories,
    build_item_modal,
    cut_time,
    split_interactions,
)


def create_pipeline(source: str = "kuairand") -> Pipeline:
    """Canonical tables of one source to its features, in the source's namespace."""
    nodes = [
        Node(cut_time, ["interactions", "params:split"], "split_cuts", name="cut_time"),
        Node(
            split_interactions,
            ["interactions", "split_cuts", "params:engine"],
            "splits",
            name="split_interactions",
        ),
        Node(
            build_histories,
            ["interactions", "items", "params:history", "params:engine"],
            "histories",
            name="build_histories",
        ),
        Node(
            build_item_modal,
            ["raw_manifest", "splits", "interactions", "items", "item_map", "params:proxy"],
            "item_modal",
            name="build_item_modal",
        ),
    ]
    return Pipeline(
        nodes,
        namespace=source,
        parameters={"params:engine": "params:engine"},
        tags=["features", source],
    )
