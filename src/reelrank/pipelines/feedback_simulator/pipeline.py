"""Wiring of the feedback simulator."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.feedback_simulator import nodes, previews, report
from reelrank.pipelines.feedback_simulator.run_options import MAIN

SHARED = (
    "interactions", "items", "users", "user_map", "item_map", "splits", "split_cuts", "raw_manifest", "ingestion_report",
)  # fmt: skip
TABLES = ["impressions", "items", "users"]
MODEL, HISTORY = f"{MAIN}_model", f"{MAIN}_history"
ORIGIN = {
    **{name: name for name in ("raw_manifest", "split_cuts")},
    **{name: f"params:{name}" for name in ("evaluation", "training", "system", "source", "world")},
}


def create_pipeline(system: str = MAIN, source: str = "kuairand") -> Pipeline:
    """Tables of a source to a calibrated simulator, its accuracy, figures and a report, in the system's namespace."""
    figures = {f"figure_{name}": f"figure_{name}" for name in report.FIGURES}
    steps = [
        Node(
            nodes.make_impressions,
            ["interactions", "splits"],
            ["impressions", "impression_report"],
            name="make_impressions",
        ),
        Node(
            nodes.train_feedback_simulator,
            [*(f"params:{n}" for n in ("simulator", "training", "fold", "work_dir")), *TABLES],
            [MODEL, HISTORY],
            name="train_feedback_simulator",
            tags=["gpu", "training"],
            preview_fn=previews.feedback_simulator,
        ),
        Node(
            nodes.predict,
            [MODEL, "params:evaluation", "params:training", "raw_manifest", "user_map", "item_map", *TABLES],
            "responses",
            name="predict",
            tags=["prediction"],
        ),
        Node(
            nodes.evaluate,
            {**ORIGIN, **{n: n for n in ("responses", "impressions")}, "rewards": "params:rewards"},
            "study_main",
            name="evaluate",
            tags=["evaluation"],
        ),
        Node(
            nodes.study,
            {
                **ORIGIN,
                **{n: f"params:{n}" for n in ("studies", "simulator", "fold", "work_dir")},
                **{n: n for n in (*TABLES, "user_map", "item_map", "responses")},
            },
            "study_cells",
            name="study",
            tags=["gpu", "training"],
        ),
        Node(
            nodes.collect,
            ["study_main", "study_cells"],
            "results",
            name="collect",
            tags=["evaluation"],
        ),
        Node(
            report.draw,
            {
                **{n: n for n in ("results", "responses", "ingestion_report")},
                "history": HISTORY,
                "evaluation": "params:evaluation",
            },
            list(figures),
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                **{n: n for n in ("results", "impression_report", "ingestion_report", "split_cuts")},
                **{n: f"params:{n}" for n in ("studies", "evaluation", "command")},
                "model": MODEL,
                **figures,
            },
            "report",
            name="write_report",
            tags=["reporting"],
        ),
    ]  # fmt: skip
    return Pipeline(
        steps,
        namespace=system,
        inputs={name: f"{source}.{name}" for name in SHARED},
        parameters={
            "params:system": f"params:{system}",
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
        },
        tags=[system],
    )
