"""What a world is asked about a feed's candidates, and what of a real log nobody is asked."""

import numpy as np
import pytest
from support.feed_log import toy_feed

from reelrank.models.feed import PAD, RESPONSES
from reelrank.worlds.feed_world import expected_responses
from reelrank.worlds.truth import Truth

REAL = {"source": "kuairand", "variant": "pure", "kind": "files", "root": "/nowhere", "files": [], "licence": ""}  # fmt: skip


class Asked:
    """Answers with the raw ids that it was asked about."""

    def expected(self, users, items, ts, tab):
        one = np.zeros(np.broadcast_shapes(users.shape, items.shape, ts.shape, tab.shape))
        found = {name: one + users for name in RESPONSES[:-1]}
        return {**found, "like": one + items, "hate": one + tab, "play_ms": one + ts}


def test_each_candidate_is_asked_about_by_its_official_id():
    feed = toy_feed()
    d = feed.decisions
    index = np.array([0, 7, len(d.user) - 1])
    raw_users, raw_items = 100 + np.arange(8)[::-1], 1000 + np.arange(30)[::-1]
    d.candidates[7, -1] = PAD
    found = expected_responses(Asked(), feed, index, raw_users, raw_items)
    of = dict(zip(RESPONSES, np.moveaxis(found, -1, 0), strict=True))
    candidates = d.candidates[index].numpy()
    here = candidates != PAD
    assert np.isnan(found[~here]).all() and not np.isnan(found[here]).any() and (~here).any()
    np.testing.assert_array_equal(of["like"][here], raw_items[candidates[here]])
    np.testing.assert_array_equal(of["click"][:, 0], raw_users[d.user[index].numpy()])
    np.testing.assert_array_equal(of["hate"][:, 0], d.scenario[index].numpy())
    seconds = d.ts_ms[index].numpy() / 1000
    assert of["watch_time"][:, 0] == pytest.approx(seconds, rel=1e-6)


def test_real_files_have_no_truth():
    assert Truth.behind(REAL) is None
    with pytest.raises(FileNotFoundError, match="holds no truth of a generated world"):
        Truth.behind({**REAL, "kind": "world"})
