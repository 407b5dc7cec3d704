"""Which rows are train, val and test: a rule is fitted once on a summary of the log, then applied bucket by bucket.

Source: METHODS §1.4.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field, TypeAdapter, model_validator

from reelrank.buckets import BucketedTable
from reelrank.draws import stream_key, uniform
from reelrank.features.bursts import burst_edges
from reelrank.features.local_time import day_start_ms, local_day
from reelrank.options import Options
from reelrank.tables import SPLITS, SplitName, Splits

DAY_MS = 24 * 3_600_000
SAR_DAYS = (7, 8, 9)  # KuaiSAR-small: last train, val and test day, METHODS §1.4 [D]
ROUNDING = 1e-9  # a share that is reached but for rounding is reached
TSCAC_SHARE = 450_000 / 480_385  # rows of the users that TSCAC trains on [A]

Rule = Literal[
    "time", "kuairand_time", "kuairand_time_fraction", "auto",
    "burst_day", "last_burst_out", "kuaisar_time",
    "tiny_random", "user", "sqn_user", "loo",
]  # fmt: skip
TIME_RULES = (
    "time", "kuairand_time", "kuairand_time_fraction", "auto", "last_burst_out", "kuaisar_time",
)  # fmt: skip
# (train, val) where the options leave them open; what they are shares of is said in the options
FRACTIONS = {
    "kuairand_time_fraction": (0.7, 0.1),
    "auto": (0.7, 0.1),
    "tiny_random": (0.8, 0.1),
    "sqn_user": (0.8, 0.1),
    "user": (0.9 * TSCAC_SHARE, 0.1 * TSCAC_SHARE),
}


class SplitOptions(Options):
    """Which rows are train, val and test. Days are local (Asia/Shanghai). Each rule reads the fields that name it."""

    rule: Rule = Field(
        "kuairand_time",
        description="time, kuairand_time: cut dates; kuairand_time_fraction: shares of the log's own days; auto: the "
        "dates if they leave min_train_share of the rows in train, else shares; burst_day: the last days of each burst; "
        "last_burst_out: the last burst; kuaisar_time: 24-hour days from the first event, 7/1/1 of 9; tiny_random: a sample of rows; "
        "user: whole users, by id; sqn_user: whole users, by their last time; loo: each user's last rows",
    )
    min_train_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of rows before val from which auto takes the dates [D]",
    )
    train_last_day: date = Field(
        date(2022, 4, 18),
        description="last day of train, which starts with the log (time, kuairand_time) [D: KuaiRand starts 04-08]",
    )
    val_last_day: date = Field(
        date(2022, 4, 21),
        description="last day of val; test runs to the log's end (time, kuairand_time) [D: KuaiRand's file boundary]",
    )
    train_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share in train: of days (kuairand_time_fraction; null = 0.7), sampled rows (tiny_random; 0.8 [A]), "
        "users (sqn_user; 0.8 [R]), rows of whole users (user; 0.843: with val TSCAC's share [A])",
    )
    val_fraction: float | None = Field(
        None, gt=0, lt=1, description="share in val, as train_fraction (null = 0.1, user 0.094)"
    )
    first_day: date | None = Field(
        None,
        description="first of the days that are shared out (kuairand_time_fraction); earlier rows are train. "
        "For a log with a thin head; null = the log's first day",
    )
    burst_val_days: int = Field(
        2, ge=1, description="days of each burst in val, before test (burst_day) [A]"
    )
    burst_test_days: int = Field(2, ge=1, description="last days of each burst (burst_day) [A]")
    last_burst_val_days: int = Field(
        4, ge=1, description="first days of the last burst, its rest is test (last_burst_out) [D]"
    )
    sample_share: float = Field(
        0.05, gt=0, le=1, description="share of rows that are in any part (tiny_random) [A]"
    )
    seed: int = Field(0, ge=0, description="of the sample (tiny_random)")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.val_last_day <= self.train_last_day:
            raise ValueError("val_last_day must be later than train_last_day")
        if sum(self.fractions) >= 1:
            raise ValueError("train_fraction + val_fraction must leave something for test")
        return self

    @property
    def fractions(self) -> tuple[float, float]:
        """Shares in train and val."""
        train, val = FRACTIONS.get(self.rule, (0.7, 0.1))
        return self.train_fraction or train, self.val_fraction or val

    @property
    def fixed_val_start_ms(self) -> int:
        """Where val starts under the cut dates, UTC epoch ms."""
        return day_start_ms(self.train_last_day + timedelta(days=1))


class _Fitted(Options):
    """A rule with everything that it had to learn from the log; JSON that ``load_split`` reads back."""

    rule: str = Field(description="name of the split rule")

    @abstractmethod
    def parts(self, interactions: pl.DataFrame) -> npt.NDArray[np.int8]:
        """(n,) position in ``SPLITS`` of each row of some whole users; −1 = left out."""

    @abstractmethod
    def remedy(self) -> str:
        """What to do if a part is empty, with the facts that explain it."""


class Cuts(_Fitted):
    """Boundaries of the parts: train = [start, train_end), val = [train_end, val_end), test = [val_end, end), UTC epoch ms."""

    kind: Literal["cuts"] = "cuts"
    start_ms: int = Field(description="first time of the log")
    train_end_ms: int = Field(description="start of val")
    val_end_ms: int = Field(description="start of test")
    end_ms: int = Field(description="just after the last time of the log: where the data end")
    burst_edges_ms: tuple[int, ...] = Field(
        (), description="starts and ends of the bursts in turn; none: the log is one piece"
    )

    @model_validator(mode="before")
    @classmethod
    def _cut_in_time(cls, data: Any) -> Any:  # noqa: ANN401 (pydantic's signature)
        if isinstance(data, Mapping) and data.get("kind", "cuts") != "cuts":
            raise ValueError(
                f"split rule {data.get('rule')} does not cut all users at the same times, which this system's labels and "
                f"states need; set split.rule to one of {', '.join(TIME_RULES)}"
            )
        return data

    def end_of(self, part: str) -> int:
        """First time (UTC epoch ms) that no longer belongs to ``part``."""
        return {"train": self.train_end_ms, "val": self.val_end_ms, "test": self.end_ms}[part]

    def observed_until(
        self, ts_ms: npt.NDArray[np.int64], part: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int64]:
        """From when on the log no longer tells what followed a row: the end of its part or of its burst; its own time outside of all bursts.

        Args:
            ts_ms: (n,) UTC epoch ms.
            part: (n,) position in ``SPLITS``.
        """
        ends = np.array([self.end_of(name) for name in SPLITS], np.int64)
        end: npt.NDArray[np.int64] = ends[part]
        if not self.burst_edges_ms:
            return end
        edges = np.append(self.burst_edges_ms, 0)
        passed = np.searchsorted(edges[:-1], ts_ms, side="right")
        burst_end = np.where(passed % 2 == 1, edges[passed], ts_ms)
        return np.minimum(end, burst_end).astype(np.int64)

    def parts(self, interactions: pl.DataFrame) -> npt.NDArray[np.int8]:
        """By time alone."""
        return _among((self.train_end_ms, self.val_end_ms), interactions["ts_ms"].to_numpy())

    def remedy(self) -> str:
        """The ranges of log and parts."""
        use = (
            "use rule kuairand_time_fraction, which cuts the log's own range"
            if self.rule == "kuairand_time"
            else "use a longer log or other fractions"
        )
        return (
            f"the log covers {local_day(self.start_ms)} to {local_day(self.end_ms - 1)}, val starts "
            f"{local_day(self.train_end_ms)} and test {local_day(self.val_end_ms)} (local days); {use}"
        )


class BurstDays(_Fitted):
    """The parts of each burst; rows outside of all bursts are left out."""

    kind: Literal["burst_days"] = "burst_days"
    edges_ms: tuple[int, ...] = Field(
        description="start of train, val, test and what follows, of each burst in turn"
    )

    def parts(self, interactions: pl.DataFrame) -> npt.NDArray[np.int8]:
        """By time alone."""
        passed = np.searchsorted(self.edges_ms, interactions["ts_ms"].to_numpy(), side="right")
        return np.array([-1, 0, 1, 2], np.int8)[passed % 4]

    def remedy(self) -> str:
        """Where the parts should be."""
        return (
            f"its bursts start on {[str(local_day(ms)) for ms in self.edges_ms[::4]]} (local days)"
        )


class UserOrder(_Fitted):
    """Whole users, ordered by a key and then by id; the boundaries are the first users of val and of test."""

    kind: Literal["user_order"] = "user_order"
    by: Literal["user_id", "last_ts"] = Field(description="the key")
    val_from: tuple[int, int] = Field(description="key and id of val's first user")
    test_from: tuple[int, int] = Field(description="key and id of test's first user")

    def parts(self, interactions: pl.DataFrame) -> npt.NDArray[np.int8]:
        """By the user, whose rows must all be there."""
        key = pl.col("user_id") if self.by == "user_id" else pl.col("ts_ms").max().over("user_id")
        reached = [
            (key > first_key) | ((key == first_key) & (pl.col("user_id") >= first_user))
            for first_key, first_user in (self.val_from, self.test_from)
        ]
        found = interactions.select(pl.sum_horizontal(r.cast(pl.Int8) for r in reached))
        return found.to_series().cast(pl.Int8).to_numpy()

    def remedy(self) -> str:
        """What such a split needs."""
        return "it needs users for each part: use a log with more users or other fractions"


class RandomRows(_Fitted):
    """A random sample of rows, each row by itself; the others are left out."""

    kind: Literal["random_rows"] = "random_rows"
    share: float = Field(description="of rows in the sample")
    train_fraction: float = Field(description="of the sample")
    val_fraction: float = Field(description="of the sample")
    seed: int = Field(description="of the draw")

    def parts(self, interactions: pl.DataFrame) -> npt.NDArray[np.int8]:
        """By a hash of seed and ``row_id``: the same in every bucket and engine."""
        place = row_uniforms(interactions["row_id"].to_numpy(), self.seed) / self.share
        parts = _among((self.train_fraction, self.train_fraction + self.val_fraction), place)
        return np.where(place < 1, parts, -1).astype(np.int8)

    def remedy(self) -> str:
        """What such a split needs."""
        return f"it samples {self.share:g} of the rows: use a longer log or a larger sample_share"


class LastRows(_Fitted):
    """Each user's last row is test and the one before val; users with fewer than three rows are all train."""

    kind: Literal["last_rows"] = "last_rows"

    def parts(self, interactions: pl.DataFrame) -> npt.NDArray[np.int8]:
        """By the place among the user's rows, which must all be there."""
        after = pl.len().over("user_id") - pl.int_range(1, pl.len() + 1).over("user_id")
        left = interactions.select(after=after.cast(pl.Int64), rows=pl.len().over("user_id"))
        parts = np.maximum(2 - left["after"].to_numpy(), 0)
        return np.where(left["rows"].to_numpy() < len(SPLITS), 0, parts).astype(np.int8)

    def remedy(self) -> str:
        """What such a split needs."""
        return "it needs users with at least 3 rows"


