"""Wiring of the experiments."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.experiments import nodes

SYSTEM = "experiments"


def create_pipeline() -> Pipeline:
    """Ids to a plan, runs of other pipelines, their result rows and verdicts."""
    options = f"params:{SYSTEM}"
    steps = [
        Node(nodes.plan, [options, "params:id", "parameters"], "plan", name="plan"),
        Node(
            nodes.run_cells,
            ["plan", options, "params:id", "parameters"],
            "runs",
            name="run_cells",
        ),
        Node(nodes.collect, ["runs", options, "parameters"], "results", name="collect"),
        Node(nodes.judge, ["results", options], "verdicts", name="judge"),
        Node(nodes.summarise, ["verdicts", "runs", options], None, name="summarise"),
    ]
    return Pipeline(
        steps, namespace=SYSTEM, parameters={options, "params:id", "parameters"}, tags=[SYSTEM]
    )
