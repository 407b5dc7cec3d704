import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from support.feature_logs import (
    DAY,
    HOUR,
    START,
    cuts_after,
    log_of,
    random_log,
    random_vectors,
)

from reelrank.features.rewards import (
    SIGNALS,
    ImmediateWeights,
    RewardOptions,
    rescaling,
    reward_terms,
    rewards,
)
from reelrank.features.splits import assign_split
from reelrank.tables import Rewards

OPTIONS = RewardOptions()
CUTS = cuts_after(4, 1, 6)
MINUTE = 60_000


def run(log, vectors=None, cuts=CUTS, options=OPTIONS, terms=tuple(SIGNALS)):
    vectors = random_vectors(0) if vectors is None else vectors
    return rewards(log, assign_split(log, cuts), vectors, terms=terms, cuts=cuts, options=options)


def test_immediate_reward_by_hand():
    log = log_of(
        user_id=[0] * 6,
        item_id=[0] * 6,
        ts_ms=[START + i for i in range(6)],
        watch_ratio=[0.4, 5.0, None, 3.0, 1.0, 0.0],
        like=[0, 1, 1, 1, 0, None],
        forward=[0, 0, 0, 1, 0, 0],
        follow=[0, 0, 0, 1, 0, 0],
        comment=[1, 0, 0, 1, 0, 0],
        hate=[0, 0, 0, 0, 1, 1],
    )
    assert run(log)["r_immediate"].to_list() == pytest.approx([0.5, 1.5, 0.5, 2.0, -0.5, -1.0])


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["watch"], [1.0, 2.0]),  # 1 at most, so the factor is 2
        (["like", "forward", "comment"], [0.5 * 2 / 1.3, 0.5 * 2 / 1.3]),
        (["hate"], [0.0, -1.0]),
        (["watch", "hate"], [1.0, 0.0]),  # 2 − 2
    ],
)
def test_a_source_with_fewer_terms_has_the_same_range(terms, expected):
    log = log_of(
        user_id=[0, 0],
        item_id=[0, 0],
        ts_ms=[START, START + 1],
        watch_ratio=[1.0, 2.0],
        like=[1, 1],
        hate=[0, 1],
    )
    assert run(log, terms=terms)["r_immediate"].to_list() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("terms", "factor"),
    [
        (["watch"], 2.0),  # KuaiRec: 0.5 · 2 can become 2
        (["like", "forward", "comment"], 2 / 1.3),  # Weibo
        (list(SIGNALS), 1.0),  # 2.8 at most, which is cut
        (["hate"], 1.0),  # nothing to reach for
    ],
)
def test_the_factor_by_hand(terms, factor):
    assert rescaling(terms, ImmediateWeights()) == pytest.approx(factor)


def test_the_reward_of_watch_time_alone_by_hand():
    log = log_of(
        user_id=[0] * 4,
        item_id=[0] * 4,
        ts_ms=[START + i for i in range(4)],
        watch_ratio=[0.3, 1.3, 5.0, None],
    )
    assert run(log, terms=["watch"])["r_immediate"].to_list() == pytest.approx([0.3, 1.3, 2.0, 0.0])


def test_terms_are_those_with_any_value():
    log = random_log(0)
    assert reward_terms(log.lazy()) == list(SIGNALS)
    missing = log.with_columns(pl.lit(None, pl.Int8).alias(name) for name in ("like", "hate"))
    assert reward_terms(missing.lazy()) == ["watch", "forward", "follow", "comment"]
    nothing = log.with_columns(pl.lit(None).alias(name) for name in SIGNALS.values())
    with pytest.raises(ValueError, match="no reward can be formed"):
        reward_terms(nothing.lazy())


SESSIONS = log_of(
    user_id=[0] * 7 + [1],
    item_id=[0] * 8,
    ts_ms=[
        START,
        START + 10 * MINUTE,  # back after 6 h
        START + 10 * MINUTE + 6 * HOUR,  # back after 30 h
        START + 10 * MINUTE + 36 * HOUR,  # next row is two days off
        START + 4 * DAY - 2 * HOUR,  # window crosses the cut, and the user is back before it
        START + 4 * DAY - HOUR,  # the session goes on beyond the cut
        START + 4 * DAY - HOUR + 70 * MINUTE,
        START + 5 * DAY + HOUR,  # window leaves the data
    ],
)


