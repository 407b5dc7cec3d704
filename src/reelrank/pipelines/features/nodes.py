"""Thin nodes over ``reelrank.features``."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from reelrank.buckets import BucketedTable, EngineOptions, map_buckets
from reelrank.features.histories import HistoryOptions, histories
from reelrank.features.modal import ProxyOptions, metadata_proxy, synthetic_item_modal
from reelrank.features.splits import (
    Cuts,
    SplitOptions,
    assign_split,
    require_rows,
    time_cuts,
    train_items,
)
from reelrank.provenance import fingerprint
from reelrank.sources.manifest import Manifest
from reelrank.tables import SPLITS

NO_CATEGORY = -1
log = logging.getLogger(__name__)


def cut_time(interactions: BucketedTable, split: SplitOptions) -> dict[str, Any]:
    """Fit the boundaries of train, val and test on the range of the log."""
    ts = pl.col("ts_ms")
    before = (ts < split.fixed_val_start_ms).mean()
    first, last, train_share = (
        interactions.scan().select(first=ts.min(), last=ts.max(), share=before).collect().row(0)
    )
    return time_cuts(split.resolved(train_share), first, last).model_dump()


def split_interactions(
    interactions: BucketedTable, split_cuts: dict[str, Any], engine: EngineOptions
) -> BucketedTable:
    """Name the part of each interaction; refuse a split with an empty part."""
    cuts = Cuts(**split_cuts)
    splits = map_buckets(
        partial(assign_split, cuts=cuts),
        [interactions],
        engine,
        "splits",
        fingerprint(interactions.meta, cuts),
    )
    counts = splits.scan().group_by("split").len().collect()
    rows = dict(counts.iter_rows())
    require_rows(rows, cuts)
    log.info("split %s: %s rows", cuts.rule, ", ".join(f"{part} {rows[part]:,}" for part in SPLITS))
    return splits


def build_histories(
    interactions: BucketedTable, items: pl.DataFrame, history: HistoryOptions, engine: EngineOptions
) -> BucketedTable:
    """What each user had done strictly before each row."""
    category = pl.coalesce("category_1", pl.col("tags").list.first()).fill_null(NO_CATEGORY)
    categories = items.select(category.cast(pl.Int32)).to_series().to_numpy()
    function = partial(histories, item_category=categories, options=history)
    made_of = fingerprint(interactions.meta, history, categories.tolist())
    return map_buckets(function, [interactions], engine, "histories", made_of)


def build_item_modal(
    raw_manifest: dict[str, Any],
    splits: BucketedTable,
    interactions: BucketedTable,
    items: pl.DataFrame,
    item_map: pl.DataFrame,
    proxy: ProxyOptions,
) -> pl.DataFrame:
    """Modal embeddings: the world's own, or metadata proxies where a release has no media."""
    manifest = Manifest.from_dict(raw_manifest)
    if manifest.kind == "world":
        return synthetic_item_modal(Path(manifest.root) / "modal", item_map)
    return metadata_proxy(items, train_items(interactions, splits), proxy)