FittedSplit = Cuts | BurstDays | UserOrder | RandomRows | LastRows
_LOADER: TypeAdapter[FittedSplit] = TypeAdapter(Annotated[FittedSplit, Field(discriminator="kind")])


def load_split(stored: Mapping[str, Any]) -> FittedSplit:
    """A fitted split from its JSON form."""
    return _LOADER.validate_python(dict(stored))


@dataclass(frozen=True)
class LogSummary:
    """What the rules need of the whole log.

    Attributes:
        users: columns user_id, rows, first_ts, last_ts, before (rows before ``SplitOptions.fixed_val_start_ms``), by user_id.
        bursts: ``Bursts``.
    """

    users: pl.DataFrame
    bursts: pl.DataFrame

    @classmethod
    def of(cls, interactions: pl.LazyFrame, bursts: pl.DataFrame, options: SplitOptions) -> Self:
        """Summarise rows of ``Interactions``.

        Raises:
            ValueError: there are none.
        """
        ts = pl.col("ts_ms")
        users = interactions.group_by("user_id").agg(
            rows=pl.len(),
            first_ts=ts.min(),
            last_ts=ts.max(),
            before=(ts < options.fixed_val_start_ms).sum(),
        )
        summary = cls(users.sort("user_id").collect(engine="streaming"), bursts)
        if summary.users.is_empty():
            raise ValueError("interactions: no rows, so nothing can be split")
        return summary

    @property
    def first_ts(self) -> int:
        """Earliest time, UTC epoch ms."""
        return int(self.users["first_ts"].min())  # type: ignore[arg-type]

    @property
    def last_ts(self) -> int:
        """Latest time, UTC epoch ms."""
        return int(self.users["last_ts"].max())  # type: ignore[arg-type]


