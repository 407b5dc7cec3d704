"""`kedro run --pipelines ingestion` and `features`, every source, as a user runs them."""

import polars as pl
import pytest

from reelrank.tables import FEEDBACKS, SPLITS

SOURCES = ("kuairand", "kuairec", "kuaisar", "weibo", "events")
LACKS = {  # feedback that a source does not log: null, never zero
    "kuairand": set(),
    "kuairec": set(FEEDBACKS),
    "kuaisar": {"comment", "hate", "long_view"},
    "weibo": {"click", "follow", "hate", "long_view"},
}


@pytest.fixture(scope="module")
def catalog(run, catalog_of, tmp_path_factory):
    """The outputs of one run over all sources."""
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="features")
    return catalog_of(folder)


@pytest.mark.parametrize("source", SOURCES)
def test_tables_of_a_source_fit_together(catalog, source):
    rows = catalog[f"{source}.interactions"].load().scan().collect()
    items, users = catalog[f"{source}.items"].load(), catalog[f"{source}.users"].load()
    assert rows["item_id"].max() < items.height == catalog[f"{source}.item_map"].load().height
    assert rows["user_id"].max() < users.height == catalog[f"{source}.user_map"].load().height
    assert rows["row_id"].n_unique() == rows.height
    report = catalog[f"{source}.ingestion_report"].load()
    assert report["steps"][-1]["rows"] == rows.height
    assert report["kind"] == "world"
    for name in FEEDBACKS:
        if source in LACKS:
            assert (rows[name].null_count() == rows.height) == (name in LACKS[source]), name


@pytest.mark.parametrize("source", SOURCES)
def test_features_have_a_row_for_every_interaction(catalog, source):
    rows = catalog[f"{source}.interactions"].load().scan().select("row_id").collect()
    histories = catalog[f"{source}.histories"].load().scan().select("row_id").collect()
    assert set(histories["row_id"]) == set(rows["row_id"])
    splits = catalog[f"{source}.splits"].load().scan().collect()
    assert set(splits["row_id"]) <= set(rows["row_id"])
    assert set(splits["split"]) == set(SPLITS)
    modal = catalog[f"{source}.item_modal"].load()
    assert modal["item_id"].n_unique() == catalog[f"{source}.items"].load().height
    assert modal["source"].null_count() == 0


def test_tianchi_gives_posts_and_no_interactions(catalog):
    posts = catalog["weibo_posts.author_posts"].load()
    assert posts.height > 0
    assert "weibo_posts.interactions" not in catalog.keys()  # noqa: SIM118 (a Kedro catalog)
    assert "no viewer" in catalog["weibo_posts.ingestion_report"].load()["note"]


@pytest.mark.real
@pytest.mark.long
def test_real_files_of_kuairec_and_kuairand_are_read_whole(run, catalog_of, real_data, tmp_path):
    run(tmp_path, pipeline="ingestion", env="real", params={"raw_root": str(real_data)})
    catalog = catalog_of(tmp_path, env="real")
    kuairec = catalog["kuairec.interactions"].load().scan().collect().sort("user_id", "ts_ms")
    raw = pl.read_csv(real_data / "KuaiRec/data/big_matrix.csv").sort("user_id", "timestamp")
    assert kuairec["ts_ms"].to_list() == (raw["timestamp"] * 1000).round().cast(pl.Int64).to_list()
    for ours, theirs in {"user_id": "user_id", "item_id": "video_id", "play_ms": "play_duration", "duration_ms": "video_duration"}.items():  # fmt: skip
        assert kuairec[ours].to_list() == raw[theirs].to_list()
    assert kuairec["watch_ratio"].to_list() == pytest.approx(raw["watch_ratio"].to_list(), rel=1e-6)
    assert catalog["kuairec.observed"].load().height == 20
    assert catalog["kuairec.items"].load().height == 10_728
    assert catalog["kuairand.interactions"].load().n_rows == 166_906
    assert catalog["kuairand.ingestion_report"].load()["kind"] == "files"
    assert catalog["kuaisar.ingestion_report"].load()["kind"] == "world"


@pytest.mark.real
@pytest.mark.long
def test_a_lone_random_log_of_another_release_is_read_as_partial(
    run, catalog_of, real_data, tmp_path
):
    params = {"raw_root": str(real_data), "kuairand": {"raw": {"variant": "1k", "partial": True}}}
    run(tmp_path, pipeline="ingestion_kuairand", env="real", params=params)
    rows = catalog_of(tmp_path, env="real")["kuairand.interactions"].load().scan().collect()
    assert rows.height == 423
    assert (rows["is_rand"] == 1).all()
