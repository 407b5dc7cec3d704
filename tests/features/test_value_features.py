import math
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from support.feature_logs import DAY, HOUR, N_ITEMS, START, items_of, log_of, random_log

from reelrank.buckets import EngineOptions
from reelrank.features.bursts import BurstOptions, day_rows, find_bursts
from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.local_time import LOCAL_TIME, day_start_ms
from reelrank.features.value_encoder import ValueEncoder, ValueFeatureOptions
from reelrank.features.value_features import (
    FEATURE_BLOCKS,
    FEATURE_GROUPS,
    FEATURE_KINDS,
    FEATURE_NAMES,
    FROM_DAILY_FILE,
    NodeFeatures,
    edge_features,
    missing_report,
    missing_shares,
    value_features,
)
from reelrank.models.value_inputs import UNKNOWN
from reelrank.sources.kuairec import KuaiRecLogOptions, find_files, ingest
from reelrank.tables import Bursts


def bursts_of(*spans):
    frame = pl.DataFrame(spans, schema=["start_ms", "end_ms"], orient="row")
    return Bursts.conform(frame.with_columns(rows=pl.lit(1)).with_row_index("burst_id"))


def edges_of(log, items, bursts=None, clock="local"):
    past = histories(log, ItemCodes.of(items), HistoryOptions(), bursts)
    return edge_features(log, past, items, bursts, clock)


def users_of(n, **columns):
    return pl.DataFrame({"user_id": range(n)} | columns, schema_overrides={"user_id": pl.Int32})


def test_there_are_64_features_of_the_published_groups_and_kinds():
    assert len(FEATURE_NAMES) == 64
    sizes = {group: len(names) for group, names in FEATURE_GROUPS.items()}
    assert sizes == {"session": 2, "user": 34, "item": 13, "context": 3, "history": 12}
    kinds = {kind: len(names) for kind, names in FEATURE_KINDS.items()}
    assert kinds == {"continuous": 23, "binary": 6, "categorical": 35}
    blocks = {block: len(names) for block, names in FEATURE_BLOCKS.items()}
    assert blocks == {"user": 34, "item": 12, "edge": 18}


@pytest.mark.parametrize(
    ("clock", "hour", "weekend"), [("local", 0, 0.0), ("utc", 16, 1.0)], ids=["local", "utc"]
)
def test_the_clock_is_chinas_or_by_mistake_utc(clock, hour, weekend):
    ts_ms = int(datetime(2020, 7, 6, 0, 8, tzinfo=LOCAL_TIME).timestamp() * 1000)  # a Monday
    log = log_of(user_id=[0], item_id=[0], ts_ms=[ts_ms])
    edges = edges_of(log, items_of(1), clock=clock)
    assert edges["hour_sin"][0] == pytest.approx(math.sin(2 * math.pi * hour / 24), abs=1e-6)
    assert edges["hour_cos"][0] == pytest.approx(math.cos(2 * math.pi * hour / 24), abs=1e-6)
    assert edges["is_weekend"][0] == weekend


def test_hand_computed_edges():
    # items 0 and 1 are of author 7, item 2 of none and without an upload time
    items = items_of(
        3,
        author_id=[7, 7, None],
        upload_ts=[START - 2 * DAY, START + DAY, None],
        category_1=[1, 1, 2],
        category_2=[1, 2, 3],
    )
    log = log_of(
        user_id=[0] * 6 + [1],
        item_id=[0, 1, 0, 2, 1, 0, 0],
        ts_ms=[START + int(t * HOUR) for t in (0, 0.25, 3, 12, 30, 40, 41)],
        watch_ratio=[1.5, 0.2, 1.0, 0.5, 1.0, 0.5, 0.5],
    )
    edges = edges_of(log, items, bursts_of((START, START + DAY), (START + DAY, START + 2 * DAY)))
    expected = {
        "burst_id": [0, 0, 0, 0, 1, 1, 1],
        "session": [0, 0, 1, 2, 0, 1, 0],
        "age_since_upload_days": [2.0, 0.0, 2.125, None, 0.25, 2 + 40 / 24, 2 + 41 / 24],
        "ema_category_complete": [None, 1.0, 0.9, None, 0.91, 0.919, None],
        "author_seen": [0, 1, 1, None, 0, 1, 0],
        "author_days_since_last": [None, 0.25 / 24, 2.75 / 24, None, None, 10 / 24, None],
        "author_last_completion": [0, 1, 0, None, 0, 1, 0],
        "previous_session_rows": [None, None, 2, 1, None, 1, None],
        "session_gap_hours": [0.0, 0.0, 2.75, 9.0, 0.0, 10.0, 0.0],
    }
    for name, values in expected.items():
        found = edges[name].to_list()
        assert found == [v if v is None else pytest.approx(v, rel=1e-6) for v in values], name
    assert edges_of(log, items)["session"].to_list() == [0, 0, 1, 2, 3, 4, 0]
    assert edges_of(log, items)["burst_id"].null_count() == 7


