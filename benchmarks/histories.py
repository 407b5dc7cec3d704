"""All history features: one Numba pass against the same features as Polars expressions, and as pandas groupby.apply.

    python benchmarks/histories.py [--rows 12500000] [--rounds 3] [--pandas-rows 100000]

All start from one KuaiRec-shaped frame in memory and end with a `Histories` frame. Compilation is not timed. Ours and Polars take
turns and may use every core: Polars by itself, ours by one thread per core over buckets of whole users, as the engine runs it.
`ratio` is the median over rounds of peer time / our time. pandas is timed once on the first users and extrapolated in proportion
to rows.
"""

import argparse
import json
import os
import resource
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from reelrank.features.bursts import (
    KUAIREC_BURSTS,
    BurstOptions,
    burst_edges,
    day_rows,
    find_bursts,
)
from reelrank.features.heads import head_columns
from reelrank.features.histories import (
    MS_PER_DAY,
    MS_PER_HOUR,
    WATCH_RATIO_CAP,
    HistoryOptions,
    ItemCodes,
    histories,
)
from reelrank.features.local_time import day_start_ms
from reelrank.features.sessions import request_and_session_ids
from reelrank.tables import FEEDBACKS, Histories, Interactions, Items

# KuaiRec's big matrix: 12.5 M rows
N_USERS, N_ITEMS, N_AUTHORS, N_CATEGORIES = 7_176, 10_728, 8_300, (38, 240)
FULL_ROWS = 12_530_806
SESSION_GAP_MS = 3_600_000
N_BUCKETS = 8
KEYS = ("user_id", "row_id")
EMAS = ("long_view", "click", "like", "complete", "long", "rewatch", "neg")


