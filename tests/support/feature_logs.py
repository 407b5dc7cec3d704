"""Small random logs and item tables for the tests of features and leakage rules."""

import numpy as np
import polars as pl

from reelrank.features.splits import Cuts
from reelrank.tables import FEEDBACKS, Interactions, Items

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_650_000_000_000 // DAY * DAY + 16 * HOUR  # midnight, local time
SESSION_GAP = 1_800_000
N_ITEMS = 12


def log_of(**columns: list) -> pl.DataFrame:
    """Interactions from the columns that matter; rows are put in order and sessions formed."""
    n = len(columns["ts_ms"])
    given = {name: pl.Series(name, values) for name, values in columns.items()}
    rest = {
        name: pl.Series(
            name, [None if name in ("play_ms", "duration_ms", "watch_ratio") else 0] * n
        )
        for name in Interactions.polars_schema()
        if name not in given
    }
    if "row_id" not in given:
        rest["row_id"] = pl.Series("row_id", range(n))
    return with_sessions(pl.DataFrame(given | rest))


def with_sessions(log: pl.DataFrame) -> pl.DataFrame:
    log = log.sort("user_id", "ts_ms", "row_id")
    starts = (
        (pl.col("user_id") != pl.col("user_id").shift())
        | (pl.col("ts_ms") - pl.col("ts_ms").shift() > SESSION_GAP)
    ).fill_null(True)
    return Interactions.conform(log.with_columns(session_id=starts.cum_sum()))


def random_log(seed: int, n_rows: int = 300, n_users: int = 6, days: int = 6) -> pl.DataFrame:
    """Rows with ties in time, nulls in every feedback, and several sessions per user and day."""
    rng = np.random.default_rng(seed)

    def holes(values):
        return pl.Series(values).set(pl.Series(rng.random(n_rows) < 0.1), None)

    columns = {name: holes((rng.random(n_rows) < 0.4).astype(np.int8)) for name in FEEDBACKS}
    return log_of(
        user_id=rng.integers(n_users, size=n_rows),
        item_id=rng.integers(N_ITEMS, size=n_rows),
        ts_ms=START + rng.integers(days * 144, size=n_rows) * 600_000,
        row_id=rng.permutation(n_rows),
        is_rand=(rng.random(n_rows) < 0.05).astype(np.int8),
        watch_ratio=holes(rng.gamma(1.0, 0.8, n_rows)),
        play_ms=holes(rng.integers(0, 20_000, size=n_rows)),
        **columns,
    )


def cuts_after(train_days: float, val_days: float, days: float) -> Cuts:
    train_end, val_end = START + int(train_days * DAY), START + int((train_days + val_days) * DAY)
    return Cuts(
        rule="test",
        start_ms=START,
        train_end_ms=train_end,
        val_end_ms=val_end,
        end_ms=START + int(days * DAY),
    )


def random_vectors(seed: int, d: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N_ITEMS, d)).astype(np.float32)


def items_of(n: int, **columns: list) -> pl.DataFrame:
    """Items 0 … n−1 from the columns that matter."""
    schema = Items.polars_schema()
    rest = {name: pl.Series([None] * n, dtype=dtype) for name, dtype in schema.items()}
    return Items.conform(pl.DataFrame(rest | {"item_id": range(n)} | columns, strict=False))


def distort_from(log: pl.DataFrame, ts_ms: int, row_id: int, seed: int) -> pl.DataFrame:
    """Change the feedback of rows from (ts_ms, row_id) on, and the items of rows after it."""
    rng = np.random.default_rng(seed)
    at = (pl.col("ts_ms") == ts_ms) & (pl.col("row_id") == row_id)
    after = (pl.col("ts_ms") > ts_ms) | ((pl.col("ts_ms") == ts_ms) & (pl.col("row_id") > row_id))
    noise = pl.Series(rng.integers(N_ITEMS, size=log.height))
    return log.with_columns(
        *(pl.when(at | after).then(1 - pl.col(f)).otherwise(f).alias(f) for f in FEEDBACKS),
        watch_ratio=pl.when(at | after)
        .then(pl.col("watch_ratio") * 3 + 1)
        .otherwise("watch_ratio"),
        play_ms=pl.when(at | after).then(20_000 - pl.col("play_ms")).otherwise("play_ms"),
        item_id=pl.when(after).then(noise.cast(pl.Int32)).otherwise("item_id"),
    )
