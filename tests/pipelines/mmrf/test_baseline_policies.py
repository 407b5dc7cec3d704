from dataclasses import replace
from itertools import count

import pytest
import torch
from support.feed_baselines import LEARNING, OPTIONS, REPLAY, planted_feed, rank_correlation
from support.feed_log import ENCODER, random_feed_log, toy_feed
from torch import nn

from reelrank.models import registry
from reelrank.models.feed import PAD, RESPONSES
from reelrank.models.feed_data import batch, trained_decisions
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feed_policies import load_policy
from reelrank.pipelines.mmrf.baselines.fitters import FITTERS
from reelrank.pipelines.mmrf.baselines.options import BaselineOptions
from reelrank.pipelines.mmrf.baselines.supervised import ltr_loss, weighted_cross_entropy

NAMES = tuple(OPTIONS)


@pytest.fixture(scope="module")
def feed():
    return planted_feed()


def build(name, feed):
    torch.manual_seed(0)
    return registry.build(name, OPTIONS[name], FeedSpec.of(feed), nn.Module).eval()


def later_is_better():
    """The last epoch is kept."""
    calls = count()
    return lambda policy: {"gauc": float(next(calls))}


def fitted(name, feed, folder, learning=LEARNING, options=None, validate=None):
    return FITTERS[name](
        options or OPTIONS[name],
        feed,
        learning,
        REPLAY,
        validate_fn=validate or later_is_better(),
        work_dir=folder,
        identity={"data": "toy"},
    )


def test_every_method_has_a_name_options_and_a_fit():
    assert set(FITTERS) == set(BaselineOptions.model_fields) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_pads_get_minus_infinity_and_move_no_other_score(feed, name):
    policy = build(name, feed)
    given = batch(feed, torch.arange(12), ENCODER.history)
    with torch.no_grad():
        whole = policy.scores(given)
    assert whole.shape == (12, 8)
    assert whole.dtype == torch.float32
    assert whole.isfinite().all()
    candidates, codes = given.candidates.clone(), given.item_codes.clone()
    candidates[:, 5:], codes[:, 5:] = PAD, 0
    with torch.no_grad():
        cut = policy.scores(replace(given, candidates=candidates, item_codes=codes))
    assert (cut[:, 5:] == -torch.inf).all()
    # ln π shifts by a number per state, ranks and odds stay
    torch.testing.assert_close(cut[:, :5] - cut[:, :1], whole[:, :5] - whole[:, :1], atol=1e-5, rtol=1e-4)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_scores_follow_the_candidates_not_their_places(feed, name):
    policy = build(name, feed)
    given = batch(feed, torch.arange(12), ENCODER.history)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    turned = replace(given, candidates=given.candidates[:, order], item_codes=given.item_codes[:, order])  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(policy.scores(turned), policy.scores(given)[:, order])


def test_massa_has_a_head_per_response(feed):
    policy = build("massa", feed)
    given = batch(feed, torch.arange(5), ENCODER.history)
    heads = policy.head_scores(given)
    assert heads.shape == (7, 5, 8)
    torch.testing.assert_close(heads[-1], policy.scores(given))


def touched(name, feed, folder):
    """After an update or two."""
    options = OPTIONS[name]
    if "epochs" in type(options).model_fields:
        options = options.model_copy(update={"epochs": 1})
    return fitted(name, feed, folder, critic_learning(2), options)


def critic_learning(steps):
    return LEARNING.model_copy(update={"epochs": 1, "steps": steps, "check_every": steps})


@pytest.fixture(scope="module")
def cloned(feed, tmp_path_factory):
    """Behaviour cloning, fitted once for all who are held against it."""
    return fitted("bc", feed, tmp_path_factory.mktemp("bc")).policy


@pytest.mark.parametrize("name", [n for n in NAMES if n != "bc"])
def test_each_learns_what_it_is_told_to_prefer(feed, cloned, tmp_path, name):
    """Items with larger numbers are watched longer and liked; behaviour cloning must not care."""
    learning = critic_learning(60)
    if name == "tscac":
        learning = learning.model_copy(update={"epochs": 2})
    test = torch.nonzero(feed.decisions.split == 2).squeeze(1)
    found = rank_correlation(fitted(name, feed, tmp_path, learning).policy, feed, test)
    assert abs(rank_correlation(cloned, feed, test)) < 0.3
    assert found > 0.3


