"""What searches for parameters have found, as a page: one study per system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from reelrank.evaluation.verdicts import confirmed_gain
from reelrank.pipelines.reporting.site_model import TUNING
from reelrank.reports.page import Cell, DataKind, Section, plain_table
from reelrank.reports.site import SitePage

NONE_YET = "No study was found: kedro run --pipelines tuning --params system=ruie makes one."


def studies(root: Path, kind: str) -> list[dict[str, Any]]:
    """Of every study on disk what its trials and their confirmation say.

    Args:
        root: folder of the layers.
        kind: folder under each layer.

    Returns:
        system, study, trials, given_up, failed, minutes, defaults (null if they were not trained to their end), best, is_default, seeds, gain
        (mean over those seeds, null without any), verdict; best and defaults are validation metrics.
    """
    folder = root / "08_reporting/tuning" / kind
    return [_study(file.parent) for file in sorted(folder.glob("*/trials.parquet"))]


def _study(folder: Path) -> dict[str, Any]:
    trials = pl.read_parquet(folder / "trials.parquet")
    complete = trials.filter(state="complete").sort("value", "origin", descending=True)
    default = complete.filter(origin="defaults")["value"]
    best = complete.row(0, named=True)
    other = folder / "confirmed.parquet"
    gains = pl.Series(dtype=pl.Float64)
    if other.exists():
        gains = pl.read_parquet(other).select(pl.col("best") - pl.col("defaults")).to_series()
    is_default = bool(default.len()) and best["value"] <= default[0]
    return {
        "system": folder.name,
        "study": best["study"],
        "trials": trials.height,
        "given_up": trials.filter(state="given up").height,
        "failed": trials.filter(state="failed").height,
        "minutes": (trials["seconds"].sum() or 0.0) / 60,
        "defaults": default[0] if default.len() else None,
        "best": best["value"],
        "is_default": is_default,
        "seeds": gains.len(),
        "gain": gains.mean() if gains.len() else None,
        "verdict": "No trial was better than the defaults." if is_default else confirmed_gain(gains),
    }  # fmt: skip


def tuning_page(found: Sequence[Mapping[str, Any]], data_kind: DataKind) -> SitePage:
    """A line per study, and what may be believed of it."""
    columns = [
        "system", "trials", "given up", "failed", "minutes", "defaults", "best", "other seeds", "gain on them", "what it says", "study",
    ]  # fmt: skip
    body = [
        [
            s["system"], s["trials"], s["given_up"], s["failed"], Cell(f"{s['minutes']:.1f}", sort=s["minutes"]), s["defaults"], s["best"],
            s["seeds"], s["gain"], s["verdict"], s["study"],
        ]
        for s in found
    ]  # fmt: skip
    text = (
        "Each system is searched on validation rows alone. The best of many noisy values is better than it will be again, so defaults and best trial are trained once more "
        "with seeds by which nothing was chosen: that gain counts. Curves, importance and every trial stand in the study's own report, tuning_SYSTEM.html."
    )
    tables = [plain_table("Studies", columns, body)] if body else []
    sections = [Section("Studies", text if body else NONE_YET, tables=tables)]
    return SitePage(TUNING, "Tuning", "Whether a search over parameters found something better than the defaults.", sections, data_kind)  # fmt: skip
