import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feature_logs import DAY, START, distort_from, items_of, log_of
from support.feed_log import (
    DATA,
    ENCODER,
    N_ITEMS,
    N_USERS,
    random_feed_log,
    toy_feed,
    toy_items,
    toy_sets,
    toy_users,
    with_requests,
    with_split,
)

from reelrank.features.local_time import LOCAL_TIME
from reelrank.models.feed import PAD, RESPONSES
from reelrank.models.feed_data import batch, feed_inputs, trained_decisions
from reelrank.models.feed_options import FeedDataOptions
from reelrank.tables import CandidateSets

MIN, HOUR = 60_000, 3_600_000


def hand_log():
    """User 0: three requests in a session, one a day later in val; user 1: one random row; user 2: nothing."""
    log = log_of(
        user_id=[0, 0, 0, 0, 0, 1],
        item_id=[3, 1, 2, 1, 4, 0],
        ts_ms=[START, START, START + MIN, START + 2 * MIN, START + DAY, START + HOUR],
        row_id=[1, 2, 3, 4, 5, 6],
        play_ms=[1000, 2000, None, 4000, 5000, 6000],
        like=[1, 0, 0, 1, 0, 0],
        is_rand=[0, 0, 0, 0, 0, 1],
    )
    return with_split(with_requests(log), train_days=1)


def hand_sets(log):
    requests = log.select("user_id", "request_id").unique(maintain_order=True).to_dicts()
    chosen = [[3, 1, 0], [2, 0, 4], [1, 2], [4, 0, 1], [0, 1, 2]]
    shown = [{3, 1}, {2}, {1}, {4}, {0}]
    rows = [
        {**r, "item_id": i, "shown": int(i in s), "probability": 1.0}
        for r, c, s in zip(requests, chosen, shown, strict=True)
        for i in c
    ]
    return CandidateSets.conform(pl.DataFrame(rows))


def hand_feed(k=2):
    log = hand_log()
    options = FeedDataOptions(k=k)
    return feed_inputs(
        log, items_of(5, duration_ms=[1000] * 5), toy_users(3), options, hand_sets(log)
    )


def test_requests_of_a_hand_made_log():
    decisions = hand_feed().decisions
    assert decisions.user.tolist() == [0, 0, 0, 0, 1]
    assert decisions.row.tolist() == [0, 2, 3, 4, 5]
    # candidates in the order of ids; the second request ends before the split does
    assert decisions.candidates.tolist() == [
        [0, 1, 3],
        [0, 2, 4],
        [1, 2, PAD],
        [0, 1, 4],
        [0, 1, 2],
    ]
    assert decisions.shown.int().tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert decisions.next.tolist() == [1, 2, -1, -1, -1]
    assert decisions.split.tolist() == [0, 0, 0, 1, 0]
    assert trained_decisions(decisions).tolist() == [0, 1, 2]
    watch = decisions.response[..., RESPONSES.index("watch_time")]
    assert watch[0, 1:].tolist() == [2.0, 1.0]
    assert watch[2, 0] == 4.0
    assert watch[1].isnan().all()  # its play time was not logged
    assert watch[0, 0].isnan()
    assert decisions.response[0, 1:, RESPONSES.index("like")].tolist() == [0.0, 1.0]


def test_states_of_a_hand_made_log():
    states = batch(hand_feed(), torch.tensor([0, 1, 3, 4]), 3)
    # a request's own rows are in the next one's history, random and other users' rows in none of user 0
    assert states.history.tolist() == [[PAD] * 3, [PAD, 3, 1], [1, 2, 1], [PAD] * 3]
    watch = states.feedback[..., RESPONSES.index("watch_time")]
    assert watch[1].tolist() == [0.0, 1.0, 2.0]
    assert watch[2, 0] == 2.0
    assert watch[2, 1].isnan()
    assert states.hour.tolist() == [0, 0, 0, 1]
    assert states.mask.all()


def test_most_viewed_videos_of_a_hand_made_log():
    log = hand_log()
    options = FeedDataOptions(track="top_videos", top_videos=3, k=3)
    feed = feed_inputs(log, items_of(5, duration_ms=[1000] * 5), toy_users(3), options)
    decisions = feed.decisions
    # train shows 1 twice, 2 and 3 once; 0 only at random, 4 only in val
    assert decisions.candidates.tolist() == [[1, 2, 3]] * 4
    assert decisions.shown.int().tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert decisions.next.tolist() == [1, 2, 3, -1]
    assert decisions.row.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="train shows 3 videos, fewer than top_videos = 4"):
        feed_inputs(log, toy_items(), toy_users(3), options.model_copy(update={"top_videos": 4}))


