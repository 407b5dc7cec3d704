"""Real rows of KuaiRec through the value model's edges and encoder; too few of them to learn from."""

import polars as pl
import pytest

from reelrank.features.heads import HEADS

pytestmark = pytest.mark.real


@pytest.mark.long
def test_real_rows_become_edges_and_missing_files_are_named(run, catalog_of, real_data, tmp_path):
    """The sample has fifteen rows of the big matrix: a random split keeps some for each part."""
    split = {"rule": "tiny_random", "sample_share": 1.0, "train_fraction": 0.5, "val_fraction": 0.25}  # fmt: skip
    params = {
        "raw_root": str(real_data),
        "kuairec": {"split": split},
        "value_model": {"edges": {"share": 1.0}},
    }
    run(tmp_path, pipeline="value_model", env="real", params=params, to_nodes=["value_model.fit_encoder"])  # fmt: skip
    catalog = catalog_of(tmp_path, "real")
    edges = catalog["value_model.edges"].load().scan().collect()
    rows = catalog["kuairec.interactions"].load().scan().collect()
    assert sorted(edges["row_id"]) == sorted(rows["row_id"])
    judged = edges.join(rows, on="row_id")
    ratio, play = judged["watch_ratio"], judged["play_ms"]
    expected = (ratio >= 1, (ratio >= 1.5) | (play >= 12_000), ratio >= 2, play <= 2000)
    for head, label in zip(HEADS, expected, strict=True):
        assert judged[head].to_list() == label.cast(pl.Int8).to_list()
    users = catalog["value_model.user_features"].load()
    items = catalog["value_model.item_features"].load()
    assert items.height == 10_728 and users.height == catalog["kuairec.users"].load().height
    assert items["cat_level1_id"].count() > 10_000
    report = catalog["value_model.feature_report"].load()
    for name in ("visible_status", "video_tag_name"):
        assert name in report["left_out"] and report["missing"][name]["reason"]
