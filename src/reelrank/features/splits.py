"""Global-time splits of a log: cut times fitted once on its range, then applied bucket by bucket.

Source: METHODS §1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from reelrank.buckets import BucketedTable
from reelrank.options import Options
from reelrank.tables import SPLITS, SplitName, Splits

LOCAL_TIME = timezone(timedelta(hours=8))  # Asia/Shanghai has had no summer time since 1991


class SplitOptions(Options):
    """Which rows are train, val and test. Days are local (Asia/Shanghai)."""

    rule: Literal["kuairand_time", "kuairand_time_fraction", "auto"] = Field(
        "kuairand_time",
        description="kuairand_time: fixed cut dates; kuairand_time_fraction: shares of the log's own days; auto: the "
        "fixed dates if they leave min_train_share of the rows in train, else shares",
    )
    min_train_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of rows before val from which auto takes the fixed dates [D]",
    )
    train_last_day: date = Field(
        date(2022, 4, 18),
        description="last day of train, which starts with the log (kuairand_time) [D: the release starts 04-08]",
    )
    val_last_day: date = Field(
        date(2022, 4, 21),
        description="last day of val; test runs to the log's end (kuairand_time) [D: the release's file boundary]",
    )
    train_fraction: float = Field(
        0.7, gt=0, lt=1, description="share of days in train (kuairand_time_fraction)"
    )
    val_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of days in val (kuairand_time_fraction)"
    )
    first_day: date | None = Field(
        None,
        description="first of the days that are shared out (kuairand_time_fraction); earlier rows are train. "
        "For a log with a thin head; null = the log's first day",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.val_last_day <= self.train_last_day:
            raise ValueError("val_last_day must be later than train_last_day")
        if self.train_fraction + self.val_fraction >= 1:
            raise ValueError("train_fraction + val_fraction must leave days for test")
        return self

    @property
    def fixed_val_start_ms(self) -> int:
        """Where val starts under the fixed dates, UTC epoch ms."""
        return _day_start_ms(self.train_last_day + timedelta(days=1))

    def resolved(self, train_share: float) -> Self:
        """The options with ``auto`` replaced by the rule that suits the log.

        Args:
            train_share: share of the log's rows before ``fixed_val_start_ms``.
        """
        if self.rule != "auto":
            return self
        fits = train_share >= self.min_train_share
        rule = "kuairand_time" if fits else "kuairand_time_fraction"
        return self.model_copy(update={"rule": rule})


class Cuts(Options):
    """Boundaries of the parts: train = [start, train_end), val = [train_end, val_end), test = [val_end, end), UTC epoch ms."""

    rule: str = Field(description="name of the split rule")
    start_ms: int = Field(description="first time of the log")
    train_end_ms: int = Field(description="start of val")
    val_end_ms: int = Field(description="start of test")
    end_ms: int = Field(description="just after the last time of the log: where the data end")

    def end_of(self, part: str) -> int:
        """First time (UTC epoch ms) that no longer belongs to ``part``."""
        return {"train": self.train_end_ms, "val": self.val_end_ms, "test": self.end_ms}[part]


def time_cuts(options: SplitOptions, first_ts_ms: int, last_ts_ms: int) -> Cuts:
    """Fit the boundaries of the parts on the time range of a log.

    Source: METHODS §1.4 [D].

    Args:
        options: the rule and its dates or shares.
        first_ts_ms: earliest time in the log, UTC epoch ms.
        last_ts_ms: latest time in the log, UTC epoch ms.

    Raises:
        ValueError: the log has no days for one of the parts, or the rule is still ``auto``.
    """
    if options.rule == "auto":
        raise ValueError("split rule auto must be resolved first: SplitOptions.resolved")
    first, last = _local_day(first_ts_ms), _local_day(last_ts_ms)
    if options.rule == "kuairand_time":
        val_day = options.train_last_day + timedelta(days=1)
        test_day = options.val_last_day + timedelta(days=1)
    else:
        shared_from = max(first, options.first_day or first)
        n_days = (last - shared_from).days + 1
        if n_days < len(SPLITS):
            raise ValueError(
                f"split rule kuairand_time_fraction needs at least 3 local days, one per part, but the log covers {max(n_days, 0)} "
                f"({shared_from} to {last}); use a longer log"
            )
        n_train = min(max(round(options.train_fraction * n_days), 1), n_days - 2)
        n_before_test = round((options.train_fraction + options.val_fraction) * n_days)
        val_day = shared_from + timedelta(days=n_train)
        test_day = shared_from + timedelta(days=min(max(n_before_test, n_train + 1), n_days - 1))
    cuts = Cuts(
        rule=options.rule,
        start_ms=first_ts_ms,
        train_end_ms=_day_start_ms(val_day),
        val_end_ms=_day_start_ms(test_day),
        end_ms=last_ts_ms + 1,
    )
    overlap = {
        "train": first < val_day,
        "val": first < test_day and last >= val_day,
        "test": last >= test_day,
    }
    require_rows(overlap, cuts)
    return cuts


def require_rows(counts: Mapping[str, int], cuts: Cuts) -> None:
    """Refuse a split of which a part is empty.

    Args:
        counts: rows of each part (a missing part counts as empty).
        cuts: the boundaries that made them.

    Raises:
        ValueError: names the rule, the empty parts and the range of the log.
    """
    empty = [part for part in SPLITS if not counts.get(part)]
    if not empty:
        return
    remedy = (
        "use rule kuairand_time_fraction, which cuts the log's own range"
        if cuts.rule == "kuairand_time"
        else "use a longer log or other fractions"
    )
    raise ValueError(
        f"split rule {cuts.rule} leaves {' and '.join(empty)} empty: the log covers {_local_day(cuts.start_ms)} to "
        f"{_local_day(cuts.end_ms - 1)}, val starts {_local_day(cuts.train_end_ms)} and test {_local_day(cuts.val_end_ms)} "
        f"(local days); {remedy}"
    )


def assign_split(interactions: pl.DataFrame, cuts: Cuts) -> pl.DataFrame:
    """Name the part of each interaction (chunk function).

    Args:
        interactions: rows of ``Interactions``.
        cuts: from ``time_cuts``.

    Returns:
        One row of ``Splits`` per row, in the same order.
    """
    part = (
        pl.when(pl.col("ts_ms") < cuts.train_end_ms)
        .then(pl.lit("train", SplitName))
        .when(pl.col("ts_ms") < cuts.val_end_ms)
        .then(pl.lit("val", SplitName))
        .otherwise(pl.lit("test", SplitName))
    )
    return Splits.conform(interactions.select("user_id", "row_id", part.alias("split")))


def train_items(interactions: BucketedTable, splits: BucketedTable) -> npt.NDArray[np.int32]:
    """Items with a train row, ascending: all that encoders and vocabularies may be fitted on (L2)."""
    train = splits.scan().filter(pl.col("split") == "train").select("row_id")
    shown = interactions.scan().select("row_id", "item_id").join(train, on="row_id", how="semi")
    return shown.select(pl.col("item_id").unique().sort()).collect().to_series().to_numpy()


def _local_day(ts_ms: int) -> date:
    return datetime.fromtimestamp(ts_ms / 1000, LOCAL_TIME).date()


def _day_start_ms(day: date) -> int:
    start = datetime(day.year, day.month, day.day, tzinfo=LOCAL_TIME).astimezone(UTC)
    return int(start.timestamp() * 1000)
