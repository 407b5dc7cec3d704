"""The planted-truth world of Weibo: files, determinism, and that the planted influence can be found."""

import json

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from scipy.optimize import brentq

from reelrank.buckets import EngineOptions
from reelrank.sources.ingest import LogOptions
from reelrank.sources.weibo import find_files, ingest, ingest_posts
from reelrank.worlds.weibo import START_MS, generate, write_world
from reelrank.worlds.weibo_options import WeiboWorldOptions
from reelrank.worlds.weibo_truth import ACTIONS, DAY_MS, WeiboTruth

OPTIONS = WeiboWorldOptions(seed=3, users=600, posts=400, exposures_per_user=150)
TINY = WeiboWorldOptions(users=60, posts=60, exposures_per_user=20, days=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_world(OPTIONS, tmp_path_factory.mktemp("worlds") / "weibo")


@pytest.fixture(scope="module")
def truth(root):
    return WeiboTruth.load(root)


@pytest.fixture(scope="module")
def got(root, tmp_path_factory):
    engine = EngineOptions(n_buckets=2, staging=tmp_path_factory.mktemp("staging"))
    return ingest(find_files(root, "viewers", "world"), LogOptions(max_bad_share=0), engine)


@pytest.fixture(scope="module")
def rows(got, truth):
    """Canonical rows with the numbers of user and post in the world, beside the truth of each."""
    frame = got.interactions.scan().collect()
    for name, ids in (("user", got.user_map), ("post", got.item_map)):
        numbers = ids.select(
            pl.col("dense_id").alias("user_id" if name == "user" else "item_id"),
            pl.col("raw_text").str.slice(1).cast(pl.Int32).alias(name),
        )
        frame = frame.join(numbers, on=numbers.columns[0])
    joined = frame.join(truth.rows(), on=["user", "post", "ts_ms"], validate="1:1").sort("row_id")
    assert joined.height == frame.height == truth.rows().height
    return joined


def test_every_view_is_one_canonical_row_without_a_bad_line(got, rows):
    assert got.quarantine.is_empty()
    assert got.report["kind"] == "world"
    assert rows.select("user", "post").is_unique().all()
    n_done = rows.select(pl.col(ACTIONS).sum()).row(0)
    assert got.report["steps"][0]["rows"] == rows.height + sum(n_done)
    assert got.extras["cascades"].height == n_done[ACTIONS.index("forward")]
    assert got.users.height == OPTIONS.users
    assert got.items.height == OPTIONS.posts
    assert got.items["caption"].null_count() == got.items["upload_ts"].null_count() == 0
    seen = rows.join(got.items, on="item_id")
    assert seen.select((pl.col("ts_ms") >= pl.col("upload_ts")).all()).item()  # L7
    assert seen.select((pl.col("ts_ms") - pl.col("upload_ts") <= OPTIONS.feed_days * DAY_MS).all()).item()  # fmt: skip


def test_actions_are_as_likely_as_the_truth_says(rows, truth):
    influenced = rows["influenced"].to_numpy()
    expected = truth.expected(rows["user"], rows["post"], rows["ts_ms"], influenced)
    for name in ACTIONS:
        assert np.allclose(truth.expected(rows["user"], rows["post"], rows["ts_ms"])[name], rows[f"p_{name}"], rtol=1e-5)  # fmt: skip
        p, done = expected[name], rows[name].to_numpy()
        for part in (*np.array_split(np.argsort(p), 5), influenced.nonzero()[0]):
            se = np.sqrt((p[part] * (1 - p[part])).mean() / len(part))
            assert abs(done[part].mean() - p[part].mean()) < 4.5 * se, name
    assert np.allclose(
        expected["like"], rows["p_like"], rtol=1e-5
    )  # influence acts on forwarding only


def exposure_from_tables(rows, edges, window_ms):
    """Whether someone the user follows forwarded the post inside the window before, from canonical tables alone."""
    forwards = rows.filter(pl.col("forward") == 1).select("item_id", dst="user_id", at="ts_ms")
    pairs = rows.select("row_id", "item_id", "ts_ms", src="user_id").join(forwards, on="item_id")
    pairs = pairs.filter(pl.col("at") < pl.col("ts_ms"), pl.col("ts_ms") - pl.col("at") <= window_ms)  # fmt: skip
    exposed = pairs.join(edges, on=["src", "dst"], how="semi")["row_id"].unique()
    return rows["row_id"].is_in(exposed.implode())


def test_influence_is_recovered_from_the_canonical_tables(rows, got):
    exposed = exposure_from_tables(rows, got.extras["social_edges"], OPTIONS.influence_window_h * 3_600_000)  # fmt: skip
    assert exposed.equals(rows["influenced"], check_names=False)
    rate = rows.group_by("influenced").agg(pl.col("forward").mean()).sort("influenced")["forward"]
    assert rate[1] > 2 * rate[0]
    # maximum likelihood of the added log-odds, the rest of the odds being known
    chosen = rows.filter("influenced")
    logit = np.log(chosen["p_forward"] / (1 - chosen["p_forward"])).to_numpy()
    done = chosen["forward"].to_numpy()

    def chance(added):
        return 1 / (1 + np.exp(-(logit + added)))

    estimate = brentq(lambda added: done.sum() - chance(added).sum(), -5, 5)
    se = 1 / np.sqrt((chance(estimate) * (1 - chance(estimate))).sum())
    assert se < 0.1
    assert abs(estimate - OPTIONS.influence) < 4 * se
    # a plain contrast overstates it: who follows whom goes by like interest
    odds = rate / (1 - rate)
    assert np.log(odds[1] / odds[0]) > estimate - 2 * se


def test_without_influence_exposure_changes_nothing_but_interest(tmp_path):
    views = generate(OPTIONS.model_copy(update={"influence": 0.0})).views
    p = views.probability[ACTIONS.index("forward")][views.influenced]
    done = views.done[ACTIONS.index("forward")][views.influenced]
    assert len(p) > 500
    assert abs(done.mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).mean() / len(p))


