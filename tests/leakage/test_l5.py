"""L5: session length, rank in session, play_ms and watch_ratio of a row are never inputs at that row."""

import pytest

from reelrank.features.events import KEY_COLUMNS, LABEL_COLUMNS, STATE_COLUMNS, Events
from reelrank.tables import FEEDBACKS, Histories, Rewards

FORBIDDEN = {
    "session_id",
    "session_length",
    "rank_in_session",
    "request_id",
    "play_ms",
    "watch_ratio",
}
FORBIDDEN |= {*FEEDBACKS, *Rewards.polars_schema(), *LABEL_COLUMNS, *KEY_COLUMNS} - {"user_id"}
HISTORY = [name for name in Histories.polars_schema() if name != "row_id"]


def check(inputs):
    leaked = FORBIDDEN & set(inputs)
    assert not leaked, f"inputs that are not known when the row is ranked: {sorted(leaked)}"


def test_inputs_are_known_when_the_row_is_ranked():
    check([*STATE_COLUMNS, *HISTORY])


@pytest.mark.parametrize("leak", ["play_ms", "watch_ratio", "rank_in_session", "session_length"])
def test_the_check_finds_a_leak(leak):
    with pytest.raises(AssertionError, match=leak):
        check([*STATE_COLUMNS, *HISTORY, leak])


def test_every_column_of_events_has_one_role():
    roles = [*STATE_COLUMNS, *LABEL_COLUMNS, *KEY_COLUMNS]
    assert sorted(roles) == sorted(Events.polars_schema())
