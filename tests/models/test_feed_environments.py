"""A simulator and an observed matrix as environments."""

import numpy as np
import pytest
import torch
from support.feeds import HOUR, START, batch_of, planted_feed

from reelrank.models.feed import PAD, RESPONSES, WATCH_TIME, FeedBatch, ItemFeatures
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_environment import draw_places, ranked, roll_out
from reelrank.models.feed_windows import TRAIN, row_roles
from reelrank.models.feedback_options import SimulatorOptions
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.models.matrix_environment import MatrixEnvironment, MatrixOptions
from reelrank.models.session_model import GRID, SessionModel, fit_sessions
from reelrank.models.simulator_environment import SimulatorEnvironment, SimulatorRolloutOptions

DAY = 24 * HOUR
SESSIONS = SessionModel(
    rows_of_request=2.0,
    requests=3.0,
    pause_ms=np.full(65, 120_000.0),
    soon_ms=2 * HOUR + GRID * 20 * HOUR,
    later_ms=25 * HOUR + GRID * 30 * HOUR,
    intercept=0.3,
    weights=np.zeros(7),
    scenario_share=np.array([0.75, 1.0]),
    scenario_stay=0.5,
)


class Fixed:
    """Scores by item id."""

    def __init__(self, values):
        self.values = torch.as_tensor(values).float()

    def scores(self, batch):
        return self.values[batch.candidates.clamp(min=0)].masked_fill(~batch.mask, -torch.inf)


@pytest.fixture(scope="module")
def feed():
    return planted_feed(n_users=50, rows_of_user=12, n_items=30)


def simulator_environment(feed, users=50, sessions=SESSIONS, **options):
    torch.manual_seed(0)
    options_ = SimulatorOptions(d_state=8, d_id=4, d_attributes=2, d_context=2, hidden=8)
    model = FeedbackSimulator(options_, FeedSpec.of(feed), feed.items)
    model.set_scales(feed.rows.response)
    # a plain planted truth: even items are watched long, odd ones not, whoever sees them
    rows = torch.arange(len(feed.rows.item))
    with torch.no_grad():
        model.id.weight[:, 0] = torch.where(torch.arange(30) % 2 == 0, 3.0, -3.0)
        for net in (model.f1, model.f2):
            net.hidden.weight.zero_()
            net.hidden.weight[0, 8] = 1.0
            net.heads.weight.zero_()
            net.heads.weight[:, 0] = 0.5
            net.heads.bias.zero_()
        predicted = torch.stack([feed.rows.item % 2 == 0] * 7, 1) * 1.0
        model.calibration.fit(predicted * 1.5 * model.sd + model.mean, feed.rows.response[rows])
    return SimulatorEnvironment(
        model,
        sessions,
        batch_of(feed, [11 + 12 * u for u in range(users)]),
        np.arange(users),
        feed.items,
        pool=np.arange(30),
        popularity=np.r_[np.full(15, 3.0), np.full(15, 1.0)],
        start_ms=START,
        options=SimulatorRolloutOptions(**{"days": 3, "candidates": 8} | options),
    )


def matrix_environment(play, days=2, long_view_s=None, **options):
    n, p = play.shape
    start = FeedBatch(
        user_codes=torch.zeros(n, 1, dtype=torch.int64),
        scenario=torch.zeros(n, dtype=torch.int64),
        hour=torch.zeros(n, dtype=torch.int64),
        history=torch.full((n, 5), PAD),
        feedback=torch.zeros(n, 5, 7),
        candidates=torch.zeros(n, 0, dtype=torch.int64),
        item_codes=torch.zeros(n, 0, 1, dtype=torch.int64),
    )
    items = ItemFeatures(torch.zeros(p, 1, dtype=torch.int64), (1,), ("a",))
    options = MatrixOptions(**{"days": days, "candidates": 6} | options)
    return MatrixEnvironment(
        play, np.arange(p), start, items, start_ms=START, options=options, long_view_s=long_view_s
    )


