from datetime import UTC, date, datetime
from typing import get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.feature_logs import DAY, HOUR, START, log_of, random_log

from reelrank.features.bursts import BurstOptions, day_rows, find_bursts
from reelrank.features.splits import (
    TIME_RULES,
    Cuts,
    LogSummary,
    Rule,
    SplitOptions,
    assign_split,
    fit_split,
    load_split,
    require_rows,
    row_uniforms,
    time_cuts,
)
from reelrank.tables import SPLITS, Splits

FRACTION = SplitOptions(rule="kuairand_time_fraction")


def local_ms(month, day, hour=0, minute=0):
    """2022, Asia/Shanghai."""
    return int(datetime(2022, month, day, hour, minute, tzinfo=UTC).timestamp() - 8 * 3600) * 1000


def test_default_cuts_are_those_of_the_release():
    first, last = local_ms(4, 8, 0, 5), local_ms(5, 8, 23, 59)
    cuts = time_cuts(SplitOptions(), first, last)
    assert (cuts.start_ms, cuts.end_of("train")) == (first, local_ms(4, 19))
    assert (cuts.end_of("val"), cuts.end_of("test")) == (local_ms(4, 22), last + 1)


def test_parts_are_half_open_in_local_time():
    cuts = time_cuts(SplitOptions(), local_ms(4, 8), local_ms(5, 8, 23))
    times = [local_ms(4, 19) - 1, local_ms(4, 19), local_ms(4, 22) - 1, local_ms(4, 22)]
    log = log_of(user_id=[3] * 4, item_id=[0] * 4, ts_ms=times)
    splits = assign_split(log, cuts)
    assert splits["split"].to_list() == ["train", "val", "val", "test"]
    assert splits.select("user_id", "row_id").equals(log.select("user_id", "row_id"))
    Splits.validate(splits)


@pytest.mark.parametrize(
    ("n_days", "train", "val"), [(14, 10, 1), (10, 7, 1), (5, 3, 1), (3, 1, 1), (30, 21, 3)]
)
def test_fractions_are_cut_at_midnight(n_days, train, val):
    first = local_ms(4, 1, 13)
    last = local_ms(4, n_days, 1)
    cuts = time_cuts(FRACTION, first, last)
    assert cuts.train_end_ms == local_ms(4, 1 + train)
    assert cuts.val_end_ms == local_ms(4, 1 + train + val)
    assert cuts.end_ms == last + 1


def test_a_thin_head_belongs_to_train():
    options = FRACTION.model_copy(update={"first_day": date(2022, 4, 25)})
    cuts = time_cuts(options, local_ms(4, 9), local_ms(5, 8, 23))
    assert (cuts.start_ms, cuts.train_end_ms) == (local_ms(4, 9), local_ms(5, 5))
    assert cuts.val_end_ms == local_ms(5, 6)


@pytest.mark.parametrize(
    ("options", "first", "last", "words"),
    [
        (
            SplitOptions(),
            local_ms(4, 25),
            local_ms(5, 8),
            ["kuairand_time leaves train and val empty", "2022-04-25 to 2022-05-08", "_fraction"],
        ),
        (SplitOptions(), local_ms(4, 8), local_ms(4, 20), ["leaves test empty"]),
        (FRACTION, local_ms(4, 8), local_ms(4, 9), ["at least 3 local days", "covers 2"]),
    ],
)
def test_a_part_without_days_is_refused(options, first, last, words):
    with pytest.raises(ValueError) as error:
        time_cuts(options, first, last)
    assert all(word in str(error.value) for word in words)


