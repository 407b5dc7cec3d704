import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError
from support.feature_logs import (
    DAY,
    HOUR,
    N_ITEMS,
    START,
    items_of,
    log_of,
    random_log,
    with_sessions,
)

from reelrank.features import histories_kernel as kernel
from reelrank.features.heads import HeadRule
from reelrank.features.histories import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    HistoryOptions,
    ItemCodes,
    histories,
)
from reelrank.tables import Bursts, Histories

OPTIONS = HistoryOptions()
CATALOGUE = items_of(
    N_ITEMS,
    category_1=[70, 10, 30, None] * 3,
    category_2=[5, 5, 6, 7, None, 9] * 2,
    author_id=[100, 200, None] * 4,
)
ITEMS = ItemCodes.of(CATALOGUE)
FEATURES = [name for name in Histories.polars_schema() if name not in ("user_id", "row_id")]


def bursts_of(*spans):
    """Bursts from (start, end) pairs."""
    frame = pl.DataFrame(spans, schema=["start_ms", "end_ms"], orient="row")
    return Bursts.conform(frame.with_columns(rows=pl.lit(1)).with_row_index("burst_id"))


def test_codes_are_dense_and_the_first_tag_stands_in():
    assert ITEMS.category_1.tolist() == [2, 0, 1, -1] * 3
    assert ITEMS.category_2.tolist() == [0, 0, 1, 2, -1, 3] * 2
    assert ITEMS.author.tolist() == [0, 1, -1] * 4
    tagged = ItemCodes.of(items_of(3, category_1=[8, None, None], tags=[[1], [8, 2], []]))
    assert tagged.category_1.tolist() == [0, 0, -1]
    assert tagged.hash() != ITEMS.hash()


def test_hand_computed_averages():
    log = log_of(
        user_id=[1, 1, 1, 1, 2],
        item_id=[0, 0, 1, 0, 0],
        ts_ms=[START, START, START + HOUR, START + 3 * HOUR, START],
        long_view=[1, None, 0, 1, 1],
        click=[1, 0, 1, 1, 0],
        like=[None] * 5,
        watch_ratio=[5.0, 1.0, None, 0.5, 1.0],
        play_ms=[20_000, 2_000, 13_000, 1_000, 5_000],
    )
    found = histories(log, ITEMS, OPTIONS)
    Histories.validate(found)
    expected = {
        "n_before": [0, 1, 2, 3, 0],
        "hours_since_last": [None, 0.0, 1.0, 2.0, None],
        "ema_long_view": [None, 1.0, 1.0, 0.9, None],
        "ema_click": [None, 1.0, 0.9, 0.91, None],
        "ema_like": [None] * 5,
        "ema_watch_ratio": [None, 2.0, 1.9, 1.9, None],  # 5 is capped at 2
        "ema_complete": [None, 1.0, 1.0, 1.0, None],
        "ema_long": [None, 1.0, 0.9, 0.91, None],  # 13 s are long without a ratio
        "ema_rewatch": [None, 1.0, 0.9, 0.9, None],
        "ema_neg": [None, 0.0, 0.1, 0.09, None],
        "ema_category_long_view": [None, 1.0, None, 1.0, None],
        "ema_category_complete": [None, 1.0, None, 1.0, None],
    }
    schema = {name: Histories.polars_schema()[name] for name in expected}
    assert_frame_equal(found.select(list(expected)), pl.DataFrame(expected, schema=schema))


