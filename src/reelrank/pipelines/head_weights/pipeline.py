"""Wiring of the head weights."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.head_weights import nodes, report

LOG = ("interactions", "histories", "splits", "items", "bursts")
MODEL = ("model", "encoder", "user_features", "item_features")
SHARED = (*LOG, "user_map", "item_map", "item_modal", "raw_manifest", "split_cuts", "ingestion_report")  # fmt: skip
PAST = ["params:history", "params:features"]
SCORED = [*PAST, *MODEL, *LOG]
ORIGIN = ["raw_manifest", "split_cuts", "params:system", "params:source", "params:world"]
RANKED = ["ranked_sessions", "ranked_candidates"]
STUDIES = ("estimate", "held_out", "variants", "sets", "truth", "residuals")


def create_pipeline(
    system: str = "head_weights",
    source: str = "kuairec",
    predictor: str = "value_model",
    model: str = "gnn_128",
) -> Pipeline:
    """Features of a source and a value model's checkpoint to weights, residuals, results, figures and a report.

    Args:
        system: namespace.
        source: whose sessions are ranked.
        predictor: namespace of the value model.
        model: which of its models; it must have item vectors.
    """
    estimation = ["params:embedding", "params:search", "params:soft", "params:inference"]
    steps = [
        Node(
            nodes.rank_sessions,
            ["params:ranking", "params:candidates", *SCORED],
            [*RANKED, "item_vectors", "ranking_report"],
            name="rank_sessions",
            tags=["gpu", "prediction"],
        ),
        Node(
            nodes.rank_requests,
            ["params:ranking", "raw_manifest", "user_map", "item_map", *RANKED, *SCORED],
            ["requests", "request_candidates", "true_heads"],
            name="rank_requests",
            tags=["gpu", "prediction"],
        ),
        Node(
            nodes.estimate,
            [*RANKED, "item_vectors", "items", *estimation, *ORIGIN],
            ["weights", "study_estimate"],
            name="estimate",
            tags=["training"],
        ),
        Node(
            nodes.judge,
            [
                *RANKED, "item_vectors", "weights", "params:embedding", "params:nulls", "params:alternatives", "params:published",
                *PAST, *LOG, *ORIGIN,
            ],
            "study_held_out",
            name="judge",
            tags=["evaluation"],
        ),
        Node(
            nodes.study_variants,
            [
                *RANKED, "item_vectors", "items", "item_modal", "weights", *estimation, "params:published", "params:variants",
                *ORIGIN,
            ],
            "study_variants",
            name="study_variants",
            tags=["evaluation"],
        ),
        Node(
            nodes.study_sets,
            [
                "params:ranking", "params:candidates", "item_vectors", "weights", "params:embedding", "params:soft",
                "params:variants", *ORIGIN, *SCORED,
            ],
            "study_sets",
            name="study_sets",
            tags=["evaluation"],
        ),
        Node(
            nodes.study_truth,
            [*RANKED, "true_heads", "requests", "request_candidates", "item_vectors", "items", *estimation, "params:variants", *ORIGIN],
            "study_truth",
            name="study_truth",
            tags=["evaluation"],
        ),
        Node(
            nodes.export_residuals,
            [*RANKED, "item_vectors", "items", "weights", "params:embedding", "params:soft", "params:residuals"],
            ["session_residuals", "candidate_residuals", "fold_weights"],
            name="export_residuals",
            tags=["evaluation"],
        ),
        Node(
            nodes.study_residuals,
            [
                *RANKED, "session_residuals", "fold_weights", "item_vectors", "items", "params:residuals", "params:diagnostics",
                "params:selectivity", "params:debias", "params:nulls", *ORIGIN,
            ],
            ["study_residuals", "diagnosis", "category_shares"],
            name="study_residuals",
            tags=["evaluation"],
        ),
        Node(
            nodes.collect,
            [f"study_{name}" for name in STUDIES],
            "results",
            name="collect",
            tags=["evaluation"],
        ),
        Node(
            report.draw,
            ["results", "weights", "category_shares", "diagnosis", "ingestion_report", "params:published"],
            [f"figure_{name}" for name in report.FIGURES],
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                **{n: n for n in ("results", "weights", "diagnosis", "category_shares", "ranking_report", "ingestion_report")},
                "published": "params:published",
                "candidates": "params:candidates",
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
        inputs={
            **{name: f"{source}.{name}" for name in SHARED},
            **{name: f"{predictor}.{name}" for name in MODEL[1:]},
            "model": f"{predictor}.{model}_model",
        },
        parameters={
            "params:history": f"params:{source}.history",
            "params:features": f"params:{predictor}.features",
            "params:system": f"params:{system}",
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
        },
        tags=[system],
    )
