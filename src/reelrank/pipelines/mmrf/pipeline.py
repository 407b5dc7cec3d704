"""Wiring of MMRF and its baselines."""

from __future__ import annotations

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.mmrf import nodes, previews, report
from reelrank.pipelines.mmrf.run_options import BASELINES, MAIN, METHODS, MMRF_VARIANTS

SHARED = ("interactions", "items", "users", "splits", "split_cuts", "candidate_sets", "raw_manifest", "user_map", "item_map", "ingestion_report")  # fmt: skip
TABLES = ["feed_log", "items", "users", "feed_candidates"]
# what another track takes from block ``mmrf``
COMMON = ("learning", "replay", "prediction", "behaviour", "evaluation", "rollout", "serving", "studies", "work_dir")  # fmt: skip
ORIGIN = {
    **{name: name for name in ("raw_manifest", "split_cuts", "user_map", "item_map")},
    **{name: name for name in TABLES},
    **{name: f"params:{name}" for name in ("data", "learning", "evaluation")},
    **{name: f"params:{name}" for name in ("system", "shared", "source", "world")},
}
TRAIN: dict[str, Callable[..., object]] = {
    "mmrf": nodes.train_mmrf,
    "mmrf_co": nodes.train_mmrf_co,
    "mmrf_da": nodes.train_mmrf_da,
    "mmrf_ns": nodes.train_mmrf_ns,
    "bc": nodes.train_bc,
    "wide_deep": nodes.train_wide_deep,
    "deepfm": nodes.train_deepfm,
    "pareto": nodes.train_pareto,
    "tscac": nodes.train_tscac,
    "massa": nodes.train_massa,
    "ltr": nodes.train_ltr,
}


def _train(method: str) -> Node:
    block = MAIN if method in MMRF_VARIANTS else method
    settings = ("data", "learning", "replay", "prediction", "work_dir")
    return Node(
        TRAIN[method],
        [f"params:models.{block}", *(f"params:{name}" for name in settings), *TABLES],
        [f"{method}_model", f"{method}_history", f"{method}_conflicts"],
        name=f"train_{method}",
        tags=["gpu", "training"],
        preview_fn=previews.PREVIEWS[method],
    )


def _predict(method: str) -> Node:
    return Node(
        nodes.predict,
        [f"{method}_model", "params:data", "params:learning", "params:prediction", *TABLES],
        f"{method}_scores",
        name=f"predict_{method}",
        tags=["prediction"],
    )


def create_pipeline(system: str = "mmrf", source: str = "kuairand") -> Pipeline:
    """Tables of a source to policies, their values, figures and a report, in the system's namespace."""
    predictions = {method: f"{method}_scores" for method in METHODS}
    models = {method: f"{method}_model" for method in METHODS}
    histories = {f"{method}_history": f"{method}_history" for method in METHODS}
    figures = {f"figure_{name}": f"figure_{name}" for name in report.FIGURES}
    steps = [
        Node(
            nodes.make_feed,
            ["interactions", "splits", "items", "users", "candidate_sets", "params:data"],
            ["feed_log", "feed_candidates", "feed_report"],
            name="make_feed",
        ),
        *map(_train, METHODS),
        *map(_predict, METHODS),
        Node(
            nodes.fit_propensities,
            ["params:data", "params:behaviour", "params:learning", *TABLES],
            ["propensities", "behaviour_report"],
            name="fit_propensities",
            tags=["gpu", "training"],
        ),
        Node(
            nodes.map_attention,
            [f"{MAIN}_model", "params:data", "params:learning", "params:prediction", *TABLES],
            "attention",
            name="map_attention",
            tags=["prediction"],
        ),
        Node(
            nodes.evaluate,
            {**ORIGIN, "propensities": "propensities", **predictions},
            "study_main",
            name="evaluate",
            tags=["evaluation"],
        ),
        Node(
            nodes.roll_out,
            {**ORIGIN, "rollout": "params:rollout", **models},
            "study_rolled_out",
            name="roll_out",
            tags=["evaluation"],
        ),
        Node(
            nodes.measure_serving,
            {
                **{n: o for n, o in ORIGIN.items() if n not in ("user_map", "item_map", "evaluation")},
                "serving": "params:serving",
                **models,
            },
            "study_serving",
            name="measure_serving",
            tags=["evaluation"],
        ),
        Node(
            nodes.study,
            {
                **ORIGIN,
                "propensities": "propensities",
                "mmrf": f"params:models.{MAIN}",
                **{n: f"params:{n}" for n in ("replay", "prediction", "studies", "work_dir")},
                **{f"{method}_scores": f"{method}_scores" for method in MMRF_VARIANTS},
            },
            "study_cells",
            name="study",
            tags=["gpu", "training"],
        ),
        Node(
            nodes.collect,
            ["study_main", "study_rolled_out", "study_serving", "study_cells"],
            "results",
            name="collect",
            tags=["evaluation"],
        ),
        Node(
            report.draw,
            {
                **{n: n for n in ("results", "attention", "feed_report", "ingestion_report")},
                "conflicts": f"{MAIN}_conflicts",
                "data": "params:data",
                **histories,
            },
            list(figures),
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                **{n: n for n in ("results", "behaviour_report", "feed_report", "ingestion_report", "split_cuts")},
                "data": "params:data",
                "evaluation": "params:evaluation",
                "studies": "params:studies",
                "published": "params:published",
                "command": "params:command",
                **figures,
            },
            "report",
            name="write_report",
            tags=["reporting"],
        ),
    ]  # fmt: skip
    blocks = [MAIN, *BASELINES]
    return Pipeline(
        steps,
        namespace=system,
        inputs={name: f"{source}.{name}" for name in SHARED},
        parameters={
            "params:system": f"params:{system}",
            "params:shared": f"params:{MAIN}",
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
            "params:published": "params:mmrf_published",
            **{f"params:{name}": f"params:{MAIN}.{name}" for name in COMMON},
            **{f"params:models.{block}": f"params:{MAIN}.models.{block}" for block in blocks},
        },
        tags=[system],
    )
