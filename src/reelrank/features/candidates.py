"""Which items may be candidates at a time, and negatives drawn from them.

Source: METHODS §1.5 L2, L7; §3.7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

NEVER = np.iinfo(np.int64).max
FIRST_DAY_MS = 24 * 3_600_000
POPULARITY_POWER = 0.75  # METHODS §3.7 [D]
NO_ITEM = -1


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


def available_items(availability: npt.NDArray[np.int64], ts_ms: int) -> npt.NDArray[np.int32]:
    """Ids of the items that are candidates at ``ts_ms``, ascending."""
    return np.flatnonzero(availability <= ts_ms).astype(np.int32)


def item_popularity(train_item_ids: npt.NDArray[np.int32], n_items: int) -> npt.NDArray[np.int64]:
    """(n_items,) exposures of each item among the train rows (L2)."""
    return np.bincount(train_item_ids, minlength=n_items)


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items available at a time with probability ∝ (train popularity)^0.75 (METHODS §3.7)."""

    items: npt.NDArray[np.int32]  # by availability
    availability: npt.NDArray[np.int64]  # of `items`, ascending
    cumulative_weight: npt.NDArray[np.float64]  # (n+1,), starts with 0

    @classmethod
    def fit(
        cls, availability: npt.NDArray[np.int64], popularity: npt.NDArray[np.int64]
    ) -> NegativeSampler:
        """Prepare draws.

        Args:
            availability: (n_items,) from ``availability_ts``.
            popularity: (n_items,) from ``item_popularity``; items without train exposures are never drawn.
        """
        order = np.argsort(availability, kind="stable")
        order = order[popularity[order] > 0]
        weights = popularity[order].astype(np.float64) ** POPULARITY_POWER
        return cls(order.astype(np.int32), availability[order], np.append(0.0, np.cumsum(weights)))

    def sample(
        self, ts_ms: npt.NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> npt.NDArray[np.int32]:
        """Draw with replacement; the logged item is not excluded.

        Args:
            ts_ms: (B,) times.
            n: draws per time.
            rng: source of randomness.

        Returns:
            (B, n) item ids, ``NO_ITEM`` in a row before whose time nothing was available.
        """
        n_available = np.searchsorted(self.availability, ts_ms, side="right")
        total = self.cumulative_weight[n_available]
        draw = rng.random((len(ts_ms), n)) * total[:, None]
        slot = np.searchsorted(self.cumulative_weight, draw, side="right") - 1
        # rounding may lift a draw to the total itself
        slot = np.minimum(slot, n_available[:, None] - 1)
        if not len(self.items):
            return np.full(slot.shape, NO_ITEM, np.int32)
        return np.where(n_available[:, None] > 0, self.items[slot], NO_ITEM).astype(np.int32)
