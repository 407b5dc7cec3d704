"""Thin nodes over ``reelrank.features``."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from reelrank.buckets import BucketedTable, EngineOptions, map_buckets
from reelrank.features.bursts import BurstOptions, day_rows, find_bursts
from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.modal import ModalOptions, ProxyOptions, item_modal
from reelrank.features.session_stats import SessionOptions, session_report, session_table
from reelrank.features.splits import (
    LogSummary,
    SplitOptions,
    assign_split,
    fit_split,
    load_split,
    require_rows,
    train_items,
)
from reelrank.provenance import fingerprint
from reelrank.sources.manifest import Manifest
from reelrank.tables import SPLITS

log = logging.getLogger(__name__)


def mark_bursts(interactions: BucketedTable, bursts: BurstOptions) -> pl.DataFrame:
    """Find the stretches of days in which the log was collected."""
    days = day_rows(interactions.scan())
    found = find_bursts(days, bursts)
    if found.height:
        outside = interactions.n_rows - int(found["rows"].sum())
        log.info("bursts: %s, %s rows outside of them", found.height, f"{outside:,}")
    return found


def fit_parts(
    interactions: BucketedTable, bursts: pl.DataFrame, split: SplitOptions
) -> dict[str, Any]:
    """Fit the rule that makes train, val and test on a summary of the log."""
    return fit_split(split, LogSummary.of(interactions.scan(), bursts, split)).model_dump(
        mode="json"
    )


def split_interactions(
    interactions: BucketedTable, split_cuts: dict[str, Any], engine: EngineOptions
) -> tuple[BucketedTable, dict[str, Any]]:
    """Name the part of each row and count the parts; refuse a split with an empty one."""
    split = load_split(split_cuts)
    splits = map_buckets(
        partial(assign_split, split=split),
        [interactions],
        engine,
        "splits",
        fingerprint(interactions.meta, split),
    )
    counts = splits.scan().group_by("split").len().collect()
    found = dict(counts.iter_rows())
    require_rows(found, split)
    rows = {part: found[part] for part in SPLITS}
    left_out = interactions.n_rows - splits.n_rows
    log.info(
        "split %s: %s rows, %s left out",
        split.rule,
        ", ".join(f"{part} {n:,}" for part, n in rows.items()),
        f"{left_out:,}",
    )
    return splits, {"rule": split.rule, "rows": rows, "rows_left_out": left_out}


def build_histories(
    interactions: BucketedTable,
    items: pl.DataFrame,
    bursts: pl.DataFrame,
    history: HistoryOptions,
    engine: EngineOptions,
) -> BucketedTable:
    """What each user had done strictly before each row."""
    codes = ItemCodes.of(items)
    function = partial(histories, items=codes, options=history, bursts=bursts)
    made_of = fingerprint(interactions.meta, history, codes.hash(), bursts.to_dicts())
    return map_buckets(function, [interactions], engine, "histories", made_of)


def count_sessions(
    interactions: BucketedTable,
    bursts: pl.DataFrame,
    sessions: SessionOptions,
    engine: EngineOptions,
) -> tuple[BucketedTable, dict[str, Any]]:
    """The sessions that each gap makes, and their lengths for the report."""
    function = partial(session_table, options=sessions, bursts=bursts)
    made_of = fingerprint(interactions.meta, sessions, bursts.to_dicts())
    table = map_buckets(function, [interactions], engine, "sessions", made_of)
    return table, session_report(table.scan())


def build_item_modal(
    raw_manifest: dict[str, Any],
    splits: BucketedTable,
    interactions: BucketedTable,
    items: pl.DataFrame,
    item_map: pl.DataFrame,
    modal: ModalOptions,
    proxy: ProxyOptions,
) -> pl.DataFrame:
    """Modal embeddings: encoded, stored, the world's own, or metadata proxies where a release has no media."""
    manifest = Manifest.from_dict(raw_manifest)
    folder = Path(manifest.root) / "modal"
    world_folder = folder if manifest.kind == "world" and folder.is_dir() else None
    shown = train_items(interactions, splits)
    return item_modal(items, item_map, shown, modal, proxy, world_folder)
