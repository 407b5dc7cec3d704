"""What a user had done strictly before each row: one pass over a bucket.

Source: METHODS §1.5 L1; moving averages as in the value model, α = 0.1 [A].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field

from reelrank.options import Options
from reelrank.tables import Histories

MS_PER_HOUR = 3_600_000
WATCH_RATIO_CAP = 2.0  # as in r_immediate, METHODS §3.8 [D]


class HistoryOptions(Options):
    """How much the newest row weighs."""

    alpha: float = Field(
        0.1, gt=0, le=1, description="weight of the newest row in a moving average [A]"
    )


def histories(
    interactions: pl.DataFrame, item_category: npt.NDArray[np.int32], options: HistoryOptions
) -> pl.DataFrame:
    """Exponential moving averages of a user's feedback over the rows before each row (bucket function).

    m ← x at the first known value, then m ← (1 − α) m + α x; a null is passed over. Rows with equal times are ordered by ``row_id``.
    Source: METHODS §1.5 L1, α [A].

    Args:
        interactions: every row of some users, as ``Interactions``.
        item_category: (n_items,) first-level category index, −1 = none.
        options: weight of the newest row.

    Returns:
        One row of ``Histories`` per row, in the same order; averages without a known value before the row are null.

    Raises:
        ValueError: rows are not sorted by (user_id, ts_ms, row_id).
    """
    require_time_order(interactions)
    feedback = interactions.select(
        pl.col("long_view", "click", "like").cast(pl.Float32),
        pl.col("watch_ratio").clip(upper_bound=WATCH_RATIO_CAP),
    )
    category = item_category[interactions["item_id"].to_numpy()]
    n_categories = int(item_category.max(initial=-1)) + 1
    user, ts_ms = interactions["user_id"].to_numpy(), interactions["ts_ms"].to_numpy()
    n_before, hours, averages = _scan(
        user,
        ts_ms,
        category,
        n_categories,
        feedback.to_numpy(order="fortran").T,  # (K, n) without a copy; nulls become NaN
        options.alpha,
    )
    names = [*(f"ema_{name}" for name in feedback.columns), "ema_category_long_view"]
    floats = {"hours_since_last": hours} | dict(zip(names, averages, strict=True))
    frame = interactions.select("user_id", "row_id").with_columns(
        pl.Series("n_before", n_before),
        *(pl.Series(name, values).fill_nan(None) for name, values in floats.items()),
    )
    return Histories.conform(frame)


def require_time_order(interactions: pl.DataFrame) -> None:
    """Check that rows are sorted by (user_id, ts_ms, row_id), which every scan over a user's rows relies on.

    Raises:
        ValueError: names the first row that is out of order.
    """
    keys = [interactions[name].to_numpy() for name in ("user_id", "ts_ms", "row_id")]
    position = _first_unsorted(*keys)
    if position >= 0:
        raise ValueError(
            f"interactions: row_id {keys[2][position]} of user_id {keys[0][position]} does not come after the row before it; "
            "sort each bucket by (user_id, ts_ms, row_id)"
        )


@njit(cache=True)
def _first_unsorted(
    user: npt.NDArray[np.int32], ts_ms: npt.NDArray[np.int64], row_id: npt.NDArray[np.int64]
) -> int:
    for i in range(1, len(user)):
        if user[i] != user[i - 1]:
            ordered = user[i] > user[i - 1]
        elif ts_ms[i] != ts_ms[i - 1]:
            ordered = ts_ms[i] > ts_ms[i - 1]
        else:
            ordered = row_id[i] > row_id[i - 1]
        if not ordered:
            return i
    return -1


@njit(cache=True)
def _blend(mean: float, value: float, alpha: float) -> float:
    if np.isnan(value):
        return mean
    if np.isnan(mean):
        return value
    return mean + alpha * (value - mean)


@njit(cache=True)
def _scan(
    user: npt.NDArray[np.int32],
    ts_ms: npt.NDArray[np.int64],
    category: npt.NDArray[np.int32],
    n_categories: int,
    feedback: npt.NDArray[np.float32],
    alpha: float,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Averages before each row: of each of the (K, n) feedbacks, and last of feedback 0 within the row's category."""
    n_feedbacks, n = feedback.shape
    n_before = np.zeros(n, np.int32)
    hours = np.full(n, np.nan, np.float32)
    averages = np.full((n_feedbacks + 1, n), np.nan, np.float32)
    mean = np.empty(n_feedbacks, np.float64)
    by_category = np.empty(n_categories, np.float64)
    owner = np.full(n_categories, -1, np.int64)  # the user whose mean `by_category` holds
    for i in range(n):
        if i == 0 or user[i] != user[i - 1]:
            mean[:] = np.nan
        else:
            n_before[i] = n_before[i - 1] + 1
            hours[i] = (ts_ms[i] - ts_ms[i - 1]) / MS_PER_HOUR
        for k in range(n_feedbacks):
            averages[k, i] = mean[k]
            mean[k] = _blend(mean[k], feedback[k, i], alpha)
        c = category[i]
        if c >= 0:
            if owner[c] != user[i]:
                owner[c] = user[i]
                by_category[c] = np.nan
            averages[n_feedbacks, i] = by_category[c]
            by_category[c] = _blend(by_category[c], feedback[0, i], alpha)
    return n_before, hours, averages