def test_simulated_roll_outs_repeat_and_pair(feed):
    policy = Fixed(np.zeros(30))
    a, b = (roll_out(simulator_environment(feed), policy, seed=4, k=4, temperature=1.0) for _ in range(2))  # fmt: skip
    np.testing.assert_array_equal(a.response, b.response)
    few = roll_out(simulator_environment(feed, 20), policy, seed=4, k=4, temperature=1.0)
    np.testing.assert_allclose(few.response, a.response[:20], rtol=1e-4)
    other = roll_out(simulator_environment(feed), policy, seed=5, k=4, temperature=1.0)
    assert not np.array_equal(a.response, other.response)


def test_simulated_sessions_are_those_of_the_model(feed):
    got = roll_out(simulator_environment(feed, days=40), Fixed(np.zeros(30)), seed=1, k=8)
    # 3 requests of 2 rows; geometric: sd √6 requests
    n = got.sessions.sum()
    requests = got.n_steps / n
    assert abs(requests - 3) < 4.5 * np.sqrt(6 / n)
    assert got.rows.sum() / got.n_steps == pytest.approx(2.0, abs=4.5 * np.sqrt(2 / got.n_steps))
    p = 1 / (1 + np.exp(-0.3))
    share = got.returned.sum() / got.ended.sum()
    assert abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / got.ended.sum())


def test_who_answers_better_returns_more_where_the_rule_says_so(feed):
    rule = SESSIONS.__class__(**SESSIONS.__dict__ | {"weights": np.full(7, 1.0)})
    even = np.arange(30) % 2 == 0
    good, bad = (
        roll_out(simulator_environment(feed, sessions=rule, days=20), Fixed(s), seed=1, k=4)
        for s in (even * 1.0, 1.0 - even)
    )
    rate = [g.returned.sum() / g.ended.sum() for g in (good, bad)]
    assert rate[0] > rate[1]
    assert good.rows.sum() > bad.rows.sum()


@pytest.mark.parametrize("kind", ["simulator", "matrix"])
def test_environments_keep_their_promises(feed, kind):
    rng = np.random.default_rng(0)
    env = (
        simulator_environment(feed, repeats=False, days=2)
        if kind == "simulator"
        else matrix_environment(rng.exponential(6, (40, 90)), max_videos=12)
    )
    batch, info = env.reset(seed=3)
    done = ~info["active"]
    session = [set() for _ in range(env.num_envs)]
    while not done.all():
        candidates = batch.candidates.numpy()
        np.testing.assert_array_equal((candidates == PAD).all(1), done)
        slots = ranked(np.zeros(candidates.shape), candidates, info["key"], 1.0, 3)
        before, first = done, batch
        batch, reward, terminated, truncated, info = env.step(slots)
        for i in np.flatnonzero(~before):
            offered = set(candidates[i].tolist()) - {PAD}
            assert len(offered) == (candidates[i] != PAD).sum()
            assert not offered & session[i]  # never again in the session that showed it
            n = int(info["shown"][i].sum())
            session[i] |= set(candidates[i, slots[i, :n]].tolist())
            assert batch.history[i, -n:].tolist() == candidates[i, slots[i, :n]].tolist()
            watched = info["response"][i, :n, WATCH_TIME]
            np.testing.assert_allclose(batch.feedback[i, -n:, WATCH_TIME], watched, rtol=1e-6)
            np.testing.assert_allclose(reward[i, WATCH_TIME], watched.sum(), rtol=1e-5)
            if info["ends"][i]:
                session[i] = set()
        assert (reward[before] == 0).all()
        assert not info["shown"][before].any()
        assert torch.equal(batch.history[before], first.history[before])
        done = terminated | truncated
        assert (done >= before).all()
    with pytest.raises(ValueError, match="takes no options"):
        env.reset(options={"users": 3})