def fit_split(options: SplitOptions, log: LogSummary) -> FittedSplit:
    """Fit the rule of the options.

    Raises:
        ValueError: the log cannot be split so; the message says what it lacks.

    Source: METHODS §1.4.
    """
    fitted = _FITS[options.rule](options, log)
    if not isinstance(fitted, Cuts):
        return fitted
    edges = tuple(burst_edges(log.bursts).tolist())
    return fitted.model_copy(update={"burst_edges_ms": edges})


def time_cuts(options: SplitOptions, first_ts_ms: int, last_ts_ms: int) -> Cuts:
    """Fit cut dates, or shares of days, on the time range of a log.

    Source: METHODS §1.4 [D].

    Args:
        options: rule time, kuairand_time or kuairand_time_fraction.
        first_ts_ms: earliest time in the log, UTC epoch ms.
        last_ts_ms: latest time in the log, UTC epoch ms.

    Raises:
        ValueError: the log has no days for one of the parts.
    """
    if options.rule == "kuairand_time_fraction":
        val_day, test_day = _days_by_share(options, first_ts_ms, last_ts_ms)
    else:
        val_day = options.train_last_day + timedelta(days=1)
        test_day = options.val_last_day + timedelta(days=1)
    return _cuts(
        options.rule, first_ts_ms, last_ts_ms, day_start_ms(val_day), day_start_ms(test_day)
    )


