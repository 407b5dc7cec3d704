"""Roll-outs in the KuaiRand world: the log again under the logging policy, paired chance, and values in the right order."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from reelrank.models.feed import PAD, RESPONSES, WATCH_TIME, ItemFeatures
from reelrank.models.feed_environment import ranked, roll_out, rolled_out_value
from reelrank.sources.kuairand_schema import RELEASE_START_MS, RELEASE_STOP_MS
from reelrank.worlds.kuairand import generate
from reelrank.worlds.kuairand_options import WorldOptions
from reelrank.worlds.response import DAY_MS, EXPECTED, expected_rows
from reelrank.worlds.rollout import WorldEnvironment, WorldFeed, WorldRolloutOptions, schedule_of
from reelrank.worlds.sessions import ROW_COLUMNS, simulate

OPTIONS = WorldOptions(
    seed=5, users=500, videos=400, exposures_per_user=60, random_per_user=0, candidates=15
)
MIDDLE = RELEASE_START_MS + 15 * DAY_MS
FLAGS = ("is_click", "is_like", "is_follow", "is_comment", "is_hate", "long_view", "play_time_ms")


@pytest.fixture(scope="module")
def world():
    return generate(OPTIONS)


def environment(world, users=200, start_ms=MIDDLE, **options):
    v = OPTIONS.videos
    feed = WorldFeed(
        users=np.arange(users),
        user_codes=torch.zeros(users, 1, dtype=torch.int64),
        item_of=np.arange(v)[::-1].copy(),
        items=ItemFeatures(torch.arange(v)[:, None] % 7, (7,), ("a",)),
    )
    return WorldEnvironment(
        world.response,
        world.policy,
        world.schedule,
        feed,
        start_ms=start_ms,
        options=WorldRolloutOptions(**{"days": 3, "history": 8} | options),
    )


def oracle(env):
    return env.expected_reward


def logging(env):
    return env.logging_scores


def uniform(env):
    return np.zeros(env.state.candidates.shape)


@pytest.mark.long
def test_the_logging_policy_makes_the_log_again(world):
    """Rates, rows and sessions of a roll-out over the days of the log, within 4.5 standard errors (users are clusters)."""
    days = (RELEASE_STOP_MS - RELEASE_START_MS) // DAY_MS
    env = environment(world, OPTIONS.users, RELEASE_START_MS, days=days)
    got = roll_out(env, logging, seed=11, k=OPTIONS.candidates, temperature=1.0)
    logs = simulate(9, world.response, world.policy, world.schedule, world.rows_of_user)
    rows = np.concatenate([log.rows for log in logs], 1)
    sessions = np.concatenate([log.sessions for log in logs])
    user = rows[0]

    def per_user(values):
        return np.bincount(user, values, OPTIONS.users)

    n_logged = per_user(np.ones(len(user)))
    n_rolled = got.rows.sum(1)
    pairs = {"rows": (n_logged, n_rolled, np.ones(OPTIONS.users), np.ones(OPTIONS.users))}
    for k, name in enumerate(FLAGS):
        scale = 1000 if name == "play_time_ms" else 1
        values = rows[ROW_COLUMNS.index(name)] / scale
        pairs[name] = (per_user(values), got.response[:, :, k].sum(1), n_logged, n_rolled)
    logged_sessions = np.bincount(sessions[:, 0].astype(int), minlength=OPTIONS.users)
    pairs["depth"] = (n_logged, n_rolled, logged_sessions, got.sessions.sum(1))
    returned = np.bincount(sessions[:, 0].astype(int), sessions[:, 6], OPTIONS.users)
    pairs["returned"] = (returned, got.returned.sum(1), logged_sessions, got.ended.sum(1))
    z = {}
    for name, (a, b, of_a, of_b) in pairs.items():
        difference, variance = 0.0, 0.0
        for sign, top, bottom in ((1, a, of_a), (-1, b, of_b)):
            ratio = top.sum() / bottom.sum()
            difference += sign * ratio
            variance += ((top - ratio * bottom) ** 2).sum() / bottom.sum() ** 2
        z[name] = difference / np.sqrt(variance)
    assert all(abs(v) < 4.5 for v in z.values()), z
    assert np.sqrt(np.mean(np.square(list(z.values())))) < 2.5, z


def test_a_better_policy_is_better_when_it_is_rolled_out(world):
    env = environment(world, 400, days=10, episode="session")
    values = {
        p.__name__: rolled_out_value(env, p, seed=2, k=8, gamma=0.9, temperature=t)
        for p, t in ((uniform, 1.0), (logging, 1.0), (oracle, 0.0))
    }
    order = [values[n] for n in ("uniform", "logging", "oracle")]
    for worse, better in pairwise(order):
        assert better.value - worse.value > 3 * np.hypot(better.standard_error, worse.standard_error)  # fmt: skip
    assert order[0].n_units == order[0].n_users
    days = environment(world, 400, days=10)
    a, b = (roll_out(days, p, seed=2, k=8, temperature=t).totals() for p, t in ((uniform, 1.0), (oracle, 0.0)))  # fmt: skip
    for name in ("watch_time", "return_24h", "depth_day"):
        assert b[name][0].sum() / b[name][1].sum() > a[name][0].sum() / a[name][1].sum(), name
    # in this world a session is as long as it is, whatever it shows
    assert b["depth"][0].sum() / b["depth"][1].sum() == pytest.approx(a["depth"][0].sum() / a["depth"][1].sum(), rel=0.1)  # fmt: skip


def test_row_rewards_and_responses_have_the_planted_expectation(world):
    env = environment(world, 500)
    batch, info = env.reset(seed=0)
    st = env.state
    users, ts, tabs = st.user.copy(), st.ts.astype(np.int64), st.tab.copy()
    candidates = st.candidates.copy()
    slots = ranked(np.zeros(candidates.shape), candidates.astype(np.int64), info["key"], 1.0, 15)
    _, reward, _, _, info = env.step(slots)
    shown, active = info["shown"], info["active"]
    i, j = np.nonzero(shown)
    video = candidates[i, slots[i, j]].astype(np.int64)
    expected = expected_rows(world.response, users[i], video, ts[i], tabs[i])
    weights = world.policy.reward
    terms = [EXPECTED.index(n) for n in ("watch_ratio", "like", "follow", "comment", "forward", "hate")]  # fmt: skip
    np.testing.assert_allclose(info["row_reward"][i, j], weights @ expected[terms], rtol=1e-9)
    for k, name in enumerate(RESPONSES[:WATCH_TIME]):
        p = expected[EXPECTED.index(name)]
        gap = info["response"][i, j, k].sum() - p.sum()
        assert abs(gap) < 4.5 * np.sqrt((p * (1 - p)).sum()) + 1e-9, name
    np.testing.assert_allclose(reward, np.nansum(info["response"], 1), rtol=1e-5)
    assert (info["row_reward"][~shown] == 0).all()
    assert np.isnan(info["response"][~shown]).all()
    assert (shown.sum(1) > 0).tolist() == active.tolist()
    # what a policy sees of its candidates: the tables' ids
    assert torch.equal(batch.candidates[active], torch.from_numpy(399 - candidates[active]))


def test_one_seed_one_roll_out_and_paired_chance(world):
    a, b, c = (
        roll_out(environment(world), logging, seed=s, k=8, temperature=1.0) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(a.response, b.response)
    assert not np.array_equal(a.response, c.response)
    # fewer users are the same users
    few = roll_out(environment(world, 50), logging, seed=1, k=8, temperature=1.0)
    np.testing.assert_array_equal(few.response, a.response[:50])
    # one item shown by two policies at one decision is answered the same way
    answers = []
    for order in (1, -1):
        env = environment(world)
        batch, _ = env.reset(seed=3)
        width = batch.candidates.shape[1]
        slots = np.tile(np.arange(width)[::order], (200, 1))
        first = batch.candidates.numpy()
        _, _, _, _, info = env.step(slots)
        answers.append((slots, first, info["shown"], info["response"]))
    (s1, f1, h1, r1), (s2, f2, h2, r2) = answers
    np.testing.assert_array_equal(f1, f2)
    np.testing.assert_array_equal(h1.sum(1), h2.sum(1))
    compared = 0
    for i in range(200):
        one = {s1[i, j]: r1[i, j] for j in np.flatnonzero(h1[i])}
        two = {s2[i, j]: r2[i, j] for j in np.flatnonzero(h2[i])}
        for slot in one.keys() & two.keys():
            np.testing.assert_array_equal(one[slot], two[slot])
            compared += 1
    assert compared > 50


def test_common_random_numbers_shrink_a_difference(world):
    """The variance of oracle − logging over users is smaller with one seed than with two."""
    env = environment(world, 400, episode="session")

    def watch(policy, seed):
        got = roll_out(env, policy, seed=seed, k=8, temperature=0.0)
        return got.response[:, :, WATCH_TIME].sum(1)

    base, paired, unpaired = watch(logging, 1), watch(oracle, 1), watch(oracle, 2)
    assert np.var(paired - base) < 0.8 * np.var(unpaired - base)


def test_a_user_who_is_done_gets_nothing_more(world):
    env = environment(world, 60, days=1)
    batch, info = env.reset(seed=4)
    done = ~info["active"]
    ended = np.zeros(60, bool)
    while not done.all():
        pads = (batch.candidates == PAD).all(1).numpy()
        np.testing.assert_array_equal(pads, done)
        slots = ranked(
            np.zeros(batch.candidates.shape), batch.candidates.numpy(), info["key"], 1.0, 3
        )
        before = done
        batch, reward, terminated, truncated, info = env.step(slots)
        assert not (terminated & truncated).any()
        done = terminated | truncated
        assert (done >= before).all()
        assert (reward[before] == 0).all()
        assert not info["shown"][before].any()
        assert not info["ends"][before].any()
        ended |= info["ends"]
    assert not terminated.any()  # days run out, users do not leave for good
    assert ended.any()


def test_what_was_shown_becomes_history(world):
    env = environment(world, 40)
    batch, info = env.reset(seed=6)
    assert (batch.history == PAD).all()
    slots = np.tile(np.arange(12), (40, 1))
    after, _, _, _, info = env.step(slots)
    for i in np.flatnonzero(info["active"]):
        n = int(info["shown"][i].sum())
        assert batch.candidates[i, :n].tolist()[-8:] == after.history[i, -n:].tolist()[-8:]
        np.testing.assert_array_equal(after.feedback[i, -min(n, 8) :], info["response"][i, max(n - 8, 0) : n])  # fmt: skip


def test_control_days_are_an_a_a_period(world):
    env = environment(world, 80, days=4)
    common = {"seed": 3, "k": 8}
    aa = roll_out(env, logging, **common)
    ab = roll_out(env, oracle, control=logging, control_days=2, **common)
    np.testing.assert_array_equal(aa.response[:, :2], ab.response[:, :2])
    assert not np.array_equal(aa.response[:, 2:], ab.response[:, 2:])


def test_the_schedule_of_a_written_world_is_the_one_that_wrote_it(world):
    found = schedule_of(OPTIONS, world.response, world.policy)
    for name in ("gap_ms", "later_ms", "session_rows"):
        np.testing.assert_allclose(getattr(found, name), getattr(world.schedule, name), rtol=0.02)
    for name in ("hourly", "tab_cdf", "tab_stay", "return_intercept", "return_slope"):
        np.testing.assert_array_equal(getattr(found, name), getattr(world.schedule, name))


def test_bad_input_is_named(world):
    env = environment(world, 30)
    batch, _ = env.reset(seed=0)
    slots = np.tile(np.arange(3), (30, 1))
    slots[7, 2] = 0
    active = (batch.candidates[7] != PAD).any()
    assert active
    with pytest.raises(ValueError, match=r"actions\[7\]"):
        env.step(slots)
    with pytest.raises(ValueError, match="must be integers"):
        env.step(slots[:5])
    with pytest.raises(ValueError, match="no control policy"):
        roll_out(env, uniform, seed=0, k=3, control_days=1)
    with pytest.raises(ValueError, match="start later"):
        environment(world, start_ms=RELEASE_START_MS - 60 * DAY_MS)
    with pytest.raises(ValueError, match="this world has 0"):
        environment(world, users=501)


def test_draws_at_a_temperature_follow_the_softmax():
    scores = np.log(np.array([[0.5, 0.3, 0.2]]))
    keys = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
    first = ranked(np.repeat(scores, 20_000, 0), np.tile([4, 9, 2], (20_000, 1)), keys, 1.0, 2)
    share = np.bincount(first[:, 0], minlength=3) / 20_000
    np.testing.assert_allclose(share, [0.5, 0.3, 0.2], atol=0.015)
    # the second is drawn from what is left
    after = first[first[:, 0] == 0, 1]
    assert np.mean(after == 1) == pytest.approx(0.6, abs=0.02)
    assert pl.Series(first[:, 0] != first[:, 1]).all()
