"""Wiring of the site."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.reporting import nodes

SYSTEM = "reporting"


def create_pipeline() -> Pipeline:
    """Stored result rows and tables to one site."""
    options, experiments = f"params:{SYSTEM}", "params:experiments"
    steps = [
        Node(nodes.collect_rows, options, "rows", name="collect_rows"),
        Node(nodes.describe_data, options, "data", name="describe_data"),
        Node(nodes.find_studies, options, "tuned", name="find_studies"),
        Node(nodes.draw, ["rows", "data", "tuned", options, experiments], "site", name="draw"),
    ]
    return Pipeline(steps, namespace=SYSTEM, parameters={options, experiments}, tags=[SYSTEM])
