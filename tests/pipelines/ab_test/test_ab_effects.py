"""Effects in per cent, worked by hand and against planted differences."""

import numpy as np
import polars as pl
import pytest
import torch

from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.models.feed import PAD, FeedBatch, ItemFeatures
from reelrank.models.matrix_environment import MatrixEnvironment, MatrixOptions
from reelrank.pipelines.ab_test.arms import run_arms
from reelrank.pipelines.ab_test.columns import DAYS_SCHEMA
from reelrank.pipelines.ab_test.effects import (
    AA,
    ADJUSTED,
    EFFECT,
    PAIRED,
    SPLIT,
    adjusted,
    effects_of,
    estimate_of,
    p_value,
    percent,
)
from reelrank.pipelines.ab_test.run_options import DesignOptions

N_USERS, N_ITEMS = 240, 60
DESIGN = DesignOptions(days=4, control_days=2)


class ByItem:
    """Scores by item id."""

    def __init__(self, values):
        self.values = torch.as_tensor(values).float()

    def scores(self, batch):
        return self.values[batch.candidates.clamp(min=0)].masked_fill(~batch.mask, -torch.inf)


@pytest.fixture(scope="module")
def place():
    """Users watch item j for about j seconds."""
    rng = np.random.default_rng(0)
    play = np.arange(N_ITEMS) * rng.uniform(0.5, 1.5, (N_USERS, N_ITEMS)) + 3
    start = FeedBatch(
        user_codes=torch.zeros(N_USERS, 1, dtype=torch.int64),
        scenario=torch.zeros(N_USERS, dtype=torch.int64),
        hour=torch.zeros(N_USERS, dtype=torch.int64),
        history=torch.full((N_USERS, 5), PAD),
        feedback=torch.zeros(N_USERS, 5, 7),
        candidates=torch.zeros(N_USERS, 0, dtype=torch.int64),
        item_codes=torch.zeros(N_USERS, 0, 1, dtype=torch.int64),
    )
    items = ItemFeatures(torch.zeros(N_ITEMS, 1, dtype=torch.int64), (1,), ("a",))
    options = MatrixOptions(days=4, candidates=8, max_videos=6)
    return MatrixEnvironment(
        play, np.arange(N_ITEMS), start, items, start_ms=1_650_000_000_000, options=options
    )


@pytest.fixture(scope="module")
def days(place):
    arms = {
        "better": ByItem(np.arange(N_ITEMS)),
        "twin": ByItem(np.zeros(N_ITEMS)),
        "worse": ByItem(-np.arange(N_ITEMS)),
        "ltr": ByItem(np.zeros(N_ITEMS)),
    }
    return run_arms(place, np.arange(N_USERS), arms, "ltr", DESIGN, lives=2, k=2)


@pytest.fixture(scope="module")
def effects(days):
    rows = effects_of(days, "ltr", DESIGN, UserBootstrap(np.arange(N_USERS), 300, 0)).rows
    return {(r.variant, r.group, r.weighting): r for r in rows if r.metric == EFFECT}


def lived(arm, user, day, watch, rows=1, follow=0.0):
    return {
        "arm": arm, "serving": "greedy", "user_id": user, "day": day, "lives": 1, "watch_time": watch, "follow": follow, "comment": 0.0,
        "rows": rows, "sessions": 1, "ended": 1, "returned": 1,
    }  # fmt: skip


def test_effects_by_hand():
    watched = {
        ("ltr", 0): (10, 10, 20), ("ltr", 1): (30, 20, 30),
        ("new", 0): (10, 10, 35), ("new", 1): (30, 20, 45),
    }  # fmt: skip
    frame = pl.DataFrame(
        [lived(a, u, d, float(w), rows=d + 1) for (a, u), ws in watched.items() for d, w in enumerate(ws)],
        schema=DAYS_SCHEMA,
    )  # fmt: skip
    design = DesignOptions(days=3, control_days=1)
    made = effects_of(frame, "ltr", design, UserBootstrap([0, 1], 50, 0))
    found = {(r.group, r.weighting, r.metric): r.value for r in made.rows if r.variant == "new"}
    # after day 0: 110 s against 80 s, of 4 user-days; 10 videos under both
    assert found["watch_time", PAIRED, EFFECT] == pytest.approx(37.5)
    assert found["watch_time", "", "level"] == pytest.approx(27.5)
    assert found["watch_time_video", "", "level"] == pytest.approx(11.0)
    assert found["depth_day", "", "level"] == pytest.approx(2.5)
    assert found["depth_day", PAIRED, EFFECT] == 0
    assert [found["watch_time", f"{PAIRED}, day {d}", EFFECT] for d in (1, 2, 3)] == pytest.approx([0, 0, 60])  # fmt: skip
    # nobody follows: no effect to speak of
    assert np.isnan(found["follow", PAIRED, EFFECT])


