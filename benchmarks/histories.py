"""Strictly-past history features: one Numba pass against the same features as Polars expressions.

    python benchmarks/histories.py [--rows 1000000] [--rounds 5]

Both start from the same frame in memory and end with a `Histories` frame. Compilation is not timed. Rounds alternate;
`ratio` is the median over rounds of peer time / our time.
"""

import argparse
import json
import resource
import statistics
import time

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.features.histories import MS_PER_HOUR, WATCH_RATIO_CAP, HistoryOptions, histories
from reelrank.tables import FEEDBACKS, Histories, Interactions

ROWS_PER_USER = 400
N_ITEMS = 50_000
N_CATEGORIES = 40
KEYS = ("user_id", "row_id")


def generate(n_rows: int) -> tuple[pl.DataFrame, npt.NDArray[np.int32]]:
    """A sorted bucket of interactions with some nulls, and the categories of its items."""
    rng = np.random.default_rng(0)
    known = pl.Series(rng.random(n_rows) > 0.02)
    watch_ratio = pl.Series(rng.gamma(0.8, 0.8, n_rows))
    columns = {
        "user_id": np.sort(rng.integers(max(n_rows // ROWS_PER_USER, 1), size=n_rows)),
        "item_id": rng.integers(N_ITEMS, size=n_rows),
        "ts_ms": 1_650_000_000_000 + np.arange(n_rows) * 5_000,
        "row_id": np.arange(n_rows),
        **{name: (rng.random(n_rows) < 0.2).astype(np.int8) for name in FEEDBACKS},
    }
    constant = {
        name: pl.lit(0) for name in ("scenario", "request_id", "session_id", "play_ms", "is_rand")
    }
    frame = pl.DataFrame(columns).with_columns(
        watch_ratio=pl.when(known).then(watch_ratio), duration_ms=pl.lit(1), **constant
    )
    return Interactions.conform(frame), rng.integers(N_CATEGORIES, size=N_ITEMS, dtype=np.int32)


def polars_histories(
    interactions: pl.DataFrame, item_category: npt.NDArray[np.int32], alpha: float
) -> pl.DataFrame:
    """The same features as window expressions."""

    def before(column: pl.Expr, by: str | list[str]) -> pl.Expr:
        mean = column.cast(pl.Float64).ewm_mean(alpha=alpha, adjust=False, ignore_nulls=True)
        return mean.forward_fill().shift().over(by)

    watched = pl.col("watch_ratio").clip(upper_bound=WATCH_RATIO_CAP)
    category = pl.Series("category", item_category[interactions["item_id"].to_numpy()])
    return Histories.conform(
        interactions.with_columns(category).select(
            *KEYS,
            n_before=pl.int_range(pl.len()).over("user_id"),
            hours_since_last=pl.col("ts_ms").diff().over("user_id") / MS_PER_HOUR,
            ema_long_view=before(pl.col("long_view"), "user_id"),
            ema_click=before(pl.col("click"), "user_id"),
            ema_like=before(pl.col("like"), "user_id"),
            ema_watch_ratio=before(watched, "user_id"),
            ema_category_long_view=before(pl.col("long_view"), ["user_id", "category"]),
        )
    )


def agree(ours: pl.DataFrame, peer: pl.DataFrame, tolerance: float = 1e-6) -> bool:
    """Same keys, same nulls, values within the tolerance."""
    values = [name for name in ours.columns if name not in KEYS]
    return ours.select(KEYS).equals(peer.select(KEYS)) and all(
        ours[name].is_null().equals(peer[name].is_null())
        and ((ours[name].cast(pl.Float64) - peer[name]).abs().max() or 0.0) <= tolerance
        for name in values
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    interactions, item_category = generate(arguments.rows)
    options = HistoryOptions()
    histories(interactions.head(1000), item_category, options)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        ours = histories(interactions, item_category, options)
        middle = time.perf_counter()
        peer = polars_histories(interactions, item_category, options.alpha)
        seconds["ours"].append(middle - start)
        seconds["peer"].append(time.perf_counter() - middle)
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True)]
    line = {
        "name": "histories",
        "ours": round(statistics.median(seconds["ours"]), 4),
        "peer": round(statistics.median(seconds["peer"]), 4),
        "ratio": round(statistics.median(ratios), 2),
        "unit": "s",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": agree(ours, peer),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
