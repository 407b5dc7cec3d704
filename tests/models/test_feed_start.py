"""Where users stand when a roll-out begins."""

import numpy as np
import pytest
import torch
from support.feeds import HOUR, START, planted_feed

from reelrank.models.feed import PAD
from reelrank.models.feed_start import past_of, starting_states, test_start, test_users

test_start.__test__ = test_users.__test__ = False  # their names only look like tests


@pytest.fixture(scope="module")
def feed():
    return planted_feed(n_users=5, rows_of_user=10)


def test_the_past_is_strictly_before_the_moment(feed):
    past = past_of(feed, np.array([3, 0]), START + 4 * HOUR, 3)
    # rows of user u are 10 u … 10 u + 9, one an hour: the fourth row begins the moment itself
    torch.testing.assert_close(past.items, feed.rows.item[torch.tensor([[31, 32, 33], [1, 2, 3]])])
    torch.testing.assert_close(past.feedback[0, 2], feed.rows.response[33])


def test_a_short_past_is_padded_on_the_left(feed):
    past = past_of(feed, np.array([1]), START + 2 * HOUR, 4)
    assert past.items[0].tolist() == [PAD, PAD, *feed.rows.item[10:12].tolist()]
    assert not past.feedback[0, :2].any()
    nothing = past_of(feed, np.array([1]), START, 4)
    assert (nothing.items == PAD).all()


def test_what_comes_later_does_not_move_it(feed):
    later = feed.rows.item.clone()
    later[feed.rows.ts_ms >= START + 5 * HOUR] = 0
    other = feed.__class__(feed.rows.__class__(later, feed.rows.ts_ms, feed.rows.response, feed.rows.first), feed.decisions, feed.users, feed.items)  # fmt: skip
    for a, b in zip(*(past_of(f, np.arange(5), START + 5 * HOUR, 6) for f in (feed, other)), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b)


def test_random_exposures_start_no_test(feed):
    # test is the last fifth of ten rows; the last of five is random
    assert test_start(feed) == START + 8 * HOUR
    assert test_users(feed).tolist() == [0, 1, 2, 3, 4]


def test_states_have_codes_and_no_candidates(feed):
    users = np.array([4, 2])
    states = starting_states(feed, users, past_of(feed, users, START + HOUR, 2))
    torch.testing.assert_close(states.user_codes, feed.users.codes[[4, 2]])
    assert states.candidates.shape == (2, 0) and states.item_codes.shape == (2, 0, 1)
