"""The section of MT-DQN's report on its experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.reports import figures
from reelrank.reports.page import Cell, Section, Table, plain_table

MAIN = "MT-01"
COLUMNS = {
    "true NDCG@5": ("true_ndcg@5", "catalogue", ""),
    "NDCG@5, logged": ("ndcg@5", "logged", "binary"),
    "F1, macro": ("f1", "all", "macro"),
    "value MSE": ("value_mse", "on_policy", ""),
    "audio gate": ("gate_weight", "audio", ""),
    "Q̂ − G": ("q_bias", "all", ""),
}
"""Title → metric, group, weighting."""

BROUGHT = {
    "composite reward": ("proxy_reward@5", "catalogue", ""),
    "true long views": ("true_long_view@5", "catalogue", ""),
    "true returns": ("true_return@5", "catalogue", ""),
    "hacked": ("reward_hacking", "catalogue", ""),
}
SPREADS = {
    "sd of the value's MSE": ("value_mse_spread", "on_policy", ""),
    "sd of its MAE": ("value_mae_spread", "on_policy", ""),
    "sd of the reward's MSE": ("reward_mse_spread", "all", ""),
}
MONITORS = {
    "gate entropy": ("gate_entropy", "all", ""),
    "attention entropy": ("attention_entropy", "all", ""),
    "largest |Q|": ("q_abs_max", "all", ""),
    "warnings": ("failure_warnings", "all", ""),
}


def figure(results: pl.DataFrame) -> go.Figure:
    """Differences of every cell in logged NDCG@5, or a panel that says that no study was run."""
    rows = _cells(results).filter(
        pl.col("paired_with").is_not_null(), metric="ndcg@5", group="logged", weighting="binary"
    )
    if rows.is_empty():
        return go.Figure(layout={"title": {"text": "No study was run"}, "height": 120})
    named = pl.col("experiment") + ": " + pl.col("cell").str.replace_all("_", " ")
    return figures.cell_intervals(
        rows.with_columns(cell=named),
        "Experiments",
        "NDCG@5 on logged lists minus that of what it is compared with",
        zero=True,
    )


def sections(results: pl.DataFrame, drawn: go.Figure) -> list[Section]:
    """The section, if a study was run."""
    cells = _cells(results)
    if cells.is_empty():
        return []
    is_spread = pl.col("metric").str.ends_with("_spread")
    spreads, cells = cells.filter(is_spread), cells.filter(~is_spread)
    tables = [
        _table(cells, COLUMNS, "What each cell is worth, and its difference"),
        _table(cells, MONITORS, "Signatures of failure, last epoch (MT-13)", differences=False),
    ]
    hacked = cells.filter(metric="reward_hacking").select("experiment", "cell")
    if hacked.height:
        judged = cells.join(hacked, on=["experiment", "cell"], how="semi", maintain_order="left")
        caption = "What the five best videos bring by the truth (MT-03, MT-10)"
        tables.insert(1, _table(judged, BROUGHT, caption))
    if spreads.height:
        tables.append(
            _table(spreads, SPREADS, "How much errors differ between corruptions (MT-08)")
        )
    return [Section("Experiments", _TEXT, figures=[drawn], tables=tables)]


_TEXT = (
    "Each cell is MT-DQN with some options changed, or on inputs that were perturbed, and stands beside the run's own model or the cell that the pair "
    "names; users and resamples are the same. A reward is called hacked where by the cell's own composite reward its lists are better than the "
    "other's, interval above 0, while by the world's truth long views or returns fall, interval below 0."
)


def _cells(results: pl.DataFrame) -> pl.DataFrame:
    return results.filter(pl.col("experiment") != MAIN)


def _table(
    cells: pl.DataFrame,
    columns: Mapping[str, tuple[str, str, str]],
    caption: str,
    *,
    differences: bool = True,
) -> Table:
    """A row per cell: each value with its interval, and below it the difference."""
    value, difference = (
        {tuple(r[c] for c in ("experiment", "cell", "metric", "group", "weighting")): r for r in rows.iter_rows(named=True)}
        for rows in (cells.filter(pl.col("paired_with").is_null()), cells.filter(pl.col("paired_with").is_not_null()))
    )  # fmt: skip
    against = dict(
        ((e, c), p)
        for e, c, p in cells.drop_nulls("paired_with").select("experiment", "cell", "paired_with").iter_rows()
    )  # fmt: skip
    body: list[list[object]] = []
    for e, c in cells.select("experiment", "cell").unique(maintain_order=True).iter_rows():
        shown: list[object] = [e, c.replace("_", " ")]
        for key in columns.values():
            shown.append(_number(value.get((e, c, *key))))
            if differences:
                shown.append(_number(difference.get((e, c, *key)), "+"))
        if differences:
            shown.append(_rival(against.get((e, c), "–")))
        body.append(shown)
    titles = [t for title in columns for t in ([title, "difference"] if differences else [title])]
    return plain_table(
        caption, ["experiment", "cell", *titles, *(["from"] if differences else [])], body
    )


def _rival(paired_with: str) -> str:
    _, _, cell = paired_with.partition(", ")
    return cell.replace("_", " ") or "the run's own model"


def _number(row: Mapping[str, Any] | None, sign: str = "") -> Cell:
    if row is None or row["value"] is None:
        return Cell("–", muted=True)
    low, high = row["ci_low"], row["ci_high"]
    detail = "" if low is None else f"[{low:{sign}.3f}, {high:{sign}.3f}]"
    return Cell(f"{row['value']:{sign}.3f}", detail, float(row["value"]), muted=not row["reliable"])
