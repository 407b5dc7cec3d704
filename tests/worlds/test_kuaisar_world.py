"""The planted-truth world of KuaiSAR: format, determinism, and that the truth is the truth in both scenarios."""

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from support.kuaisar_files import ITEM_LINE, REC_LINE, SEARCH_LINE, USER_LINE

from reelrank.buckets import EngineOptions
from reelrank.sources.ingest import LogOptions
from reelrank.sources.kuaisar import find_files, ingest
from reelrank.sources.kuaisar_schema import DAY_MS, PERIODS, UTC_OFFSET_MS
from reelrank.worlds.kuaisar import WorldOptions, write_world
from reelrank.worlds.kuaisar_truth import FEEDBACK, ScenarioTruth

OPTIONS = WorldOptions(
    seed=5, users=600, items=400, exposures_per_user=120, searches_per_user=10, scenario_angle=1.2
)
TINY = WorldOptions(users=60, items=200, exposures_per_user=12, searches_per_user=1)
START_MS, STOP_MS = PERIODS["small"]
VIDEO_TYPES = ["VIDEO", "IMAGE_ATLAS"]


def read(root, name):
    return pl.read_csv(root / "KuaiSAR-small" / f"{name}.csv")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_world(OPTIONS, tmp_path_factory.mktemp("worlds") / "kuaisar")


@pytest.fixture(scope="module")
def truth(root):
    return ScenarioTruth.load(root)


@pytest.fixture(scope="module")
def rec(root):
    """Rows of the feed with the truth's keys."""
    rows = read(root, "rec_inter").with_row_index("line", 2)
    rows = rows.with_columns(pl.col("line", "timestamp").cast(pl.Int64))
    exposures = ScenarioTruth.load(root).feed.exposures().collect()
    return rows.join(exposures, on="line", how="left", maintain_order="left")


@pytest.fixture(scope="module")
def search(root):
    """Rows of search results that are videos."""
    return read(root, "src_inter").filter(pl.col("item_type").is_in(VIDEO_TYPES))


@pytest.fixture(scope="module")
def ingested(root, tmp_path_factory):
    engine = EngineOptions(n_buckets=2, staging=tmp_path_factory.mktemp("staging"))
    return ingest(find_files(root, "small", "world"), LogOptions(), engine)


def affinities(truth, rows, time, scenario):
    """Cosine of the user's interest in one scenario with the item, in logits."""
    interests = truth.interests(rows["user_id"].to_numpy(), rows[time].to_numpy(), scenario)
    scale = np.linalg.norm(truth.feed.response.start[0])
    vectors = truth.feed.response.vectors[rows["item_id"].to_numpy()]
    return scale * np.sum(interests * vectors, axis=1)


def logistic(x, y):
    """Coefficients and standard errors of a logistic regression with an intercept, which comes last."""
    fit = LogisticRegression(C=1e8, max_iter=1000).fit(x, y)
    p = fit.predict_proba(x)[:, 1]
    design = np.column_stack([x, np.ones(len(x))])
    information = design.T @ (design * (p * (1 - p))[:, None])
    return np.append(fit.coef_[0], fit.intercept_), np.sqrt(np.diag(np.linalg.inv(information)))


