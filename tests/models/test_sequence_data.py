import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.models.sequence_data import PAD, Sequences, Windows, histories_before


def log_of(counts, n_train):
    """Users with ``counts`` events, the first ``n_train`` of each in train; items are row numbers."""
    user = np.repeat(np.arange(len(counts)), counts)
    place = np.concatenate([np.arange(c) for c in counts]) if sum(counts) else np.zeros(0, int)
    train = place < np.repeat(n_train, counts)
    frame = pl.DataFrame(
        {
            "row_id": np.arange(len(user)),
            "user_id": user,
            "item": np.arange(len(user)),
            "scenario": place % 2,
            "ts_ms": place * 1000,
            "split": np.where(train, "train", "test"),
            "click": 1,
            "like": place % 3 == 0,
            "follow": None,
            "forward": 0,
        }
    )
    return Sequences.from_frame(frame, len(counts), max(len(user), 1), 2)


def test_windows_by_hand():
    windows = Windows.of(log_of([7], [6]), 4)
    # events 0–3 are asked for 1–4; the second window starts half a window later and is asked for 5 only
    assert windows.start.tolist() == [0, 2]
    assert windows.stop.tolist() == [5, 6]
    inputs, asked = windows.batch(log_of([7], [6]), torch.tensor([0, 1]))
    assert inputs.item.tolist() == [[0, 1, 2, 3], [2, 3, 4, PAD]]
    assert asked.tolist() == [[1, 2, 3, 4], [PAD, PAD, 5, PAD]]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6),
    st.integers(2, 9),
)
@settings(max_examples=60, deadline=None)
def test_each_train_event_but_the_first_is_asked_for_once_from_its_own_past(users, length):
    counts = [a for a, _ in users]
    n_train = [min(a, b) for a, b in users]
    if max(n_train) < 2:
        return
    log = log_of(counts, n_train)
    windows = Windows.of(log, length)
    inputs, asked = windows.batch(log, torch.arange(len(windows)))
    first = np.cumsum([0, *counts])[:-1]
    expected = [f + k for f, n in zip(first, n_train, strict=True) for k in range(1, n)]
    assert sorted(asked[asked != PAD].tolist()) == expected
    place = (asked != PAD).nonzero()
    own = asked[asked != PAD]
    before = inputs.position[place[:, 0], place[:, 1]]
    assert torch.equal(before + 1, own)
    assert torch.equal(log.user[before], log.user[own])
    # at least half a window of past, or all that there is
    past = place[:, 1] + 1
    assert (
        past >= torch.minimum(own - log.first[log.user[own]], torch.tensor(length - length // 2))
    ).all()


def test_histories_are_the_last_events_before_and_never_another_user_s():
    log = log_of([3, 4], [2, 2])
    histories = histories_before(log, torch.tensor([0, 2, 3, 6]), 2)
    assert histories.item.tolist() == [[PAD, PAD], [0, 1], [PAD, PAD], [4, 5]]
    assert histories.length.tolist() == [0, 2, 0, 2]
    assert histories.scenario.tolist() == [[0, 0], [0, 1], [0, 0], [1, 0]]


def test_null_feedback_counts_as_none():
    log = log_of([4], [4])
    assert log.behaviour[:, 2].sum() == 0
    assert log.behaviour[:, 1].tolist() == [True, False, False, True]


def test_what_cannot_be_a_sequence_is_refused():
    with pytest.raises(ValueError, match="no user has two train events"):
        Windows.of(log_of([3, 1], [1, 1]), 4)
    with pytest.raises(ValueError, match="no event"):
        log_of([0], [0])
