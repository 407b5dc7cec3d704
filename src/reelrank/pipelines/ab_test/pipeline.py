"""Wiring of the A/B test."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.ab_test import nodes, previews, report
from reelrank.pipelines.ab_test.run_options import METHODS

SHARED = ("items", "users", "user_map", "item_map", "raw_manifest", "split_cuts", "ingestion_report")  # fmt: skip
TABLES = ("feed_log", "items", "users", "feed_candidates")
MATRIX_SHARED = ("items", "users", "observed", "raw_manifest", "split_cuts")
ORIGIN = {
    **{name: name for name in ("raw_manifest", "split_cuts")},
    **{name: f"params:{name}" for name in ("test", "evaluation")},
    **{name: f"params:{name}" for name in ("system", "shared", "policies", "source", "world")},
}
MATRIX_ORIGIN = ORIGIN | {
    "raw_manifest": "matrix_raw_manifest",
    "split_cuts": "matrix_split_cuts",
    **{name: f"params:matrix_{name}" for name in ("policies", "source", "world")},
}
# what a second system takes from block ``ab_test``
MAIN = "ab_test"
COMMON = ("work_dir", "fold", "test", "in_world", "in_simulator", "in_matrix", "evaluation")
STUDIES = ("effects", "off_policy", "agreement")


def create_pipeline(
    system: str = MAIN,
    source: str = "kuairand",
    policies: str = "mmrf",
    matrix: str | None = "kuairec",
    matrix_policies: str = "mmrf_kuairec",
) -> Pipeline:
    """Trained policies to lived days, effects, figures and a report, in the system's namespace.

    Args:
        system: namespace.
        source: of the feed.
        policies: namespace of its policies, ``METHODS``.
        matrix: source with a fully observed matrix; None: that part is left out.
        matrix_policies: namespace of the policies of its log, ``METHODS``.
    """
    tables = {name: name for name in TABLES}
    arms = {method: f"{method}_model" for method in METHODS}
    lived = {**tables, **arms, "data": "params:data", "test": "params:test", "training": "params:training"}  # fmt: skip
    days = {"world_days": "world_days", "simulator_days": "simulator_days"}
    figures = {f"figure_{name}": f"figure_{name}" for name in report.FIGURES}
    studies = [f"study_{name}" for name in STUDIES]
    steps = [
        Node(
            nodes.fit_simulator,
            [*(f"params:{n}" for n in ("fold", "simulator", "training", "work_dir", "data")), *TABLES],
            ["simulator_model", "simulator_history"],
            name="fit_simulator",
            tags=["gpu", "training"],
            preview_fn=previews.simulator,
        ),
        Node(
            nodes.estimate_off_policy,
            {
                **tables,
                **{n: n for n in ("raw_manifest", "user_map", "item_map", "propensities")},
                "data": "params:data",
                "evaluation": "params:evaluation",
                **{method: f"{method}_scores" for method in METHODS},
            },
            ["off_policy", "temperatures"],
            name="estimate_off_policy",
            tags=["evaluation"],
        ),
        Node(
            nodes.live_in_world,
            {
                **lived,
                **{n: n for n in ("raw_manifest", "user_map", "item_map", "temperatures")},
                "population": "params:in_world",
            },
            "world_days",
            name="live_in_world",
            tags=["gpu", "evaluation"],
            preview_fn=previews.test,
        ),
        Node(
            nodes.live_in_simulator,
            {
                **lived,
                "simulator_model": "simulator_model",
                "fold": "params:fold",
                "population": "params:in_simulator",
            },
            "simulator_days",
            name="live_in_simulator",
            tags=["gpu", "evaluation"],
            preview_fn=previews.test,
        ),
        Node(
            nodes.evaluate,
            {**ORIGIN, **days, **{n: n for n in ("off_policy", "temperatures")}},
            list(studies),
            name="evaluate",
            tags=["evaluation"],
        ),
    ]  # fmt: skip
    if matrix is not None:
        steps += _matrix_nodes()
        studies.append("study_matrix")
    steps += [
        Node(nodes.collect, studies, "results", name="collect", tags=["evaluation"]),
        Node(
            report.draw,
            {
                **{n: n for n in ("results", "simulator_history")},
                "test": "params:test",
            },
            list(figures),
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                **{n: n for n in ("results", "simulator_model", "ingestion_report", "split_cuts")},
                **{n: f"params:{n}" for n in ("test", "fold", "in_world", "in_simulator", "in_matrix", "evaluation", "data", "command")},
                **figures,
            },
            "report",
            name="write_report",
            tags=["reporting"],
        ),
    ]  # fmt: skip
    own = {f"{method}_{kind}" for method in METHODS for kind in ("model", "scores")}
    inputs = {name: f"{source}.{name}" for name in SHARED} | {
        name: f"{policies}.{name}" for name in (*own, "propensities", "feed_log", "feed_candidates")
    }
    parameters = {
        "params:command": f"params:{system}.command",
        "params:data": f"params:{policies}.data",
        "params:simulator": "params:feedback_simulator.simulator",
        "params:training": "params:feedback_simulator.training",
        "params:system": f"params:{system}",
        "params:shared": f"params:{MAIN}",
        "params:policies": f"params:{policies}",
        "params:source": f"params:{source}",
        "params:world": f"params:worlds.{source}",
        **{f"params:{name}": f"params:{MAIN}.{name}" for name in COMMON},
    }
    if matrix is not None:
        inputs |= {f"matrix_{name}": f"{matrix}.{name}" for name in MATRIX_SHARED} | {
            f"matrix_{name}": f"{matrix_policies}.{name}"
            for name in (*(f"{method}_model" for method in METHODS), "feed_log", "feed_candidates")
        }  # fmt: skip
        parameters |= {
            "params:matrix_data": f"params:{matrix_policies}.data",
            "params:matrix_policies": f"params:{matrix_policies}",
            "params:matrix_source": f"params:{matrix}",
            "params:matrix_world": f"params:worlds.{matrix}",
        }
    return Pipeline(steps, namespace=system, inputs=inputs, parameters=parameters, tags=[system])


def _matrix_nodes() -> list[Node]:
    return [
        Node(
            nodes.live_in_matrix,
            {
                **{name: f"matrix_{name}" for name in (*TABLES, "observed")},
                **{method: f"matrix_{method}_model" for method in METHODS},
                "data": "params:matrix_data",
                "test": "params:test",
                "training": "params:training",
                "population": "params:in_matrix",
            },
            "matrix_days",
            name="live_in_matrix",
            tags=["gpu", "evaluation"],
            preview_fn=previews.test,
        ),
        Node(
            nodes.evaluate_matrix,
            {**MATRIX_ORIGIN, "matrix_days": "matrix_days"},
            "study_matrix",
            name="evaluate_matrix",
            tags=["evaluation"],
        ),
    ]
