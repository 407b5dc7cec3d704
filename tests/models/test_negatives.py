"""Negatives: available at their time, popular ones more often, the same draw from the same generator."""

import numpy as np
import pytest
import torch

from reelrank.features.candidates import NEVER
from reelrank.models.negatives import NO_ITEM, NegativeSampler


def draw(sampler, ts, n, seed=0):
    return sampler.sample(torch.tensor(ts), n, torch.Generator().manual_seed(seed))


def test_draws_follow_popularity_among_the_available():
    availability = np.array([0, 100, 50, 0, NEVER])
    sampler = NegativeSampler.fit(availability, np.array([1, 1000, 16, 0, 50]))
    drawn = draw(sampler, [-1, 0, 60, 100], 20_000)
    assert set(drawn[0].tolist()) == {NO_ITEM}
    assert set(drawn[1].tolist()) == {0}
    assert (drawn[2] == 2).double().mean().item() == pytest.approx(8 / 9, abs=0.01)  # 16^0.75 = 8
    assert set(drawn[3].tolist()) == {0, 1, 2}
    assert torch.equal(drawn, draw(sampler, [-1, 0, 60, 100], 20_000))


def test_nothing_popular_means_no_negatives():
    sampler = NegativeSampler.fit(np.array([0, 0]), np.array([0, 0]))
    assert (draw(sampler, [5], 3) == NO_ITEM).all()