def test_hand_computed_sessions_and_authors_start_anew_with_a_burst():
    # items 0 and 3 are of author 100, item 1 of 200, item 2 of none
    times = [START + int(t * HOUR) for t in (0, 0.25, 2, 12, 30, 30.25, 40)]
    log = log_of(
        user_id=[1] * 7,
        item_id=[0, 3, 1, 0, 0, 2, 3],
        ts_ms=times,
        watch_ratio=[1.5, 0.2, 1.0, 0.5, 0.5, 0.5, 0.5],
    )
    found = histories(
        log, ITEMS, OPTIONS, bursts_of((START, START + DAY), (START + DAY, START + 2 * DAY))
    )
    expected = {
        "previous_session_rows": [None, None, 2, 1, None, None, 2],
        "session_gap_hours": [0.0, 0.0, 1.75, 10.0, 0.0, 0.0, 9.75],
        "author_seen": [0, 1, 0, 1, 0, None, 1],
        "author_days_since_last": [None, 0.25 / 24, None, 11.75 / 24, None, None, 10 / 24],
        "author_days_since_completion": [None, 0.25 / 24, None, 0.5, None, None, None],
    }
    schema = {name: Histories.polars_schema()[name] for name in expected}
    assert_frame_equal(found.select(list(expected)), pl.DataFrame(expected, schema=schema))
    whole = histories(log, ITEMS, OPTIONS)
    assert whole["author_seen"].to_list() == [0, 1, 0, 1, 1, None, 1]
    assert whole["session_gap_hours"].to_list() == [0.0, 0.0, 1.75, 10.0, 18.0, 18.0, 9.75]
    assert whole["hours_since_last"].equals(found["hours_since_last"])


def test_hand_computed_entropy_and_drift():
    log = log_of(user_id=[1] * 5, item_id=[0, 2, 1, 3, 0], ts_ms=[START + i for i in range(5)])
    options = HistoryOptions(drift_fast=0.5, drift_slow=0.25)
    found = histories(log, ITEMS, options)
    # category-2 is 5, 6, 5, 7, 5
    shares = [[], [1], [0.5, 0.5], [2 / 3, 1 / 3], [0.5, 0.25, 0.25]]
    entropy = [-sum(p * math.log(p) for p in share) for share in shares]
    assert found["category_entropy"].to_list() == pytest.approx(entropy, abs=1e-6)
    # category-1 is 70, 30, 10, none, 70: histograms (fast, slow) over 70, 30, 10
    histograms = [
        ([1, 0, 0], [1, 0, 0]),
        ([0.5, 0.5, 0], [0.75, 0.25, 0]),
        ([0.25, 0.25, 0.5], [0.5625, 0.1875, 0.25]),
    ]
    drift = [
        1 - np.dot(f, s) / (np.linalg.norm(f) * np.linalg.norm(s))
        for f, s in map(np.array, histograms)
    ]
    assert found["interest_drift"][0] is None
    assert found["interest_drift"][1:].to_list() == pytest.approx([*drift, drift[-1]], abs=1e-6)


def test_a_source_without_categories_authors_or_feedback_has_nulls_not_zeros():
    log = random_log(0, n_rows=30).with_columns(
        watch_ratio=pl.lit(None, pl.Float32),
        play_ms=pl.lit(None, pl.Int32),
        like=pl.lit(None, pl.Int8),
    )
    found = histories(log, ItemCodes.of(items_of(N_ITEMS)), OPTIONS)
    lacking = ["ema_like", "ema_watch_ratio", "ema_complete", "ema_neg", "category_entropy", "interest_drift", *ITEM_COLUMNS]  # fmt: skip
    assert found.select(lacking).null_count().row(0) == (30,) * len(lacking)
    assert found["ema_click"].null_count() < 30
    Histories.validate(found)


def test_users_and_items_columns_are_all_features():
    assert sorted([*USER_COLUMNS, *ITEM_COLUMNS]) == sorted(FEATURES)


