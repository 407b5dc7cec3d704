from dataclasses import replace

import pytest
import torch
from support.feed_log import ENCODER, toy_feed, toy_learner

from reelrank.models.feed import PAD
from reelrank.models.feed_data import batch
from reelrank.pipelines.mmrf.critics import td_loss, td_target


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


def states(feed, n=10, pads=0):
    given = batch(feed, torch.arange(n), ENCODER.history)
    candidates = given.candidates.clone()
    if pads:
        candidates[:, -pads:] = PAD
    return replace(given, candidates=candidates)


def critics_of(feed, kind):
    return toy_learner(feed, kind=kind).critics.double()


@pytest.mark.parametrize("pads", [0, 3])
def test_linear_critics_are_centred_and_linear(feed, pads):
    critics = critics_of(feed, "linear")
    state = critics(states(feed, pads=pads))
    n = 8 - pads
    torch.testing.assert_close(state.candidates.sum(-1), torch.zeros(7, 10).double(), atol=1e-12, rtol=0)  # fmt: skip
    # an item alone is worth q̃ + V, all alike V
    for c in range(n):
        shown = torch.eye(8).double()[c].expand(10, -1)
        torch.testing.assert_close(
            critics.value(state, shown), state.candidates[..., c] + state.value
        )
    even = (torch.arange(8) < n).double().expand(10, -1) / n
    torch.testing.assert_close(critics.value(state, even), state.value)


def test_set_critics_see_a_set(feed):
    critics = critics_of(feed, "mlp_set")
    given = states(feed)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        given, candidates=given.candidates[:, order], item_codes=given.item_codes[:, order]
    )
    exposure = torch.rand(7, 10, 8).double().softmax(-1).requires_grad_()
    value = critics.value(critics(given), exposure)
    torch.testing.assert_close(critics.value(critics(shuffled), exposure[..., order]), value)
    slope = torch.autograd.grad(value.sum(), exposure)[0]
    assert slope.abs().amax((1, 2)).gt(0).all()
    curved = critics.value(critics(given), 0.5 * (exposure + exposure.flip(-1)))
    ends = 0.5 * (value + critics.value(critics(given), exposure.flip(-1)))
    assert (curved - ends).abs().max() > 1e-6


def test_pads_do_not_count_in_a_set(feed):
    critics = critics_of(feed, "mlp_set")
    exposure = torch.full((10, 8), 1 / 5).double()
    exposure[:, 5:] = 0
    padded = critics.value(critics(states(feed, pads=3)), exposure)
    given = states(feed)
    short = replace(given, candidates=given.candidates[:, :5], item_codes=given.item_codes[:, :5])
    torch.testing.assert_close(critics.value(critics(short), exposure[:, :5]), padded)


def test_td_target_and_loss_by_hand():
    reward = torch.tensor([[1.0, 2.0, torch.nan], [0.5, -1.0, 3.0]])
    after = torch.tensor([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]])
    goes_on = torch.tensor([True, False, True])
    target = td_target(reward, after, goes_on, 0.9)
    expected = torch.tensor([[10.0, 2.0, torch.nan], [1.4, -1.0, 5.7]])
    torch.testing.assert_close(target, expected, equal_nan=True)
    value = torch.tensor([[9.0, 4.0, 100.0], [1.4, 0.0, 5.7]])
    loss, per_agent = td_loss(value, target)
    # ((1² + 2²) / 2, 1² / 3): the reward that was not logged counts nowhere
    assert per_agent.tolist() == pytest.approx([2.5, 1 / 3])
    assert float(loss) == pytest.approx(2.5 + 1 / 3)


def test_targets_read_the_target_networks(feed):
    from reelrank.models.feed_rewards import RewardScale
    from reelrank.pipelines.mmrf.options import ReplayOptions
    from reelrank.pipelines.mmrf.replay import Replay

    replay = Replay(feed, RewardScale.fit(feed), ReplayOptions(non_impressions="none"), 4)
    transition = replay.logged(replay.decisions[:30])
    learner = toy_learner(feed)
    target = learner.target(transition)
    with torch.no_grad():
        for p in (*learner.actors.parameters(), *learner.critics.parameters()):
            p.add_(1.0)
    torch.testing.assert_close(learner.target(transition), target, equal_nan=True)
    done = ~transition.goes_on
    assert done.any()
    torch.testing.assert_close(target[:, done], transition.reward[:, done], equal_nan=True)
    policy = learner.target_actors(transition.next).logits.softmax(-1)
    state = learner.target_critics(transition.next)
    by_hand = (policy * state.candidates).sum(-1) + state.value
    torch.testing.assert_close(
        target[:, ~done], (transition.reward + 0.99 * by_hand)[:, ~done], equal_nan=True
    )