def test_a_part_without_rows_is_refused():
    cuts = time_cuts(SplitOptions(), local_ms(4, 8), local_ms(5, 8))
    require_rows({"train": 1, "val": 1, "test": 1}, cuts)
    with pytest.raises(
        ValueError, match=r"kuairand_time leaves val empty: the log covers 2022-04-08"
    ):
        require_rows({"train": 5, "test": 2, "val": 0}, cuts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_last_day": date(2022, 5, 1)},
        {"train_fraction": 0.9, "val_fraction": 0.1},
        {"rule": "random"},
        {"sample": 0.1},
        {"val_fraction": 0.5, "rule": "tiny_random"},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        SplitOptions(**wrong)


def test_splits_of_no_rows():
    cuts = time_cuts(SplitOptions(), local_ms(4, 8), local_ms(5, 8))
    empty = log_of(user_id=[0], item_id=[0], ts_ms=[0]).clear()
    assert assign_split(empty, cuts).schema == pl.Schema(Splits.polars_schema())


def fitted(log, bursts="fitted", **options):
    """The rule fitted on a log, sent through JSON."""
    split = SplitOptions(**options)
    found = find_bursts(day_rows(log.lazy()), BurstOptions(rule=bursts))
    stored = fit_split(split, LogSummary.of(log.lazy(), found, split)).model_dump(mode="json")
    return load_split(stored)


def parts_of(log, **options):
    """row_id → part."""
    splits = assign_split(log, fitted(log, **options))
    Splits.validate(splits)
    return dict(splits.select("row_id", "split").iter_rows())


@pytest.mark.parametrize(
    ("days_in_train", "rule"), [(20, "kuairand_time"), (19, "kuairand_time_fraction")]
)
def test_auto_takes_the_dates_only_if_they_leave_enough_in_train(days_in_train, rule):
    train = [local_ms(4, 9, minute=i) for i in range(days_in_train)]
    rest = [local_ms(4, 20 + i % 10, 1, i // 10) for i in range(100 - days_in_train)]
    log = log_of(user_id=[0] * 100, item_id=[0] * 100, ts_ms=train + rest)
    assert fitted(log, rule="auto").rule == rule


def test_time_takes_its_dates_from_the_options():
    times = [local_ms(4, day) for day in (1, 2, 3)]
    log = log_of(user_id=[0] * 3, item_id=[0] * 3, ts_ms=times)
    days = {"train_last_day": date(2022, 4, 1), "val_last_day": date(2022, 4, 2)}
    assert parts_of(log, rule="time", **days) == {0: "train", 1: "val", 2: "test"}
    with pytest.raises(ValueError, match="split rule time leaves val and test empty"):
        fitted(log, rule="time")


def random_bursts(seed):
    """Two bursts of 5 and 6 days."""
    log = random_log(seed, n_rows=150, days=12)
    return log.filter((pl.col("ts_ms") - START) // DAY != 5)


def log_in_bursts(*lengths):
    """One row at noon of each day of each burst, bursts 3 days apart; row_id counts the days with rows."""
    starts = np.cumsum([0, *(n + 3 for n in lengths)])
    days = [first + k for first, n in zip(starts, lengths, strict=False) for k in range(n)]
    noon = [START + int(day) * DAY + 12 * HOUR for day in days]
    return log_of(user_id=[0] * len(days), item_id=[0] * len(days), ts_ms=noon)


def test_burst_day_cuts_each_burst():
    """KuaiRec's 8 and 10 days are 4/2/2 and 6/2/2."""
    found = list(parts_of(log_in_bursts(8, 10), rule="burst_day").values())
    assert (
        found
        == ["train"] * 4 + ["val"] * 2 + ["test"] * 2 + ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    )


def test_burst_day_leaves_out_what_is_in_no_burst():
    log = log_of(
        user_id=[0] * 11,
        item_id=[0] * 11,
        ts_ms=[START + k * DAY // 2 for k in range(10)] + [START + 9 * DAY],
    )
    split = SplitOptions(rule="burst_day", burst_val_days=1, burst_test_days=1)
    bursts = find_bursts(day_rows(log.lazy()), BurstOptions(rule="fitted", min_day_rows=2))
    fit = fit_split(split, LogSummary.of(log.lazy(), bursts, split))
    assert assign_split(log, fit)["row_id"].to_list() == list(range(10))


def test_last_burst_out():
    found = list(parts_of(log_in_bursts(3, 2, 6), rule="last_burst_out").values())
    assert found == ["train"] * 5 + ["val"] * 4 + ["test"] * 2


def test_what_followed_a_row_is_known_until_the_end_of_its_part_or_burst():
    log = log_in_bursts(3, 2, 6)  # days 0–2, 6–7, 11–16
    cuts = fitted(log, rule="last_burst_out")
    assert cuts.burst_edges_ms == tuple(START + d * DAY for d in (0, 3, 6, 8, 11, 17))
    noon = START + np.array([0, 2, 4, 7, 11, 14, 16]) * DAY + 12 * HOUR
    found = cuts.observed_until(noon, np.array([0, 0, 0, 0, 1, 1, 2]))
    # day 4 lies outside of all bursts; the data end with the last row
    expected = [START + 3 * DAY, START + 3 * DAY, noon[2], START + 8 * DAY, START + 15 * DAY, START + 15 * DAY, noon[6] + 1]  # fmt: skip
    assert found.tolist() == expected
    alone = fitted(log, bursts="none", rule="time", train_last_day=date(2022, 4, 17), val_last_day=date(2022, 4, 19))  # fmt: skip
    assert alone.observed_until(noon, np.array([0] * 7)).tolist() == [alone.train_end_ms] * 7


@pytest.mark.parametrize(
    ("n_days", "train", "val"),
    [(9, 7, 1), (19, 15, 2), (3, 1, 1), (18, 14, 2)],  # small, full, shortest, twice small
)
def test_kuaisar_counts_24_hour_days_from_the_first_event(n_days, train, val):
    first = START + 7 * HOUR
    starts = [first + n * DAY for n in (train, train + val)]
    times = [first, starts[0] - 1, starts[0], starts[1] - 1, starts[1], first + n_days * DAY - 1]
    log = log_of(user_id=[0] * 6, item_id=[0] * 6, ts_ms=times)
    assert (
        list(parts_of(log, rule="kuaisar_time").values())
        == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    )


def test_tiny_random_samples_rows():
    n = 40_000
    log = log_of(user_id=[0] * n, item_id=[0] * n, ts_ms=[START + i for i in range(n)])
    parts = parts_of(log, rule="tiny_random")
    counts = np.array([list(parts.values()).count(name) for name in SPLITS])
    expected = 0.05 * n * np.array([0.8, 0.1, 0.1])
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()
    assert parts_of(log, rule="tiny_random", seed=1).keys() != parts.keys()
    # another log with the same rows gives them the same parts
    some = log.gather_every(3)
    assert parts_of(some, rule="tiny_random") == {
        row: part for row, part in parts.items() if row in set(some["row_id"])
    }


def test_row_uniforms_look_uniform():
    found = row_uniforms(np.arange(100_000), seed=3)
    counts = np.histogram(found, 50, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 95  # χ²(49), p ≈ 1e-4
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.015
    assert found.min() >= 0
    assert found.max() < 1


def log_of_users(rows, last):
    """Users 0, 1 … with these numbers of rows, ending at these hours."""
    user = np.repeat(np.arange(len(rows)), rows)
    back = np.concatenate([np.arange(n)[::-1] for n in rows])
    ts = START + np.repeat(last, rows) * HOUR - back * 1000
    return log_of(user_id=user, item_id=[0] * len(user), ts_ms=ts)


def users_by_part(log, **options):
    splits = assign_split(log, fitted(log, **options))
    assert splits.height == log.height
    assert splits.group_by("user_id").agg(pl.col("split").n_unique())["split"].max() == 1
    return {
        p: splits.filter(pl.col("split") == p)["user_id"].unique().sort().to_list() for p in SPLITS
    }


def test_user_holds_out_whole_users_by_share_of_rows():
    # before each user are 0, .10, .70, .84 and .93 of the rows
    log = log_of_users([10, 60, 14, 9, 7], [1] * 5)
    found = users_by_part(log, rule="user", train_fraction=0.7, val_fraction=0.2)
    assert found == {"train": [0, 1], "val": [2, 3], "test": [4]}


def test_user_defaults_leave_tscacs_share_to_test():
    log = log_of_users([1] * 1000, [1] * 1000)
    found = users_by_part(log, rule="user")
    assert [len(found[p]) for p in SPLITS] == [844, 93, 63]  # 450,000 of 480,385 rows before test


def test_sqn_user_orders_users_by_their_last_time():
    last = [50, 10, 20, 30, 40, 15, 25, 35, 45, 5]
    found = users_by_part(log_of_users([3] * 10, last), rule="sqn_user")
    assert found == {"train": [1, 2, 3, 4, 5, 6, 7, 9], "val": [8], "test": [0]}


def test_users_with_one_last_time_are_ordered_by_id():
    found = users_by_part(log_of_users([2] * 10, [5] * 10), rule="sqn_user")
    assert found == {"train": list(range(8)), "val": [8], "test": [9]}


def test_loo_takes_the_last_rows():
    log = log_of_users([1, 2, 3, 5], [1, 2, 3, 4])
    parts = list(parts_of(log, rule="loo").values())
    assert parts == ["train"] * 3 + ["train", "val", "test"] + ["train"] * 3 + ["val", "test"]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000), rule=st.sampled_from(get_args(Rule)), n_buckets=st.integers(1, 3)
)
def test_buckets_do_not_change_parts(seed, rule, n_buckets):
    log = random_bursts(seed)
    days = {"train_last_day": date(2022, 4, 17), "val_last_day": date(2022, 4, 19)}
    fit = fitted(log, rule=rule, sample_share=0.5, **days)
    buckets = [log.filter(pl.col("user_id") % n_buckets == b) for b in range(n_buckets)]
    apart = pl.concat(assign_split(bucket, fit) for bucket in buckets).sort("user_id", "row_id")
    whole = assign_split(log, fit)
    assert apart.equals(whole.sort("user_id", "row_id"))
    left_out = log.height - whole.height
    assert (left_out > 0) == (rule == "tiny_random")


@pytest.mark.parametrize("rule", get_args(Rule))
def test_only_rules_in_time_give_cuts(rule):
    log = random_bursts(1)
    days = {"train_last_day": date(2022, 4, 17), "val_last_day": date(2022, 4, 19)}
    stored = fitted(log, rule=rule, **days).model_dump(mode="json")
    if rule in TIME_RULES:
        assert Cuts(**stored).end_of("test") == log["ts_ms"].max() + 1
        return
    with pytest.raises(
        ValueError,
        match=f"{rule} does not cut all users at the same times.*set split.rule to one of time",
    ):
        Cuts(**stored)


@pytest.mark.parametrize(
    ("log", "options", "words"),
    [
        (log_in_bursts(4), {"rule": "burst_day"}, "the burst of .* has 4 days, none are left for train"),
        (log_in_bursts(9), {"rule": "last_burst_out"}, "at least 2 bursts, the log has 1; set bursts.rule"),
        (log_in_bursts(4), {"rule": "burst_day", "bursts": "none"}, "at least 1 burst, the log has 0"),
        (log_in_bursts(3, 4), {"rule": "last_burst_out"}, "leaves test empty"),
        (log_in_bursts(2), {"rule": "kuaisar_time"}, "at least 3 days of 24 hours, .* covers 2"),
        (log_in_bursts(5), {"rule": "user"}, "at least 3 users, the log has 1"),
        (log_in_bursts(5), {"rule": "sqn_user"}, "at least 3 users"),
        (log_in_bursts(5).clear(), {"rule": "loo"}, "no rows"),
    ],
)  # fmt: skip
def test_a_log_that_cannot_be_split_so_is_refused(log, options, words):
    with pytest.raises(ValueError, match=words):
        fitted(log, **({"bursts": "none"} if log.is_empty() else {}) | options)


@pytest.mark.parametrize("rule", ["tiny_random", "loo", "user", "burst_day"])
def test_an_empty_part_says_what_to_do(rule):
    fit = fitted(
        log_in_bursts(6) if rule == "burst_day" else log_of_users([1] * 5, [1] * 5), rule=rule
    )
    with pytest.raises(ValueError, match=rf"split rule {rule} leaves val empty: \w+ .*\w+"):
        require_rows({"train": 1, "test": 1}, fit)
