import logging
from dataclasses import replace

import pytest
import torch
from support.feed_log import toy_feed

from reelrank.models.feed import HATE, RESPONSES, WATCH_TIME
from reelrank.models.feed_data import trained_decisions
from reelrank.models.feed_rewards import RewardScale, raw_rewards


def test_hate_is_negative_and_watch_time_winsorised():
    response = torch.tensor([1.0, 0, 0, 0, 1, 1, 200])
    assert raw_rewards(response).tolist() == [1, 0, 0, 0, -1, 1, 180]
    assert response[HATE] == 1


def test_rewards_have_unit_sd_over_the_shown_items_of_train():
    feed = toy_feed()
    scale = RewardScale.fit(feed, ("hate", "watch_time"))
    index = trained_decisions(feed.decisions)
    shown = feed.decisions.response[index][feed.decisions.shown[index]]
    reward = scale.rewards(shown)
    assert reward.shape[1] == 2
    assert reward.std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-5)
    assert reward.abs().amax(0).tolist() == pytest.approx(scale.largest.tolist(), rel=1e-5)
    assert reward[:, 0].max() == 0


def test_scale_ignores_val_and_test():
    feed = toy_feed()
    later = feed.decisions.split > 0
    changed = feed.decisions.response.clone()
    changed[later] *= 50
    other = replace(feed, decisions=replace(feed.decisions, response=changed))
    assert torch.equal(RewardScale.fit(feed).sd, RewardScale.fit(other).sd)


def test_responses_that_cannot_be_learnt_are_named(caplog):
    feed = toy_feed()
    with pytest.raises(ValueError, match=r"unknown responses \['share'\]"):
        RewardScale.fit(feed, ("share", "watch_time"))
    response = feed.decisions.response.clone()
    response[..., RESPONSES.index("follow")] = torch.nan
    absent = replace(feed, decisions=replace(feed.decisions, response=response))
    with pytest.raises(ValueError, match="train logs no follow"):
        RewardScale.fit(absent)
    response[..., RESPONSES.index("follow")] = 0.0
    with caplog.at_level(logging.WARNING):
        scale = RewardScale.fit(absent)
    assert "follow never vary" in caplog.text
    assert scale.sd[RESPONSES.index("follow")] == 1
    assert scale.sd[WATCH_TIME] > 1
