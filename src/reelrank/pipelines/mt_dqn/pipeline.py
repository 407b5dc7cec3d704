"""Wiring of MT-DQN and its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.mt_dqn import nodes, previews, report

TABLES = ["events", "item_modal", "items", "users"]
# what other sources take from block ``mt_dqn``
COMMON = (
    "work_dir",
    "reward",
    "lists",
    "learning",
    "training",
    "prediction",
    "evaluation",
    "sizes",
    "studies",
)
ORIGIN = ("system", "shared", "source", "world")  # blocks of parameters that a result rests on
SOCIAL = ("kuairec", "weibo")  # sources that publish who follows whom
SHARED = ("interactions", "items", "users", "user_map", "item_map", "raw_manifest", "ingestion_report")  # fmt: skip
OF_SPLIT = ("splits", "split_cuts", "item_modal")  # a system's own, or its source's


def _train(variant: str, function: Callable[..., object]) -> Node:
    return Node(
        function,
        [f"params:models.{variant}", "params:learning", "params:training", "params:work_dir", *TABLES, "lists"],
        [f"{variant}_model", f"{variant}_history"],
        name=f"train_{variant}",
        tags=["gpu", "training"],
        preview_fn=previews.PREVIEWS[variant],
    )  # fmt: skip


def _predict(variant: str) -> Node:
    return Node(
        nodes.predict,
        [f"{variant}_model", *TABLES, "lists", "params:prediction", "params:training"],
        [f"{variant}_{part}" for part in ("impressions", "lists", "catalogue", "targets")],
        name=f"predict_{variant}",
        tags=["prediction"],
    )


def _study(*, social: bool) -> Node:
    edges = {"social_edges": "social_edges"} if social else {}
    parts = ("model", "history", "impressions", "lists", "catalogue", "targets")
    settings = ("studies", "learning", "training", "reward", "prediction", "evaluation", "work_dir")
    return Node(
        nodes.study,
        {
            **{n: f"params:{n}" for n in (*settings, *ORIGIN)},
            "model": f"params:models.{nodes.MAIN}",
            "list_options": "params:lists",
            **{n: n for n in ("raw_manifest", "split_cuts", "user_map", "item_map", *TABLES, "lists")},
            "own_gates": "gates",
            **{f"own_{part}": f"{nodes.MAIN}_{part}" for part in parts},
            **edges,
        },
        "study_cells",
        name="study",
        tags=["gpu", "training"],
    )  # fmt: skip


def _judge_against_truth(variants: Sequence[str]) -> Node:
    return Node(
        nodes.judge_against_truth,
        {
            **{n: n for n in ("raw_manifest", "user_map", "item_map", "events", "items")},
            "evaluation": "params:evaluation",
            "reward": "params:reward",
            **{v: f"{v}_catalogue" for v in variants},
        },
        "true_ndcg",
        name="judge_against_truth",
        tags=["evaluation"],
    )


def _evaluate(variants: Sequence[str], results: str) -> Node:
    judged = [f"{v}_{part}" for v in variants for part in ("impressions", "lists", "targets")]
    return Node(
        nodes.evaluate,
        {
            **{n: n for n in ("events", "true_ndcg", "raw_manifest", "split_cuts", *judged)},
            **{n: f"params:{n}" for n in ("evaluation", "training", *ORIGIN)},
        },
        results,
        name="evaluate",
        tags=["evaluation"],
    )


def create_pipeline(
    system: str = "mt_dqn", source: str = "kuairand", split_of: str | None = None
) -> Pipeline:
    """Features of a source to models, predictions, results, figures and a report, in the system's namespace.

    Args:
        system: namespace.
        source: of the log.
        split_of: namespace of the split and of what depends on it; None: the source's.
    """
    steps = [
        Node(
            nodes.describe_sizes,
            ["params:sizes", *(f"params:models.{v}" for v in nodes.VARIANTS[:-1])],
            "sizes",
            name="describe_sizes",
        ),
        Node(
            nodes.compute_rewards,
            ["interactions", "splits", "item_modal", "split_cuts", "params:reward", "params:engine"],
            "rewards",
            name="compute_rewards",
        ),
        Node(nodes.assemble, ["interactions", "splits", "rewards"], "events", name="assemble"),
        Node(
            nodes.make_lists, ["events", "params:lists"], ["lists", "list_counts"], name="make_lists"
        ),
        _train("mt_dqn", nodes.train_mt_dqn),
        _train("concat_modal", nodes.train_concat_modal),
        _train("vanilla_dqn", nodes.train_vanilla_dqn),
        Node(
            nodes.fit_popularity,
            [*TABLES, "params:models.popularity"],
            "popularity_model",
            name="fit_popularity",
            tags=["training"],
        ),
        *map(_predict, nodes.VARIANTS),
        Node(
            nodes.export_fusion,
            ["mt_dqn_model", *TABLES, "params:prediction", "params:training"],
            ["gates", "attention"],
            name="export_fusion",
            tags=["prediction"],
        ),
        _judge_against_truth(nodes.VARIANTS),
        _evaluate(nodes.VARIANTS, "study_main"),
        _study(social=source in SOCIAL),
        Node(
            nodes.collect,
            ["study_main", "study_cells"],
            "results",
            name="collect",
            tags=["evaluation"],
        ),
        Node(
            report.draw,
            [
                "results", "events", "mt_dqn_impressions", "gates", "attention", "ingestion_report",
                "params:reward", *(f"{v}_history" for v in nodes.VARIANTS[:-1]),
            ],
            [f"figure_{name}" for name in report.FIGURES],
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                "results": "results",
                "ingestion_report": "ingestion_report",
                "split_cuts": "split_cuts",
                "list_counts": "list_counts",
                "sizes": "sizes",
                "events": "events",
                "raw_manifest": "raw_manifest",
                "item_modal": "item_modal",
                "reward": "params:reward",
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
            name: f"{source}.{name}"
            for name in (*SHARED, *(["social_edges"] if source in SOCIAL else []))
        }
        | {name: f"{split_of or source}.{name}" for name in OF_SPLIT},
        parameters={
            "params:engine": "params:engine",
            "params:system": f"params:{system}",
            "params:shared": f"params:{nodes.MAIN}",
            **{f"params:{name}": f"params:{nodes.MAIN}.{name}" for name in COMMON},
            **{f"params:models.{v}": f"params:{nodes.MAIN}.models.{v}" for v in nodes.VARIANTS},
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
        },
        tags=[system],
    )


def create_judging(
    system: str, variants: Sequence[str], teacher: str = "mt_dqn", source: str = "kuairand"
) -> Pipeline:
    """Another system's ``{variant}_model``, built on MT-DQN's inputs, judged as MT-DQN is and paired with it: ``variant_quality``.

    Args:
        system: namespace of the models and of what is said of them; a block of parameters, too.
        variants: the models.
        teacher: namespace of MT-DQN's run.
        source: of its log.
    """
    from_source = ("items", "item_modal", "users", "user_map", "item_map", "raw_manifest", "split_cuts")  # fmt: skip
    own = [f"{nodes.MAIN}_{part}" for part in ("impressions", "lists", "catalogue", "targets")]
    everyone = (nodes.MAIN, *variants)
    return Pipeline(
        [
            *map(_predict, variants),
            _judge_against_truth(everyone),
            _evaluate(everyone, "variant_quality"),
        ],
        namespace=system,
        inputs={name: f"{source}.{name}" for name in from_source}
        | {name: f"{teacher}.{name}" for name in ("events", "lists", *own)},
        parameters={
            "params:system": f"params:{system}",
            "params:shared": f"params:{nodes.MAIN}",
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
            **{
                f"params:{name}": f"params:{nodes.MAIN}.{name}"
                for name in ("reward", "training", "prediction", "evaluation")
            },
        },
        tags=[system],
    )
