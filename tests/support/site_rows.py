"""A data folder with result rows of two versions of the code, and the site that is drawn from it."""

import json

import polars as pl

from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.pipelines.reporting import nodes
from reelrank.pipelines.reporting.options import ReportingParameters

OLD, NEW = "2026-01-01T00.00.00.000Z", "2026-02-01T00.00.00.000Z"
REGISTRY = {
    "RU-01": {
        "question": "Is RUIE better?", "asked_by": "main table", "cells": {"models": {"pipeline": "ruie", "node": "evaluate"}}, "minutes": 1,
        "reading": {"rule": "the difference lies above 0", "claims": [
            {"says": "RUIE beats NextItNet", "where": {"metric": "ndcg@10", "variant": "ruie", "paired_with": "nextitnet"}, "above": 0}]},
    },
    "RU-02": {"question": "What do parts carry?", "asked_by": "ablations", "status": "not wired yet", "reading": {"rule": "a drop"}},
}  # fmt: skip
PUBLISHED = {
    "systems": ["ruie"], "title": "NDCG on KuaiSAR", "data": "KuaiSAR", "comparability": "approximate", "why": "Another split.",
    "quantity": "ndcg", "where": {"weighting": "macro", "group": "all"}, "along": "metric", "columns": ["ndcg@5", "ndcg@10"], "scale": 0.01,
    "rows": {"ruie": [3.0, 7.5], "nextitnet": [2.0, None], "sasrec": None},
    "lost": [{"method": "nextitnet", "response": "ndcg@10", "metric": "ndcg", "low": 4, "high": 7}],
}  # fmt: skip


def rows_of(version, shift, seed=0, source="kuaisar"):
    rows = [
        ResultRow("ruie", "ndcg@10", 0.12 + shift, 90, 0.10 + shift, 0.14 + shift, weighting="macro"),
        ResultRow("nextitnet", "ndcg@10", 0.08 + shift, 90, 0.06 + shift, 0.1 + shift, weighting="macro"),
        ResultRow("ruie", "ndcg@10", 0.04, 90, 0.01, 0.07, weighting="macro", paired_with="nextitnet", p_value=0.01),
        ResultRow("ruie", "ndcg@5", 0.05 + shift, 9, reliable=False, weighting="macro"),
    ]  # fmt: skip
    return results_frame(
        rows, system="ruie", source=source, split="time/test", seed=seed, data_kind="world", config_hash="c", code_version=version,
        experiment="RU-01", cell="main",
    )  # fmt: skip


def claim_rows():
    rows = [ResultRow("ruie", "ndcg@10", 0.1 * k, 50) for k in range(3)]
    frame = results_frame(rows, system="ruie", source="kuaisar", split="time/test", seed=0, data_kind="world", config_hash="c", code_version="v2", experiment="claims")  # fmt: skip
    cells = pl.Series("cell", ["small | is not worse: holds", "small | is not worse: fails", "small | as it is: shown"])  # fmt: skip
    return frame.with_columns(cells)


def store(tmp_path):
    """A data folder with two runs of one system by two versions of the code, claims, and one ingested source."""
    results = tmp_path / "08_reporting/results/sample"
    stored = [("ruie", OLD, rows_of("v1", 0.3)), ("ruie", NEW, rows_of("v2", 0.0)), ("claims_ruie", NEW, claim_rows())]  # fmt: skip
    for namespace, run_id, rows in stored:
        (results / namespace).mkdir(parents=True, exist_ok=True)
        rows.with_columns(run_id=pl.lit(run_id)).write_parquet(
            results / namespace / f"{run_id}.parquet"
        )
    for kind, likes, raw in (("sample", [1, 0, 0, 1], "world"), ("real", [0, 0, 0, 1], "files")):
        primary = tmp_path / "03_primary" / kind / "kuaisar"
        (primary / "interactions").mkdir(parents=True)
        log = {"user_id": [0, 0, 1, 1], "item_id": [0, 1, 0, 1], "like": likes, "play_ms": [1, 2, 3, 4]}  # fmt: skip
        pl.DataFrame(log).write_parquet(primary / "interactions/bucket=00000.parquet")
        pl.DataFrame({"item_id": [0, 1]}).write_parquet(primary / "items.parquet")
        report = tmp_path / "02_intermediate" / kind / "kuaisar/ingestion_report.json"
        report.parent.mkdir(parents=True)
        steps = [{"step": "rows read", "rows": 5}, {"step": "canonical rows", "rows": 4}]
        report.write_text(json.dumps({"kind": raw, "steps": steps, "files": [], "users": 2, "items": 2}))  # fmt: skip
    return tmp_path


def options(root, **changed):
    given = {
        "command": "kedro run --pipelines reporting", "data_root": str(root), "kind": "sample",
        "systems": {"ruie": {"title": "RUIE", "about": "Next items.", "headline": {"metric": "ndcg@10", "weighting": "macro"}}},
        "sources": {"kuaisar": {"title": "KuaiSAR", "about": "Search."}, "kuairec": {"title": "KuaiRec", "about": "A matrix."}},
        "models": {"ruie": "A gate.", "nextitnet": "Convolutions."}, "published": [PUBLISHED],
        "remarks": [{"systems": ["ruie"], "says": "best", "found": "not shown"}],
    }  # fmt: skip
    return ReportingParameters.model_validate(given | changed)


def draw(root, **changed):
    reporting = options(root, **changed)
    rows, data = nodes.collect_rows(reporting), nodes.describe_data(reporting)
    return nodes.draw(rows, data, nodes.find_studies(reporting), reporting, {"registry": REGISTRY})