def test_official_files_in_the_observed_order_with_their_quirks(root):
    folder = root / "KuaiSAR-small"
    columns = {
        "rec_inter": REC_LINE, "src_inter": SEARCH_LINE, "user_features": USER_LINE, "item_features": ITEM_LINE,
        "social_network": ("user_id", "user_follow_id"),
    }  # fmt: skip
    assert {p.stem for p in folder.iterdir()} == set(columns)
    for name, expected in columns.items():
        header, first = (folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()[:2]
        assert header.split(",") == list(expected)
        if name == "rec_inter":
            row = dict(zip(header.split(","), first.split(","), strict=True))
            assert [row[k][-2:] for k in ("duration_ms", "playing_time", "timestamp")] == [".0"] * 3
            at = int(row["timestamp"][:-2]) + UTC_OFFSET_MS
            assert row["time"] == str(np.datetime64(at // 1000, "s")).replace("T", " ")
    items = read(root, "item_features")
    assert items["item_id"].to_list() == list(range(OPTIONS.items))
    assert (items["third_level_category_name"] == "空").all()
    assert (items["fourth_level_category_name_en"] == "empty").all()
    for padding in (
        pl.col("author_id") == 0,
        pl.col("upload_time") == "1970-01-01",
        pl.col("caption") == "[]",
    ):
        assert 0 < items.filter(padding).height < 0.1 * OPTIONS.items


def test_same_seed_same_bytes_other_seed_other_world(tmp_path):
    for name, options in (("a", TINY), ("b", TINY), ("c", TINY.model_copy(update={"seed": 1}))):
        write_world(options, tmp_path / name)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 5 + 9
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    log = "KuaiSAR-small/rec_inter.csv"
    assert (tmp_path / "a" / log).read_bytes() != (tmp_path / "c" / log).read_bytes()


def test_the_angle_changes_search_and_leaves_the_feed(tmp_path):
    other = TINY.model_copy(update={"scenario_angle": 2.0})
    a, b = write_world(TINY, tmp_path / "a"), write_world(other, tmp_path / "b")
    feed = read(a, "rec_inter").drop("search", "search_item_related")
    assert feed.equals(read(b, "rec_inter").drop("search", "search_item_related"))
    assert not read(a, "src_inter").equals(read(b, "src_inter"))


def test_the_world_is_ingested_whole(root, ingested, truth):
    report = ingested.report
    assert ingested.quarantine.is_empty()
    src = read(root, "src_inter")
    n_other = src.filter(~pl.col("item_type").is_in(VIDEO_TYPES)).height
    files = {file["role"]: file for file in report["files"]}
    assert sum(files["src_inter"]["excluded"].values()) == n_other > 0
    assert n_other / src.height == pytest.approx(OPTIONS.other_types, abs=0.01)
    assert report["steps"][-1]["rows"] == read(root, "rec_inter").height + src.height - n_other
    assert (report["unknown_users"], report["unknown_items"]) == (0, 0)
    assert (report["users"], report["items"]) == (OPTIONS.users, OPTIONS.items)
    assert {fact["status"] for fact in report["facts"]} == {"generated"}
    queries = ingested.extras["queries"]
    assert queries.height == truth.queries().height == src["search_session_id"].n_unique()
    assert queries["clicked"].mean() == pytest.approx(0.6, abs=0.08)
    assert queries.height / OPTIONS.users == pytest.approx(OPTIONS.searches_per_user, rel=0.1)
    assert src.height / queries.height == pytest.approx(OPTIONS.search_rows, rel=0.1)
    # searches fall into the planted sessions of the feed
    assert report["sessions"] == truth.feed.sessions().height


def test_interests_of_the_scenarios_stand_at_the_planted_angle(truth):
    users = np.arange(OPTIONS.users)
    for ts_ms in (START_MS, START_MS + 4 * DAY_MS, STOP_MS):
        times = np.full(len(users), ts_ms)
        cosine = np.sum(truth.interests(users, times, 0) * truth.interests(users, times, 1), axis=1)
        np.testing.assert_allclose(np.arccos(cosine), OPTIONS.scenario_angle, atol=1e-3)
    assert truth.scenario_angle == OPTIONS.scenario_angle


def test_the_angle_is_measured_from_the_clicks_of_search(truth, search):
    """Log-odds rise by cos(angle) per unit of the feed's affinity and by sin(angle) per unit of what lies across."""
    time = "search_session_timestamp"
    own, feed = (affinities(truth, search, time, scenario) for scenario in (0, 1))
    a = OPTIONS.scenario_angle
    across = (own - np.cos(a) * feed) / np.sin(a)
    r = truth.search
    users, items = search["user_id"].to_numpy(), search["item_id"].to_numpy()
    level = r.videos["quality"][items] + r.users["engage"][users]
    y = search["click_cnt"].to_numpy() > 0
    beta, error = logistic(np.column_stack([feed, across, level]), y)
    planted = [np.cos(a), np.sin(a), 1.0, r.tabs["tap"][0]]
    np.testing.assert_array_less(np.abs(beta - planted), 4 * error)
    assert np.all(error[:3] < 0.06)
    measured = np.arctan2(beta[1], beta[0])
    assert measured == pytest.approx(a, abs=0.15)


@pytest.mark.parametrize(("angle", "sign"), [(0.0, 1), (2.6, -1)])
def test_what_the_feed_teaches_about_search_has_the_sign_of_the_cosine(tmp_path, angle, sign):
    options = OPTIONS.model_copy(update={"scenario_angle": angle, "users": 300, "relevance": 0.0})
    root = write_world(options, tmp_path / "w")
    truth = ScenarioTruth.load(root)
    rows = read(root, "src_inter").filter(pl.col("item_type").is_in(VIDEO_TYPES))
    y = rows["click_cnt"].to_numpy() > 0
    feed = affinities(truth, rows, "search_session_timestamp", 1)
    difference = feed[y].mean() - feed[~y].mean()
    error = np.sqrt(feed[y].var() / y.sum() + feed[~y].var() / (~y).sum())
    assert sign * difference > 5 * error
    if angle == 0:
        np.testing.assert_allclose(truth.search.start, truth.feed.response.start, atol=1e-5)


def test_planted_expectations_are_those_of_the_feedback(truth, rec, search):
    expected = truth.expected(rec["user_id"], rec["item_id"], rec["timestamp"], 1)
    assert tuple(expected) == FEEDBACK
    ratio = (rec["playing_time"] / rec["duration_ms"]).clip(0, 2)
    got = {"watch_ratio": ratio, "play_ms": rec["playing_time"]}
    for name, values in expected.items():
        difference = got.get(name, rec.get_column(name, default=None)).to_numpy() - values
        error = difference.std() / np.sqrt(len(difference))
        assert abs(difference.mean()) < 4 * error, (name, difference.mean(), error)
    times = search["search_session_timestamp"]
    expected = truth.expected(search["user_id"], search["item_id"], times, 0)
    clicked = search["click_cnt"].to_numpy() > 0
    assert all(np.isnan(expected[name]).all() for name in FEEDBACK[1:])
    assert expected["click"].mean() == pytest.approx(OPTIONS.search_click_rate, rel=1e-6)
    for values, y in ((expected["click"], clicked),):
        for part in np.array_split(np.argsort(values), 10):
            error = np.sqrt(np.mean(values[part] * (1 - values[part])) / len(part))
            assert abs(y[part].mean() - values[part].mean()) < 4 * error
    order = np.argsort(expected["click"])
    tenth = len(order) // 10
    assert expected["click"][order[-tenth:]].mean() > 4 * expected["click"][order[:tenth]].mean()
    assert rec["click"].mean() == pytest.approx(0.5, abs=0.08)  # documented: about 1 : 1


def test_both_scenarios_in_one_call_and_ids_of_another_world(truth):
    both = truth.expected(3, 4, START_MS, [0, 1])
    assert both["click"].shape == (2,)
    assert np.isnan(both["like"]).tolist() == [True, False]
    assert both["click"][1] == truth.feed.expected(3, 4, START_MS, 1)["click"]
    for bad in ((600, 0, 0, 1), (0, 400, 0, 0), (-1, 0, 0, 0)):
        with pytest.raises(IndexError, match="this world has 0"):
            truth.expected(*bad)
    with pytest.raises(IndexError, match="scenario must be 0"):
        truth.expected(0, 0, START_MS, 2)


def test_propensities_are_the_softmax_over_what_was_not_yet_shown(rec, truth):
    sample = rec.head(2_000)
    candidates = np.stack(sample["candidates"].to_list())
    users, ts_ms = (sample[c].to_numpy()[:, None] for c in ("user_id", "timestamp"))
    weight = np.exp(truth.feed.logging_scores(users, candidates, ts_ms, 1))
    shown, position = sample["item_id"].to_numpy(), sample["position"].to_numpy()
    for i in range(len(sample)):
        weight[i, np.isin(candidates[i], shown[i - position[i] : i])] = 0
        assert candidates[i, OPTIONS.candidates - 1 - position[i]] == shown[i]
    chosen = weight[candidates == shown[:, None]]
    np.testing.assert_allclose(sample["propensity"], chosen / weight.sum(1), rtol=1e-6)


def test_rows_of_a_request_share_their_time_and_stay_in_the_release(rec, search):
    times = rec.group_by("request").agg(pl.col("timestamp", "user_id").n_unique(), pl.len())
    assert (times["timestamp"] == 1).all()
    assert (times["user_id"] == 1).all()
    assert times["len"].mean() > 2
    for column in (rec["timestamp"], search["search_session_timestamp"]):
        assert column.min() >= START_MS
        assert column.max() < STOP_MS


def test_nothing_is_shown_before_its_upload(root, truth, rec, search):
    upload = truth.feed.response.videos["upload_ms"]
    assert (upload[rec["item_id"].to_numpy()] <= rec["timestamp"].to_numpy()).all()
    times = search["search_session_timestamp"].to_numpy()
    assert (upload[search["item_id"].to_numpy()] <= times).all()
    assert (upload > START_MS).mean() == pytest.approx(0.2, abs=0.06)
    published = read(root, "item_features")["upload_time"].str.to_date()
    local = (published.cast(pl.Int32).cast(pl.Int64) * DAY_MS - UTC_OFFSET_MS).to_numpy()
    assert (local[local > 0] == upload[local > 0]).all()


def test_searches_are_about_their_query(root, truth, search):
    queries = truth.queries()
    rows = search.join(queries.select("search_session_id", "topic"), on="search_session_id")
    topic_of = read(root, "item_features")["first_level_category_id"].to_numpy() - 1
    is_about = topic_of[rows["item_id"].to_numpy()] == rows["topic"].to_numpy()
    # no item stands twice in a session, which costs results of the topic
    assert OPTIONS.relevance - 0.2 < is_about.mean() < OPTIONS.relevance + 0.1
    assert rows.select(pl.struct("search_session_id", "item_id").is_unique().all()).item()
    words = read(root, "src_inter").select(
        "search_session_id", pl.col("keyword").str.json_decode(pl.List(pl.Int64))
    )
    per_word = (
        words.join(queries, on="search_session_id")
        .explode("keyword")
        .group_by("keyword")
        .agg(pl.col("topic").n_unique())
    )
    assert (per_word["topic"] == 1).all()
    # captions speak the same vocabulary
    captions = read(root, "item_features").select(
        pl.col("caption").str.json_decode(pl.List(pl.Int64)), topic="first_level_category_id"
    )
    known = (
        captions.explode("caption")
        .drop_nulls()
        .join(per_word, left_on="caption", right_on="keyword")
    )
    assert known.height > 0.5 * captions.height


def test_queries_follow_the_search_interest(truth):
    queries = truth.queries().filter(pl.col("rec_line").is_null())
    users, times = queries["user_id"].to_numpy(), queries["ts_ms"].to_numpy()
    own, feed = (
        np.sum(truth.interests(users, times, s) * truth.topics[queries["topic"].to_numpy()], axis=1)
        for s in (0, 1)
    )
    assert own.mean() > feed.mean() + 0.1 > 0.1


def test_searches_from_the_feed_are_marked_in_the_feed(root, truth, rec):
    begun = truth.queries().drop_nulls("rec_line")
    assert rec.filter(pl.col("search") == 1)["line"].to_list() == begun["rec_line"].to_list()
    assert begun.height / truth.queries().height == pytest.approx(OPTIONS.from_feed, abs=0.03)
    topic_of = read(root, "item_features")["first_level_category_id"].to_numpy() - 1
    from_row = rec.filter(pl.col("search") == 1)
    is_related = topic_of[from_row["item_id"].to_numpy()] == begun["topic"].to_numpy()
    assert (from_row["search_item_related"].to_numpy() == is_related).all()
    assert is_related.mean() > OPTIONS.related_share
    assert rec.filter(pl.col("search") == 0)["search_item_related"].sum() == 0
    wait = begun["ts_ms"].to_numpy() - from_row["timestamp"].to_numpy()
    assert 5_000 <= wait.min() <= wait.max() < 50_000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"users": 49}, "users"),
        ({"items": 150}, "too few for 20 distinct candidates"),
        ({"searches_per_user": 20}, "set it to at most 10.0"),
        ({"scenario_angle": 3.2}, "scenario_angle"),
        ({"latent_dim": 3}, "latent_dim"),
        ({"videos": 500}, "videos"),
    ],
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        WorldOptions(**wrong)
