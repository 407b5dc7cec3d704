"""Wiring of the value model."""

from __future__ import annotations

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.value_model import nodes, previews, report
from reelrank.pipelines.value_model.options import VARIANTS, Variant

SHARED = ("interactions", "items", "users", "histories", "splits", "split_cuts", "bursts", "raw_manifest", "ingestion_report")  # fmt: skip
LOG = ("edges", "interactions", "splits", "user_features", "item_features")
TABLES = ["params:edges", "encoder", *LOG]
STUDIED = [
    "params:studies", *(f"params:models.{v}" for v in VARIANTS), "params:features", "params:edges",
    "params:evaluation", "params:work_dir", "bursts", "split_cuts", "raw_manifest", *LOG,
]  # fmt: skip
TRAIN: dict[Variant, Callable[..., object]] = {
    "logistic": nodes.train_logistic,
    "edge_mlp": nodes.train_edge_mlp,
    "gnn_64": nodes.train_gnn_64,
    "gnn_128": nodes.train_gnn_128,
}
STUDIES: dict[str, Callable[..., object]] = {
    "protocols": nodes.study_protocols,
    "leaks": nodes.study_leaks,
    "sweeps": nodes.study_sweeps,
    "groups": nodes.study_groups,
}


def _train(variant: Variant) -> Node:
    return Node(
        TRAIN[variant],
        [f"params:models.{variant}", "params:fitting", "params:work_dir", *TABLES],
        [f"{variant}_model", f"{variant}_history"],
        name=f"train_{variant}",
        tags=["gpu", "training"],
        preview_fn=previews.PREVIEWS[variant],
    )


def _predict(variant: Variant) -> Node:
    return Node(
        nodes.predict,
        [f"{variant}_model", "params:fitting", *TABLES],
        f"{variant}_predictions",
        name=f"predict_{variant}",
        tags=["prediction"],
    )


def _study(name: str) -> Node:
    return Node(
        STUDIES[name], STUDIED, f"study_{name}", name=f"study_{name}", tags=["gpu", "training"]
    )


def create_pipeline(system: str = "value_model", source: str = "kuairec") -> Pipeline:
    """Features of a source to models, predictions, results, figures and a report, in the system's namespace."""
    predictions = {str(variant): f"{variant}_predictions" for variant in VARIANTS}
    steps = [
        Node(
            nodes.build_nodes,
            ["users", "items"],
            ["user_features", "item_features"],
            name="build_nodes",
        ),
        Node(
            nodes.build_edges,
            [
                "interactions", "histories", "splits", "items", "bursts",
                "params:history", "params:features", "params:edges", "params:engine",
            ],
            "edges",
            name="build_edges",
        ),
        Node(
            nodes.fit_encoder,
            ["params:features", *LOG],
            ["encoder", "feature_report"],
            name="fit_encoder",
        ),
        *map(_train, VARIANTS),
        *map(_predict, VARIANTS),
        Node(
            nodes.evaluate,
            {
                **{n: n for n in ("interactions", "splits", "raw_manifest", "split_cuts")},
                "evaluation": "params:evaluation",
                "fitting": "params:fitting",
                "system": "params:system",
                "source": "params:source",
                "world": "params:world",
                **predictions,
            },
            "study_models",
            name="evaluate",
            tags=["evaluation"],
        ),
        *map(_study, STUDIES),
        Node(
            nodes.collect,
            ["study_models", *(f"study_{name}" for name in STUDIES)],
            "results",
            name="collect",
            tags=["evaluation"],
        ),
        Node(
            report.draw,
            {
                **{n: n for n in ("results", "feature_report", "ingestion_report")},
                "evaluation": "params:evaluation",
                **predictions,
                **{f"{v}_history": f"{v}_history" for v in VARIANTS[1:]},
            },
            [f"figure_{name}" for name in report.FIGURES],
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                **{n: n for n in ("results", "feature_report", "ingestion_report", "logistic_history")},
                "targets": "params:targets",
                "studies": "params:studies",
                "command": "params:command",
                **{f"figure_{name}": f"figure_{name}" for name in report.FIGURES},
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
            "params:engine": "params:engine",
            "params:history": f"params:{source}.history",
            "params:system": f"params:{system}",
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
        },
        tags=[system],
    )
