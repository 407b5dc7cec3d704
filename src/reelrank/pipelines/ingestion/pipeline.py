"""Wiring of ingestion."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.ingestion.nodes import ingest_kuairand, provide_kuairand

_STEPS = {"kuairand": (provide_kuairand, ingest_kuairand)}


def create_pipeline(source: str = "kuairand") -> Pipeline:
    """Raw files of one source to its canonical tables, in the source's namespace."""
    provide, ingest = _STEPS[source]
    nodes = [
        Node(provide, ["params:raw", "params:world"], "raw_manifest", name="provide_raw"),
        Node(
            ingest,
            ["raw_manifest", "params:ingest", "params:engine"],
            ["interactions", "items", "users", "user_map", "item_map", "quarantine", "ingestion_report"],
            name="ingest",
        ),
    ]  # fmt: skip
    return Pipeline(
        nodes,
        namespace=source,
        parameters={"params:world": f"params:worlds.{source}", "params:engine": "params:engine"},
        tags=["ingestion", source],
    )
