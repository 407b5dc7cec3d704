"""Results as rows: everything that is shown is drawn from them (ARCHITECTURE choice 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import polars as pl

from reelrank.evaluation.uncertainty import Difference, Estimate
from reelrank.provenance import code_version
from reelrank.tables import Results

OPTIONAL = {"run_id": "", "track": "honest", "experiment": None, "cell": None}


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One evaluated number; the fields are columns of :class:`reelrank.tables.Results`. NaN is stored as null."""

    variant: str
    metric: str
    value: float
    n: int
    ci_low: float | None = None
    ci_high: float | None = None
    reliable: bool = True
    group: str = "all"
    weighting: str = ""
    paired_with: str | None = None
    p_value: float | None = None

    @classmethod
    def from_estimate(
        cls,
        variant: str,
        metric: str,
        estimate: Estimate,
        *,
        group: str = "all",
        weighting: str = "",
    ) -> ResultRow:
        """The row of one model's value."""
        e = estimate
        return cls(variant, metric, e.value, e.n, e.ci_low, e.ci_high, e.reliable, group, weighting)

    @classmethod
    def from_difference(
        cls,
        variant: str,
        paired_with: str,
        metric: str,
        difference: Difference,
        *,
        group: str = "all",
        weighting: str = "",
    ) -> ResultRow:
        """The row of a paired difference ``variant − paired_with``."""
        d = difference
        return cls(
            variant, metric, d.value, d.n, d.ci_low, d.ci_high, d.reliable, group, weighting, paired_with, d.p_value,
        )  # fmt: skip


def results_frame(rows: Iterable[ResultRow], **common: str | int | None) -> pl.DataFrame:
    """A frame of :class:`reelrank.tables.Results`.

    Args:
        rows: the numbers.
        common: the other columns, equal for all rows: system, source, split, seed, data_kind, config_hash, and where
            they differ from '', honest, null, null: run_id (the dataset fills an empty one), track, experiment, cell.

    Raises:
        ValueError: a column is missing or unknown.
    """
    constants = {**OPTIONAL, "code_version": code_version(), **common}
    wanted = set(Results.polars_schema()) - set(ResultRow.__dataclass_fields__)
    if constants.keys() != wanted:
        raise ValueError(
            f"results_frame: missing {sorted(wanted - constants.keys())}, unknown {sorted(constants.keys() - wanted)}"
        )
    schema = Results.polars_schema()
    varying = {name: schema[name] for name in ResultRow.__dataclass_fields__}
    frame = pl.DataFrame([asdict(row) for row in rows], schema=varying)
    return Results.conform(
        frame.with_columns(
            pl.col(pl.Float64).fill_nan(None),
            *(pl.lit(value, schema[name]).alias(name) for name, value in constants.items()),
        )
    )
