"""KuaiRec's world ranked by the value model's heads: planted probabilities, weights, session shocks, and the worlds of the claims."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numba import njit

from reelrank.buckets import EngineOptions
from reelrank.features.heads import HEADS, HeadRule, head_columns
from reelrank.sources.kuairec import KuaiRecLogOptions, find_files, ingest
from reelrank.sources.kuairec_schema import UTC_OFFSET_MS
from reelrank.worlds.kuairec import generate, write_world
from reelrank.worlds.kuairec_options import WorldOptions
from reelrank.worlds.policy import seed_state
from reelrank.worlds.response import VALUE_HEADS, affinity_of, interest_at, odds_of
from reelrank.worlds.sessions import ROW_COLUMNS, observe
from reelrank.worlds.truth import Truth

sys.path.insert(0, str(Path(__file__).parents[2] / "claims"))
from head_weights_worlds import POSTER, WORLDS

SIZES = {
    "users": 80, "videos": 200, "rows_per_user": 60, "small_users": 12, "small_videos": 30, "candidates": 10,
}  # fmt: skip
PLAY = ROW_COLUMNS.index("play_time_ms")
DRAWS = 40_000


@cache
def world_of(name):
    return generate(WORLDS[name].options(**SIZES))


def truth_of(world):
    return Truth(Path(), {}, world.response, world.policy)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A world with shocks of both kinds."""
    options = WORLDS["endogenous"].options(**SIZES | {"shock": {"sd": 2.0, "endogenous": 0.4}})
    return write_world(options, tmp_path_factory.mktemp("worlds") / "kuairec")


@pytest.fixture(scope="module")
def truth(root):
    return Truth.load(root)


@pytest.fixture(scope="module")
def requests(truth):
    return truth.session_candidates()


def head_matrix(world, stop=400):
    """Probabilities of the four heads for the candidates of the first requests, (n, C, 4)."""
    rows = world.log.filter(pl.col("position") == 0).sort("request").head(stop)
    users, at = (rows[name].to_numpy()[:, None] for name in ("user_id", "request_ms"))
    found = truth_of(world).head_probabilities(users, world.candidates[:stop], at)
    return np.stack([found[name] for name in HEADS], axis=-1)


def logging_spread(world, stop=400):
    """Sd of the scores within a candidate set, in temperatures."""
    rows = world.log.filter(pl.col("position") == 0).sort("request").head(stop)
    users, at = (rows[name].to_numpy()[:, None] for name in ("user_id", "request_ms"))
    return truth_of(world).logging_scores(users, world.candidates[:stop], at, 0).std(1).mean()


# --- probabilities -------------------------------------------------------------------------------------------


@njit
def draw_plays(seed, r, user_id, video_id, tab_id, ts_ms, plays):
    interest = np.empty(r.vectors.shape[1], np.float32)
    angle = r.users[user_id].speed * (ts_ms - r.origin_ms) / 86_400_000
    interest_at(r.start, r.turn, user_id, angle, interest)
    affinity = affinity_of(r.vectors, video_id, interest)
    state, row = np.zeros(1, np.uint64), np.zeros((17, 1), np.int32)
    seed_state(state, seed, 0)
    for i in range(len(plays)):
        observe(state, r.tabs[tab_id], r.users[user_id], r.videos[video_id], affinity, row, 0)
        plays[i] = row[PLAY, 0]


