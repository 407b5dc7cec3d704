"""The tables that every policy of a feed is trained on and judged by, and their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from reelrank.models.feed_options import LONG_VIEW_S, FeedDataOptions
from reelrank.options import digest
from reelrank.tables import SPLITS

if TYPE_CHECKING:
    from reelrank.models.feed import FeedInputs
    from reelrank.training.options import DeviceName

LOG_COLUMNS = (
    "user_id", "item_id", "ts_ms", "row_id", "scenario", "request_id", "session_id", "is_rand", "split",
    "click", "like", "follow", "comment", "hate", "long_view", "play_ms",
)  # fmt: skip


@dataclass(frozen=True)
class FeedTables:
    """What is read of a source.

    Attributes:
        log: ``LOG_COLUMNS`` of ``Interactions`` with its split, by (user, time, row).
        items: ``Items``.
        users: ``Users``.
        candidates: ``CandidateSets``; empty for track ``top_videos``.
    """

    log: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    candidates: pl.DataFrame

    @classmethod
    def of(cls, tables: Sequence[pl.DataFrame]) -> FeedTables:
        """Tables in the order in which nodes take them: log, items, users, candidates."""
        return cls(*tables)

    def inputs(self, data: FeedDataOptions, device: DeviceName = "auto") -> FeedInputs:
        """Tensors on a device.

        Raises:
            ValueError: as :func:`reelrank.models.feed_data.feed_inputs`.
        """
        from reelrank.models.feed_data import feed_inputs  # noqa: PLC0415 (nodes import this module)
        from reelrank.training.device import pick_device  # noqa: PLC0415 (see above)

        sets = self.candidates if data.track == "request" else None
        return feed_inputs(self.log, self.items, self.users, data, sets, pick_device(device))

    def fingerprint(self) -> str:
        """Digest of the tables' contents."""
        tables = (self.log, self.items, self.users, self.candidates)
        return digest([int(table.hash_rows().sum()) for table in tables])


def feed_log(rows: pl.LazyFrame, splits: pl.LazyFrame, data: FeedDataOptions) -> pl.DataFrame:
    """``FeedTables.log`` of interactions and their splits; rows that the split leaves out stay, without one, as history."""
    joined = rows.join(splits.select("row_id", "split"), on="row_id", how="left")
    if data.long_view == "rule":
        duration = pl.col("duration_ms")
        is_long = pl.col("play_ms") >= pl.min_horizontal(duration, 1000 * LONG_VIEW_S)
        by_rule = pl.when(duration.is_not_null()).then(is_long.cast(pl.Int8))
        joined = joined.with_columns(long_view=pl.coalesce("long_view", by_rule))
    return joined.select(LOG_COLUMNS).collect().sort("user_id", "ts_ms", "row_id")


def feed_report(inputs: FeedInputs, data: FeedDataOptions) -> dict[str, Any]:
    """What the feed holds, by split: decisions, shown rows, random exposures; and what is no decision."""
    decisions = inputs.decisions
    shown = decisions.shown.sum(1)
    counts = []
    for number, split in enumerate(SPLITS):
        own = decisions.split == number
        standard = own & ~decisions.is_rand
        counts.append(
            {
                "split": str(split),
                "decisions": int(standard.sum()),
                "rows": int(shown[standard].sum()),
                "users": len(set(decisions.user[standard].tolist())),
                "random_rows": int(shown[own & decisions.is_rand].sum()),
                "single_item": int((shown[standard] == 1).sum()),
            }
        )
    sizes = (decisions.candidates >= 0).sum(1)
    is_request = data.track == "request"
    return {
        "track": data.track,
        "k": data.k,
        "candidates_least": int(sizes.min()),
        "candidates_most": int(sizes.max()),
        "catalogue": int(len(inputs.items.codes) if is_request else sizes.max()),
        "log_rows": len(inputs.rows.item),
        "rows_without_decision": len(inputs.rows.item) - int(shown.sum()),
        "splits": counts,
    }
