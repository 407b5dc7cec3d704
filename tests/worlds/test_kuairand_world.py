"""The planted-truth world of KuaiRand: format, determinism, marginals, and that the truth is the truth."""

import json

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from reelrank.buckets import EngineOptions
from reelrank.sources.ingest import LogOptions
from reelrank.sources.kuairand import find_files, ingest
from reelrank.sources.kuairand_schema import FILES, RANDOM_LOG, RELEASE_STOP_MS
from reelrank.worlds.kuairand import write_world
from reelrank.worlds.kuairand_options import ModalityOptions, WorldOptions
from reelrank.worlds.response import EXPECTED
from reelrank.worlds.truth import Truth

OPTIONS = WorldOptions(
    seed=3, users=2_000, videos=1_000, exposures_per_user=120, random_per_user=15
)
TINY = WorldOptions(users=200, videos=200, exposures_per_user=12, random_per_user=2)
LOG_OF = {"click": "is_click", "watch_ratio": "ratio", "play_ms": "play_time_ms"}

# Measured on the real KuaiRand-Pure rows (170,620 of them) with
#   the standard logs, concatenated: pl.concat([pl.read_csv(f) for f in sorted(folder.glob("log_standard*.csv"))])
#   grouped: .group_by("tab").agg(pl.len(), pl.col(flags).mean(), *[pl.col("play_time_ms").quantile(q) for q in (.25, .5, .75, .9)])
# for the tabs of 5,000 rows or more.
REAL_RATES = {  # tab: click, long_view, like, follow, comment, forward, hate
    0: (0.0845, 0.0369, 0.00506, 0.00033, 0.00073, 0.00020, 0.00087),
    1: (0.4954, 0.3498, 0.01900, 0.00139, 0.00280, 0.00100, 0.00079),
    2: (0.4965, 0.3748, 0.01542, 0.00336, 0.00336, 0.00158, 0.00198),
    4: (0.5917, 0.4530, 0.01873, 0.00030, 0.00237, 0.00049, 0.00059),
    6: (0.1521, 0.0847, 0.00738, 0.00190, 0.00143, 0.00024, 0.00048),
}
FLAGS = ("is_click", "long_view", "is_like", "is_follow", "is_comment", "is_forward", "is_hate")
REAL_PLAY_MS = {1: (2_059, 6_303, 25_891, 69_564), 4: (2_537, 10_962, 33_828, 64_506), 6: (1_287, 1_944, 3_918, 12_328)}  # fmt: skip
# d.unique() of 04-22…05-08: quantiles .25 .5 .75 .9 of rows per user and of rows per video, over their mean
REAL_ROWS_PER_USER = (0.34, 0.68, 1.25, 2.16)
REAL_ROWS_PER_VIDEO = (0.11, 0.30, 0.89, 2.52)


def read_logs(root):
    frames = []
    for path in sorted((root / "KuaiRand-Pure/data").glob("log_*.csv")):
        frame = pl.read_csv(path).with_row_index("line", 2)
        frames.append(frame.with_columns(pl.col("line").cast(pl.Int64), file=pl.lit(path.name)))
    return pl.concat(frames)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_world(OPTIONS, tmp_path_factory.mktemp("worlds") / "kuairand")


@pytest.fixture(scope="module")
def truth(root):
    return Truth.load(root)


@pytest.fixture(scope="module")
def rows(root, truth):
    """Exposures with their log row: duplicates are gone, the truth's keys are there."""
    exposures = truth.exposures().with_columns(pl.col("file").cast(pl.String)).collect()
    duration = pl.when(pl.col("duration_ms") > 0).then("duration_ms")
    ratio = (pl.col("play_time_ms") / duration).clip(0, 2)
    return exposures.join(read_logs(root), on=["file", "line"], how="left").with_columns(
        ratio=ratio
    )


@pytest.fixture(scope="module")
def standard(rows):
    return rows.filter(pl.col("is_rand") == 0)


def test_official_files_with_exact_headers(root):
    data = root / "KuaiRand-Pure/data"
    expected = {f"{name.format(variant='pure')}.csv": list(c) for name, c in FILES.values()}
    assert {p.name for p in data.iterdir()} == set(expected)
    for name, columns in expected.items():
        assert (data / name).read_text(encoding="utf-8").splitlines()[0].split(",") == columns