def generate(n_rows: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sorted interactions with long-tailed users and items, sessions and some nulls; and their items."""
    rng = np.random.default_rng(0)
    n_users = max(round(N_USERS * n_rows / FULL_ROWS), 1)
    activity = rng.lognormal(0, 0.55, n_users)
    user = np.sort(rng.choice(n_users, n_rows, p=activity / activity.sum()).astype(np.int32))
    days = [
        day_start_ms(first) + k * MS_PER_DAY
        for first, last in KUAIREC_BURSTS
        for k in range((last - first).days + 1)
    ]
    ts = np.array(days)[rng.integers(len(days), size=n_rows)]
    # half an evening at one place in the day makes sessions
    ts += (rng.integers(48, size=n_rows) ** 2 % 48) * (MS_PER_DAY // 48)
    ts += rng.integers(MS_PER_DAY // 96, size=n_rows)
    ts = ts[np.lexsort((ts, user))]
    request, session = request_and_session_ids(user, ts, SESSION_GAP_MS)
    weight = (np.arange(N_ITEMS) + 30.0) ** -0.9
    item = rng.choice(N_ITEMS, n_rows, p=weight / weight.sum()).astype(np.int32)
    duration = np.maximum(2000, rng.lognormal(9.3, 0.6, N_ITEMS)).astype(np.int32)[item]
    play = (rng.lognormal(-0.25, 0.75, n_rows).astype(np.float32) * duration).astype(np.int32)

    def holes(values: npt.NDArray[np.generic], share: float) -> pl.Series:
        return pl.Series(values).set(pl.Series(rng.random(n_rows, np.float32) < share), None)

    columns = {
        "user_id": user,
        "item_id": item,
        "ts_ms": ts,
        "row_id": np.arange(n_rows),
        "scenario": np.zeros(n_rows, np.int16),
        "request_id": request,
        "session_id": session,
        "play_ms": play,
        "duration_ms": duration,
        "watch_ratio": holes((play / duration).astype(np.float32), 0.02),
        **{
            name: holes((rng.random(n_rows, np.float32) < 0.2).astype(np.int8), 0.01)
            for name in FEEDBACKS
        },
        "is_rand": np.zeros(n_rows, np.int8),
    }
    first = rng.integers(-1, N_CATEGORIES[0], N_ITEMS)
    items = {
        "item_id": np.arange(N_ITEMS),
        "category_1": pl.Series(first).replace(-1, None),
        "category_2": pl.Series(rng.integers(-1, N_CATEGORIES[1], N_ITEMS)).replace(-1, None),
        "author_id": rng.integers(N_AUTHORS, size=N_ITEMS),
    }
    missing = {
        name: pl.Series([None] * N_ITEMS, dtype=kind)
        for name, kind in Items.polars_schema().items()
    }
    return Interactions.conform(pl.DataFrame(columns)), Items.conform(pl.DataFrame(missing | items))


def our_histories(
    interactions: pl.DataFrame, items: pl.DataFrame, options: HistoryOptions, bursts: pl.DataFrame
) -> pl.DataFrame:
    """The bucket function over buckets of whole users, a thread per core."""
    user = interactions["user_id"].to_numpy()
    cuts = np.linspace(0, len(user) - 1, N_BUCKETS + 1).astype(int)[1:-1]
    edges = [0, *np.unique(np.searchsorted(user, user[cuts])).tolist(), len(user)]
    buckets = [interactions[a:b] for a, b in pairwise(edges)]
    of_bucket = partial(histories, items=ItemCodes.of(items), options=options, bursts=bursts)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return pl.concat(pool.map(of_bucket, buckets))


def polars_histories(
    interactions: pl.DataFrame, items: pl.DataFrame, options: HistoryOptions, bursts: pl.DataFrame
) -> pl.DataFrame:
    """The same features as expressions.

    Windows where groups are large; where they are small (sessions, authors) shifts over sorted rows, which Polars does some ten
    times faster than windows. Recursions that are no moving average are brought into the form of one.
    """
    user, category = ["user_id"], ["user_id", "category_1"]
    ts, step, has_category = pl.col("ts_ms"), pl.col("step"), pl.col("category_1").is_not_null()

    def before(value: pl.Expr, by: list[str]) -> pl.Expr:
        mean = value.cast(pl.Float64).ewm_mean(alpha=options.alpha, adjust=False, ignore_nulls=True)
        return mean.forward_fill().shift().over(by)

    def x_log_x(x: pl.Expr) -> pl.Expr:
        return pl.when(x > 0).then(x * x.cast(pl.Float64).log()).otherwise(0.0)

    def decaying_sum(keep: float, added: pl.Expr) -> pl.Expr:
        """S ← keep · s + added, from 1 on."""
        first = pl.when(step == 0).then(1.0).otherwise(added / (1 - keep))
        return first.ewm_mean(alpha=1 - keep, adjust=False, ignore_nulls=True).over(user)

    def entry(alpha: float) -> pl.Expr:
        """A category's entry in the histogram before the row: a moving average in steps of irregular length."""
        keep = 1 - alpha
        # a category's first entry is alpha (1 on the user's first row), not a mean
        first = pl.when(step == 0).then(1.0).otherwise(alpha)
        age = pl.col("age")
        added = pl.when(age.is_null()).then(first).otherwise(alpha / (1 - keep**age))
        half_life = f"{round(np.log(0.5) / np.log(keep) * 1e9)}ns"  # one step is a second
        after = added.ewm_mean_by("clock", half_life=half_life)
        held = after.shift().over(category) * keep ** (age - 1)
        return pl.when(has_category).then(held.fill_null(0.0))

    a, b = options.drift_fast, options.drift_slow
    edges = pl.lit(pl.Series(burst_edges(bursts)))
    codes = items.select("item_id", "category_1", "category_2", pl.col("author_id").alias("author"))
    new_visit = (pl.col("user_id") != pl.col("user_id").shift()) | (
        pl.col("segment") != pl.col("segment").shift()
    )
    new_session = (pl.col("session_id") != pl.col("session_id").shift()).fill_null(True)
    frame = (
        interactions.join(codes, on="item_id", how="left", maintain_order="left")
        .with_columns(
            *head_columns(options.heads),
            segment=edges.search_sorted(ts, side="right"),
            step=pl.when(has_category).then(has_category.cum_sum().over(user).cast(pl.Int64) - 1),
            counted=pl.col("category_2").is_not_null().cum_sum().over(user).cast(pl.Int64),
            q=pl.int_range(pl.len()).over("user_id", "category_2"),
            position=pl.int_range(pl.len()),
        )
        .with_columns(
            age=step.diff().over(category),
            clock=(step * 1_000_000_000).cast(pl.Datetime("ns")),
            log_gain=pl.when(pl.col("category_2").is_not_null())
            .then(x_log_x(pl.col("q") + 1) - x_log_x(pl.col("q")))
            .otherwise(0.0),
            new_visit=new_visit.fill_null(True),
            start=pl.when(new_visit.fill_null(True) | new_session).then(pl.col("position")),
        )
        .with_columns(
            f=entry(a),
            s=entry(b),
            session_rows=pl.col("start") - pl.col("start").forward_fill().shift(),
            gap=ts.diff() / MS_PER_HOUR,
        )
        .with_columns(
            dot=decaying_sum(
                (1 - a) * (1 - b),
                (1 - a) * b * pl.col("f") + a * (1 - b) * pl.col("s") + a * b,
            ),
            ff=decaying_sum((1 - a) ** 2, 2 * a * (1 - a) * pl.col("f") + a * a),
            ss=decaying_sum((1 - b) ** 2, 2 * b * (1 - b) * pl.col("s") + b * b),
            # 0 stands for none until it has been carried through the session
            session_rows=pl.when(pl.col("new_visit"))
            .then(0)
            .otherwise("session_rows")
            .forward_fill(),
            gap=pl.when(pl.col("new_visit"))
            .then(0.0)
            .when(pl.col("start").is_not_null())
            .then("gap")
            .forward_fill(),
        )
    )
    author = ["user_id", "segment", "author"]
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in author)
    visits = (
        frame.select(*author, "ts_ms", "complete", "position")
        .sort(*author, "position")
        .with_columns(author_seen=same.fill_null(False))
        .with_columns(
            group=pl.col("author_seen").not_().cum_sum(),
            done=pl.when(pl.col("complete") == 1).then(ts),
        )
        .with_columns(
            done=pl.col("done").forward_fill().shift(),
            done_group=pl.when(pl.col("done").is_not_null()).then("group").forward_fill().shift(),
        )
        .select(
            "position",
            "author_seen",
            author_days_since_last=pl.when("author_seen").then(ts.diff() / MS_PER_DAY),
            author_days_since_completion=pl.when(pl.col("done_group") == pl.col("group")).then(
                (ts - pl.col("done")) / MS_PER_DAY
            ),
        )
        .sort("position")
        .drop("position")
    )
    cosine = pl.col("dot") / (pl.col("ff") * pl.col("ss")).sqrt()
    n = pl.col("counted").shift().over(user).fill_null(0)
    logs = pl.col("log_gain").cum_sum().over(user) - pl.col("log_gain")
    features = frame.select(
        *KEYS,
        *(before(pl.col(name), user).alias(f"ema_{name}") for name in EMAS),
        ema_watch_ratio=before(pl.col("watch_ratio").clip(upper_bound=WATCH_RATIO_CAP), user),
        ema_category_long_view=pl.when(has_category).then(before(pl.col("long_view"), category)),
        ema_category_complete=pl.when(has_category).then(before(pl.col("complete"), category)),
        n_before=pl.int_range(pl.len()).over(user),
        hours_since_last=ts.diff().over(user) / MS_PER_HOUR,
        category_entropy=pl.when(n > 0).then((x_log_x(n) - logs).clip(0) / n).otherwise(0.0),
        interest_drift=(1 - cosine).clip(0).forward_fill().shift().over(user),
        previous_session_rows=pl.when(pl.col("session_rows") > 0).then("session_rows"),
        session_gap_hours="gap",
    )
    return Histories.conform(pl.concat([features, visits], how="horizontal"))


