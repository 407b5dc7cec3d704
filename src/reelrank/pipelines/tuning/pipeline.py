"""Wiring of tuning."""

from __future__ import annotations

from typing import Any

import polars as pl
from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.tuning import nodes, report
from reelrank.pipelines.tuning.options import TuningParameters
from reelrank.pipelines.tuning.space import Check

SYSTEM = "tuning"


def create_pipeline(check: Check) -> Pipeline:
    """A system's name to trials of its study, their importance, the best as parameter files, figures and a page.

    Args:
        check: what is wrong with a tree of parameters; it knows all systems, which this pipeline does not.
    """

    def search(tuning: TuningParameters, system: str, parameters: dict[str, Any]) -> pl.DataFrame:
        return nodes.search(tuning, system, parameters, check)

    options = f"params:{SYSTEM}"
    asked = [options, "params:system", "parameters"]
    figures = [f"figure_{name}" for name in report.FIGURES]
    steps = [
        Node(search, asked, "trials", name="search"),
        Node(nodes.confirm, ["trials", *asked], "confirmed", name="confirm"),
        Node(nodes.weigh, ["trials", *asked], "importance", name="weigh"),
        Node(nodes.write_best, ["trials", *asked], ["best", "best_run"], name="write_best"),
        Node(report.draw, ["trials", "importance", *asked], figures, name="draw"),
        Node(
            report.write,
            {
                **{name: name for name in ("trials", "confirmed", *figures)},
                "tuning": options,
                "system": "params:system",
                "parameters": "parameters",
            },
            "report",
            name="write_report",
        ),
    ]
    return Pipeline(
        steps, namespace=SYSTEM, parameters={options, "params:system", "parameters"}, tags=[SYSTEM]
    )
