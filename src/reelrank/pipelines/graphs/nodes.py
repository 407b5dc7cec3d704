"""Thin nodes over ``reelrank.features``: neighbour tables and candidate sets."""

from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import polars as pl

from reelrank.buckets import BucketedTable, EngineOptions, map_buckets
from reelrank.features.candidate_sets import CandidatePool, CandidateSetOptions, candidate_sets
from reelrank.features.candidates import availability_ts
from reelrank.features.temporal_graph import NeighbourOptions, bucket_by_item, last_neighbours
from reelrank.provenance import fingerprint


def link_users(
    interactions: BucketedTable, neighbours: NeighbourOptions, engine: EngineOptions
) -> BucketedTable:
    """The last rows of each row's user."""
    function = partial(last_neighbours, node="user_id", k=neighbours.k)
    made_of = fingerprint(interactions.meta, neighbours)
    return map_buckets(function, [interactions], engine, "user-neighbours", made_of)


def link_items(
    interactions: BucketedTable, neighbours: NeighbourOptions, engine: EngineOptions
) -> BucketedTable:
    """The last rows of each row's item, bucketed by item."""
    by_item = bucket_by_item(interactions, engine)
    try:
        function = partial(last_neighbours, node="item_id", k=neighbours.k)
        made_of = fingerprint(interactions.meta, neighbours)
        return map_buckets(function, [by_item], engine, "item-neighbours", made_of)
    finally:
        shutil.rmtree(by_item.path)


def draw_candidates(
    interactions: BucketedTable,
    splits: BucketedTable,
    items: pl.DataFrame,
    candidates: CandidateSetOptions,
    engine: EngineOptions,
) -> BucketedTable:
    """What could have been shown at each request, with the probability of being in the set."""
    rows = interactions.scan().select("row_id", "item_id", "ts_ms")
    first = rows.group_by("item_id").agg(pl.col("ts_ms").min()).collect(engine="streaming")
    train = splits.scan().filter(pl.col("split") == "train").select("row_id")
    shown = rows.join(train, on="row_id", how="semi").group_by("item_id").len()
    counts = shown.collect(engine="streaming")
    popularity = np.zeros(items.height, np.int64)
    popularity[counts["item_id"].to_numpy()] = counts["len"].to_numpy()
    pool = CandidatePool.fit(availability_ts(first, items), popularity, candidates.sampling)
    function = partial(candidate_sets, pool=pool, options=candidates)
    made_of = fingerprint(interactions.meta, splits.meta, candidates)
    return map_buckets(function, [interactions], engine, "candidate-sets", made_of)
