"""The graph of users and items as PyTorch Geometric data: as a stream of events, or as typed edges of the train rows.

Source: METHODS §3.6, §1.5 L3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor
from torch_geometric.data import HeteroData, TemporalData

from reelrank.models.event_stream import messages

STREAM_COLUMNS = (
    "user_id", "item_id", "ts_ms", "watch_ratio", "play_ms",
    "like", "forward", "follow", "comment", "hate",
)  # fmt: skip


def to_temporal_data(events: pl.DataFrame, n_users: int) -> TemporalData:
    """Events as one bipartite stream: node u is user u, node n_users + v is item v.

    Args:
        events: in order of (ts_ms, row_id), with ``STREAM_COLUMNS``: ``Events`` or ``Interactions``.
        n_users: number of users.

    Returns:
        ``src`` and ``dst`` (N,) int64, ``t`` (N,) int64 in ms, ``msg`` (N, 11) float32: one-hot watch bucket (5), like, forward,
        follow, comment, hate, log1p(play seconds); null is 0.

    Raises:
        ValueError: a column is missing, or the rows are not chronological.
    """
    _require(events, STREAM_COLUMNS)
    if not events["ts_ms"].is_sorted():
        raise ValueError("events is not chronological: sort it by (ts_ms, row_id)")
    return TemporalData(
        src=_long(events["user_id"].to_numpy()),
        dst=_long(events["item_id"].to_numpy()) + n_users,
        t=_long(events["ts_ms"].to_numpy()),
        msg=torch.from_numpy(np.ascontiguousarray(messages(events))),
    )


def to_hetero_data(
    events: pl.DataFrame, items: pl.DataFrame, users: pl.DataFrame, social_edges: pl.DataFrame
) -> HeteroData:
    """What a model may pass messages over: edges known by the end of train (L3).

    Args:
        events: with ``STREAM_COLUMNS`` and ``split``; rows of other parts than train are left out.
        items: ``Items``; ``item_id`` = row number.
        users: ``Users``; ``user_id`` = row number.
        social_edges: ``SocialEdges``; edges later than the last train row are left out, those without a time kept.

    Returns:
        Node types ``user``, ``item``, ``author`` (``raw_id`` holds the authors' ids) with ``num_nodes``; edge types
        (user, watched, item) with ``time`` and ``edge_attr`` (11 messages), (user, follows, user), (item, by, author).

    Raises:
        ValueError: a column is missing, or no row is train.
    """
    _require(events, (*STREAM_COLUMNS, "split"))
    train = events.filter(pl.col("split") == "train")
    if train.is_empty():
        raise ValueError("events has no train rows: message passing would have no edges")
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = users.height, items.height

    watched = data["user", "watched", "item"]
    watched.edge_index = _edges(train, "user_id", "item_id")
    watched.time = _long(train["ts_ms"].to_numpy())
    watched.edge_attr = torch.from_numpy(np.ascontiguousarray(messages(train)))

    known = pl.col("ts").is_null() | (pl.col("ts") <= train["ts_ms"].max())
    data["user", "follows", "user"].edge_index = _edges(social_edges.filter(known), "src", "dst")

    by = items.select("item_id", "author_id").drop_nulls()
    authors = by["author_id"].unique().sort()
    by = by.with_columns(author=authors.search_sorted(by["author_id"]))
    data["author"].num_nodes = len(authors)
    data["author"].raw_id = _long(authors.to_numpy())
    data["item", "by", "author"].edge_index = _edges(by, "item_id", "author")
    return data


def _edges(frame: pl.DataFrame, source: str, target: str) -> Tensor:
    return torch.stack([_long(frame[source].to_numpy()), _long(frame[target].to_numpy())])


def _long(values: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def _require(events: pl.DataFrame, columns: tuple[str, ...]) -> None:
    if missing := [name for name in columns if name not in events.columns]:
        raise ValueError(f"events lacks the columns {missing}")
