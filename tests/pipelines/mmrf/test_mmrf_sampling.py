"""Which non-impressions an epoch takes (MM-05)."""

import pytest
import torch
from support.feed_log import FixedFeedback, toy_feed
from torch import nn

from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.options import ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay

N_DRAWS = 30


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


def pools(feed, policy=None, **options):
    """Decisions and columns of the non-impressions of some epochs."""
    replay = Replay(feed, RewardScale.fit(feed), ReplayOptions(**options), 4, FixedFeedback())
    generator = torch.Generator().manual_seed(0)
    for _ in range(N_DRAWS):
        replay.sample_non_impressions(generator, policy)
        yield replay.pool


class PrefersLargeNumbers(nn.Module):
    def scores(self, batch):
        return (2.0 * batch.candidates).masked_fill(~batch.mask, -torch.inf)


def test_popular_items_are_drawn_more_often(feed):
    decisions = feed.decisions
    train = (decisions.split == 0) & ~decisions.is_rand
    shown = decisions.candidates[train][decisions.shown[train]]
    exposures = torch.bincount(shown, minlength=30).double()

    def mean_exposures(sampling):
        items = [decisions.candidates[d, c] for d, c in pools(feed, sampling=sampling)]
        return float(exposures[torch.cat(items)].mean())

    assert mean_exposures("popularity") > 1.03 * mean_exposures("uniform")


def test_hard_ones_are_those_that_the_policy_likes(feed):
    """A policy that all but names one item: the non-impression with the largest number is taken wherever one is."""
    decisions = feed.decisions
    free = (decisions.candidates >= 0) & ~decisions.shown
    best = decisions.candidates.masked_fill(~free, -1).argmax(1)
    taken = 0
    total = 0
    for d, c in pools(feed, PrefersLargeNumbers(), sampling="hard", rate=0.1):
        taken, total = taken + int((best[d] == c).sum()), total + len(d)
    assert taken / total > 0.7
    with pytest.raises(ValueError, match="hard needs the policy"):
        next(pools(feed, sampling="hard"))


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_no_impression_and_no_pad_is_drawn_and_each_once(feed, sampling):
    decisions = feed.decisions
    for d, c in pools(feed, sampling=sampling, rate=1.0):
        assert (decisions.candidates[d, c] >= 0).all() and not decisions.shown[d, c].any()
        assert len(torch.unique(torch.stack([d, c]), dim=1)[0]) == len(d)


def test_the_constant_of_ns_is_an_option(feed):
    options = ReplayOptions(non_impressions="negative", negative_reward=-0.5, batch_size=8)
    replay = Replay(feed, RewardScale.fit(feed), options, 4, FixedFeedback())
    generator = torch.Generator().manual_seed(0)
    replay.sample_non_impressions(generator)
    transition = replay.sample(generator)
    assert (transition.reward[:, ~transition.logged] == -0.5).all()