def assign_split(interactions: pl.DataFrame, split: FittedSplit) -> pl.DataFrame:
    """Name the part of each row (bucket function).

    Args:
        interactions: every row of some users, as ``Interactions``.
        split: from ``fit_split``.

    Returns:
        One row of ``Splits`` per row that is in a part, in the same order.
    """
    parts = pl.Series("part", split.parts(interactions))
    names = pl.lit(pl.Series(SPLITS, dtype=SplitName)).gather(parts.filter(parts >= 0))
    kept = interactions.select("user_id", "row_id").filter(parts >= 0)
    return Splits.conform(kept.with_columns(split=names))


def require_rows(counts: Mapping[str, int], split: FittedSplit) -> None:
    """Refuse a split of which a part is empty.

    Args:
        counts: rows of each part (a missing part counts as empty).
        split: the rule that made them.

    Raises:
        ValueError: names the rule, the empty parts and what to do.
    """
    empty = [part for part in SPLITS if not counts.get(part)]
    if empty:
        raise ValueError(
            f"split rule {split.rule} leaves {' and '.join(empty)} empty: {split.remedy()}"
        )


def train_items(interactions: BucketedTable, splits: BucketedTable) -> npt.NDArray[np.int32]:
    """Items with a train row, ascending: all that encoders and vocabularies may be fitted on (L2)."""
    train = splits.scan().filter(pl.col("split") == "train").select("row_id")
    shown = interactions.scan().select("row_id", "item_id").join(train, on="row_id", how="semi")
    return shown.select(pl.col("item_id").unique().sort()).collect().to_series().to_numpy()