def test_behaviour_cloning_learns_what_was_shown(tmp_path):
    """Low numbers are shown, high ones are watched."""
    feed = planted_feed()
    d = feed.decisions
    low = d.candidates.masked_fill(d.candidates == PAD, 99).argsort(1).argsort(1) == 0
    d.shown.copy_(low)
    d.response.copy_(torch.where(low.unsqueeze(-1), 1.0, torch.nan).expand_as(d.response))
    policy = fitted("bc", feed, tmp_path).policy
    test = torch.nonzero(d.split == 2).squeeze(1)
    with torch.no_grad():
        chosen = policy.scores(batch(feed, test, ENCODER.history)).argmax(1)
    # one in eight by chance
    assert low[test].gather(1, chosen.unsqueeze(1)).float().mean() > 0.5


def objectives(name, policy, feed, index):
    """What a supervised method minimises, on decisions."""
    d = feed.decisions
    with torch.no_grad():
        scores = policy.scores(batch(feed, index, ENCODER.history))
    if name == "ltr":
        return float(ltr_loss(scores, feed, index, OPTIONS["ltr"])[0])
    watch = d.response[index][..., -1].nan_to_num(0.0).clamp(max=180)
    return float(weighted_cross_entropy(scores, d.shown[index], watch / watch.sum()))


@pytest.mark.parametrize("name", ["wide_deep", "deepfm", "ltr"])
def test_supervised_methods_beat_cloning_on_their_own_objective(feed, tmp_path, name):
    """On test decisions, both stopped early by that objective on val."""
    val, test = (torch.nonzero((feed.decisions.split == s) & ~feed.decisions.is_rand).squeeze(1) for s in (1, 2))  # fmt: skip
    found = {}
    for method in (name, "bc"):
        policy = fitted(method, feed, tmp_path, validate=lambda p: {"objective": -objectives(name, p, feed, val)}).policy  # fmt: skip
        found[method] = objectives(name, policy, feed, test)
    assert found[name] < found["bc"]


@pytest.mark.parametrize("name", NAMES)
def test_only_train_decisions_that_were_no_random_exposure_matter(tmp_path, name):
    first, second = toy_feed(), toy_feed()
    d = second.decisions
    other = torch.ones(len(d.user), dtype=torch.bool)
    other[trained_decisions(d)] = False
    d.response[other] = torch.where(d.shown[other].unsqueeze(-1), 1.0, torch.nan)
    d.candidates[other] = d.candidates[other].flip(1)
    weights = [touched(name, f, tmp_path / n).fit.last for f, n in ((first, "a"), (second, "b"))]
    assert all(torch.equal(t, weights[1][n]) for n, t in weights[0].items())


@pytest.mark.parametrize("name", NAMES)
def test_responses_that_were_not_logged_leave_the_weights_finite(tmp_path, name):
    feed = toy_feed()
    d = feed.decisions
    gone = torch.rand(d.response.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    d.response.masked_fill_(gone, torch.nan)
    d.response[::3] = torch.nan
    result = touched(name, feed, tmp_path)
    assert all(t.isfinite().all() for t in result.fit.last.values() if t.is_floating_point())
    assert result.fit.history.height >= 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_the_other_track_has_one_shown_item_of_all(tmp_path, name):
    options = FeedDataOptions(track="top_videos", top_videos=20, k=3)
    feed = toy_feed(log=random_feed_log(), options=options)
    policy = touched(name, feed, tmp_path).policy
    with torch.no_grad():
        assert policy.scores(batch(feed, torch.arange(4), ENCODER.history)).shape == (4, 20)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_gives_the_same_scores(feed, tmp_path, name):
    result = touched(name, feed, tmp_path)
    stored = result.checkpoint(name, OPTIONS[name], FeedSpec.of(feed), history=ENCODER.history)
    stored.write(tmp_path)
    given = batch(feed, torch.arange(6), ENCODER.history)
    with torch.no_grad():
        same = load_policy(type(stored).read(tmp_path)).scores(given)
        torch.testing.assert_close(same, result.policy.scores(given))


def test_fewer_agents_than_responses(feed, tmp_path):
    agents = RESPONSES[:2] + RESPONSES[-1:]
    for name in ("pareto", "tscac", "massa"):
        options = OPTIONS[name].model_copy(update={"agents": agents})
        history = fitted(name, feed, tmp_path, options=options).fit.history
        assert {f"train_td_{a}" for a in agents} <= set(history.columns)
        assert "train_td_hate" not in history.columns