def test_head_probabilities_are_the_rates_of_drawn_plays():
    """Videos from 2 s (all of them negative when skipped) to minutes, odd and even lengths; the heads are the features' own."""
    world = generate(WorldOptions(**SIZES, duration_sd=1.5))
    tabs = world.response.tabs.copy()
    tabs["two_column"][3], tabs["tap"][3] = 1, -0.5  # one with taps: a row may not be opened
    truth = Truth(Path(), {}, world.response._replace(tabs=tabs), world.policy)
    odds, ts_ms = odds_of(truth.response), truth.response.origin_ms
    length = world.catalogue.duration_ms
    by_length = np.argsort(length)
    cells = [(7 * k % 80, int(by_length[i]), 0) for k, i in enumerate((0, 1, 20, 60, 100, 150, 180, -20, -1))]  # fmt: skip
    cells += [(5, int(by_length[40]), 3), (6, int(by_length[-30]), 3)]
    assert {length[video] % 2 for _, video, _ in cells} == {0, 1}
    plays = np.empty(DRAWS, np.int64)
    scores = []
    for seed, (user, video, tab) in enumerate(cells):
        draw_plays(seed, odds, user, video, tab, ts_ms, plays)
        log = pl.DataFrame({"play_ms": plays, "duration_ms": length[video].repeat(DRAWS)})
        log = log.with_columns(watch_ratio=(pl.col("play_ms") / pl.col("duration_ms")).cast(pl.Float32))  # fmt: skip
        for rule in ("code", "poster"):
            rates = log.select(head_columns(HeadRule(rule=rule))).mean().row(0)
            expected = truth.head_probabilities(user, video, ts_ms, rule, tab)
            assert tuple(expected) == HEADS == VALUE_HEADS
            for rate, p in zip(rates, expected.values(), strict=True):
                scores.append((rate - p) / np.sqrt(max(p * (1 - p), 1e-6) / DRAWS))
    assert np.abs(scores).max() < 4
    assert np.std(scores) < 1.3


def test_observed_heads_of_the_matrices_are_as_planted(root, truth, requests):
    rows = pl.read_csv(root / "KuaiRec 2.0/data/big_matrix.csv")
    at = truth.exposures().select("request_ms").collect()["request_ms"]
    expected = truth.head_probabilities(rows["user_id"], rows["video_id"], at)
    got = rows.select("watch_ratio", play_ms="play_duration").select(head_columns(HeadRule()))
    for name in HEADS:
        p = expected[name]
        assert abs((got[name] - p).sum()) < 4 * np.sqrt((p * (1 - p)).sum()), name
    assert got["neg"].mean() > 0.05
    assert got["rewatch"].mean() > 0.01


def test_a_two_second_line_divides_the_rules():
    """complete: reached or passed; the poster's heads are rarer, and equal where no whole ms lies between the rules."""
    world = generate(WorldOptions(**SIZES))
    truth, shape = truth_of(world), (np.arange(80)[:, None], np.arange(200)[None])
    code, poster = (truth.head_probabilities(*shape, truth.response.origin_ms, rule) for rule in ("code", "poster"))  # fmt: skip
    assert code["complete"].shape == (80, 200)
    for name in ("complete", "long", "neg"):
        assert (poster[name] <= code[name]).all()
    assert (poster["complete"] < code["complete"]).all()
    np.testing.assert_array_equal(poster["rewatch"], code["rewatch"])
    assert (code["rewatch"] <= np.minimum(code["complete"], code["long"]) + 1e-8).all()


def test_ids_that_the_world_lacks_are_refused(truth):
    with pytest.raises(IndexError, match=r"video_id 200 … 200: this world has 0 … 199"):
        truth.head_probabilities(3, 200, truth.response.origin_ms)


# --- ranking -------------------------------------------------------------------------------------------------


def test_propensities_are_exact_under_value_weights_and_shocks(truth, requests):
    sample = requests.head(1_500)
    candidates = np.stack(sample["candidates"].to_list())
    at = (sample[name].to_numpy()[:, None] for name in ("user_id", "request_ms"))
    users, times = at
    shock = (sample[name].to_numpy()[:, None] for name in ("shock_topic", "shock_size"))
    score = truth.logging_scores(users, candidates, times, 0, *shock)
    for i, (shown, propensity) in enumerate(sample.select("shown", "propensity").iter_rows()):
        weight = np.exp(score[i] - score[i].max())
        for video, p in zip(shown, propensity, strict=True):
            (place,) = np.flatnonzero(candidates[i] == video)
            assert p == pytest.approx(weight[place] / weight.sum(), rel=1e-6)
            weight[place] = 0
    without = truth.logging_scores(users, candidates, times, 0)
    by_value = truth.head_probabilities(users, candidates, times)
    planted = sum(weight * by_value[name] for name, weight in POSTER.items()) / 0.04
    np.testing.assert_allclose(without, planted, rtol=1e-9)


