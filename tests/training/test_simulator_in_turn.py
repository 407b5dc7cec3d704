"""The simulator of Algorithm 1: it learns pass by pass, answers as Eq. 6 says, and goes on from a checkpoint as if never stopped."""

import pytest
import torch
from support.feed_log import toy_feed
from support.feeds import batch_of, planted_feed

from reelrank.models.feed import HATE, RESPONSES
from reelrank.models.feed_rewards import RewardScale
from reelrank.models.feedback_options import SimulatedRewardOptions, SimulatorOptions
from reelrank.pipelines.mmrf.options import ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay
from reelrank.training.checkpoint import load_checkpoint, save_checkpoint
from reelrank.training.options import InTurnOptions
from reelrank.training.simulator_in_turn import SimulatorInTurn

SMALL = SimulatorOptions(d_state=8, d_id=4, d_attributes=2, d_context=2, hidden=16)
LEARNING = InTurnOptions(batch_size=16, lr=1e-2)


def in_turn(inputs, learning=LEARNING, seed=0, **reward):
    return SimulatorInTurn(inputs, SMALL, learning, SimulatedRewardOptions(**reward), seed=seed)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def feed():
    return planted_feed(60, 10)


def test_passes_lower_the_loss_and_leave_the_global_generator_alone(feed):
    before = torch.get_rng_state()
    simulator = in_turn(feed)
    g = generator()
    losses = [simulator.fit_pass(g) for _ in range(6)]
    assert losses[0].keys() == {"loss", "fit", "kl"}
    assert losses[-1]["loss"] < 0.97 * losses[0]["loss"]
    assert torch.equal(before, torch.get_rng_state())
    twice = in_turn(feed, LEARNING.model_copy(update={"passes": 2}))
    g = generator()
    twice.fit_pass(g)
    other = in_turn(feed)
    g = generator()
    other.fit_pass(g), other.fit_pass(g)
    for name, tensor in twice.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


def test_a_stored_simulator_goes_on_bit_for_bit(feed, tmp_path):
    one, other = in_turn(feed), in_turn(feed, seed=7)
    g = generator()
    one.fit_pass(g)
    save_checkpoint(tmp_path, one.state_dict() | {"generator": g.get_state()}, {})
    one.fit_pass(g)
    tensors, _ = load_checkpoint(tmp_path)
    g.set_state(tensors.pop("generator"))
    other.load_state_dict(tensors)
    other.fit_pass(g)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_it_answers_under_its_own_eq6(feed):
    simulator = in_turn(feed, form="multiplicative", kappa=0.5)
    simulator.fit_pass(generator())
    batch, slots = batch_of(feed, [20, 45]), torch.tensor([[0, 3], [5, 5]])
    got = simulator.simulate(batch, slots, generator(3))
    mean = got.response / simulator.model.sd
    mean[..., HATE] *= -1
    torch.testing.assert_close(got.reward, mean * (1 + 0.5 * got.kl.clamp(max=1)))
    assert not got.reward.requires_grad


def test_replay_takes_its_non_impressions():
    feed = toy_feed()
    simulator = in_turn(feed)
    simulator.fit_pass(generator())
    replay = Replay(feed, RewardScale.fit(feed), ReplayOptions(batch_size=16), 4, simulator)
    replay.sample_non_impressions(generator())
    transition = replay.sample(generator())
    assert transition.reward.shape == (len(RESPONSES), 16)
    assert transition.reward[:, ~transition.logged].isfinite().all()
    # one unit for logged and simulated rewards
    torch.testing.assert_close(replay.scale.sd, simulator.model.sd, rtol=1e-4, atol=0)


def test_a_loss_that_is_not_finite_is_named(feed):
    simulator = in_turn(feed)
    with torch.no_grad():
        simulator.model.f1.heads.bias.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match=r"feedback simulator: loss, fit.* lower its lr"):
        simulator.fit_pass(generator())