def test_retention_by_hand():
    found = run(SESSIONS)
    assert found["r_retention"].to_list() == [0, 1, 0, 0, None, None, None, None]
    assert found["reward"].is_null().to_list() == found["r_retention"].is_null().to_list()


def test_a_session_that_crosses_the_cut_is_cut():
    log = log_of(
        user_id=[0] * 3,
        item_id=[0] * 3,
        ts_ms=[START + 4 * DAY - 10 * MINUTE, START + 4 * DAY - 1, START + 4 * DAY],
    )
    assert log["session_id"].n_unique() == 1
    found = run(log)
    assert found["next_row_id"].to_list() == [1, None, None]
    assert found["r_retention"].to_list() == [0, None, None]
    assert found["return"].to_list() == [None, None, None]


def test_the_window_may_end_with_the_part():
    last = CUTS.train_end_ms - DAY - 1  # its window ends with the last millisecond of train
    for ts_ms, expected in ((last, 0.0), (last + 1, None)):
        log = log_of(user_id=[0], item_id=[0], ts_ms=[ts_ms])
        assert run(log)["r_retention"].item() == expected


def test_exp_gap_variant():
    found = run(SESSIONS, options=RewardOptions(retention="exp_gap"))["r_retention"].to_list()
    assert found == [0, pytest.approx(math.exp(-6 / 24)), 0, 0, None, None, None, None]


def test_interest_by_hand():
    vectors = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    log = log_of(
        user_id=[0, 0, 0, 0, 0, 1],
        item_id=[0, 0, 1, 1, 2, 0],
        ts_ms=[START + i for i in range(6)],
        long_view=[1, 0, 1, None, 1, 1],
    )
    # after items 0 and 1: (0.9, 0.1)
    expected = [0, 1, 0, 0.1 / math.hypot(0.9, 0.1), 0, 0]
    assert run(log, vectors)["r_interest"].to_list() == pytest.approx(expected)


def test_interest_follows_whole_watches_where_no_long_view_is_logged():
    log = log_of(
        user_id=[0] * 3,
        item_id=[0, 1, 0],
        ts_ms=[START + i for i in range(3)],
        watch_ratio=[0.99, 1.0, 4.0],
    )
    vectors = np.array([[1, 0], [1, 1], [0, 0]], np.float32)
    options = {"terms": ["watch"], "cuts": CUTS, "options": OPTIONS}
    found = rewards(log, assign_split(log, CUTS), vectors, **options, watch="watch_ratio")
    # nothing, nothing (item 0 was left early), then item 1
    assert found["r_interest"].to_list() == pytest.approx([0, 0, 1 / math.sqrt(2)])


def test_links_and_returns_follow_their_definitions():
    log = random_log(3)
    found = run(log)
    Rewards.validate(found)
    assert found.select("user_id", "row_id").equals(log.select("user_id", "row_id"))
    rows = {
        row["row_id"]: row
        for row in found.join(
            log.select("row_id", "session_id", "ts_ms").join(
                assign_split(log, CUTS).select("row_id", "split"), on="row_id"
            ),
            on="row_id",
        ).iter_rows(named=True)
    }
    linked = 0
    for row in rows.values():
        following = rows.get(row["next_row_id"])
        expected = row["reward"]
        if following is not None:
            linked += 1
            for key in ("user_id", "session_id", "split"):
                assert row[key] == following[key]
            assert following["ts_ms"] >= row["ts_ms"]
            later = following["return"]
            expected = None if later is None else row["reward"] + OPTIONS.gamma * later
        assert row["return"] == (None if expected is None else pytest.approx(expected, abs=1e-5))
    assert linked > 50
    assert found["return"].null_count() < found.height / 2


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_buckets_do_not_matter(seed):
    log = random_log(seed)
    buckets = [log.filter(pl.col("user_id") % 2 == b) for b in (0, 1)]
    apart = pl.concat(run(bucket) for bucket in buckets)
    assert_frame_equal(run(log), apart.sort("user_id", maintain_order=True))


def test_other_rows_are_refused():
    log = random_log(0)
    splits = assign_split(log.head(5), CUTS)
    with pytest.raises(ValueError, match="rows differ"):
        rewards(log, splits, random_vectors(0), terms=["watch"], cuts=CUTS, options=RewardOptions())


def test_no_rows():
    assert run(random_log(0).clear()).height == 0