def test_requests_have_the_sessions_of_the_ingested_tables(root, truth, requests, tmp_path):
    sessions = truth.sessions()
    counted = requests.group_by("session").agg(pl.col("shown").list.len().sum()).sort("session")
    assert counted["session"].to_list() == list(range(sessions.height))
    assert counted["shown"].to_list() == sessions["n_rows"].to_list()
    engine = EngineOptions(n_buckets=1, staging=tmp_path)
    options = KuaiRecLogOptions(session_gap_s=3600)
    tables = ingest(find_files(root, "v2", "world"), options, engine)
    log = tables.interactions.read(0).sort("ts_ms")
    for key, ids in (("user_id", tables.user_map), ("item_id", tables.item_map)):
        log = log.with_columns(pl.col(key).replace_strict(ids["dense_id"], ids["raw_id"]))
    seen = log.group_by("session_id").agg(pl.first("user_id"), video="item_id").sort("session_id")
    planted = requests.sort("session", "request_ms").explode("shown").group_by("session", maintain_order=True).agg(pl.first("user_id"), video="shown")  # fmt: skip
    assert seen["user_id"].to_list() == planted["user_id"].to_list()
    assert seen["video"].to_list() == planted["video"].to_list()


def test_a_world_without_users_of_requests_says_so(tmp_path):
    folder = tmp_path / "_truth"
    folder.mkdir()
    pl.DataFrame({"request": [0], "candidates": [[1]]}).write_ipc(folder / "requests.arrow")
    world = generate(WorldOptions(**SIZES))
    with pytest.raises(ValueError, match="has no session"):
        Truth(tmp_path, {}, world.response, world.policy).session_candidates()


# --- session shocks ------------------------------------------------------------------------------------------


def test_shocks_of_size_0_are_no_shocks():
    one = world_of("base")
    two = generate(WORLDS["base"].options(**SIZES, shock={"sd": 0, "endogenous": 1}))
    assert one.log.equals(two.log)
    assert one.sessions.equals(two.sessions)
    assert one.sessions["shock_topic"].null_count() == one.sessions.height
    assert (one.sessions["shock_size"] == 0).all()


def late(sessions):
    return (sessions["start_ms"].to_numpy() + UTC_OFFSET_MS) // 3_600_000 % 24 >= 12


def test_exogenous_shocks_do_not_follow_what_came_before():
    sessions = generate(WORLDS["exogenous"].options(**SIZES | {"rows_per_user": 300})).sessions
    size, topic = sessions["shock_size"].to_numpy(), sessions["shock_topic"].to_numpy()
    n = len(size)
    assert np.sqrt(np.mean(size**2)) == pytest.approx(2, rel=4 / np.sqrt(2 * n))
    counts = np.bincount(topic, minlength=20)
    assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 45  # χ² of 19 degrees of freedom, 99.9 %
    for values in (size, size * (topic == 0), np.abs(size)):
        later, rows = late(sessions), sessions["n_rows"].shift(1).fill_null(0)
        assert abs(np.corrcoef(values, later)[0, 1]) < 4 / np.sqrt(n)
        assert abs(np.corrcoef(values, rows)[0, 1]) < 4 / np.sqrt(n)
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 4 / np.sqrt(n)


def test_endogenous_shocks_follow_the_local_hour(truth):
    sessions = truth.sessions()
    size, topic = sessions["shock_size"].to_numpy(), sessions["shock_topic"].to_numpy()
    follows = (topic == 0) & (size == np.where(late(sessions), 2.0, -2.0))
    n = len(size)
    assert follows.mean() == pytest.approx(0.4, abs=4 * np.sqrt(0.24 / n))
    assert np.corrcoef(size * (topic == 0), late(sessions))[0, 1] > 0.4


