"""The planted-truth world of KuaiRec: format, determinism, and that the truth is the truth."""

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from reelrank.buckets import EngineOptions
from reelrank.sources.kuairec import KuaiRecLogOptions, find_files, ingest
from reelrank.sources.kuairec_schema import BURSTS, DAY_MS, FILES, RELEASE_START_MS
from reelrank.tables import ItemDaily, Items, Observed
from reelrank.worlds.kuairec import generate, write_world
from reelrank.worlds.kuairec_options import WorldOptions
from reelrank.worlds.truth import Truth

OPTIONS = WorldOptions(seed=3)
TINY = WorldOptions(
    users=60, videos=150, rows_per_user=20, small_users=12, small_videos=30, candidates=10
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_world(OPTIONS, tmp_path_factory.mktemp("worlds") / "kuairec")


@pytest.fixture(scope="module")
def data(root):
    return root / "KuaiRec 2.0/data"


@pytest.fixture(scope="module")
def truth(root):
    return Truth.load(root)


@pytest.fixture(scope="module")
def big(data, truth):
    """The big matrix with the truth of every exposure."""
    rows = pl.read_csv(data / "big_matrix.csv").with_row_index("line", 2)
    rows = rows.with_columns(pl.col("line").cast(pl.Int64), ts_ms=(pl.col("timestamp") * 1000).round().cast(pl.Int64))  # fmt: skip
    return truth.exposures().collect().join(rows, on="line", how="left", validate="1:1")


@pytest.fixture(scope="module")
def small(root, data):
    """The small matrix with the true time of every row."""
    rows = pl.read_csv(data / "small_matrix.csv")
    times = pl.read_parquet(root / "_truth/observed.parquet")
    return rows.join(times, on=["user_id", "video_id"], how="left", validate="1:1")


@pytest.fixture(scope="module")
def ingested(root, tmp_path_factory):
    engine = EngineOptions(n_buckets=3, staging=tmp_path_factory.mktemp("staging"))
    return ingest(find_files(root, "v2", "world"), KuaiRecLogOptions(), engine)


def z_score(got, expected):
    difference = np.asarray(got) - np.asarray(expected)
    return difference.mean() / (difference.std() / np.sqrt(len(difference)))


# --- format --------------------------------------------------------------------------------------------------


def test_official_files_with_exact_headers(data):
    expected = {f"{stem}.csv": columns for role, (stem, columns) in FILES.items() if role != "raw_categories"}  # fmt: skip
    assert {path.name for path in data.iterdir()} == set(expected)
    for name, columns in expected.items():
        assert (data / name).read_text(encoding="utf-8").partition("\n")[0] == ",".join(columns)


def test_the_quirks_of_the_release_are_there(data):
    text = {path.stem: path.read_bytes().decode() for path in data.iterdir()}  # fmt: skip
    times = pl.read_csv(data / "big_matrix.csv")["time"]
    n_digits = times.str.extract(r"\.(\d+)$").str.len_chars().fill_null(0).value_counts(normalize=True)  # fmt: skip
    share = dict(n_digits.iter_rows())
    assert set(share) == {0, 1, 2, 3}
    assert share[3] == pytest.approx(0.9, abs=0.02)
    assert share[2] == pytest.approx(0.09, abs=0.02)
    assert not times.str.ends_with("0").filter(times.str.contains(".", literal=True)).any()
    assert ",20200801,1596" in text["big_matrix"]
    assert ",20200801.0,1596" in text["small_matrix"]
    untimed = [line for line in text["small_matrix"].splitlines() if ",,,," in line]
    assert len(untimed) == pytest.approx(0.04 * 6_000, abs=4 * np.sqrt(0.04 * 6_000))
    assert '"[' in text["item_categories"]
    assert "\n1,[" in text["item_categories"]
    assert text["kuairec_caption_category"].replace("\r~", "").count("\r") == 0
    assert text["kuairec_caption_category"].count("\r~") == 1
    assert ',"[topic' in text["kuairec_caption_category"]
    assert ",[]," in text["kuairec_caption_category"]
    assert ",-124,UNKNOWN\n" in text["kuairec_caption_category"]
    daily = pl.read_csv(data / "item_daily_features.csv")
    collected = daily.group_by(pl.col("date") >= 20200728).agg(pl.col("collect_cnt").is_null().all())  # fmt: skip
    assert dict(collected.iter_rows()) == {True: False, False: True}
    friends = pl.read_csv(data / "social_network.csv")["friend_list"].str.count_matches(r"\d+")
    assert (friends.min(), friends.max()) == (1, 5)


def test_the_source_reads_all_of_it(ingested, truth):
    report = ingested.report
    assert ingested.quarantine.is_empty()
    assert {fact["status"] for fact in report["facts"]} == {"generated"}
    assert (report["users"], report["items"]) == (OPTIONS.users, OPTIONS.videos)
    assert (report["unknown_users"], report["unknown_items"]) == (0, 0)
    assert (report["shared_rows"], report["shared_pairs"], report["rows_outside_bursts"]) == (0, 0, 0)  # fmt: skip
    assert report["watch_ratio_differs"] == {"big_matrix": 0, "small_matrix": 0}
    for model, frame in ((Items, ingested.items), (Observed, ingested.extras["observed"]), (ItemDaily, ingested.extras["item_daily"])):  # fmt: skip
        model.validate(frame)
    assert ingested.items.select("author_id", "duration_ms", "upload_ts", "category_1", "tags").null_count().sum_horizontal().item() == 0  # fmt: skip
    sessions = next(fact for fact in report["facts"] if fact["fact"] == "sessions")
    assert sessions["measured"] == truth.sessions().height
    rows = ingested.interactions.scan().select("like", "click", "long_view").collect()
    assert rows.null_count().row(0) == (rows.height,) * 3


def test_the_same_options_give_the_same_bytes(tmp_path):
    one, two = (write_world(TINY, tmp_path / name) for name in ("one", "two"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 7 + 8  # official files, and the truth
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)
    other = write_world(TINY.model_copy(update={"seed": 1}), tmp_path / "other")
    name = "KuaiRec 2.0/data/big_matrix.csv"
    assert (other / name).read_bytes() != (one / name).read_bytes()


# --- the two matrices ----------------------------------------------------------------------------------------


def test_the_small_matrix_is_full_and_apart_from_the_big_one(big, small):
    assert small["user_id"].n_unique() == OPTIONS.small_users
    assert small["video_id"].n_unique() == OPTIONS.small_videos
    assert small.height == small.select("user_id", "video_id").n_unique() == OPTIONS.small_users * OPTIONS.small_videos  # fmt: skip
    assert big.join(small, on=["user_id", "video_id"], how="semi").is_empty()
    # its users and videos are in the big one all the same
    assert big["user_id"].is_in(small["user_id"].unique().implode()).mean() > 0.1
    assert big["video_id"].is_in(small["video_id"].unique().implode()).mean() > 0.1
    timed = small.filter("is_timed")
    np.testing.assert_allclose(timed["timestamp"] * 1000, timed["ts_ms"], atol=0.5)
    assert small.filter(~pl.col("is_timed"))["timestamp"].null_count() == (~small["is_timed"]).sum()


def test_rows_lie_in_three_bursts_in_the_published_shares(big):
    counts = [big.filter(pl.col("ts_ms").is_between(start, stop - 1)).height for start, stop in BURSTS]  # fmt: skip
    assert sum(counts) == big.height == pytest.approx(OPTIONS.users * OPTIONS.rows_per_user, rel=0.15)  # fmt: skip
    np.testing.assert_allclose(np.array(counts) / big.height, [0.175, 0.559, 0.266], atol=0.06)
    assert big.select(pl.col("user_id").is_sorted()).item()
    assert big.select((pl.col("ts_ms").diff().over("user_id") >= 0).all()).item()


def test_nothing_is_shown_before_its_upload(big, small, data):
    daily = pl.read_csv(data / "item_daily_features.csv", try_parse_dates=True)
    upload = daily.group_by("video_id").agg(pl.first("upload_dt").cast(pl.Datetime("ms")))
    for rows in (big, small):
        local = pl.from_epoch("ts_ms", "ms").dt.offset_by("8h")
        shown = rows.join(upload, on="video_id", how="left")
        assert shown.select((pl.col("upload_dt") <= local).all()).item()
    first = daily.group_by("video_id").agg(pl.first("upload_dt"), pl.min("date"))
    days = first.select(pl.col("date").cast(pl.String).str.to_date("%Y%m%d") - pl.col("upload_dt"))
    assert (days.to_series().dt.total_days() >= 0).all()
    early = first["upload_dt"] < pl.date(2020, 7, 5)
    assert pl.select(early).to_series().mean() == pytest.approx(0.6, abs=0.02)


# --- the truth -----------------------------------------------------------------------------------------------


def test_observed_watch_ratios_are_as_planted(big, small, truth):
    for rows, time in ((big, "request_ms"), (small, "ts_ms")):
        expected = truth.expected(rows["user_id"], rows["video_id"], rows[time], 0)
        ratio = np.minimum(rows["watch_ratio"], 2)
        assert abs(z_score(ratio, expected["watch_ratio"])) < 4
        assert abs(z_score(rows["play_duration"], expected["play_ms"])) < 4
        order = np.argsort(expected["watch_ratio"])
        for part in (order[: len(order) // 5], order[-len(order) // 5 :]):
            assert abs(z_score(ratio[part], expected["watch_ratio"][part])) < 4
        assert np.corrcoef(ratio, expected["watch_ratio"])[0, 1] > 0.3


def test_the_policy_shows_what_is_watched_more(big, small):
    """The small matrix is what anybody makes of anything; the big one was chosen for its users."""
    assert np.minimum(big["watch_ratio"], 2).mean() > np.minimum(small["watch_ratio"], 2).mean() + 0.05  # fmt: skip


def test_every_scenario_is_the_one_feed(truth):
    values = [truth.expected(3, 4, RELEASE_START_MS, k)["watch_ratio"] for k in range(15)]
    assert len({float(value) for value in values}) == 1


def test_propensities_are_the_softmax_over_what_was_not_yet_shown(big, truth):
    sample = big.sort("request", "position").head(2_000)
    candidates = np.stack(sample["candidates"].to_list())
    users, at = (sample[name].to_numpy()[:, None] for name in ("user_id", "request_ms"))
    weight = np.exp(truth.logging_scores(users, candidates, at, 0))
    shown, request, position = (sample[n].to_numpy() for n in ("video_id", "request", "position"))
    for i in range(len(sample)):
        earlier = shown[i - position[i] : i]
        assert np.all(request[i - position[i] : i] == request[i])
        weight[i, np.isin(candidates[i], earlier)] = 0
        assert candidates[i, OPTIONS.candidates - 1 - position[i]] == shown[i]
    chosen = weight[candidates == shown[:, None]]
    np.testing.assert_allclose(sample["propensity"], chosen / weight.sum(1), rtol=1e-6)


def test_sessions_are_those_of_the_gap_rule(big, truth):
    ordered = big.sort("user_id", "ts_ms")
    gap = ordered.select(pl.col("ts_ms").diff().over("user_id"))["ts_ms"].fill_null(10**12)
    assert (gap > 3_600_000).sum() == truth.sessions().height
    sessions = truth.sessions()
    assert sessions["n_rows"].sum() == big.height
    assert sessions["n_rows"].mean() == pytest.approx(OPTIONS.session_rows, rel=0.25)
    stops = np.array([stop for _, stop in BURSTS])
    assert (sessions["end_ms"].to_numpy() < stops[sessions["burst"].to_numpy()]).all()


def test_friends_are_alike(root, ingested, truth):
    start = truth.response.start / np.linalg.norm(truth.response.start, axis=1, keepdims=True)
    edges = ingested.extras["social_edges"]
    linked = np.sum(start[edges["src"]] * start[edges["dst"]], axis=1).mean()
    anyone = np.sum(start[:-1] * start[1:], axis=1).mean()
    assert linked > anyone + 0.2
    assert edges.join(pl.read_parquet(root / "_truth/social_edges.parquet"), on=["src", "dst"], how="anti").is_empty()  # fmt: skip
    listed = edges["src"].n_unique() / OPTIONS.users
    assert listed == pytest.approx(OPTIONS.listed_share, abs=0.1)


def test_daily_counts_follow_the_true_response(ingested, truth):
    """The videos that the platform likes most by truth are those it likes most by count."""
    total = ingested.extras["item_daily"].group_by("item_id").agg(pl.sum("show_cnt", "like_cnt", "valid_play_cnt")).sort("item_id")  # fmt: skip
    middle = RELEASE_START_MS + 30 * DAY_MS
    expected = truth.expected_matrix(np.arange(OPTIONS.users), total["item_id"], middle, 0)
    for name, column in (("like", "like_cnt"), ("click", "valid_play_cnt")):
        rate = total[column] / total["show_cnt"]
        assert np.corrcoef(rate, expected[name].mean(0))[0, 1] > 0.6, name


def test_without_times_or_friends_a_world_can_be_read(tmp_path):
    options = TINY.model_copy(update={"untimed_share": 1.0, "listed_share": 0.0})
    engine = EngineOptions(n_buckets=1, staging=tmp_path / "staging")
    root = write_world(options, tmp_path / "w")
    got = ingest(find_files(root, "v2", "world"), KuaiRecLogOptions(), engine)
    assert got.quarantine.is_empty()
    assert got.extras["social_edges"].is_empty()
    assert got.report["observed_untimed"] == got.report["observed_rows"] == 360


def test_draws_of_one_purpose_do_not_disturb_those_of_another():
    one, two = generate(TINY), generate(TINY.model_copy(update={"untimed_share": 0.5}))
    assert one.log.equals(two.log)
    assert one.observed.drop("is_timed").equals(two.observed.drop("is_timed"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"users": 49}, "users"),
        ({"small_users": 300}, "must leave some of the 300 users"),
        ({"small_videos": 200}, "leave 40 that are there from the start"),
        ({"topics": 32}, "topics"),
        ({"variant": "pure"}, "variant"),
        ({"row_per_user": 5}, "row_per_user"),
    ],
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        WorldOptions(**wrong)
