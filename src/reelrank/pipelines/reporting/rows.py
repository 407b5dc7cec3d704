"""Which of all stored result rows are shown, and which are history: two versions of the code never meet in one table."""

from __future__ import annotations

import polars as pl

CLAIMS = "claims"
COLLECTED = "experiments"
BLOCK = ("namespace", "system", "source", "data_kind", "experiment", "cell", "track", "split")
"""Rows that a table may hold together, once seed and code version agree too."""
VALUES = pl.col("paired_with").is_null()


def shown(rows: pl.DataFrame) -> pl.DataFrame:
    """Of every block and seed the rows of its newest run, and of that run's versions of the code the last."""
    run = pl.concat_str("run_id", "code_version", separator="\t")
    return rows.filter(run == run.max().over(*BLOCK, "seed"))


def older(rows: pl.DataFrame) -> pl.DataFrame:
    """All rows that :func:`shown` leaves out."""
    kept = ["namespace", "run_id", "code_version", *BLOCK[1:], "seed"]
    return rows.join(shown(rows).select(kept).unique(), on=kept, how="anti", nulls_equal=True)


def of_systems(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that systems wrote of themselves: neither claims nor what the experiments collected a second time."""
    return rows.filter(pl.col("namespace") != COLLECTED, ~_is_claim())


def claims(rows: pl.DataFrame) -> pl.DataFrame:
    """The newest run of every claim: how often it held and failed.

    Returns:
        namespace, system, source, claim, held, failed, value (mean of those judged, one version of the code), n, code_version, run_id, data_kind.
    """
    own = shown_claims(rows)
    judged = own.filter(pl.col("outcome").is_in(["holds", "fails"]))
    keys = ["namespace", "system", "source", "claim", "code_version", "run_id", "data_kind"]
    return (
        judged.group_by(keys, maintain_order=True)
        .agg(
            held=(pl.col("outcome") == "holds").sum(),
            failed=(pl.col("outcome") == "fails").sum(),
            low=pl.col("value").min(),
            high=pl.col("value").max(),
            n=pl.col("n").min(),
        )
        .sort("failed", "namespace", "claim", descending=[True, False, False])
    )


def shown_claims(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of claims, of each namespace's newest run, with ``claim`` and ``outcome`` (holds, fails, or what else was written)."""
    own = rows.filter(_is_claim())
    own = own.filter(pl.col("run_id") == pl.col("run_id").max().over("namespace", "source"))
    parts = pl.col("cell").str.extract_groups(r"^(?<claim>.*): (?<outcome>[^:]*)$")
    return own.with_columns(parts.alias("parts")).unnest("parts")


def listed(column: pl.Series, most: int = 6) -> str:
    """The values of a column, the last ones counted if there are many."""
    values = [str(v) for v in column.drop_nulls().unique().sort().to_list()]
    more = len(values) - most
    return ", ".join(values[:most]) + (f" and {more} more" if more > 0 else "")


def _is_claim() -> pl.Expr:
    return pl.col("experiment").eq(CLAIMS).fill_null(value=False)
