"""Checks of the columns that metrics take: an error names the first bad row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def same_length(**columns: npt.NDArray[Any]) -> None:
    """Columns are one-dimensional and of one length.

    Raises:
        ValueError: they are not.
    """
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise ValueError(f"columns must be of one length: {shapes}")


def finite(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The column as float64.

    Raises:
        ValueError: a value is null, NaN or infinite.
    """
    return finite_floats(name, values).astype(np.float64, copy=False)


def finite_floats(name: str, values: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    """The column as floats: float32 stays what it is, all else becomes float64. Errors as :func:`finite`."""
    column = np.asarray(values)
    if column.dtype != np.float32:
        column = column.astype(np.float64, copy=False)
    require(name, column, np.isfinite(column), "finite: drop or repair such rows first")
    return column


def require(
    name: str, column: npt.NDArray[Any], fine: npt.NDArray[np.bool_], expected: str
) -> None:
    """Every row is fine.

    Raises:
        ValueError: one is not; the message names it, and what was ``expected``.
    """
    if not fine.all():
        row = int(np.argmin(fine))
        n_bad = fine.size - np.count_nonzero(fine)
        raise ValueError(
            f"{name} of row {row} is {column[row]} ({n_bad} such rows): must be {expected}"
        )
