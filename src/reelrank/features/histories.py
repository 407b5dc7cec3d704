"""What a user had done strictly before each row: one pass over a bucket.

Source: METHODS §1.5 L1, §6.3; moving averages as in the value model, α = 0.1 [A].
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field, model_validator

from reelrank.features import histories_kernel as kernel
from reelrank.features.bursts import burst_edges
from reelrank.features.heads import HEADS, HeadRule, head_columns
from reelrank.features.histories_kernel import MS_PER_DAY, MS_PER_HOUR, NO_CODE, UNKNOWN
from reelrank.options import Options
from reelrank.tables import Histories

__all__ = [
    "ITEM_COLUMNS", "MS_PER_DAY", "MS_PER_HOUR", "USER_COLUMNS", "WATCH_RATIO_CAP", "HistoryOptions", "ItemCodes",
    "histories", "require_time_order",
]  # fmt: skip

WATCH_RATIO_CAP = 2.0  # as in r_immediate, METHODS §3.8 [D]
BINARY = ("long_view", "complete", "click", "like", *(head for head in HEADS if head != "complete"))
BY_CATEGORY = BINARY[:2]  # also averaged within the row's category
# Known of a user before any item is chosen: the same for every candidate of a row …
USER_COLUMNS = (
    "n_before", "hours_since_last", "previous_session_rows", "session_gap_hours", "category_entropy", "interest_drift",
    *(f"ema_{name}" for name in (*BINARY, "watch_ratio")),
)  # fmt: skip
# … and these belong to the row's own item: they say what was shown, and are computed anew for another candidate (L6).
ITEM_COLUMNS = (
    *(f"ema_category_{name}" for name in BY_CATEGORY),
    "author_seen", "author_days_since_last", "author_days_since_completion",
)  # fmt: skip


class HistoryOptions(Options):
    """How much the newest row weighs, and what counts as completed."""

    alpha: float = Field(
        0.1, gt=0, le=1, description="weight of the newest row in a moving average [A]"
    )
    heads: HeadRule = Field(HeadRule(), description="thresholds of the value model's heads")
    drift_fast: float = Field(
        0.1, gt=0, le=1, description="weight of the newest row in the fast interest histogram [D]"
    )
    drift_slow: float = Field(
        0.01, gt=0, le=1, description="weight of the newest row in the slow interest histogram [D]"
    )

    @model_validator(mode="after")
    def _fast_is_faster(self) -> Self:
        if self.drift_slow >= self.drift_fast:
            raise ValueError(
                f"drift_slow {self.drift_slow} must be below drift_fast {self.drift_fast}"
            )
        return self


@dataclass(frozen=True)
class ItemCodes:
    """Categories and author of each item as dense codes 0 … n−1, −1 = the item has none; each of shape (n_items,)."""

    category_1: npt.NDArray[np.int32]
    category_2: npt.NDArray[np.int32]
    author: npt.NDArray[np.int32]

    @classmethod
    def of(cls, items: pl.DataFrame) -> Self:
        """Codes of ``Items``; the first tag stands in for a category-1 that the source lacks.

        Source: METHODS §6.3 [A], the stand-in [D].
        """
        first = pl.coalesce("category_1", pl.col("tags").list.first())
        ranks = items.select(
            first=first.rank("dense"),
            second=pl.col("category_2").rank("dense"),
            author=pl.col("author_id").rank("dense"),
        )
        return cls(*((rank.cast(pl.Int32) - 1).fill_null(NO_CODE).to_numpy() for rank in ranks))

    def hash(self) -> str:
        """Hex digits that change when any code changes."""
        of_all = hashlib.sha256()
        for codes in (self.category_1, self.category_2, self.author):
            of_all.update(codes.tobytes())
        return of_all.hexdigest()


def histories(
    interactions: pl.DataFrame,
    items: ItemCodes,
    options: HistoryOptions,
    bursts: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Every history feature of METHODS §6.3 over the rows before each row (bucket function).

    Moving average: m ← x at the first known value, then m ← (1 − α) m + α x; a null is passed over. Entropy: of the shares of
    category-2 among the rows so far, nats, 0 at the start. Interest drift [D]: cosine distance of two histograms of
    category-1, h ← (1 − β) h + β e_c from h = e_c on, with β = ``drift_fast`` and ``drift_slow``: near 0 while the last rows are
    like the user's long run. What is per author, and the session before, starts anew with each burst.
    Rows with equal times are ordered by ``row_id``. Source: METHODS §1.5 L1, §6.3 [A].

    Args:
        interactions: every row of some users, as ``Interactions``.
        items: categories and authors of all items.
        options: weights and head rule.
        bursts: ``Bursts``; None or no rows = the log is one piece.

    Returns:
        One row of ``Histories`` per row, in the same order; what is not known before the row is null.

    Raises:
        ValueError: rows are not sorted by (user_id, ts_ms, row_id).
    """
    require_time_order(interactions)
    n = interactions.height
    user, ts_ms, session, item = (
        interactions[name].to_numpy() for name in ("user_id", "ts_ms", "session_id", "item_id")
    )
    binary = _binary_feedback(interactions, options.heads)
    watch_ratio = interactions["watch_ratio"].clip(upper_bound=WATCH_RATIO_CAP)
    complete = binary[BINARY.index("complete")]
    n_before, previous_rows, visit = np.empty((3, n), np.int32)
    seen = np.empty(n, np.int8)
    hours, gap_hours, watch, drift, entropy, days, days_complete = np.empty((7, n), np.float32)
    averages = np.empty((len(BINARY), n), np.float32)
    in_category = np.empty((len(BY_CATEGORY), n), np.float32)

    kernel.scan_time(
        user, ts_ms, session, burst_edges(bursts), n_before, hours, previous_rows, gap_hours, visit
    )
    kernel.scan_feedback(
        user, binary, watch_ratio.fill_null(np.nan).to_numpy(), options.alpha, averages, watch
    )
    first, second, author = (
        (codes, int(codes.max(initial=NO_CODE)) + 1)
        for codes in (items.category_1, items.category_2, items.author)
    )
    kernel.scan_categories(
        user, item, *first, binary[: len(BY_CATEGORY)], options.alpha, in_category
    )
    fast, slow = kernel.decay_table(options.drift_fast), kernel.decay_table(options.drift_slow)
    kernel.scan_drift(user, item, *first, fast, slow, drift)
    kernel.scan_entropy(user, item, *second, kernel.log_table(), entropy)
    kernel.scan_authors(visit, ts_ms, item, *author, complete, seen, days, days_complete)
    if second[1] == 0:
        entropy[:] = np.nan  # a source without categories is not one of a single category
    known = {
        "hours_since_last": hours,
        "session_gap_hours": gap_hours,
        "ema_watch_ratio": watch,
        "interest_drift": drift,
        "category_entropy": entropy,
        "author_days_since_last": days,
        "author_days_since_completion": days_complete,
        **{f"ema_{name}": mean for name, mean in zip(BINARY, averages, strict=True)},
        **{
            f"ema_category_{name}": mean
            for name, mean in zip(BY_CATEGORY, in_category, strict=True)
        },
    }
    counts = {"n_before": n_before, "previous_session_rows": previous_rows, "author_seen": seen}
    rows, authors = pl.col("previous_session_rows"), pl.col("author_seen")
    features = pl.DataFrame(counts | known).with_columns(
        pl.when(rows > 0).then(rows),
        pl.when(authors >= 0).then(authors),
        pl.col(pl.Float32).fill_nan(None),
    )
    return Histories.conform(interactions.select("user_id", "row_id").hstack(features))


def _binary_feedback(interactions: pl.DataFrame, heads: HeadRule) -> npt.NDArray[np.int8]:
    """(len(BINARY), n) zeros, ones and ``UNKNOWN``s."""
    known = interactions.select("long_view", "click", "like", *head_columns(heads))
    known = known.select(pl.col(BINARY).fill_null(UNKNOWN))
    return np.stack([column.to_numpy() for column in known])


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


@njit(cache=True, nogil=True)
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