def test_a_matrix_user_leaves_after_three_short_plays_or_fifty_videos():
    """Two users: one never watches 2 s, one always does."""
    play = np.stack([np.full(80, 1.0), np.full(80, 5.0)])
    env = matrix_environment(play, days=2)
    got = roll_out(env, Fixed(np.zeros(80)), seed=0, k=4)
    assert got.rows.tolist() == [[3, 3], [50, 50]]
    assert got.sessions.tolist() == [[1, 1], [1, 1]]
    assert got.response[:, :, WATCH_TIME].tolist() == [[3.0, 3.0], [250.0, 250.0]]
    assert np.isnan(got.response[:, :, 0]).all()
    # a long play in between starts the count again
    play = np.full((1, 90), 1.0)
    play[:, ::3] = 9.0
    env = matrix_environment(play, candidates=3, days=1)
    best = roll_out(env, lambda e: e.play_s, seed=0, k=1)
    worst = roll_out(env, lambda e: np.where(np.isinf(e.play_s), -np.inf, -e.play_s), seed=0, k=1)
    assert best.rows[0, 0] > worst.rows[0, 0]
    assert best.totals()["watch_time"][0][0] > worst.totals()["watch_time"][0][0]


def test_a_long_view_follows_from_the_play_where_its_length_is_known():
    play = np.array([[1.0, 20.0, 5.0, 5.0, 30.0, 2.5]])
    needed = np.array([18.0, 18.0, 4.0, 6.0, np.nan, 2.5])
    env = matrix_environment(play, days=1, candidates=6, repeats=True, long_view_s=needed)
    candidates = env.reset(seed=0)[0].candidates.numpy()
    batch, _, _, _, info = env.step(np.argsort(candidates))  # in the order of the items
    long_view = RESPONSES.index("long_view")
    np.testing.assert_array_equal(info["response"][0, :, long_view], [0, 1, 1, 0, np.nan, 1])
    np.testing.assert_array_equal(batch.feedback[0, :, long_view], [1, 1, 0, np.nan, 1])
    assert np.isnan(info["response"][0, :, 0]).all()


def test_unobserved_pairs_are_no_candidates():
    play = np.full((3, 60), 4.0)
    play[:, ::4] = np.nan
    env = matrix_environment(play, max_videos=20, days=1)
    batch, info = env.reset(seed=1)
    while info["active"].any():
        assert not (batch.candidates % 4 == 0).any()
        slots = ranked(np.zeros(batch.candidates.shape), batch.candidates.numpy(), info["key"], 0.0, 2)  # fmt: skip
        batch, _, _, _, info = env.step(slots)
    with pytest.raises(ValueError, match="fewer than 56 observed pairs"):
        matrix_environment(play, max_videos=50)


def test_candidates_are_drawn_by_their_share():
    keys = np.arange(30_000).astype(np.uint64) * np.uint64(2**40 + 1)
    cdf = np.cumsum([0.5, 0.3, 0.2])
    none = np.zeros((30_000, 0), bool)
    first = draw_places(keys, np.ones(30_000, bool), cdf, none, 1)[:, 0]
    np.testing.assert_allclose(np.bincount(first) / 30_000, [0.5, 0.3, 0.2], atol=0.012)
    every = draw_places(keys[:5], np.array([True] * 4 + [False]), cdf, none[:5], 5)
    assert [sorted(row.tolist()) for row in every] == [[-1, -1, 0, 1, 2]] * 4 + [[-1] * 5]


def test_sessions_are_fitted_as_they_are(feed):
    """50 users, rows an hour apart: with a gap of 30 minutes every row is a session and its user is back within the day."""
    standardised = torch.nan_to_num(feed.rows.response)
    wanted = row_roles(feed).in_split(TRAIN) | row_roles(feed).in_split(TRAIN, is_random=True)
    model = fit_sessions(feed, standardised, wanted)
    assert (model.requests, model.rows_of_request) == (1.0, 1.0)
    np.testing.assert_array_equal(model.soon_ms, np.full(65, HOUR))
    assert model.p_return(np.zeros(7)) > 0.9
    whole = fit_sessions(feed, standardised, wanted, gap_s=7200)
    assert whole.requests == wanted.sum() / 50
    np.testing.assert_array_equal(whole.pause_ms, np.full(65, HOUR))
    assert whole.scenario_share[-1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no rows"):
        fit_sessions(feed, standardised, wanted & False)
