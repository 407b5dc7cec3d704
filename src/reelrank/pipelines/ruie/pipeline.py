"""Wiring of RUIE and its baselines."""

from __future__ import annotations

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.ruie import nodes, previews, report
from reelrank.pipelines.ruie.run_options import MAIN, TRAINED, VARIANTS

SHARED = ("interactions", "items", "splits", "split_cuts", "raw_manifest", "ingestion_report")
TABLES = ["sequence_events", "sequence_items", "sequence_scenarios"]
# what ``ruie_kuairand`` and ``ruie_events`` take from block ``ruie``
COMMON = ("models", "learning", "training", "ranking", "evaluation", "studies", "work_dir", "published")  # fmt: skip
ORIGIN = {
    **{name: name for name in ("raw_manifest", "split_cuts")},
    **{
        name: f"params:{name}"
        for name in ("training", "scenario_names", "system", "shared", "source", "world")
    },
}
TRAIN: dict[str, Callable[..., object]] = {
    "ruie": nodes.train_ruie,
    "nextitnet": nodes.train_nextitnet,
    "sasrec": nodes.train_sasrec,
    "gru4rec": nodes.train_gru4rec,
    "caser": nodes.train_caser,
    "din": nodes.train_din,
    "pepnet": nodes.train_pepnet,
    "star": nodes.train_star,
}


def _train(variant: str) -> Node:
    settings = ("learning", "training", "ranking", "work_dir")
    return Node(
        TRAIN[variant],
        [f"params:models.{variant}", *(f"params:{name}" for name in settings), *TABLES],
        [f"{variant}_model", f"{variant}_history"],
        name=f"train_{variant}",
        tags=["gpu", "training"],
        preview_fn=previews.PREVIEWS[variant],
    )


def _predict(variant: str) -> Node:
    return Node(
        nodes.predict,
        [f"{variant}_model", "params:ranking", "params:training", *TABLES],
        f"{variant}_targets",
        name=f"predict_{variant}",
        tags=["prediction"],
    )


def create_pipeline(system: str = "ruie", source: str = "kuaisar") -> Pipeline:
    """Tables of a source to models, predictions, results, figures and a report, in the system's namespace."""
    predictions = {variant: f"{variant}_targets" for variant in VARIANTS}
    histories = {f"{variant}_history": f"{variant}_history" for variant in TRAINED}
    figures = {f"figure_{name}": f"figure_{name}" for name in report.FIGURES}
    steps = [
        Node(
            nodes.make_sequences,
            ["interactions", "splits", "items", "params:sequences"],
            [*TABLES, "sequence_report"],
            name="make_sequences",
        ),
        *map(_train, TRAINED),
        Node(
            nodes.fit_popularity,
            ["params:models.popularity", "params:learning", *TABLES],
            "popularity_model",
            name="fit_popularity",
            tags=["training"],
        ),
        *map(_predict, VARIANTS),
        Node(
            nodes.evaluate,
            {
                **ORIGIN,
                "scenarios": "sequence_scenarios",
                "evaluation": "params:evaluation",
                **predictions,
            },
            "study_main",
            name="evaluate",
            tags=["evaluation"],
        ),
        Node(
            nodes.study,
            {
                **ORIGIN,
                **{n: f"params:{n}" for n in COMMON if n != "published"},
                **{n: f"sequence_{n}" for n in ("events", "items", "scenarios")},
                **predictions,
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
                **{n: n for n in ("results", "sequence_events", "ingestion_report")},
                "scenarios": "sequence_scenarios",
                "scenario_names": "params:scenario_names",
                "evaluation": "params:evaluation",
                **histories,
            },
            list(figures),
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                **{n: n for n in ("results", "sequence_report", "ingestion_report", "split_cuts")},
                "scenarios": "sequence_scenarios",
                "scenario_names": "params:scenario_names",
                "evaluation": "params:evaluation",
                "studies": "params:studies",
                "published": "params:published",
                "command": "params:command",
                "targets": f"{MAIN}_targets",
                **figures,
            },
            "report",
            name="write_report",
            tags=["reporting"],
        ),
    ]
    return Pipeline(
        steps,
        namespace=system,
        inputs={name: f"{source}.{name}" for name in SHARED},
        parameters={
            "params:system": f"params:{system}",
            "params:shared": f"params:{MAIN}",
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
            **{f"params:{name}": f"params:{MAIN}.{name}" for name in COMMON},
            **{f"params:models.{v}": f"params:{MAIN}.models.{v}" for v in VARIANTS},
        },
        tags=[system],
    )