def by_hand(log: pl.DataFrame, options: HistoryOptions, bursts=None) -> pl.DataFrame:
    """The same features, for each row from the list of the rows before it."""
    edges = (
        []
        if bursts is None
        else [t for pair in bursts.select("start_ms", "end_ms").rows() for t in pair]
    )
    first = CATALOGUE["category_1"].to_list()
    second = CATALOGUE["category_2"].to_list()
    author = CATALOGUE["author_id"].to_list()

    def ema(values):
        mean = None
        for value in values:
            if value is not None:
                mean = value if mean is None else (1 - options.alpha) * mean + options.alpha * value
        return mean

    def histogram(categories, alpha):
        weight = dict.fromkeys(categories, 0.0)
        for k, category in enumerate(categories):
            weight = {c: w * (1 - alpha) * (k > 0) for c, w in weight.items()}
            weight[category] += alpha if k else 1
        return np.array([weight[c] for c in sorted(weight)])

    def head(name, row):
        play, ratio = row["play_ms"], row["watch_ratio"]
        if name == "long":
            facts = [
                None if ratio is None else ratio >= 1.5,
                None if play is None else play >= 12_000,
            ]
            return 1 if True in facts else None if None in facts else 0
        known = {
            "complete": ratio is not None and ratio >= 1,
            "rewatch": ratio is not None and ratio >= 2,
            "neg": play is not None and play <= 2000,
        }
        missing = play is None if name == "neg" else ratio is None
        return None if missing else int(known[name])

    rows = log.to_dicts()
    for row in rows:
        row |= {name: head(name, row) for name in ("complete", "long", "rewatch", "neg")}
        row["burst"] = sum(row["ts_ms"] >= edge for edge in edges)
        row["watch_ratio"] = None if row["watch_ratio"] is None else min(row["watch_ratio"], 2)
    made = []
    for i, row in enumerate(rows):
        past = [r for r in rows[:i] if r["user_id"] == row["user_id"]]
        here = [r for r in past if r["burst"] == row["burst"]]
        alike = [r for r in past if first[r["item_id"]] == first[row["item_id"]]]
        has = first[row["item_id"]] is not None
        theirs = [r for r in here if author[r["item_id"]] == author[row["item_id"]]]
        done = [r for r in theirs if r["complete"] == 1]
        named = author[row["item_id"]] is not None
        sessions = sorted({r["session_id"] for r in here} - {row["session_id"]})
        before = [r for r in here if sessions and r["session_id"] == sessions[-1]]
        start = next(r for r in [*here, row] if r["session_id"] == row["session_id"])
        counts = [
            sum(second[r["item_id"]] == c for r in past)
            for c in {second[r["item_id"]] for r in past} - {None}
        ]
        tastes = [first[r["item_id"]] for r in past if first[r["item_id"]] is not None]
        fast, slow = histogram(tastes, options.drift_fast), histogram(tastes, options.drift_slow)
        made.append(
            {
                "user_id": row["user_id"],
                "row_id": row["row_id"],
                "n_before": len(past),
                "hours_since_last": (row["ts_ms"] - past[-1]["ts_ms"]) / HOUR if past else None,
                **{
                    f"ema_{name}": ema(r[name] for r in past)
                    for name in ("long_view", "click", "like", "watch_ratio", "complete", "long", "rewatch", "neg")
                },
                "ema_category_long_view": ema(r["long_view"] for r in alike) if has else None,
                "ema_category_complete": ema(r["complete"] for r in alike) if has else None,
                "category_entropy": -sum(c / sum(counts) * math.log(c / sum(counts)) for c in counts),
                "interest_drift": max(1 - fast @ slow / np.sqrt(fast @ fast * (slow @ slow)), 0) if tastes else None,
                "author_seen": int(bool(theirs)) if named else None,
                "author_days_since_last": (row["ts_ms"] - theirs[-1]["ts_ms"]) / DAY if theirs and named else None,
                "author_days_since_completion": (row["ts_ms"] - done[-1]["ts_ms"]) / DAY if done and named else None,
                "previous_session_rows": len(before) or None,
                "session_gap_hours": (start["ts_ms"] - before[-1]["ts_ms"]) / HOUR if before else 0,
            }
        )  # fmt: skip
    return Histories.conform(pl.DataFrame(made, infer_schema_length=None))


