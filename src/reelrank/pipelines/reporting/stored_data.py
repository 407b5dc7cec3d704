"""What lies on disk of a data set: rows from raw files to model input, and how its columns are distributed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from reelrank.tables import FEEDBACKS

LAYERS = {"02_intermediate": "intermediate", "03_primary": "canonical", "04_feature": "features", "05_model_input": "model input"}  # fmt: skip
EXPECTED = {"03_primary": ("interactions", "items", "users"), "04_feature": ("splits",)}
QUANTILES = (0.1, 0.5, 0.9)
MEASURED = {"watch_ratio": "share of the video watched", "play_ms": "time watched (ms)", "duration_ms": "length of the video (ms)"}  # fmt: skip
Z = 1.959964


def describe(root: Path, kind: str, source: str) -> dict[str, Any]:
    """Report of ingestion, sizes of tables and marginals of the interactions; what is not there is null.

    Args:
        root: folder of the layers.
        kind: folder under each layer.
        source: data set.
    """
    report = root / "02_intermediate" / kind / source / "ingestion_report.json"
    interactions = root / "03_primary" / kind / source / "interactions"
    return {
        "kind": kind,
        "report": json.loads(report.read_text(encoding="utf-8")) if report.exists() else None,
        "tables": [row for layer in LAYERS for row in _tables(root, layer, kind, source)],
        "marginals": marginals(pl.scan_parquet(_files(interactions))) if _files(interactions) else None,
    }  # fmt: skip


def kind_of_report(report: Mapping[str, Any] | None) -> str:
    """Whether rows on disk are generated or real, as a word."""
    if report is None:
        return "not on disk"
    return "synthetic" if report.get("kind") == "world" else "real"


def marginals(interactions: pl.LazyFrame) -> dict[str, list[dict[str, Any]]]:
    """How often each feedback is given, and quantiles of what was measured.

    Returns:
        ``rates``: feedback, value, ci_low, ci_high (95 %, users as clusters), n; ``quantiles``: what, p10, p50, p90, n. All-null columns are left out.
    """
    names = set(interactions.collect_schema().names())
    feedbacks = [f for f in FEEDBACKS if f in names]
    users = interactions.group_by("user_id").agg(
        pl.len().alias("rows"),
        *(pl.col(f).cast(pl.Int64).sum().alias(f) for f in feedbacks),
        *(pl.col(f).count().alias(f"n_{f}") for f in feedbacks),
    )
    by_user = users.collect()
    items = interactions.group_by("item_id").agg(rows=pl.len()).collect()
    found = [_rate(by_user, f) for f in feedbacks if by_user[f"n_{f}"].sum()]
    measured = [m for m in MEASURED if m in names]
    parts = interactions.select(
        *(pl.col(m).quantile(q).alias(f"{m} {q}") for m in measured for q in QUANTILES),
        *(pl.col(m).count().alias(f"{m} n") for m in measured),
    ).collect().row(0, named=True)  # fmt: skip
    quantiles = [_quantiles(MEASURED[m], [parts[f"{m} {q}"] for q in QUANTILES], parts[f"{m} n"]) for m in measured if parts[f"{m} n"]]  # fmt: skip
    for what, frame in (("exposures of a user", by_user), ("exposures of an item", items)):
        quantiles.append(_quantiles(what, [frame["rows"].quantile(q) for q in QUANTILES], frame.height))  # fmt: skip
    return {"rates": found, "quantiles": quantiles}


def _rate(by_user: pl.DataFrame, feedback: str) -> dict[str, Any]:
    """A ratio of sums over users, with the variance of its linear part."""
    given, rows = by_user[feedback].to_numpy(), by_user[f"n_{feedback}"].to_numpy()
    n, n_users = int(rows.sum()), int((rows > 0).sum())
    rate = float(given.sum() / n)
    spread = float((((given - rate * rows) ** 2).sum() * n_users / max(n_users - 1, 1)) ** 0.5 / n)
    known = n_users > 1
    return {
        "feedback": feedback,
        "value": rate,
        "ci_low": max(rate - Z * spread, 0.0) if known else None,
        "ci_high": min(rate + Z * spread, 1.0) if known else None,
        "n": n,
    }


def _quantiles(what: str, values: Sequence[float | None], n: int) -> dict[str, Any]:
    return {"what": what, **{f"p{round(100 * q)}": v for q, v in zip(QUANTILES, values, strict=True)}, "n": n}  # fmt: skip


def _tables(root: Path, layer: str, kind: str, source: str) -> list[dict[str, Any]]:
    """Rows of every table of a layer, those that should be there and are not with null."""
    folder = root / layer / kind / source
    there = {p.stem: _files(p) for p in sorted(folder.glob("*")) if not p.name.startswith(".")}
    there = {name: files for name, files in there.items() if files}
    names = [*dict.fromkeys([*EXPECTED.get(layer, ()), *there])]
    return [
        {"layer": LAYERS[layer], "table": name, "rows": _count(there[name]) if name in there else None}
        for name in names
    ]  # fmt: skip


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(place.rglob("*.parquet"))
    return [place] if place.suffix == ".parquet" and place.exists() else []


def _count(files: Sequence[Path]) -> int:
    """Rows, by the footers."""
    return int(pl.scan_parquet(list(files)).select(pl.len()).collect().item())
