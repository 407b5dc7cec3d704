"""Wiring of ingestion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.ingestion import nodes

COMMON = ("items", "users", "user_map", "item_map", "quarantine", "ingestion_report")
# source → its provider and the tables that only it has
SOURCES: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
    "kuairand": (nodes.provide_kuairand, ()),
    "kuairec": (
        nodes.provide_kuairec,
        ("observed", "social_edges", "item_daily", "item_topics"),
    ),
    "kuaisar": (
        nodes.provide_kuaisar,
        ("social_edges", "queries", "item_words", "rec_searches"),
    ),
    "weibo": (nodes.provide_weibo, ("social_edges", "cascades")),
    "events": (nodes.provide_events, ("rewards_given",)),
}


def create_pipeline(source: str = "kuairand") -> Pipeline:
    """Raw files of one source to its canonical tables, in the source's namespace."""
    provide, extras = SOURCES[source]
    names = ("interactions", *COMMON, *extras)
    steps = [
        Node(provide, ["params:raw", "params:world"], "raw_manifest", name="provide_raw"),
        Node(
            nodes.ingest_source,
            ["raw_manifest", "params:ingest", "params:engine"],
            {name: name for name in names},
            name="ingest",
        ),
    ]
    return _of_source(steps, source, source)


def create_posts_pipeline() -> Pipeline:
    """Tianchi's Weibo files, which have posts and no viewers, to a table of posts."""
    steps = [
        Node(nodes.provide_weibo, ["params:raw", "params:world"], "raw_manifest", name="provide_raw"),
        Node(
            nodes.ingest_posts,
            ["raw_manifest", "params:ingest"],
            {name: name for name in ("author_posts", *COMMON)},
            name="ingest_posts",
        ),
    ]  # fmt: skip
    return _of_source(steps, "weibo_posts", "weibo")


def _of_source(steps: list[Node], namespace: str, world: str) -> Pipeline:
    parameters = {"params:world": f"params:worlds.{world}", "params:engine": "params:engine"}
    return Pipeline(
        steps,
        namespace=namespace,
        parameters={k: v for k, v in parameters.items() if any(k in s.inputs for s in steps)},
        tags=["ingestion", namespace],
    )
