"""Wiring of the shared features."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.features.nodes import (
    build_histories,
    build_item_modal,
    count_sessions,
    fit_parts,
    mark_bursts,
    split_interactions,
)

OF_LOG = ("raw_manifest", "interactions", "bursts", "items", "item_map")


def create_pipeline(source: str = "kuairand") -> Pipeline:
    """Canonical tables of one source to its features, in the source's namespace."""
    nodes = [
        Node(mark_bursts, ["interactions", "params:bursts"], "bursts", name="mark_bursts"),
        *_of_split(),
        Node(
            build_histories,
            ["interactions", "items", "bursts", "params:history", "params:engine"],
            "histories",
            name="build_histories",
        ),
        Node(
            count_sessions,
            ["interactions", "bursts", "params:sessions", "params:engine"],
            ["sessions", "session_report"],
            name="count_sessions",
        ),
    ]
    return Pipeline(
        nodes,
        namespace=source,
        parameters={"params:engine": "params:engine"},
        tags=["features", source],
    )


def create_own_split(system: str, source: str) -> Pipeline:
    """A system's own split of a source, by ``params:<system>.split``, and the features that depend on it, in the system's namespace."""
    of_source = ("modal", "proxy")
    return Pipeline(
        _of_split(),
        namespace=system,
        inputs={name: f"{source}.{name}" for name in OF_LOG},
        parameters={"params:engine": "params:engine"}
        | {f"params:{name}": f"params:{source}.{name}" for name in of_source},
        tags=["features", system],
    )


def _of_split() -> list[Node]:
    """The split, and what may be fitted on its train rows alone (L2)."""
    return [
        Node(
            fit_parts, ["interactions", "bursts", "params:split"], "split_cuts", name="fit_parts"
        ),
        Node(
            split_interactions,
            ["interactions", "split_cuts", "params:engine"],
            ["splits", "split_report"],
            name="split_interactions",
        ),
        Node(
            build_item_modal,
            ["raw_manifest", "splits", "interactions", "items", "item_map", "params:modal", "params:proxy"],
            "item_modal",
            name="build_item_modal",
        ),
    ]  # fmt: skip
