"""Wiring of the validity studies."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from reelrank.pipelines.ope_validity import nodes, report

KUAIRAND = ("raw_manifest", "interactions", "user_map", "item_map", "items", "splits", "split_cuts")
KUAIREC = ("raw_manifest", "interactions", "observed", "items")
STUDIES = ("bandit", "matrix", "random_log", "rankings")


def create_pipeline(
    system: str = "ope_validity", feed: str = "kuairand", matrix: str = "kuairec"
) -> Pipeline:
    """Tables of KuaiRand and KuaiRec to result rows, figures and a page.

    Args:
        system: namespace.
        feed: source with a random log, and requests where it is a world.
        matrix: source with a fully observed matrix.
    """
    kuairec = {name: f"matrix_{name}" for name in KUAIREC}
    steps = [
        Node(
            nodes.study_bandit,
            ["raw_manifest", "interactions", "user_map", "item_map", "items", "params:bandit"],
            "study_bandit",
            name="study_bandit",
            tags=["evaluation"],
        ),
        Node(
            nodes.study_matrix,
            [*(kuairec[n] for n in ("raw_manifest", "observed", "interactions", "items")), "params:matrix"],
            "study_matrix",
            name="study_matrix",
            tags=["evaluation"],
        ),
        Node(
            nodes.study_random_log,
            ["raw_manifest", "interactions", "splits", "user_map", "item_map", "items", "split_cuts", "params:random_log"],
            "study_random_log",
            name="study_random_log",
            tags=["evaluation"],
        ),
        Node(
            nodes.study_rankings,
            ["raw_manifest", "interactions", "splits", "items", "split_cuts", "params:rankings"],
            "study_rankings",
            name="study_rankings",
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
            "results",
            [f"figure_{name}" for name in report.FIGURES],
            name="draw",
            tags=["reporting"],
        ),
        Node(
            report.write,
            {
                "results": "results",
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
            **{name: f"{feed}.{name}" for name in KUAIRAND},
            **{own: f"{matrix}.{name}" for name, own in kuairec.items()},
        },
        tags=[system],
    )
