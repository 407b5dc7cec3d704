"""Which items may be candidates at a time.

Source: METHODS §1.5 L2, L7.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

NEVER = np.iinfo(np.int64).max
FIRST_DAY_MS = 24 * 3_600_000


def availability_ts(events: pl.DataFrame, items: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Time from which each item is a candidate: uploaded, and shown to someone strictly before (L7).

    The log does not say what the catalogue held before it began. So an item shown within the first 24 hours counts as known
    from its upload on, and only later ones wait for their first exposure; these 24 hours lie in train. An item without
    an upload time is known after its first exposure.

    Args:
        events: rows with ``item_id`` and ``ts_ms``, of anyone.
        items: ``Items``; ``item_id`` = row number.

    Returns:
        (n_items,) UTC epoch ms; item i is a candidate at t if ``availability[i] <= t``. Items never shown: ``NEVER``.
    """
    shown = events.group_by("item_id").agg(pl.col("ts_ms").min().alias("first_ts"))
    first = items.select("item_id", "upload_ts").join(
        shown, on="item_id", how="left", maintain_order="left"
    )
    warm = pl.col("first_ts") < pl.col("first_ts").min() + FIRST_DAY_MS
    known = (
        pl.when(warm & pl.col("upload_ts").is_not_null())
        .then("upload_ts")
        .otherwise(pl.max_horizontal("upload_ts", pl.col("first_ts") + 1))
    )
    available = pl.when(pl.col("first_ts").is_not_null()).then(known).otherwise(NEVER)
    return first.select(available.cast(pl.Int64)).to_series().to_numpy()


def item_popularity(train_item_ids: npt.NDArray[np.int32], n_items: int) -> npt.NDArray[np.int64]:
    """(n_items,) exposures of each item among the train rows (L2)."""
    return np.bincount(train_item_ids, minlength=n_items)
