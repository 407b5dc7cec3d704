"""Wiring of compression."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.compress import nodes, previews, report
from reelrank.pipelines.compress.options import (
    INT8,
    MAGNITUDE,
    STRUCTURED,
    STUDENT,
    TEACHER,
    VARIANTS,
)

MAIN = "compress"
TABLES = ["events", "item_modal", "items", "users"]
SHARED = ("items", "users", "item_modal", "raw_manifest", "split_cuts")
# what MT-DQN's own pipeline must make first
FROM_TEACHER = ("events", "lists", *(f"{TEACHER}_{part}" for part in ("model", "impressions", "lists", "catalogue", "targets")))  # fmt: skip
COMMON = ("work_dir", "student", "distillation", "training", "pruning", "quantisation", "latency", "untrained")  # fmt: skip


def create_pipeline(
    system: str = MAIN, teacher: str = TEACHER, source: str = "kuairand"
) -> Pipeline:
    """A trained teacher to smaller networks, what they cost, what they are worth, and a report.

    Their predictions and ``variant_quality`` come from MT-DQN's template (``mt_dqn.create_judging``), in the same namespace.

    Args:
        system: namespace, and block of parameters.
        teacher: namespace of MT-DQN's run.
        source: of its log.
    """
    learning = [f"params:{name}" for name in ("distillation", "training", "work_dir")]
    figures = {f"figure_{name}": f"figure_{name}" for name in report.FIGURES}
    origin = {name: f"params:{name}" for name in ("training", "system", "shared", "source", "world")}  # fmt: skip
    steps = [
        Node(
            nodes.distil,
            [f"{TEACHER}_model", "params:student", *learning, *TABLES],
            [f"{STUDENT}_model", f"{STUDENT}_history"],
            name="distil",
            tags=["gpu", "training"],
            preview_fn=previews.student,
        ),
        Node(
            nodes.prune,
            [f"{TEACHER}_model", "params:pruning", *learning, *TABLES],
            [*(f"{variant}_model" for variant in (*MAGNITUDE, *STRUCTURED)), "pruned_history"],
            name="prune",
            tags=["gpu", "training"],
        ),
        Node(
            nodes.quantise,
            [f"{TEACHER}_model", f"{STUDENT}_model", "params:quantisation"],
            [f"{variant}_model" for variant in INT8],
            name="quantise",
            tags=["training"],
        ),
        Node(
            nodes.measure,
            {
                **{name: name for name in TABLES},
                **{name: f"params:{name}" for name in ("latency", "untrained")},
                **{variant: f"{variant}_model" for variant in (TEACHER, *VARIANTS)},
            },
            ["latencies", "module_sizes"],
            name="measure",
            tags=["evaluation"],
        ),
        Node(
            nodes.collect,
            {
                **{n: n for n in ("latencies", "raw_manifest", "split_cuts")},
                "quality": "variant_quality",
                "sizes": "module_sizes",
                **origin,
            },
            "results",
            name="collect",
            tags=["evaluation"],
        ),
        Node(
            report.draw,
            ["results", f"{STUDENT}_history", "pruned_history", "params:latency"],
            list(figures),
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                **{n: n for n in ("results", "split_cuts", "raw_manifest")},
                **{n: f"params:{n}" for n in ("latency", "command")},
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
        inputs={name: f"{source}.{name}" for name in SHARED}
        | {name: f"{teacher}.{name}" for name in ("events", f"{TEACHER}_model")}
        | {"variant_quality": f"{system}.variant_quality"},
        parameters={
            "params:command": f"params:{system}.command",
            "params:system": f"params:{system}",
            "params:shared": f"params:{TEACHER}",
            "params:source": f"params:{source}",
            "params:world": f"params:worlds.{source}",
            **{f"params:{name}": f"params:{MAIN}.{name}" for name in COMMON},
        },
        tags=[system],
    )