def test_a_shock_moves_its_topic(tmp_path):
    options = WORLDS["exogenous"].options(**SIZES | {"shock": {"sd": 6.0, "endogenous": 0.0}})
    truth = Truth.load(write_world(options, tmp_path / "kuairec"))
    requests = truth.session_candidates()
    own = requests.filter(pl.col("shock_size").abs() > 1)
    share = {
        name: np.array([np.mean(truth.policy.topic[videos] == topic) for videos, topic in own.select(name, "shock_topic").iter_rows()])
        for name in ("shown", "candidates")
    }  # fmt: skip
    gain = share["shown"] - share["candidates"]
    assert np.corrcoef(gain, own["shock_size"])[0, 1] > 5 / np.sqrt(len(gain))


# --- the worlds of the claims --------------------------------------------------------------------------------


def test_every_world_says_why_it_is_there():
    for name, planted in WORLDS.items():
        assert len(planted.reason) > 30, name
        assert set(planted.options().head_weights.model_dump().values()) == {0.0}


def test_rankings_are_as_noisy_as_they_say():
    shocked = {"exogenous", "endogenous"}  # the base world's ranking, but for the shocks
    for name in shocked:
        overrides = dict(WORLDS[name].overrides)
        assert overrides.pop("shock")
        assert overrides == WORLDS["base"].overrides
    spread = {name: logging_spread(world_of(name)) for name in set(WORLDS) - shocked}
    assert spread["clean"] > 20
    assert 0.3 < spread["noisy"] < 0.7
    assert spread["random"] == 0
    for name in set(spread) - {"clean", "noisy", "random"}:
        assert 2 < spread[name] < 4.5, (name, spread[name])


def test_shows_at_random_are_uniform_over_what_is_left():
    log = world_of("random").log
    left = world_of("random").policy.n_candidates - log["position"].cast(pl.Int64)
    np.testing.assert_allclose(log["propensity"], 1 / left, rtol=1e-12)


def test_collinear_heads_are_monotone_in_one_scalar():
    """In every request, any head orders the candidates as any other or exactly the other way round; elsewhere not."""
    heads = head_matrix(world_of("collinear"))
    ordered = np.take_along_axis(heads, np.argsort(heads[..., :1], axis=1), axis=1)
    steps = np.diff(ordered, axis=1)
    assert (steps[..., :3] > 0).all()
    assert (steps[..., 3] < 0).all()
    for name in ("base", "correlated", "identified"):
        other = head_matrix(world_of(name))
        steps = np.diff(np.take_along_axis(other, np.argsort(other[..., :1], axis=1), axis=1), axis=1)  # fmt: skip
        assert (steps[..., 1] < 0).any(1).mean() > 0.9


def within_requests(world):
    heads = head_matrix(world)
    return (heads - heads.mean(1, keepdims=True)).reshape(-1, 4)


def test_correlated_heads_are_still_four():
    condition = {name: np.linalg.cond(np.corrcoef(within_requests(world_of(name)).T)) for name in ("identified", "base", "correlated", "collinear")}  # fmt: skip
    assert condition["identified"] < condition["base"] < condition["correlated"] < 1e4
    assert condition["collinear"] > 1e8
    assert np.corrcoef(within_requests(world_of("correlated")).T)[0, 3] < -0.97


def test_only_in_the_published_world_do_lengths_say_all():
    for name, says_all in (("published", True), ("collaborative", False)):
        world = world_of(name)
        users, videos = np.arange(80)[:, None], np.arange(200)[None]
        found = truth_of(world).head_probabilities(users, videos, world.response.origin_ms)
        for p in found.values():
            differs = p.std(0).max()
            assert (differs < 1e-12) == says_all
    length = world_of("published").catalogue.duration_ms
    complete = truth_of(world_of("published")).head_probabilities(0, np.arange(200), 0)["complete"]
    assert len(np.unique(complete)) == len(np.unique(length))
