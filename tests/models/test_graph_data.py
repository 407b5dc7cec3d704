import numpy as np
import polars as pl
import pytest
import torch
from support.feature_logs import items_of
from support.model_inputs import N_ITEMS, N_USERS, events_frame

from reelrank.models.event_stream import EventStream
from reelrank.models.graph_data import to_hetero_data, to_temporal_data

EDGES = pl.DataFrame(
    {"src": [0, 1, 2], "dst": [1, 2, 0], "ts": [0, None, 2**42]},
    schema_overrides={"src": pl.Int32, "dst": pl.Int32},
)
USERS = pl.DataFrame({"user_id": range(N_USERS)})
ITEMS = items_of(N_ITEMS, author_id=[70, 70, None, 30] + [None] * (N_ITEMS - 4))


def test_temporal_data_holds_what_mt_dqn_sees():
    events = events_frame()
    data = to_temporal_data(events, N_USERS)
    stream = EventStream.from_frame(events, N_USERS, N_ITEMS)
    assert data.num_events == len(events)
    assert torch.equal(data.src, stream.user)
    assert torch.equal(data.dst, stream.item + N_USERS)
    assert torch.equal(data.t, stream.ts_ms) and data.t.dtype == torch.long
    assert torch.equal(data.msg, stream.message) and data.msg.shape[1] == 11


def test_messages_pass_over_train_rows_only():
    events = events_frame()
    data = to_hetero_data(events, ITEMS, USERS, EDGES)
    train = events.filter(pl.col("split") == "train")
    watched = data["user", "watched", "item"]
    assert watched.edge_index.tolist() == [train["user_id"].to_list(), train["item_id"].to_list()]
    assert watched.time.tolist() == train["ts_ms"].to_list()
    assert watched.edge_attr.shape == (train.height, 11)
    # what happens after train changes nothing
    later = events.with_columns(
        item_id=pl.when(pl.col("split") == "train").then("item_id").otherwise(0).cast(pl.Int32)
    )
    again = to_hetero_data(later, ITEMS, USERS, EDGES)
    assert torch.equal(again["watched"].edge_index, watched.edge_index)
    assert data["user", "follows", "user"].edge_index.tolist() == [[0, 1], [1, 2]]
    assert data.validate()


def test_authors_are_numbered():
    data = to_hetero_data(events_frame(), ITEMS, USERS, EDGES)
    assert (data["user"].num_nodes, data["item"].num_nodes) == (N_USERS, N_ITEMS)
    assert data["author"].num_nodes == 2
    assert data["author"].raw_id.tolist() == [30, 70]
    assert data["item", "by", "author"].edge_index.tolist() == [[0, 1, 3], [1, 1, 0]]


def test_wrong_events_are_refused():
    events = events_frame(4).with_columns(ts_ms=pl.Series(np.arange(4)))
    with pytest.raises(ValueError, match=r"lacks the columns \['like'\]"):
        to_temporal_data(events.drop("like"), N_USERS)
    with pytest.raises(ValueError, match="not chronological"):
        to_temporal_data(events.reverse(), N_USERS)
    with pytest.raises(ValueError, match="no train rows"):
        to_hetero_data(events.filter(pl.col("split") == "test"), ITEMS, USERS, EDGES)
