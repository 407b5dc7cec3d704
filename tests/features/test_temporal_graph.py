from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from support.feature_logs import random_log
from support.toy_log import toy_events

from reelrank.buckets import EngineOptions, bucket_path, finish_table, map_buckets
from reelrank.features.temporal_graph import (
    EVENT_COLUMNS,
    bucket_by_item,
    follow_matrix,
    last_k_neighbours,
    last_neighbours,
)
from reelrank.models.event_stream import EventStream
from reelrank.tables import LastNeighbours


def test_neighbours_by_hand():
    node = np.array([5, 5, 0, 5, 5, 5])
    ts = np.array([10, 10, 10, 20, 20, 30])
    found = last_k_neighbours(node, ts, 3)
    assert found.tolist() == [
        [-1, -1, -1],
        [-1, -1, -1],  # equal times are not past
        [-1, -1, -1],
        [1, 0, -1],
        [1, 0, -1],
        [4, 3, 1],
    ]
    assert last_k_neighbours(node, ts, 1)[:, 0].tolist() == [-1, -1, -1, 1, 1, 4]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 60), k=st.integers(1, 7))
def test_neighbours_equal_a_brute_force_loop(seed, n, k):
    rng = np.random.default_rng(seed)
    node, ts = rng.integers(0, 4, n), np.sort(rng.integers(0, n // 2 + 1, n))
    found = last_k_neighbours(node, ts, k)
    for i in range(n):
        past = [j for j in range(n) if node[j] == node[i] and ts[j] < ts[i]][::-1][:k]
        assert found[i].tolist() == past + [-1] * (k - len(past))


@pytest.mark.parametrize("k", [1, 4, 50])
def test_agreement_with_the_stream_of_mt_dqn(k):
    events = toy_events()
    n_users, n_items = 6, 15
    stream = EventStream.from_frame(events, n_users, n_items)
    for nodes in (stream.user, n_users + stream.item):
        positions, mask = stream.last_k(nodes, stream.ts_ms, k)
        found = last_k_neighbours(nodes.numpy(), stream.ts_ms.numpy(), k)
        assert mask.any() and (~mask).any()
        assert torch.equal(positions.masked_fill(~mask, -1), torch.from_numpy(found))


@pytest.mark.parametrize(
    ("node", "ts", "k", "message"),
    [
        ([0, 1, 0], [5, 9, 4], 2, "row 2 of node 0 is earlier"),
        ([0, -3], [1, 2], 2, "node is -3 at row 1"),
        ([0], [1], 0, "k must be"),
    ],
)
def test_wrong_events_are_refused(node, ts, k, message):
    with pytest.raises(ValueError, match=message):
        last_k_neighbours(np.array(node), np.array(ts), k)


def store(folder, log, n_buckets):
    folder.mkdir()
    for bucket in range(n_buckets):
        log.filter(pl.col("user_id") % n_buckets == bucket).write_parquet(
            bucket_path(folder, bucket)
        )
    return finish_table(folder, n_buckets, log.height, {"fingerprint": "f"})


@pytest.mark.parametrize("n_buckets", [1, 5])
def test_both_sides_through_buckets(tmp_path, n_buckets):
    log = random_log(3)
    stored = store(tmp_path / "log", log, 3)
    engine = EngineOptions(staging=tmp_path / "staging", n_buckets=n_buckets)
    by_item = bucket_by_item(stored, engine)
    assert by_item.n_rows == log.height
    assert [path.name[:7] for path in engine.staging.iterdir()] == ["by_item"]  # spills are gone
    for bucket in range(n_buckets):
        rows = by_item.read(bucket)
        assert rows.columns == EVENT_COLUMNS
        assert set(rows["item_id"] % n_buckets) <= {bucket}
        assert_frame_equal(rows, rows.sort("item_id", "ts_ms", "row_id"))
    stream = log.sort("ts_ms", "row_id")
    for node, table in (("user_id", stored), ("item_id", by_item)):
        found = map_buckets(partial(last_neighbours, node=node, k=4), [table], engine, "last")
        LastNeighbours.validate(found)
        frame = found.scan().collect().sort("row_id")
        position = last_k_neighbours(stream[node].to_numpy(), stream["ts_ms"].to_numpy(), 4)
        expected = np.where(position < 0, -1, stream["row_id"].to_numpy()[position])
        assert frame["node_id"].to_list() == stream.sort("row_id")[node].to_list()
        assert frame["neighbours"].to_list() == expected[stream["row_id"].arg_sort()].tolist()


def test_rows_that_are_not_grouped_are_refused():
    log = random_log(3)
    with pytest.raises(ValueError, match="not grouped by item_id"):
        last_neighbours(log, "item_id", 2)


EDGES = pl.DataFrame(
    {"src": [2, 0, 2, 2], "dst": [1, 2, 0, 1], "ts": [50, None, 40, 60]},
    schema_overrides={"src": pl.Int32, "dst": pl.Int32},
)


def test_who_follows_whom_by_hand():
    everyone = follow_matrix(EDGES, 3)
    assert everyone.toarray().tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0]]
    assert everyone.indices[everyone.indptr[2] : everyone.indptr[3]].tolist() == [0, 1]
    # strictly before; an edge without a time counts as known
    assert follow_matrix(EDGES, 3, before_ts=50).toarray().tolist() == [
        [0, 0, 1],
        [0, 0, 0],
        [1, 0, 0],
    ]
    with pytest.raises(ValueError, match="edge 0 → 2 is outside 0 … 1"):
        follow_matrix(EDGES.slice(1, 1), 2)
