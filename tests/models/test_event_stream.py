import math

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_inputs import HOUR, N_ITEMS, N_USERS, events_frame, model_inputs

from reelrank.models.event_stream import MESSAGE_DIM, EventStream
from reelrank.models.inputs import InputSpec


def brute_force(events, node, ts, k):
    column, value = ("user_id", node) if node < N_USERS else ("item_id", node - N_USERS)
    touching = [
        i
        for i, (v, t) in enumerate(zip(events[column], events["ts_ms"], strict=True))
        if v == value and t < ts
    ]
    return touching[::-1][:k]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), k=st.integers(1, 6))
def test_last_k_equals_a_brute_force_loop_with_equal_times(seed, n, k):
    events = events_frame(n, seed)
    stream = EventStream.from_frame(events, N_USERS, N_ITEMS)
    times = sorted({0, *events["ts_ms"], *(t + 1 for t in events["ts_ms"]), 2**42})
    nodes = torch.arange(N_USERS + N_ITEMS).unsqueeze(1).expand(-1, len(times))
    positions, mask = stream.last_k(nodes, torch.tensor(times).expand_as(nodes), k)
    assert positions.shape == (*nodes.shape, k)
    for node in range(len(nodes)):
        for j, ts in enumerate(times):
            found = positions[node, j][mask[node, j]].tolist()
            assert found == brute_force(events, node, ts, k)
    assert (positions[~mask] == 0).all()


def test_rows_of_the_same_time_do_not_see_each_other():
    events = events_frame(3).with_columns(
        user_id=pl.lit(0, pl.Int32), ts_ms=pl.Series([10, 10, 20], dtype=pl.Int64)
    )
    stream = EventStream.from_frame(events, N_USERS, N_ITEMS)
    positions, mask = stream.last_k(stream.user, stream.ts_ms, 2)
    assert mask.sum(1).tolist() == [0, 0, 2]
    assert positions[2].tolist() == [1, 0]


def test_messages_and_labels_by_hand():
    events = events_frame(6).with_columns(
        watch_ratio=pl.Series([0.0, 0.3, 0.7, 1.0, 1.1, None], dtype=pl.Float32),
        play_ms=pl.Series([0, 1000, 2000, 3000, 4000, None], dtype=pl.Int32),
        like=pl.Series([1, 0, None, 0, 0, 0], dtype=pl.Int8),
        long_view=pl.Series([1, 0, 1, 1, 0, None], dtype=pl.Int8),
        reward=pl.Series([1, None, 0, 0, 0, 0], dtype=pl.Float32),
    )
    stream = EventStream.from_frame(events, N_USERS, N_ITEMS)
    assert stream.message.shape == (6, MESSAGE_DIM)
    assert stream.message[:, :5].argmax(1)[:5].tolist() == [0, 1, 2, 3, 4]
    assert stream.message[:, :5].sum(1).tolist() == [1, 1, 1, 1, 1, 0]
    assert stream.message[:3, 5].tolist() == [1, 0, 0]
    assert stream.message[:, -1].tolist() == pytest.approx(
        [0, math.log(2), math.log(3), math.log(4), math.log(5), 0]
    )
    assert stream.labels[:, 0].isnan().tolist() == [False] * 5 + [True]
    assert stream.labels[2, 1].isnan()
    assert stream.reward.isnan().tolist() == [False, True, False, False, False, False]


def test_only_standard_train_rows_may_be_learnt_from():
    events = events_frame()
    stream = EventStream.from_frame(events, N_USERS, N_ITEMS)
    expected = events.select((pl.col("split") == "train") & (pl.col("is_rand") == 0)).to_series()
    assert stream.trained_rows().tolist() == expected.to_list()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.reverse(), "not chronological: ts_ms falls at row 1"),
        (lambda e: e.drop("like", "return"), r"lacks the columns \['like', 'return'\]"),
        (lambda e: e.clear(), "no rows"),
        (lambda e: e.with_columns(user_id=pl.lit(99, pl.Int32)), "user_id is 99 at row 0"),
        (lambda e: e.with_columns(item_id=pl.lit(-1, pl.Int32)), "item_id is -1 at row 0"),
        (lambda e: e.with_columns(next_pos=pl.lit(4)), "next_pos is 4 at row 0"),
    ],
)
def test_bad_events_are_refused(change, message):
    events = events_frame(4).with_columns(ts_ms=pl.Series([1, 2, 3, 4]))
    with pytest.raises(ValueError, match=message):
        EventStream.from_frame(change(events), N_USERS, N_ITEMS)


def test_the_mean_gap_is_of_train_rows_only():
    # user 0, item 0 at 0 h, 2 h, 6 h in train; the last row is test
    events = events_frame(4).with_columns(
        user_id=pl.lit(0, pl.Int32),
        item_id=pl.lit(0, pl.Int32),
        ts_ms=pl.Series([0, 2, 6, 1000]) * HOUR,
        split=pl.Series(["train"] * 3 + ["test"], dtype=events_frame(1).schema["split"]),
    )
    assert InputSpec.of(model_inputs(events=events)).mean_gap_hours == pytest.approx(3)


def test_moving_to_a_device_keeps_the_answers():
    stream = model_inputs().stream
    moved = stream.to("meta")
    assert moved.message.is_meta and moved.entry_key.is_meta
    assert (moved.n_users, moved.span) == (stream.n_users, stream.span)
