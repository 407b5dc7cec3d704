"""Wiring of ingestion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.ingestion import nodes

COMMON = ("items", "users", "user_map", "item_map", "quarantine", "ingestion_report")
RAW = ["params:raw", "params:world"]
FETCHED = [*RAW, "params:download"]  # where a publisher offers the files
# source → its provider, what that takes, and the tables that only this source has
SOURCES: dict[str, tuple[Callable[..., dict[str, Any]], list[str], tuple[str, ...]]] = {
    "kuairand": (nodes.provide_kuairand, FETCHED, ()),
    "kuairec": (
        nodes.provide_kuairec,
        FETCHED,
        ("observed", "social_edges", "item_daily", "item_topics"),
    ),
    "kuaisar": (
        nodes.provide_kuaisar,
        FETCHED,
        ("social_edges", "queries", "item_words", "rec_searches"),
    ),
    "weibo": (nodes.provide_weibo, RAW, ("social_edges", "cascades")),
    "events": (nodes.provide_events, RAW, ("rewards_given",)),
}


def create_pipeline(source: str = "kuairand") -> Pipeline:
    """Raw files of one source to its canonical tables, in the source's namespace."""
    provide, inputs, extras = SOURCES[source]
    names = ("interactions", *COMMON, *extras)
    steps = [
        Node(provide, inputs, "raw_manifest", name="provide_raw"),
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
        Node(nodes.provide_weibo, RAW, "raw_manifest", name="provide_raw"),
        Node(
            nodes.ingest_posts,
            ["raw_manifest", "params:ingest"],
            {name: name for name in ("author_posts", *COMMON)},
            name="ingest_posts",
        ),
    ]  # fmt: skip
    return _of_source(steps, "weibo_posts", "weibo")


def _of_source(steps: list[Node], namespace: str, world: str) -> Pipeline:
    parameters = {
        "params:world": f"params:worlds.{world}",
        "params:engine": "params:engine",
        "params:download": "params:download",
    }
    return Pipeline(
        steps,
        namespace=namespace,
        parameters={k: v for k, v in parameters.items() if any(k in s.inputs for s in steps)},
        tags=["ingestion", namespace],
    )
