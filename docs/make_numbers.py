"""Write stored results into the README, between its markers: the newest sample run's numbers, and what has run on which data."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from reelrank.evaluation.stored import read_rows

ROOT = Path(__file__).parents[1]
ROWS = (
    ("true_ndcg@5", "catalogue", "", "true NDCG@5"),
    ("ndcg@5", "logged", "binary", "NDCG@5, logged lists"),
    ("ndcg@5", "catalogue", "binary", "NDCG@5, catalogue"),
    ("f1", "all", "macro", "F1, macro"),
    ("ap", "all", "macro", "AP, macro"),
    ("value_mse", "on_policy", "", "value MSE (lower is better)"),
)
VARIANTS = ("mt_dqn", "concat_modal", "vanilla_dqn", "popularity", "random")
LABELS = ("MT-DQN", "Concat-Modal", "Vanilla-DQN", "popularity", "random")
SOURCES = {"kuairand": "KuaiRand", "kuairec": "KuaiRec", "kuaisar": "KuaiSAR", "weibo": "Weibo", "events": "own log"}  # fmt: skip
KINDS = {
    "real": ("real rows", "--env real --params raw_root=…"),
    "sample": ("sample world", ""),
    "test": ("sample world, test sizes", "--env test"),
}
"""Folder under ``results`` → what its rows are of, and how a run is asked for them; in the table's order."""


def table(results: pl.DataFrame) -> str:
    """Markdown of the headline metrics."""
    lines = [f"| | {' | '.join(LABELS)} | n |", f"|{' --- |' * (len(LABELS) + 2)}"]
    for metric, group, weighting, label in ROWS:
        rows = results.filter(
            pl.col("paired_with").is_null(), metric=metric, group=group, weighting=weighting
        )
        if rows.is_empty():
            continue
        cells = []
        for variant in VARIANTS:
            own = rows.filter(variant=variant)
            if own.is_empty():
                cells.append("–")
                continue
            row = own.row(0, named=True)
            cells.append(f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]")
        lines.append(f"| {label} | {' | '.join(cells)} | {rows['n'].max():,} |")
    first = results.row(0, named=True)
    lines += ["", f"Run {first['run_id']}, code {first['code_version']}."]
    return "\n".join(lines)


def status(rows: pl.DataFrame) -> str:
    """Markdown of what has result rows: a line per system, data set and kind of data, with the newest run and its command.

    Args:
        rows: ``Results`` with ``namespace`` and ``kind``, the folder that they lay in; claims are left out.
    """
    runs = (
        rows.filter(~pl.col("namespace").str.starts_with("claims"))
        .filter(pl.col("run_id") == pl.col("run_id").max().over("namespace", "source", "kind"))
        .group_by("namespace", "source", "kind")
        .agg(
            pl.col("run_id").first(),
            pl.col("code_version").unique().sort().str.join(", "),
            pl.col("variant").n_unique().alias("models"),
            numbers=pl.len(),
            unreliable=(~pl.col("reliable")).sum(),
        )
    )
    order = {kind: i for i, kind in enumerate(KINDS)}
    runs = runs.sort("namespace", "source", pl.col("kind").replace_strict(order, default=len(order)))  # fmt: skip
    lines = ["| system | data | status |", "| --- | --- | --- |"]
    for row in runs.iter_rows(named=True):
        of, asked = KINDS.get(row["kind"], (row["kind"], f"--env {row['kind']}"))
        command = f"kedro run --pipelines {row['namespace']} {asked}".strip()
        told = f"{row['numbers']:,} numbers, {row['unreliable']:,} of them not reliable; run {row['run_id']}, code {row['code_version']}; `{command}`"
        lines.append(f"| {row['namespace']} | {SOURCES.get(row['source'], row['source'])}, {of} | {told} |")  # fmt: skip
    return "\n".join(lines)


def stored(folders: Sequence[Path]) -> pl.DataFrame:
    """Rows of some folders of results, ``<folder>/<kind>/<namespace>/<run id>.parquet``, with their kind."""
    kinds = sorted({place for folder in folders for place in folder.glob("*") if place.is_dir()})
    found = [read_rows(sorted(p.glob("*/*.parquet"))).with_columns(kind=pl.lit(p.name)) for p in kinds]  # fmt: skip
    if not any(part.height for part in found):
        raise SystemExit(f"no result rows under {', '.join(map(str, folders))}; run `make run` first")  # fmt: skip
    return pl.concat(found)


def between(text: str, name: str, written: str) -> str:
    """The page with what stands between the markers of a name replaced.

    Raises:
        ValueError: the page has no such markers.
    """
    pattern = rf"(<!-- {name}: \S+ -->\n).*(<!-- /{name} -->)"
    changed, times = re.subn(pattern, lambda m: f"{m[1]}{written}\n{m[2]}", text, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"the page has {times} pairs of markers <!-- {name}: … --> and <!-- /{name} -->, not one")  # fmt: skip
    return changed


def page(text: str, rows: pl.DataFrame) -> str:
    """The README with its generated parts drawn from rows of :func:`stored`; without a sample run of MT-DQN its numbers stay."""
    text = between(text, "status", status(rows))
    runs = rows.filter(namespace="mt_dqn", kind="sample", source="kuairand")
    newest = runs.filter(pl.col("run_id") == pl.col("run_id").max())
    return text if newest.is_empty() else between(text, "numbers", table(newest))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    default = [ROOT / "data/08_reporting/results"]
    parser.add_argument("--results", type=Path, nargs="+", default=default, help="folders of result rows, each with a folder per kind")  # fmt: skip
    readme = ROOT / "README.md"
    found = stored(parser.parse_args().results)
    readme.write_text(page(readme.read_text(encoding="utf-8"), found), encoding="utf-8")