@pytest.mark.parametrize("track", ["request", "top_videos"])
def test_episodes_stay_in_their_split_and_go_forward(track):
    options = FeedDataOptions(track=track, top_videos=10, k=3)
    decisions = toy_feed(options=options).decisions
    here = torch.nonzero(decisions.next >= 0).squeeze(1)
    there = decisions.next[here]
    assert len(here) > 20
    for column in (decisions.split, decisions.user):
        assert torch.equal(column[here], column[there])
    assert (there > here).all()
    assert (decisions.ts_ms[there] >= decisions.ts_ms[here]).all()
    # every decision but an episode's first is the next of exactly one
    assert len(there.unique()) == len(there)


def test_random_exposures_are_in_histories_but_not_trained_on():
    feed = toy_feed()
    decisions = feed.decisions
    random = torch.nonzero(decisions.is_rand & (decisions.split == 0)).squeeze(1)
    assert len(random)
    assert not set(random.tolist()) & set(trained_decisions(decisions).tolist())
    after = torch.nonzero(decisions.row.unsqueeze(1) == decisions.row[random] + decisions.shown[random].sum(1))  # fmt: skip
    same_user = decisions.user[after[:, 0]] == decisions.user[random[after[:, 1]]]
    later, before = after[same_user][0]
    history = batch(feed, later.unsqueeze(0), 4).history
    assert (
        int(history[0, -1]) in decisions.candidates[random[before]][decisions.shown[random[before]]]
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_state_knows_nothing_of_its_own_request_or_later(seed):
    log = random_feed_log(3)
    feed = toy_feed(log=log)
    d = seed % len(feed.decisions.user)
    user, ts = int(feed.decisions.user[d]), int(feed.decisions.ts_ms[d])
    first = log.filter(pl.col("user_id") == user, pl.col("ts_ms") == ts)["row_id"].min()
    # responses only: items after it would change its candidates' codes through train vocabularies
    changed = distort_from(log, ts, first, seed).with_columns(log["item_id"])
    distorted = toy_feed(log=changed)
    assert not torch.equal(feed.rows.response.nan_to_num(), distorted.rows.response.nan_to_num())
    index = torch.tensor([d])
    before, after = (vars(batch(f, index, 6)) for f in (feed, distorted))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, equal_nan=True, rtol=0, atol=0)


def test_codes_are_of_train_items():
    log = random_feed_log(0)
    log = log.filter((pl.col("split") != "train") | (pl.col("item_id") % 7 != 3))
    codes = toy_feed(log=log).items.codes
    assert codes[3::7, 0].eq(0).all()  # an author whose videos train never shows
    assert codes[::7, 0].gt(0).all()


def test_local_hour_is_the_calendars():
    from datetime import datetime

    feed = toy_feed()
    index = torch.arange(40)
    ts = feed.decisions.ts_ms[index].tolist()
    expected = [datetime.fromtimestamp(t / 1000, LOCAL_TIME).hour for t in ts]
    assert batch(feed, index, 1).hour.tolist() == expected


def test_small_candidate_sets_are_refused():
    with pytest.raises(ValueError, match=r"1 candidate sets hold fewer than k = 3 items, the first that of user 0 .* with 2"):  # fmt: skip
        hand_feed(k=3)


def test_inputs_that_do_not_belong_together_are_refused():
    log, items, users = random_feed_log(0), toy_items(), toy_users()
    sets = toy_sets(log, items)
    with pytest.raises(ValueError, match="needs candidate_sets"):
        feed_inputs(log, items, users, DATA)
    with pytest.raises(ValueError, match="1 requests have no candidate set"):
        feed_inputs(log, items, users, DATA, sets.filter(pl.col("request_id") != 5))
    with pytest.raises(ValueError, match="is not what interactions show"):
        feed_inputs(log, items, users, DATA, sets.with_columns(shown=pl.lit(0, pl.Int8)))
    with pytest.raises(ValueError, match=r"lacks the columns \['split'\]"):
        feed_inputs(log.drop("split"), items, users, DATA, sets)
    rows = np.arange(log.height)
    mixed = log.with_columns(
        split=pl.when(pl.Series(rows % 2 == 0)).then(pl.lit("train")).otherwise(pl.lit("val"))
    )
    with pytest.raises(ValueError, match="requests lie in two splits"):
        feed_inputs(mixed, items, users, DATA, sets)


def test_a_user_without_history_or_train_rows_has_a_state():
    feed = toy_feed()
    last = torch.nonzero(feed.decisions.user == N_USERS - 1).squeeze(1)
    states = batch(feed, last, ENCODER.history)
    assert (states.history[0] == PAD).all()
    assert states.feedback[0].eq(0).all()
    assert states.candidates.max() < N_ITEMS
