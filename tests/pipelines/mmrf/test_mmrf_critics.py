from dataclasses import replace

import pytest
import torch
from support.feed_log import ENCODER, toy_feed, toy_learner

from reelrank.models.feed import PAD
from reelrank.models.feed_data import batch
from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.critics import td_loss, td_loss_of_items, td_target
from reelrank.pipelines.mmrf.options import CriticOptions, ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay


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


def test_each_shown_item_is_a_step_with_its_own_reward(feed):
    """Of a decision that showed several items; by ``set`` they are one step with their mean reward."""
    several = feed.decisions.shown.clone()
    several[:, :3] = True
    response = torch.rand(*several.shape, 7, generator=torch.Generator().manual_seed(0))
    response = torch.where(several.unsqueeze(-1), response, torch.nan)
    decisions = replace(feed.decisions, shown=several, response=response)
    inputs = replace(feed, decisions=decisions)
    replay = Replay(inputs, RewardScale.fit(inputs), ReplayOptions(non_impressions="none"), 4)
    transition = replay.logged(replay.decisions[:5])
    for credit in ("set", "item"):
        learner = toy_learner(inputs, critic={"credit": credit})
        with torch.no_grad():
            state = learner.critics(transition.batch)
            _, found, value = learner.td(state, transition)
            ahead = learner.target(transition) - transition.reward
        torch.testing.assert_close(value, learner.critics.value(state, transition.exposure))
        errors = []
        for b in range(5):
            items = torch.nonzero(transition.exposure[b]).flatten().tolist()
            assert len(items) >= 3
            rewards = replay.scale.rewards(response[replay.decisions[b], items])
            worth = [state.candidates[:, b, c] + state.value[:, b] for c in items]
            if credit == "set":
                steps = [(sum(worth) / len(items), rewards.mean(0))]
            else:
                steps = list(zip(worth, rewards, strict=True))
            errors += [(w - r - ahead[:, b]) ** 2 for w, r in steps]
        torch.testing.assert_close(found, torch.stack(errors).mean(0))


def test_logged_and_simulated_rows_keep_their_shares_by_hand():
    nan = float("nan")
    target = torch.tensor([[[1.0, 2.0, 3.0], [nan, 4.0, nan], [nan, nan, nan]]])
    loss, per_agent = td_loss_of_items(torch.zeros(1, 3, 3), target, torch.tensor([True, False, True]))  # fmt: skip
    # one logged row of three steps, one simulated row, one without a target
    assert float(loss) == pytest.approx(((1 + 4 + 9) / 3 + 16) / 2)
    assert per_agent.tolist() == pytest.approx([float(loss)])


def test_set_critics_cannot_credit_items():
    with pytest.raises(ValueError, match="credit: item needs kind linear"):
        CriticOptions(kind="mlp_set", credit="item")
