"""Write the newest sample-world results into the README, between its two markers."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import polars as pl

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


def table(results: pl.DataFrame) -> str:
    """Markdown of the headline metrics."""
    lines = [f"| | {' | '.join(LABELS)} | n |", f"|{' --- |' * (len(LABELS) + 2)}"]
    for metric, group, weighting, label in ROWS:
        rows = results.filter(
            pl.col("paired_with").is_null(), metric=metric, group=group, weighting=weighting
        )
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=ROOT / "data/08_reporting/results/sample/mt_dqn"
    )
    newest = max(parser.parse_args().results.glob("*.parquet"))
    loaded = pl.read_parquet(newest)
    if loaded["data_kind"][0] != "world":
        raise SystemExit(f"{newest} is not a run on the sample world; run `make run` first")
    readme = ROOT / "README.md"
    text = re.sub(
        r"(<!-- numbers: \S+ -->\n).*(<!-- /numbers -->)",
        lambda m: f"{m[1]}{table(loaded)}\n{m[2]}",
        readme.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    readme.write_text(text, encoding="utf-8")
