from dataclasses import replace

import pytest
import torch
from support.feed_log import ENCODER, N_USERS, toy_feed

from reelrank.models.feed import PAD, RESPONSES
from reelrank.models.feed_data import batch
from reelrank.models.feed_encoder import (
    CodeEmbedding,
    FeedEncoder,
    FeedSpec,
    feedback_features,
)


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


@pytest.fixture
def encoder(feed):
    torch.manual_seed(0)
    return FeedEncoder(ENCODER, FeedSpec.of(feed))


def test_shapes(feed, encoder):
    states = batch(feed, torch.arange(5), ENCODER.history)
    b, x = encoder(states)
    assert b.shape == (5, ENCODER.d_state)
    assert x.shape == (5, 8, ENCODER.d_item)


def test_pads_before_the_history_do_not_move_the_state(feed, encoder):
    early = torch.nonzero(feed.decisions.row - feed.rows.first[feed.decisions.user] == 2).squeeze(1)
    assert len(early) > 1
    short, long = (encoder.state(batch(feed, early, n)) for n in (3, 40))
    torch.testing.assert_close(short, long)


def test_the_history_alone_makes_two_states_differ(feed, encoder):
    states = batch(feed, torch.tensor([30]), 4)
    assert (states.history != PAD).all()
    other_item = replace(states, history=(states.history + 1) % 30)
    other_answer = replace(states, feedback=1 - states.feedback)
    other_order = replace(states, history=states.history.flip(1))
    base = encoder.state(states)
    for changed in (other_item, other_answer, other_order):
        assert (encoder.state(changed) - base).abs().max() > 1e-4


def test_a_user_without_history_has_a_finite_state_alone_and_among_others(feed, encoder):
    first = int((feed.decisions.user == N_USERS - 1).nonzero()[0])
    alone = encoder.state(batch(feed, torch.tensor([first]), 4))
    among = encoder.state(batch(feed, torch.tensor([first, 30]), 4))
    assert alone.isfinite().all()
    torch.testing.assert_close(alone[0], among[0])


def test_items_and_scenarios_that_train_never_shows(feed, encoder):
    states = batch(feed, torch.tensor([30]), 4)
    unknown = replace(states, scenario=torch.tensor([99]))
    zero = replace(states, scenario=torch.tensor([98]))
    assert torch.equal(encoder.state(unknown), encoder.state(zero))


def test_codes_are_summed_by_hand():
    embedding = CodeEmbedding((2, 3), 1)
    with torch.no_grad():
        embedding.table.weight.copy_(torch.tensor([[1.0], [2], [10], [20], [30]]))
    assert embedding(torch.tensor([[0, 2], [1, 0]])).flatten().tolist() == [31, 12]


def test_feedback_features_by_hand():
    row = torch.tensor([1.0, torch.nan, 0, 0, 0, 1, 180])
    assert feedback_features(row).tolist() == pytest.approx([1, 0, 0, 0, 0, 1, 1])
    assert feedback_features(torch.zeros(len(RESPONSES))).eq(0).all()
