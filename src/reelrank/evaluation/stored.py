"""Result rows as runs left them: one Parquet file per namespace and run (ARCHITECTURE choice 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl

from reelrank.tables import Results

KEYS = ("system", "source", "experiment", "cell", "variant", "paired_with", "metric", "group", "weighting", "split", "track", "seed")  # fmt: skip
"""What a result row is about; within a run each combination stands once."""
NUMBERS = ("value", "ci_low", "ci_high", "n", "reliable", "code_version", "config_hash")


def namespaces(folder: Path) -> list[str]:
    """Systems that have stored rows."""
    return sorted({file.parent.name for file in folder.glob("*/*.parquet")})


def runs(folder: Path, namespace: str = "*") -> dict[str, list[Path]]:
    """Run id → files with its rows, newest run first."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob(f"{namespace}/*.parquet")):
        found.setdefault(file.stem, []).append(file)
    return dict(sorted(found.items(), reverse=True))


def read_rows(files: Iterable[Path]) -> pl.DataFrame:
    """Result rows of some files, with the ``namespace`` that each lay in."""
    names = [*Results.polars_schema()]
    frames = [pl.DataFrame(schema=Results.polars_schema()).with_columns(namespace=pl.lit(""))]
    for file in files:
        rows = pl.read_parquet(file).select(names)
        frames.append(rows.with_columns(namespace=pl.lit(file.parent.name)))
    return pl.concat(frames)


def newest_rows(folder: Path, namespace: str = "*") -> pl.DataFrame:
    """Rows of the newest run of each namespace."""
    newest: dict[str, Path] = {}
    for files in runs(folder, namespace).values():
        for file in files:
            newest.setdefault(file.parent.name, file)
    return read_rows(newest.values())


def answering(rows: pl.DataFrame, namespace_of: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """Rows that may answer an experiment: those that the experiments collected, and those of the systems that it names.

    A second source of a system (``ruie_kuairand``) marks its rows with the same experiments; they are not about the same question.

    Args:
        rows: with ``namespace``.
        namespace_of: (experiment, namespace) pairs whose rows count.
    """
    pairs = pl.DataFrame(list(namespace_of), schema={"experiment": pl.String, "namespace": pl.String}, orient="row")  # fmt: skip
    own = rows.join(pairs.unique(), on=["experiment", "namespace"], how="semi")
    collected = rows.filter(pl.col("namespace") == "experiments")
    return pl.concat([own.filter(pl.col("namespace") != "experiments"), collected])


def compare(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Rows of two runs side by side.

    Returns:
        ``KEYS``; ``NUMBERS`` of both as ``<name>_a`` and ``<name>_b``, null where a run has no such row; ``difference`` (b − a);
        ``same_code`` and ``same_config``, null where one is missing.
    """
    keys = [*KEYS]
    a, b = (_sided(frame, side) for frame, side in ((first, "a"), (second, "b")))
    joined = a.join(b, on=keys, how="full", coalesce=True, nulls_equal=True)
    return joined.with_columns(
        difference=pl.col("value_b") - pl.col("value_a"),
        same_code=pl.col("code_version_a") == pl.col("code_version_b"),
        same_config=pl.col("config_hash_a") == pl.col("config_hash_b"),
    ).sort("experiment", "cell", "variant", "metric", "group", "weighting", "paired_with")


def _sided(rows: pl.DataFrame, side: str) -> pl.DataFrame:
    numbers = (pl.col(name).alias(f"{name}_{side}") for name in NUMBERS)
    return rows.unique([*KEYS], keep="last", maintain_order=True).select(*KEYS, *numbers)


def distinct(rows: pl.DataFrame, columns: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """(column, its distinct values) for those that are not all the same."""
    for column in columns:
        values = rows[column].drop_nulls().unique().sort().to_list()
        if len(values) > 1:
            yield column, values