def test_cascades_name_the_followed_user_who_forwarded_last(got, rows):
    edges = {(s, d) for s, d, _ in got.extras["social_edges"].iter_rows()}
    cascades = got.extras["cascades"]
    at = {(i, u): t for i, u, _, t in cascades.iter_rows()}
    window = OPTIONS.influence_window_h * 3_600_000
    with_parent = cascades.drop_nulls("parent_id")
    assert with_parent.height > 100
    for item, user, parent, ts in with_parent.iter_rows():
        assert (user, parent) in edges
        assert 0 < ts - at[item, parent] <= window
    keys = ["item_id", "user_id"]
    influenced = rows.filter("influenced", pl.col("forward") == 1).select(keys)
    assert with_parent.select(keys).sort(keys).equals(influenced.sort(keys))


def test_friends_are_of_like_interest_and_interests_drift(truth, got):
    r = truth.response
    number = got.user_map["raw_text"].str.slice(1).cast(pl.Int32).to_numpy()
    src, dst = (number[got.extras["social_edges"][side].to_numpy()] for side in ("src", "dst"))
    rng = np.random.default_rng(0)

    def cosine(a, b):
        return np.einsum("nd,nd->n", r.start[a], r.start[b]).mean() / np.einsum("nd,nd->n", r.start, r.start).mean()  # fmt: skip

    assert cosine(src, dst) > cosine(src, rng.permutation(dst)) + 0.2
    first, last = (truth.expected(5, np.arange(OPTIONS.posts), START_MS + d * DAY_MS)["like"] for d in (0, 60))  # fmt: skip
    assert np.abs(first - last).max() > 0.01


def test_texts_speak_of_their_topic_and_some_hold_a_stray_quote(root, got):
    captions = got.items["caption"]
    topic = captions.str.extract(r"#topic(\d+)#")
    words = captions.str.extract_all(r"t(\d+)w\d+").list.eval(pl.element().str.extract(r"t(\d+)w"))
    assert (words.list.n_unique() == 1).all()
    assert words.list.first().equals(topic, check_names=False)
    assert (captions.str.count_matches('"') == 1).sum() == OPTIONS.posts // 40


def test_tianchi_files_count_what_the_viewers_did(root, got, rows):
    manifest = find_files(root, "tianchi", "world")
    tianchi = ingest_posts(manifest, LogOptions(max_bad_share=0))
    posts, items = tianchi.author_posts, got.items
    assert tianchi.quarantine.is_empty()
    assert posts.height == OPTIONS.posts
    assert 0 < posts.filter(pl.col("part") == "predict").height < 0.4 * OPTIONS.posts
    # posts are hashed anew: matched by time and text
    named = items.select("item_id", ts_ms="upload_ts", text="caption")
    counts = rows.group_by("item_id").agg(pl.col(ACTIONS).sum())
    seen = named.join(counts, on="item_id", how="left").fill_null(0)
    both = posts.filter(pl.col("part") == "train").join(seen, on=["ts_ms", "text"], validate="1:1")
    assert both.height == posts.filter(pl.col("part") == "train").height
    for name in ACTIONS:  # nothing is seen later than a week after the post
        assert both[f"{name}_count"].equals(both[name].cast(pl.Int32), check_names=False)
    assert {fact["status"] for fact in tianchi.report["facts"]} == {"generated"}


def test_worlds_repeat_and_are_written_once(tmp_path):
    first = write_world(TINY, tmp_path / "a")
    stamp = (first / "actions.txt").stat().st_mtime_ns
    write_world(TINY, first)
    assert (first / "actions.txt").stat().st_mtime_ns == stamp
    second = write_world(TINY, tmp_path / "b")
    other = write_world(TINY.model_copy(update={"seed": 1}), tmp_path / "c")
    names = ["actions.txt", "posts.txt", "follows.txt", "cascades.txt", "mapping.yml"]
    names += [f"weibo_{part}_data(new)/weibo_{part}_data.txt" for part in ("train", "predict")]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / "actions.txt").read_bytes() != (other / "actions.txt").read_bytes()
    assert json.loads((first / "_truth/params.json").read_text())["options"]["influence"] == 1.5


def test_more_influence_changes_forwards_and_nothing_else():
    weak, strong = (generate(OPTIONS.model_copy(update={"influence": x})).views for x in (0.0, 2.5))
    assert np.array_equal(weak.ts_ms, strong.ts_ms)
    assert np.array_equal(weak.post, strong.post)
    assert np.array_equal(weak.done[:2], strong.done[:2])  # like, comment
    forward = ACTIONS.index("forward")
    assert (strong.done[forward] >= weak.done[forward]).all()
    assert strong.done[forward].sum() > 1.1 * weak.done[forward].sum()


def test_the_truth_refuses_what_the_world_does_not_have(truth, tmp_path):
    with pytest.raises(IndexError, match=r"user 0 … 600: this world has 0 … 599"):
        truth.expected([0, 600], 0, START_MS)
    with pytest.raises(IndexError, match="post -1"):
        truth.expected(0, -1, START_MS)
    assert truth.expected(np.arange(3)[:, None], np.arange(2), START_MS)["like"].shape == (3, 2)
    with pytest.raises(FileNotFoundError, match="holds no truth of a generated Weibo world"):
        WeiboTruth.load(tmp_path)
    with pytest.raises(ValidationError, match="influence"):
        WeiboWorldOptions(influence=9)