def test_static_features_come_from_attributes_alone():
    users = users_of(2, fans_user_num=[9, None], user_active_degree=["UNKNOWN", "full_active"])
    items = items_of(
        2, width=[720, None], height=[1280, 1280], tags=[[4, 2], []], duration_ms=[5000, None]
    )
    nodes = NodeFeatures.of(users, items)
    assert nodes.users["log1p_fans_user_num"].to_list() == [pytest.approx(math.log(10)), None]
    assert nodes.users["user_active_degree"].to_list() == [None, "full_active"]
    assert nodes.items["aspect_ratio"].to_list() == [0.5625, None]
    assert nodes.items["video_tag_id"].to_list() == [4, None]
    assert nodes.items["video_duration"].to_list() == [5000.0, None]


def test_the_64_columns_stand_in_order_beside_their_rows():
    items = items_of(N_ITEMS, duration_ms=[1000 * (i + 1) for i in range(N_ITEMS)])
    log = random_log(seed=1, n_rows=50)
    users = users_of(6, register_days=[10 * i for i in range(6)])
    features = value_features(edges_of(log, items), NodeFeatures.of(users, items))
    assert tuple(features.columns) == FEATURE_NAMES
    assert features["register_days"].to_list() == [10 * u for u in log["user_id"]]
    assert features["video_duration"].to_list() == [1000 * (i + 1) for i in log["item_id"]]


def test_what_a_source_lacks_is_counted_with_its_reason():
    log = log_of(user_id=[0, 1], item_id=[0, 1], ts_ms=[START, START], watch_ratio=[1.0, 1.0])
    users = users_of(2, onehot_feat3=[1, None])
    features = value_features(edges_of(log, items_of(2)), NodeFeatures.of(users, items_of(2)))
    report = missing_report(missing_shares(features))
    assert report["onehot_feat3"] == {
        "share": 0.5,
        "reason": "users.onehot_feat3 is null in some rows",
    }
    assert report["author_id"]["share"] == 1.0
    assert "items.author_id is null in every row" in report["author_id"]["reason"]
    assert "item_daily_features.csv" in report["author_id"]["reason"]
    assert "hour_sin" not in report
    assert "author_seen" in report  # no authors: not known, which is not 0


def test_tables_of_other_rows_are_refused():
    log, items = random_log(seed=0, n_rows=20), items_of(N_ITEMS)
    past = histories(log, ItemCodes.of(items), HistoryOptions())
    with pytest.raises(ValueError, match="histories: row_id differs"):
        edge_features(log, past.reverse(), items)
    with pytest.raises(ValueError, match=r"items\.item_id must be 0 … n−1"):
        NodeFeatures.of(users_of(2), items.reverse())


@pytest.mark.real
def test_real_rows_flow_through(real_data, tmp_path):
    found = ingest(find_files(real_data), KuaiRecLogOptions(), EngineOptions(staging=tmp_path))
    log = pl.concat(found.interactions.iter_buckets()).sort("user_id", "ts_ms", "row_id")
    bursts = find_bursts(day_rows(log.lazy()), BurstOptions(rule="kuairec"))
    edges = edges_of(log, found.items, bursts)
    nodes = NodeFeatures.of(found.users, found.items)
    features = value_features(edges, nodes)
    assert features.height == 15
    assert bursts["start_ms"][0] == day_start_ms(date(2020, 7, 5))
    # users and categories are whole: their columns have the published numbers of values
    assert nodes.users.height == 7_176
    assert nodes.users["onehot_feat4"].null_count() == 201
    assert nodes.users["user_active_degree"].null_count() == 118
    assert nodes.users["log1p_register_days"].null_count() == 0
    assert nodes.items["cat_level1_id"].null_count() == 40
    assert nodes.items["cat_level3_id"].null_count() == 6_832
    assert nodes.items["video_tag_id"].null_count() == 0
    assert found.items["caption"].null_count() == 1_355
    # friends are of users that have features
    social = found.extras["social_edges"]
    assert social.height > 472
    assert social.select(pl.max_horizontal("src", "dst").max()).item() < nodes.users.height
    # all but one video lack item_daily_features
    report = missing_report(missing_shares(value_features(edges, nodes)))
    for name in FROM_DAILY_FILE:
        assert report[name]["share"] > 0.9, name
        assert "item_daily_features.csv" in report[name]["reason"]
    encoder = ValueEncoder.fit(nodes, [edges], ValueFeatureOptions())
    inputs = encoder.encode(nodes, edges)
    assert all(np.isfinite(b.continuous).all() for b in (inputs.user, inputs.item, inputs.edge))
    assert inputs.user.categorical.shape[0] == 7_176
    tag = encoder.names("item")[1].index("cat_level1_id")
    assert (inputs.item.categorical[log["item_id"].to_numpy(), tag] != UNKNOWN).all()