def pandas_histories(
    interactions: pl.DataFrame, items: pl.DataFrame, options: HistoryOptions, bursts: pl.DataFrame
) -> pl.DataFrame:
    """The same features by groupby.apply, user by user."""
    edges = burst_edges(bursts)
    frame = interactions.with_columns(*head_columns(options.heads)).to_pandas()
    item = frame["item_id"].to_numpy()
    codes = items.select("category_1", "category_2", "author_id").to_pandas()
    for name, column in codes.items():
        frame[name] = column.to_numpy()[item]
    frame["segment"] = np.searchsorted(edges, frame["ts_ms"].to_numpy(), side="right")

    def before(values: "pd.Series[float]") -> "pd.Series[float]":
        mean = values.astype(float).ewm(alpha=options.alpha, adjust=False, ignore_na=True).mean()
        return mean.ffill().shift()

    def of_user(rows: pd.DataFrame) -> pd.DataFrame:
        out = rows[["row_id"]].copy()
        ts = rows["ts_ms"]
        out["n_before"] = np.arange(len(rows))
        out["hours_since_last"] = ts.diff() / MS_PER_HOUR
        for name in EMAS:
            out[f"ema_{name}"] = before(rows[name])
        out["ema_watch_ratio"] = before(rows["watch_ratio"].clip(upper=WATCH_RATIO_CAP))
        by_category = rows.groupby("category_1", group_keys=False)[["long_view", "complete"]]
        averages = by_category.apply(lambda seen: seen.apply(before))
        out["ema_category_long_view"], out["ema_category_complete"] = (
            averages["long_view"],
            averages["complete"],
        )
        out["category_entropy"] = running_entropy(rows["category_2"])
        out["interest_drift"] = drift(rows["category_1"], options)
        by_author = rows.groupby(["segment", "author_id"], group_keys=False)
        out["author_seen"] = by_author.cumcount() > 0
        out["author_days_since_last"] = by_author["ts_ms"].diff() / MS_PER_DAY
        groups = [rows["segment"], rows["author_id"]]
        last = ts.where(rows["complete"] == 1).groupby(groups).ffill().groupby(groups).shift()
        out["author_days_since_completion"] = (ts - last) / MS_PER_DAY
        sessions = rows.groupby(["segment", "session_id"]).agg(
            rows=("ts_ms", "size"), start=("ts_ms", "first"), end=("ts_ms", "last")
        )
        by_burst = sessions.groupby(level="segment")
        sessions["previous"] = by_burst["rows"].shift()
        sessions["gap"] = ((sessions["start"] - by_burst["end"].shift()) / MS_PER_HOUR).fillna(0)
        joined = rows[["segment", "session_id"]].join(sessions, on=["segment", "session_id"])
        out["previous_session_rows"], out["session_gap_hours"] = joined["previous"], joined["gap"]
        return out

    made = frame.groupby("user_id")[frame.columns.tolist()].apply(of_user)
    made = made.reset_index(level=0)
    return Histories.conform(pl.from_pandas(made, include_index=False))


