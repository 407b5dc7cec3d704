"""Folds of users that simulators are fitted on: disjoint, stable, of the size that was asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.feed_log import random_feed_log, toy_items, toy_users
from support.feeds import planted_feed

from reelrank.models.feed import RESPONSES
from reelrank.models.feed_data import feed_inputs, shown_sets
from reelrank.models.feed_options import RESPONSE_NAMES, FeedDataOptions
from reelrank.models.feed_windows import TEST, TRAIN, row_roles
from reelrank.models.feedback_options import SimulatorOptions, UserFold
from reelrank.training.feedback_simulator import fold_of_users, impressions, new_simulator


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 300), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_fold_and_its_complement_part_the_users(n, share, seed):
    inside, outside = (
        fold_of_users(n, UserFold(share=share, seed=seed, complement=c)) for c in (False, True)
    )
    assert torch.equal(inside, ~outside)
    # a user's place depends on no other user
    assert torch.equal(inside, fold_of_users(n + 7, UserFold(share=share, seed=seed))[:n])


def test_a_fold_has_its_share():
    inside = fold_of_users(10_000, UserFold(share=0.3))
    assert abs(float(inside.float().mean()) - 0.3) < 4 * (0.3 * 0.7 / 10_000) ** 0.5
    assert fold_of_users(50, UserFold()).all()


def test_impressions_are_those_of_the_fold_and_of_no_random_exposure():
    feed = planted_feed(30, 10)
    fold = torch.arange(30) < 12
    roles = row_roles(feed)
    own = impressions(feed, roles, SimulatorOptions(), TRAIN, fold)
    rows = own.rows.nonzero().squeeze(1)
    assert (rows < 120).all() and not roles.is_rand[rows].any()
    assert own.windows.user.max() < 12
    with pytest.raises(ValueError, match=r"test split shows no rows .* 0 users of the fold"):
        impressions(feed, roles, SimulatorOptions(), TEST, torch.zeros(30, dtype=torch.bool))


def test_the_seed_of_the_weights_is_the_models_own():
    feed = planted_feed(30, 10)
    options = SimulatorOptions(d_state=8, d_id=4, d_attributes=2, d_context=2, hidden=8)
    own = impressions(feed, row_roles(feed), options, TRAIN)
    torch.manual_seed(1)
    a = new_simulator(feed, options, own, 5)
    torch.manual_seed(2)
    b = new_simulator(feed, options, own, 5)
    assert torch.equal(a.id.weight, b.id.weight)
    assert not torch.equal(a.id.weight, new_simulator(feed, options, own, 6).id.weight)


def test_requests_without_candidates_have_the_rows_they_show():
    log = random_feed_log()
    inputs = feed_inputs(log, toy_items(), toy_users(), FeedDataOptions(k=1), shown_sets(log))
    decisions = inputs.decisions
    assert torch.equal(decisions.shown, decisions.candidates >= 0)
    assert int(decisions.shown.sum()) == log.unique(["user_id", "request_id", "item_id"]).height
    assert int((row_roles(inputs).split >= 0).sum()) == int(decisions.shown.sum())


def test_names_that_parameters_may_use_are_the_responses():
    assert RESPONSE_NAMES == RESPONSES