@njit(cache=True, nogil=True)
def row_uniforms(row_id: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.float64]:
    """(n,) numbers in [0, 1) that depend on seed and row alone."""
    out = np.empty(len(row_id))
    for i in range(len(row_id)):
        out[i] = uniform(stream_key(seed, row_id[i]), 0)
    return out


def _among(starts: tuple[float, float], values: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """0, 1 or 2: how many of two starts each value has reached."""
    return np.searchsorted(starts, values, side="right").astype(np.int8)


def _cuts(rule: str, first_ms: int, last_ms: int, val_ms: int, test_ms: int) -> Cuts:
    """Cuts of which no part lies outside of the log."""
    cuts = Cuts(
        rule=rule, start_ms=first_ms, train_end_ms=val_ms, val_end_ms=test_ms, end_ms=last_ms + 1
    )
    overlap = {
        "train": first_ms < val_ms,
        "val": first_ms < test_ms and last_ms >= val_ms,
        "test": last_ms >= test_ms,
    }
    require_rows(overlap, cuts)
    return cuts


def _share_out(n: int, train: float, before_test: float) -> tuple[int, int]:
    """How many of n ≥ 3 come before val and before test, at least one in each part."""
    n_train = min(max(round(train * n), 1), n - 2)
    return n_train, min(max(round(before_test * n), n_train + 1), n - 1)


def _days_by_share(options: SplitOptions, first_ms: int, last_ms: int) -> tuple[date, date]:
    """First days of val and of test."""
    first, last = local_day(first_ms), local_day(last_ms)
    shared_from = max(first, options.first_day or first)
    n_days = (last - shared_from).days + 1
    if n_days < len(SPLITS):
        raise ValueError(
            f"split rule {options.rule} needs at least 3 local days, one per part, but the log covers {max(n_days, 0)} "
            f"({shared_from} to {last}); use a longer log"
        )
    train, val = options.fractions
    n_train, n_before_test = _share_out(n_days, train, train + val)
    return shared_from + timedelta(days=n_train), shared_from + timedelta(days=n_before_test)


def _fit_time(options: SplitOptions, log: LogSummary) -> Cuts:
    return time_cuts(options, log.first_ts, log.last_ts)


def _fit_auto(options: SplitOptions, log: LogSummary) -> Cuts:
    before, rows = (int(log.users[name].sum()) for name in ("before", "rows"))
    fits = before >= options.min_train_share * rows
    rule = "kuairand_time" if fits else "kuairand_time_fraction"
    return _fit_time(options.model_copy(update={"rule": rule}), log)


def _fit_burst_day(options: SplitOptions, log: LogSummary) -> BurstDays:
    _require_bursts(options.rule, log, 1)
    edges: list[int] = []
    later_days = options.burst_val_days + options.burst_test_days
    for start, end in burst_edges(log.bursts).reshape(-1, 2).tolist():
        if end - start <= later_days * DAY_MS:
            raise ValueError(
                f"split rule burst_day: the burst of {local_day(start)} has {(end - start) // DAY_MS} days, "
                f"none are left for train after {later_days} of val and test"
            )
        test = end - options.burst_test_days * DAY_MS
        edges += [start, test - options.burst_val_days * DAY_MS, test, end]
    return BurstDays(rule=options.rule, edges_ms=tuple(edges))


def _fit_last_burst_out(options: SplitOptions, log: LogSummary) -> Cuts:
    _require_bursts(options.rule, log, 2)
    val = int(log.bursts["start_ms"][-1])
    test = val + options.last_burst_val_days * DAY_MS
    return _cuts(options.rule, log.first_ts, log.last_ts, val, test)


def _require_bursts(rule: str, log: LogSummary, n: int) -> None:
    if log.bursts.height < n:
        raise ValueError(
            f"split rule {rule} needs at least {n} burst{'s' * (n > 1)}, the log has {log.bursts.height}; "
            "set bursts.rule to fitted or kuairec"
        )


def _fit_kuaisar_time(options: SplitOptions, log: LogSummary) -> Cuts:
    """A log of other length than 9 days is shared out in the same proportion [D]: 15/2/2 of the full release's 19."""
    n_days = math.ceil((log.last_ts + 1 - log.first_ts) / DAY_MS)
    if n_days < len(SPLITS):
        raise ValueError(
            f"split rule kuaisar_time needs at least 3 days of 24 hours, one per part, but the log covers {n_days}; use a longer log"
        )
    train, val, days = SAR_DAYS
    n_train, n_before_test = _share_out(n_days, train / days, val / days)
    starts = (log.first_ts + n * DAY_MS for n in (n_train, n_before_test))
    return _cuts(options.rule, log.first_ts, log.last_ts, *starts)


def _fit_tiny_random(options: SplitOptions, log: LogSummary) -> RandomRows:
    train, val = options.fractions
    return RandomRows(
        rule=options.rule,
        share=options.sample_share,
        train_fraction=train,
        val_fraction=val,
        seed=options.seed,
    )


def _fit_user(options: SplitOptions, log: LogSummary) -> UserOrder:
    """By dense id, which follows the raw id: the order of user-grouped files [A]. Shares are of rows."""
    rows = log.users["rows"].to_numpy()
    before = np.cumsum(rows) - rows
    return _user_order(options, log, "user_id", log.users["user_id"], before / rows.sum())


def _fit_sqn_user(options: SplitOptions, log: LogSummary) -> UserOrder:
    """By (last time, id). Shares are of users."""
    order = log.users.sort("last_ts", "user_id")
    ordered = LogSummary(order, log.bursts)
    share = np.arange(order.height) / order.height
    return _user_order(options, ordered, "last_ts", order["last_ts"], share)


def _user_order(
    options: SplitOptions,
    log: LogSummary,
    by: Literal["user_id", "last_ts"],
    key: pl.Series,
    share_before: npt.NDArray[np.float64],
) -> UserOrder:
    """The first user of a part is the first with at least its share before it; one user more has a share before of 1."""
    train, val = options.fractions
    if log.users.height < len(SPLITS):
        raise ValueError(
            f"split rule {options.rule} needs at least 3 users, the log has {log.users.height}"
        )
    n_users = log.users.height
    first = np.searchsorted(share_before, np.array([train, train + val]) - ROUNDING)
    val_at = min(max(int(first[0]), 1), n_users - 2)
    test_at = min(max(int(first[1]), val_at + 1), n_users - 1)
    users = log.users["user_id"]
    return UserOrder(
        rule=options.rule,
        by=by,
        val_from=(key[val_at], users[val_at]),
        test_from=(key[test_at], users[test_at]),
    )


def _fit_loo(options: SplitOptions, log: LogSummary) -> LastRows:
    return LastRows(rule=options.rule)


_FITS: dict[str, Callable[[SplitOptions, LogSummary], FittedSplit]] = {
    "time": _fit_time,
    "kuairand_time": _fit_time,
    "kuairand_time_fraction": _fit_time,
    "auto": _fit_auto,
    "burst_day": _fit_burst_day,
    "last_burst_out": _fit_last_burst_out,
    "kuaisar_time": _fit_kuaisar_time,
    "tiny_random": _fit_tiny_random,
    "user": _fit_user,
    "sqn_user": _fit_sqn_user,
    "loo": _fit_loo,
}
