"""Wiring of neighbour tables and candidate sets."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.graphs.nodes import draw_candidates, link_items, link_users


def create_pipeline(source: str = "kuairand") -> Pipeline:
    """Canonical tables and splits of one source to its graph tables, in the source's namespace."""
    linked = ["interactions", "params:neighbours", "params:engine"]
    nodes = [
        Node(link_users, linked, "user_neighbours", name="link_users"),
        Node(link_items, linked, "item_neighbours", name="link_items"),
        Node(
            draw_candidates,
            ["interactions", "splits", "items", "params:candidates", "params:engine"],
            "candidate_sets",
            name="draw_candidates",
        ),
    ]
    return Pipeline(
        nodes,
        namespace=source,
        parameters={"params:engine": "params:engine"},
        tags=["features", "graphs", source],
    )
