import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.features.sessions import request_and_session_ids


def test_a_gap_of_exactly_the_limit_stays_inside():
    user = np.array([0, 0, 0, 0, 1, 1])
    ts = np.array([0, 1800, 1800, 3601, 3601, 3601])
    request, session = request_and_session_ids(user, ts, 1800)
    assert request.tolist() == [0, 1, 1, 2, 3, 3]
    assert session.tolist() == [0, 0, 0, 1, 2, 2]
    assert request.dtype == session.dtype == np.int64


def test_no_rows_give_no_ids():
    request, session = request_and_session_ids(np.array([], int), np.array([], int), 1)
    assert request.size == session.size == 0


@pytest.mark.parametrize(
    ("user", "ts", "gap", "message"),
    [
        ([0, 0], [5, 4], 10, "rows 0 and 1 are out of order"),
        ([1, 0], [4, 5], 10, "rows 0 and 1 are out of order"),
        ([0], [0], -1, "gap_ms must be ≥ 0"),
    ],
)
def test_bad_input_is_refused(user, ts, gap, message):
    with pytest.raises(ValueError, match=message):
        request_and_session_ids(np.array(user), np.array(ts), gap)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=40),
    st.integers(0, 20),
)
def test_groups_are_what_their_definitions_say(rows, gap):
    rows = sorted(rows)
    user, ts = (
        np.array(column, np.int64) for column in ([u for u, _ in rows], [t for _, t in rows])
    )
    request, session = request_and_session_ids(user, ts, gap)
    distinct = sorted(set(rows))
    assert request.tolist() == [distinct.index(row) for row in rows]
    for i in range(1, len(rows)):
        inside = user[i] == user[i - 1] and ts[i] - ts[i - 1] <= gap
        assert session[i] - session[i - 1] == (not inside)
