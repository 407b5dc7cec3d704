"""Standardisation with the moments of train rows.

Source: METHODS §1.5 L8, §6.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import polars as pl


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation (n in the denominator) of columns; a constant column has a deviation of 1.

    Attributes:
        mean: by column.
        deviation: by column.
    """

    mean: dict[str, float]
    deviation: dict[str, float]

    @classmethod
    def fit(cls, train: pl.DataFrame, columns: Sequence[str]) -> Self:
        """Moments of train rows; nulls are passed over.

        Raises:
            ValueError: a column has no value in train.
        """
        known = {name: train[name].cast(pl.Float64).drop_nulls() for name in columns}
        if empty := [name for name, values in known.items() if values.is_empty()]:
            raise ValueError(
                f"{', '.join(empty)}: no value in train, so nothing to standardise with"
            )
        # numpy on purpose: its sums do not depend on chunks
        mean = {name: float(values.to_numpy().mean()) for name, values in known.items()}
        deviation = {name: float(values.to_numpy().std()) or 1.0 for name, values in known.items()}
        return cls(mean, deviation)

    def apply(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with each column brought to mean 0 and deviation 1 *of train*, as Float32; nulls stay null."""
        return rows.with_columns(
            ((pl.col(name) - mean) / self.deviation[name]).cast(pl.Float32)
            for name, mean in self.mean.items()
        )
