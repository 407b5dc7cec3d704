"""Statistics of items by day, as far as they were known when a row happened.

Source: METHODS §1.5 L4.
"""

from __future__ import annotations

import polars as pl

from reelrank.features.local_time import local_days


def daily_before(item_daily: pl.DataFrame, interactions: pl.DataFrame) -> pl.DataFrame:
    """The statistics of each row's item on the local day before the row.

    A day's statistics are complete at its end, so a row may know those of the day before at the latest (L4).

    Args:
        item_daily: ``ItemDaily``, one row per (item_id, date).
        interactions: rows with user_id, row_id, item_id and ts_ms.

    Returns:
        user_id, row_id and the columns of ``item_daily`` but its keys, one row per row of ``interactions``, in the same order;
        null where the day before has none.

    Raises:
        ValueError: an item has two rows on one day.
    """
    keys = ["item_id", "date"]
    twice = item_daily.filter(item_daily.select(keys).is_duplicated())
    if twice.height:
        item, day = twice.select(keys).row(0)
        raise ValueError(f"item_daily: item_id {item} has more than one row on {day}; keep one")
    known = interactions.select(
        "user_id", "row_id", "item_id", date=local_days("ts_ms") - pl.duration(days=1)
    )
    return known.join(item_daily, on=keys, how="left", maintain_order="left").drop(keys)