def estimate(value, replicates, reliable=True):
    return estimate_of(value, np.asarray(replicates, float), 5, is_reliable=reliable)


def test_percent_and_adjustment_by_hand():
    effect = percent(estimate(6.0, [6.0, 9.0]), estimate(4.0, [4.0, 6.0]))
    assert effect.value == 50 and effect.replicates.tolist() == [50, 50]
    # a half that was 20 % ahead before and 50 % after has gained 25 %
    gained = adjusted(effect, estimate(20.0, [20.0, 50.0]))
    assert gained.value == pytest.approx(25) and gained.replicates == pytest.approx([25, 0])
    nothing = percent(estimate(6.0, [6.0]), estimate(0.0, [0.0]))
    assert np.isnan(nothing.value) and not nothing.reliable
    with pytest.raises(ValueError, match="resamples"):
        percent(effect, estimate(1.0, [1.0]))


def test_p_value_by_hand():
    # 1 of 9 resamples is not above 0: 2 (1 + 1) / 10
    assert p_value(estimate(1.0, [-1, *range(1, 9)])) == pytest.approx(0.4)
    assert p_value(estimate(0.0, np.zeros(9))) == 1


def test_one_policy_in_both_arms_changes_exactly_nothing(effects):
    own = {key: r for key, r in effects.items() if key[0] == "twin" and key[2].startswith(PAIRED)}
    assert {key[1] for key in own} >= {"watch_time", "depth_day"}
    for key, row in own.items():
        assert (row.value, row.ci_low, row.ci_high) == (0, 0, 0), key
        assert row.p_value == 1


def test_the_better_policy_wins_and_the_worse_one_loses(effects):
    better, worse = (effects[arm, "watch_time", PAIRED] for arm in ("better", "worse"))
    assert better.ci_low > 0 > worse.ci_high
    assert better.p_value < 0.05 and worse.p_value < 0.05
    for how in (SPLIT, ADJUSTED):
        assert effects["better", "watch_time", how].ci_low > 0, how


def test_the_control_period_shows_no_effect(effects):
    for arm in ("better", "worse"):
        # lived twice by the same users under the same control: nothing at all
        assert [effects[arm, "watch_time", f"{PAIRED}, day {d}"].value for d in (1, 2)] == [0, 0]
        # other users: chance alone
        aa = effects[arm, "watch_time", AA]
        assert aa.ci_low < 0 < aa.ci_high and aa.value != 0
        assert effects[arm, "watch_time", f"{PAIRED}, day 3"].value != 0


def test_pairing_narrows_the_interval(effects):
    width = {h: effects["better", "watch_time", h].ci_high - effects["better", "watch_time", h].ci_low for h in (PAIRED, SPLIT)}  # fmt: skip
    assert width[PAIRED] < width[SPLIT]


def test_what_is_not_logged_has_no_effect(days, effects):
    assert days["follow"].null_count() == days.height
    assert not [key for key in effects if key[1].startswith(("follow", "comment"))]


def test_lives_add_up(place, days):
    one = run_arms(place, np.arange(N_USERS), {"ltr": ByItem(np.zeros(N_ITEMS))}, "ltr", DESIGN, lives=1, k=2)  # fmt: skip
    later = DesignOptions(days=4, control_days=2, seed=1)
    two = run_arms(place, np.arange(N_USERS), {"ltr": ByItem(np.zeros(N_ITEMS))}, "ltr", later, lives=1, k=2)  # fmt: skip
    both = days.filter(arm="ltr")
    assert both["lives"].unique().to_list() == [2]
    np.testing.assert_allclose(both["watch_time"], one["watch_time"] + two["watch_time"])


def test_refusals(place):
    arms = {"a": ByItem(np.zeros(N_ITEMS))}
    with pytest.raises(ValueError, match="'ltr' is not among the arms"):
        run_arms(place, np.arange(N_USERS), arms, "ltr", DESIGN, lives=1, k=2)
    with pytest.raises(ValueError, match="lives 4 days"):
        run_arms(place, np.arange(N_USERS), arms, "a", DesignOptions(days=5, control_days=1), lives=1, k=2)  # fmt: skip
    with pytest.raises(ValueError, match="nothing would be tested"):
        DesignOptions(days=3, control_days=3)