def test_log_codes_and_quirks(root, rows):
    logs = read_logs(root).drop("line")
    standard = logs.filter(pl.col("is_rand") == 0)
    assert logs.null_count().sum_horizontal().item() == 0
    assert 1 - standard.unique().height / standard.height == pytest.approx(0.024, abs=0.003)
    assert standard.select((pl.col("duration_ms") == 0).mean()).item() == pytest.approx(
        0.0156, abs=0.008
    )
    local = pl.from_epoch("time_ms", "ms").dt.offset_by("8h")
    late = standard.select(((pl.col("hourmin") // 100 - local.dt.hour()) % 24).alias("h"))["h"]
    assert set(late.unique()) == {0, 1}
    assert late.mean() == pytest.approx(1 / 6, abs=0.01)
    for name, group in standard.group_by("file"):
        assert not group["user_id"].is_sorted(), name
    # the rules of SCHEMAS §2.1 hold in single-column tabs
    single = rows.filter(pl.col("tab").is_in([1, 2, 4, 5, 6]) & (pl.col("duration_ms") > 0))
    play, duration = pl.col("play_time_ms"), pl.col("duration_ms")
    valid = pl.when(duration <= 7_000).then(play >= duration).otherwise(play > 7_000)
    assert single.select(((pl.col("is_click") == 1) == valid).all()).item()
    long_view = play >= pl.min_horizontal(duration, 18_000)
    assert single.select(((pl.col("long_view") == 1) == long_view).all()).item()


def test_attribute_files(root):
    data = root / "KuaiRand-Pure/data"
    users = pl.read_csv(data / "user_features_pure.csv")
    assert set(users["is_live_streamer"]) == {-124, 1}
    assert users["onehot_feat4"].null_count() > 0
    videos = pl.read_csv(data / "video_features_basic_pure.csv")
    assert videos["video_id"].to_list() == list(range(OPTIONS.videos))
    assert videos["video_duration"].null_count() > 0
    statistics = pl.read_csv(data / "video_features_statistic_pure.csv")
    logs = read_logs(root)
    shows = (statistics["show_cnt"] * statistics["counts"]).sum()
    exact_duplicates = logs.height - logs.unique(set(logs.columns) - {"line"}).height
    assert shows == pytest.approx(logs.height - exact_duplicates)


def test_same_seed_same_bytes_other_seed_other_world(tmp_path):
    for name, options in (("a", TINY), ("b", TINY), ("c", TINY.model_copy(update={"seed": 1}))):
        write_world(options, tmp_path / name)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 8 + 3 + 7
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path
    log = "KuaiRand-Pure/data/log_standard_4_08_to_4_21_pure.csv"
    assert (tmp_path / "a" / log).read_bytes() != (tmp_path / "c" / log).read_bytes()


def test_noise_in_one_modality_changes_only_that_modality(tmp_path):
    noisy = TINY.model_copy(update={"visual": ModalityOptions(tokens=4, dim=32, snr_db=-100)})
    a, b = write_world(TINY, tmp_path / "a"), write_world(noisy, tmp_path / "b")
    changed = {
        str(p.relative_to(a))
        for p in a.rglob("*")
        if p.is_file() and p.read_bytes() != (b / p.relative_to(a)).read_bytes()
    }
    assert changed == {
        "KuaiRand-Pure/modal/visual.parquet",
        "_truth/params.json",
        "_truth/fingerprint.json",
    }


def test_a_world_without_random_exposures_has_no_random_log(tmp_path):
    root = write_world(TINY.model_copy(update={"random_per_user": 0.0}), tmp_path / "w")
    manifest = find_files(root, "pure", "world")
    assert RANDOM_LOG not in {file.role for file in manifest.files}
    engine = EngineOptions(n_buckets=1, staging=tmp_path / "staging")
    got = ingest(manifest, LogOptions(), engine)
    assert got.interactions.n_rows == Truth.load(root).exposures().collect().height
    assert got.report["is_rand_rows"] == 0
    assert got.report["random_log_uniformity"] is None


def test_modalities_show_the_topic_as_far_as_their_snr_says(root, truth, tmp_path):
    noisy = OPTIONS.model_copy(update={"visual": ModalityOptions(snr_db=-100), "users": 200, "exposures_per_user": 10})  # fmt: skip
    other = write_world(noisy, tmp_path / "noisy")
    fits = []
    for folder in (root, other):
        modal = pl.read_parquet(folder / "KuaiRand-Pure/modal/visual.parquet")
        shown = modal.filter("present")
        assert 0 < modal.height - shown.height < 0.1 * modal.height
        assert (modal.filter(~pl.col("present"))["array"].list.len() == 0).all()
        x = np.stack(shown["array"].to_list()).reshape(shown.height, 4, 32).mean(1)
        x = np.column_stack([x, np.ones(len(x))])
        y = Truth.load(folder).response.vectors[shown["video_id"].to_numpy()]
        half = len(x) // 2
        weights = np.linalg.lstsq(x[:half], y[:half], rcond=None)[0]
        residual = ((y[half:] - x[half:] @ weights) ** 2).sum()
        fits.append(1 - residual / ((y[half:] - y[:half].mean(0)) ** 2).sum())
    assert fits[0] > 0.4
    assert fits[1] < 0.05


def test_an_existing_world_is_left_and_foreign_files_are_refused(tmp_path):
    root = write_world(TINY, tmp_path / "w")
    marker = root / "_truth" / "params.json"
    before = marker.stat().st_mtime_ns
    write_world(TINY, root)
    assert marker.stat().st_mtime_ns == before
    write_world(TINY.model_copy(update={"drift": 0.1}), root)
    assert json.loads(marker.read_text())["options"]["drift"] == 0.1
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not a generated world"):
        write_world(TINY, foreign)
    with pytest.raises(FileNotFoundError, match="no truth"):
        Truth.load(foreign)


def test_an_interrupted_write_leaves_the_old_world(tmp_path, monkeypatch):
    root = write_world(TINY, tmp_path / "w")
    before = (root / "_truth" / "fingerprint.json").read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("reelrank.worlds.kuairand._write_modal", fail)
    with pytest.raises(OSError, match="disk full"):
        write_world(TINY.model_copy(update={"seed": 9}), root)
    assert (root / "_truth" / "fingerprint.json").read_bytes() == before


def test_rates_per_tab_are_the_real_ones(standard):
    """Within ±25 % of the real rate, or ±0.003, plus three standard errors of our own sample."""
    rates = standard.group_by("tab").agg(pl.len(), pl.col(FLAGS).mean())
    for tab, real in REAL_RATES.items():
        row = rates.row(by_predicate=pl.col("tab") == tab, named=True)
        for flag, rate in zip(FLAGS, real, strict=True):
            bound = max(0.25 * rate, 0.003) + 3 * np.sqrt(rate / row["len"])
            assert row[flag] == pytest.approx(rate, abs=bound), (tab, flag)


def test_distributions_are_the_real_ones(standard):
    """Quantiles of play time within a factor 1.6, of rows per user 1.4, of rows per video 1.8."""
    quantiles = (0.25, 0.5, 0.75, 0.9)
    for tab, real in REAL_PLAY_MS.items():
        play = standard.filter(pl.col("tab") == tab)["play_time_ms"]
        ratio = np.array([play.quantile(q) for q in quantiles]) / real
        assert np.all(np.abs(np.log(ratio)) < np.log(1.6)), (tab, ratio)
    for column, real, factor in (
        ("user_id", REAL_ROWS_PER_USER, 1.4),
        ("video_id", REAL_ROWS_PER_VIDEO, 1.8),
    ):
        count = standard.group_by(column).len()["len"]
        ratio = np.array([count.quantile(q) for q in quantiles]) / count.mean() / real
        assert np.all(np.abs(np.log(ratio)) < np.log(factor)), (column, ratio)
    per_user = standard.height / OPTIONS.users
    assert per_user == pytest.approx(OPTIONS.exposures_per_user, rel=0.15)


def test_planted_expectations_are_those_of_the_feedback(rows, truth):
    expected = truth.expected(rows["user_id"], rows["video_id"], rows["time_ms"], rows["tab"])
    assert tuple(expected) == EXPECTED
    for name, values in expected.items():
        column = LOG_OF.get(name, name if name == "long_view" else f"is_{name}")
        got = rows[column].cast(pl.Float64).to_numpy()
        known = ~np.isnan(got)
        difference = (got - values)[known]
        error = difference.std() / np.sqrt(known.sum())
        assert abs(difference.mean()) < 4 * error, (name, difference.mean(), error)


def test_planted_expectations_are_calibrated_for_the_best_and_the_worst_tenth(rows, truth):
    expected = truth.expected(rows["user_id"], rows["video_id"], rows["time_ms"], rows["tab"])
    for name, column in (("click", "is_click"), ("long_view", "long_view"), ("like", "is_like")):
        order = np.argsort(expected[name])
        got = rows[column].to_numpy().astype(float)
        for part in (order[: len(order) // 10], order[-len(order) // 10 :]):
            error = np.sqrt(np.mean(expected[name][part] * (1 - expected[name][part])) / len(part))
            assert abs(got[part].mean() - expected[name][part].mean()) < 4 * error


def test_matrix_form_and_reward(truth):
    users, videos, ts_ms = np.arange(5), np.arange(7), np.full(5, RELEASE_STOP_MS - 1)
    matrix = truth.expected_matrix(users, videos, ts_ms, 1)
    assert matrix["click"].shape == (5, 7)
    one = truth.expected(3, 4, RELEASE_STOP_MS - 1, 1)
    assert one["click"].shape == ()
    for name, values in matrix.items():
        assert values[3, 4] == pytest.approx(one[name], rel=1e-12)
    weights = {"watch_ratio": 0.5, "like": 0.5, "forward": 0.5, "follow": 0.5, "comment": 0.3, "hate": -1.0}  # fmt: skip
    reward = truth.expected_immediate_reward(3, 4, RELEASE_STOP_MS - 1, 1, weights)
    assert reward == pytest.approx(sum(w * one[name] for name, w in weights.items()))
    assert reward == pytest.approx(truth.expected_immediate_reward(3, 4, RELEASE_STOP_MS - 1, 1))
    for bad in ((2_000, 0, 0, 1), (0, 1_000, 0, 1), (0, 0, 0, 15), (-1, 0, 0, 1)):
        with pytest.raises(IndexError, match="this world has 0"):
            truth.expected(*bad)


def test_interests_drift_and_affinity_is_as_strong_as_planted(truth):
    users, videos = np.arange(300), np.arange(300)
    r = truth.response
    affinity = r.start[users] @ r.vectors[videos].T
    assert affinity.std() == pytest.approx(OPTIONS.affinity_sd, rel=0.15)
    np.testing.assert_allclose(np.sum(r.start * r.turn, axis=1), 0, atol=1e-4)
    first = truth.expected_matrix(users, videos, r.origin_ms, 1)["click"]
    last = truth.expected_matrix(users, videos, RELEASE_STOP_MS, 1)["click"]
    assert 0.5 < np.corrcoef(first.ravel(), last.ravel())[0, 1] < 0.98


def test_propensities_are_the_softmax_over_what_was_not_yet_shown(standard, truth):
    sample = standard.sort("request", "position").head(3_000)
    candidates = np.stack(sample["candidates"].to_list())
    users, ts_ms, tabs = (sample[c].to_numpy()[:, None] for c in ("user_id", "time_ms", "tab"))
    weight = np.exp(truth.logging_scores(users, candidates, ts_ms, tabs))
    shown = sample["video_id"].to_numpy()
    request, position = sample["request"].to_numpy(), sample["position"].to_numpy()
    for i in range(len(sample)):
        earlier = shown[i - position[i] : i]
        assert np.all(request[i - position[i] : i] == request[i])
        weight[i, np.isin(candidates[i], earlier)] = 0
        assert candidates[i, OPTIONS.candidates - 1 - position[i]] == shown[i]
    chosen = weight[candidates == shown[:, None]]
    np.testing.assert_allclose(sample["propensity"], chosen / weight.sum(1), rtol=1e-6)
    assert all(len(set(row)) == OPTIONS.candidates for row in candidates[:200])


def test_draws_follow_the_propensities(standard, truth):
    """First draws: the number shown from each tenth of the candidates by softmax probability is as expected."""
    first = standard.filter(pl.col("position") == 0).head(20_000)
    candidates = np.stack(first["candidates"].to_list())
    users, ts_ms, tabs = (first[c].to_numpy()[:, None] for c in ("user_id", "time_ms", "tab"))
    weight = np.exp(truth.logging_scores(users, candidates, ts_ms, tabs))
    p = (weight / weight.sum(1, keepdims=True)).ravel()
    hit = (candidates == first["video_id"].to_numpy()[:, None]).ravel()
    for part in np.array_split(np.argsort(p), 10):
        error = np.sqrt(np.sum(p[part] * (1 - p[part])))
        assert abs(hit[part].sum() - p[part].sum()) < 4 * error


def test_random_log_is_uniform(rows):
    random = rows.filter(pl.col("is_rand") == 1)
    assert random.height == pytest.approx(OPTIONS.users * OPTIONS.random_per_user, rel=0.2)
    assert (random["propensity"] == 1 / OPTIONS.videos).all()
    assert random["request"].null_count() == random.height
    assert random["date"].min() >= 20220422
    counts = np.bincount(random["video_id"], minlength=OPTIONS.videos)
    chi2 = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    degrees = OPTIONS.videos - 1
    assert abs(chi2 - degrees) < 4 * np.sqrt(2 * degrees)


def test_nothing_is_shown_before_its_upload(root, rows):
    videos = pl.read_csv(root / "KuaiRand-Pure/data/video_features_basic_pure.csv")
    upload = videos.select("video_id", upload=pl.col("upload_dt").str.to_date().cast(pl.Datetime("ms")))  # fmt: skip
    local = pl.from_epoch("time_ms", "ms").dt.offset_by("8h")
    shown = rows.join(upload, on="video_id", how="left")
    assert shown.select((pl.col("upload") <= local).all()).item()
    share = videos["upload_dt"].is_in(["2022-04-09", "2022-04-10", "2022-04-11"]).mean()
    assert share == pytest.approx(0.75, abs=0.02)


def test_sessions_are_those_of_the_gap_rule(rows, truth):
    ordered = rows.sort("user_id", "time_ms")
    gap = ordered.select(pl.col("time_ms").diff().over("user_id"))["time_ms"]
    sessions = truth.sessions()
    for seconds in (900, 1800, 3600):
        assert (gap.fill_null(10**12) > seconds * 1000).sum() == sessions.height
    assert 6 <= sessions["n_rows"].mean() <= 12
    # the planted mean reward is that of the session's rows, random ones included
    reward = truth.expected_immediate_reward(
        ordered["user_id"], ordered["video_id"], ordered["time_ms"], ordered["tab"]
    )
    start = (gap.fill_null(10**12) > 1_800_000).cum_sum()
    mean = pl.DataFrame({"s": start, "r": reward}).group_by("s", maintain_order=True).mean()["r"]
    np.testing.assert_allclose(mean, sessions.sort("user_id", "start_ms")["mean_reward"], rtol=1e-9)
    np.testing.assert_allclose(truth.return_probability(sessions["mean_reward"]), sessions["p_return"], rtol=1e-9)  # fmt: skip


def test_return_rule_is_recovered_from_the_log(truth):
    day = 86_400_000
    sessions = truth.sessions().sort("user_id", "start_ms").with_columns(
        back=(pl.col("start_ms").shift(-1).over("user_id") - pl.col("end_ms") <= day).fill_null(False)
    )  # fmt: skip
    seen = sessions.filter(pl.col("end_ms") + day < RELEASE_STOP_MS)
    assert (seen["back"] == seen["returned"]).all()
    x, y = seen["mean_reward"].to_numpy()[:, None], seen["back"].to_numpy()
    fit = LogisticRegression(C=1e6).fit(x, y)
    p = fit.predict_proba(x)[:, 1]
    design = np.column_stack([np.ones(len(x)), x])
    error = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))))
    assert abs(fit.coef_[0, 0] - OPTIONS.return_rule.slope) < 4 * error[1]
    assert abs(fit.intercept_[0] - OPTIONS.return_rule.intercept) < 4 * error[0]
    assert fit.coef_[0, 0] > 2


def test_followed_users_are_alike(root, truth):
    edges = pl.read_parquet(root / "_truth/social_edges.parquet")
    start = truth.response.start / np.linalg.norm(truth.response.start, axis=1, keepdims=True)
    linked = np.sum(start[edges["src"]] * start[edges["dst"]], axis=1).mean()
    anyone = np.sum(start[:-1] * start[1:], axis=1).mean()
    assert linked > anyone + 0.2
    assert edges.height / OPTIONS.users == pytest.approx(OPTIONS.social_degree, rel=0.15)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"users": 199}, "users"),
        ({"videos": 150}, "too few for 20 distinct candidates"),
        ({"temperature": 0}, "temperature"),
        ({"variant": "27k"}, "variant"),
        ({"visual": {"missing_rate": 1}}, r"visual\.missing_rate"),
        ({"user": 500}, "user"),
    ],
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        WorldOptions(**wrong)
