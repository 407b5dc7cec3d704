import pytest
import torch
from support.feed_log import FixedFeedback, toy_feed

from reelrank.models.feed import RESPONSES
from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.options import ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


def replay_of(feed, agents=RESPONSES, **options):
    options = ReplayOptions(**({"batch_size": 32} | options))
    replay = Replay(feed, RewardScale.fit(feed, agents), options, 4, FixedFeedback())
    if replay.feedback is not None:
        replay.sample_non_impressions(torch.Generator().manual_seed(0))
    return replay


def draw(replay, seed=0):
    return replay.sample(torch.Generator().manual_seed(seed))


def test_logged_transitions_are_the_log(feed):
    replay = replay_of(feed, non_impressions="none")
    index = replay.decisions[:40]
    transition = replay.logged(index)
    decisions = feed.decisions
    torch.testing.assert_close(transition.exposure.sum(1), torch.ones(40))
    assert torch.equal(transition.exposure > 0, decisions.shown[index])
    for b, d in enumerate(index.tolist()):
        shown = decisions.response[d][decisions.shown[d]]
        torch.testing.assert_close(transition.reward[:, b], replay.scale.rewards(shown).mean(0))
        following = int(decisions.next[d])
        assert bool(transition.goes_on[b]) == (following >= 0)
        if following >= 0:
            assert torch.equal(transition.next.candidates[b], decisions.candidates[following])


def test_half_of_a_batch_is_simulated_non_impressions_of_train(feed):
    replay = replay_of(feed)
    transition = draw(replay)
    assert transition.logged.tolist() == [True] * 16 + [False] * 16
    simulated = transition.exposure[16:]
    assert simulated.sum(1).eq(1).all()
    assert simulated.amax(1).eq(1).all()
    decision, column = replay.pool
    assert torch.isin(decision, replay.decisions).all()
    assert not feed.decisions.shown[decision, column].any()
    assert (feed.decisions.candidates[decision, column] >= 0).all()


@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0])
def test_a_quarter_of_each_requests_non_impressions(feed, rate):
    replay = replay_of(feed, rate=rate)
    decision, column = replay.pool
    found = torch.bincount(decision, minlength=len(feed.decisions.user))[replay.decisions]
    free = (feed.decisions.candidates >= 0) & ~feed.decisions.shown
    n = free.sum(1)[replay.decisions]
    assert torch.equal(found, (rate * n).round().clamp_min(1).long())
    assert len(torch.unique(torch.stack([decision, column]), dim=1).T) == len(decision)


def test_a_non_impression_is_the_newest_row_of_the_next_history(feed):
    replay = replay_of(feed)
    decision, column = (t[:20] for t in replay.pool)
    transition = replay.simulated(decision, column, replay.feedback, torch.Generator())
    before, after = transition.batch, transition.next
    torch.testing.assert_close(after.history[:, :-1], before.history[:, 1:])
    assert torch.equal(after.history[:, -1], feed.decisions.candidates[decision, column])
    assert torch.equal(after.feedback[:, -1, 0], column.float())
    torch.testing.assert_close(transition.reward[3], column / 10)
    copied = replay_of(feed, next_state="copy")
    logged = copied.simulated(decision, column, copied.feedback, torch.Generator()).next
    goes_on = transition.goes_on
    expected = copied.logged(decision).next
    assert torch.equal(logged.history[goes_on], expected.history[goes_on])
    # context and candidates are the logged next decision's in both
    assert torch.equal(after.candidates, expected.candidates)


def test_ns_changes_the_simulated_reward_alone(feed):
    ours, ns = (draw(replay_of(feed, non_impressions=n)) for n in ("simulated", "negative"))
    assert ns.reward[:, 16:].eq(-0.1).all()
    torch.testing.assert_close(ns.reward[:, :16], ours.reward[:, :16], equal_nan=True)
    assert torch.equal(ns.exposure, ours.exposure)
    for name, tensor in vars(ours.next).items():
        torch.testing.assert_close(getattr(ns.next, name), tensor, equal_nan=True)


def test_da_has_logged_rows_alone(feed):
    transition = draw(replay_of(feed, non_impressions="none"))
    assert transition.logged.all()
    assert len(transition.logged) == 32


def test_fewer_agents_have_their_own_rewards(feed):
    all_agents, two = (
        draw(replay_of(feed, agents)) for agents in (RESPONSES, ("hate", "watch_time"))
    )
    assert two.reward.shape == (2, 32)
    torch.testing.assert_close(two.reward, all_agents.reward[[4, 6]], equal_nan=True)


def test_a_simulator_is_asked_for_where_it_is_needed(feed):
    with pytest.raises(ValueError, match="simulated needs a feedback model"):
        Replay(feed, RewardScale.fit(feed), ReplayOptions(), 4)
    replay = Replay(feed, RewardScale.fit(feed), ReplayOptions(), 4, FixedFeedback())
    with pytest.raises(RuntimeError, match="sample_non_impressions"):
        draw(replay)