@pytest.mark.parametrize(
    "options",
    [OPTIONS, HistoryOptions(alpha=1.0), HistoryOptions(alpha=0.5, drift_fast=1.0, drift_slow=0.3)],
)
@pytest.mark.parametrize(
    "bursts", [None, bursts_of((START, START + 2 * DAY), (START + 3 * DAY, START + 5 * DAY))]
)
def test_agrees_with_lists_of_past_rows(options, bursts):
    log = random_log(seed=1, n_rows=400, n_users=4)
    found = histories(log, ITEMS, options, bursts)
    assert_frame_equal(found, by_hand(log, options, bursts), abs_tol=1e-6, rel_tol=1e-6)


def test_what_a_histogram_has_forgotten_counts_as_nothing():
    """A category that comes back after more steps than the table of decays holds."""
    items = [0] + [1] * 400 + [0, 1]
    log = log_of(user_id=[1] * 403, item_id=items, ts_ms=[START + i for i in range(403)])
    options = HistoryOptions(drift_fast=0.5, drift_slow=0.1)
    assert len(kernel.decay_table(0.5)) < 400
    found = histories(log, ITEMS, options)
    assert_frame_equal(found, by_hand(log, options), abs_tol=1e-6, rel_tol=1e-6)


def test_logs_beyond_the_table_are_computed(monkeypatch):
    log = random_log(seed=2, n_rows=200, n_users=1)
    expected = histories(log, ITEMS, OPTIONS)
    short = kernel.log_table()[:8]
    monkeypatch.setattr(kernel, "log_table", lambda: short)
    assert_frame_equal(histories(log, ITEMS, OPTIONS), expected)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(6)))
def test_neither_the_order_of_users_nor_their_buckets_matter(seed, order):
    log = random_log(seed)
    whole = histories(log, ITEMS, OPTIONS)
    renamed = with_sessions(
        log.with_columns(user_id=pl.col("user_id").replace_strict(dict(enumerate(order))))
    )
    buckets = [renamed.filter(pl.col("user_id") % 2 == b) for b in (0, 1)]
    apart = pl.concat(histories(bucket, ITEMS, OPTIONS) for bucket in buckets)
    columns = ["row_id", *FEATURES]
    assert_frame_equal(whole.select(columns).sort("row_id"), apart.select(columns).sort("row_id"))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), kept=st.integers(0, 300))
def test_later_rows_change_nothing_before_them(seed, kept):
    log = random_log(seed)
    rows = log.sort("ts_ms", "row_id").head(kept)["row_id"].implode()
    early = pl.col("row_id").is_in(rows)
    found = histories(log, ITEMS, OPTIONS).filter(early)
    assert_frame_equal(found, histories(log.filter(early), ITEMS, OPTIONS))


def test_unsorted_rows_are_refused():
    log = random_log(0, n_rows=20).reverse()
    with pytest.raises(ValueError, match="sort each bucket by"):
        histories(log, ITEMS, OPTIONS)


def test_no_rows():
    assert histories(random_log(0, n_rows=20).clear(), ITEMS, OPTIONS).height == 0


def test_the_poster_counts_what_passes_a_threshold():
    log = log_of(
        user_id=[1, 1],
        item_id=[0, 0],
        ts_ms=[START, START + 1],
        watch_ratio=[1.0, 1.0],
        play_ms=[2000] * 2,
    )
    for rule, complete, neg in (("code", 1.0, 1.0), ("poster", 0.0, 0.0)):
        found = histories(log, ITEMS, HistoryOptions(heads=HeadRule(rule=rule)))
        assert found.select("ema_complete", "ema_neg").row(1) == (complete, neg)


def test_drift_needs_two_speeds():
    with pytest.raises(ValidationError, match="must be below drift_fast"):
        HistoryOptions(drift_slow=0.1)