def running_entropy(categories: "pd.Series[float]") -> list[float]:
    counts: dict[float, int] = {}
    out = []
    for category, known in zip(categories, categories.notna(), strict=True):
        share = np.array(list(counts.values()), float)
        share /= max(share.sum(), 1)
        out.append(float(-(share * np.log(share)).sum()))
        if known:
            counts[category] = counts.get(category, 0) + 1
    return out


def drift(categories: "pd.Series[float]", options: HistoryOptions) -> list[float]:
    fast, slow = np.zeros(N_CATEGORIES[0]), np.zeros(N_CATEGORIES[0])
    out = []
    for category, known in zip(categories, categories.notna(), strict=True):
        norm = np.sqrt(fast @ fast * (slow @ slow))
        out.append(max(1 - float(fast @ slow / norm), 0.0) if norm else float("nan"))
        if known:
            alphas = (options.drift_fast, options.drift_slow) if norm else (1.0, 1.0)
            fast, slow = fast * (1 - alphas[0]), slow * (1 - alphas[1])
            fast[int(category)] += alphas[0]
            slow[int(category)] += alphas[1]
    return out


def agree(ours: pl.DataFrame, peer: pl.DataFrame, tolerance: float = 1e-6) -> bool:
    """Same keys, same nulls, values within the tolerance, absolute below 1 and relative above (they are float32)."""
    values = [name for name in ours.columns if name not in KEYS]
    worst = {
        name: ours.select(
            ((pl.col(name).cast(pl.Float64) - peer[name]).abs() / peer[name].abs().clip(1)).max()
        ).item()
        or 0.0
        for name in values
    }
    wrong = [
        name
        for name in values
        if worst[name] > tolerance or not ours[name].is_null().equals(peer[name].is_null())
    ]
    if wrong:
        print(f"differ: {[(name, worst[name]) for name in wrong]}")
    return not wrong and ours.select(KEYS).equals(peer.select(KEYS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=12_500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pandas-rows", type=int, default=100_000, help="at most 200,000")
    arguments = parser.parse_args()
    interactions, items = generate(arguments.rows)
    options = HistoryOptions()
    bursts = find_bursts(day_rows(interactions.lazy()), BurstOptions(rule="kuairec"))

    our_histories(interactions.head(1000), items, options, bursts)  # compiles
    polars_histories(interactions.head(1000), items, options, bursts)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    agrees = True
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        ours = our_histories(interactions, items, options, bursts)
        seconds["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        peer = polars_histories(interactions, items, options, bursts)
        seconds["peer"].append(time.perf_counter() - start)
        agrees = agrees and agree(ours, peer)
        print(f"ours {seconds['ours'][-1]:.3f} s, Polars {seconds['peer'][-1]:.3f} s")
        del ours, peer
    # whole users, so that both see the same histories
    last = interactions["user_id"][min(arguments.pandas_rows, arguments.rows) - 1]
    few = interactions.filter(pl.col("user_id") <= last)
    start = time.perf_counter()
    by_pandas = pandas_histories(few, items, options, bursts)
    pandas_s = (time.perf_counter() - start) * arguments.rows / few.height
    agrees = agrees and agree(our_histories(few, items, options, bursts), by_pandas)
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True)]
    line = {
        "name": "histories",
        "ours": round(statistics.median(seconds["ours"]), 4),
        "peer": round(statistics.median(seconds["peer"]), 4),
        "ratio": round(statistics.median(ratios), 2),
        "unit": "s",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": agrees,
        "rows": arguments.rows,
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "pandas_s_extrapolated": round(pandas_s),
        "pandas_rows_measured": few.height,
        "pandas_ratio": round(pandas_s / statistics.median(seconds["ours"])),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
