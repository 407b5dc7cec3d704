"""Labelled edges of a log with what is known at each; torch is not needed for them.

Source: METHODS §6.1–6.3, §1.7.
"""

from __future__ import annotations

import polars as pl

from reelrank.features.heads import HEADS, HeadRule, head_columns
from reelrank.features.splits import row_uniforms
from reelrank.features.value_features import Clock, edge_features
from reelrank.pipelines.value_model.options import EdgeOptions

KEYS = ("row_id", "user_id", "item_id", "session_id")
DRAW = 1 << 32  # seeds of this draw differ from those of random splits


def edge_table(
    interactions: pl.DataFrame,
    histories: pl.DataFrame,
    splits: pl.DataFrame,
    *,
    items: pl.DataFrame,
    bursts: pl.DataFrame,
    heads: HeadRule,
    options: EdgeOptions,
    clock: Clock,
) -> pl.DataFrame:
    """Labelled edges with the features that belong to neither user nor item (bucket function).

    Args:
        interactions: every row of some users, as ``Interactions``, in order.
        histories: ``Histories`` of the same rows in the same order.
        splits: ``Splits``; a row without a part is no edge.
        items: ``Items``.
        bursts: ``Bursts``.
        heads: thresholds of the labels.
        options: share of the rows that is kept.
        clock: of hour and weekend.

    Returns:
        ``KEYS``, ts_ms, split, the heads (0, 1, null = unknown), and the columns of ``FEATURE_BLOCKS["edge"]``.

    Source: METHODS §6.2, §6.3.
    """
    features = edge_features(interactions, histories, items, bursts, clock)
    known = interactions.select("session_id", "ts_ms", *head_columns(heads))
    rows = features.hstack(known).join(
        splits.select("row_id", "split"), on="row_id", how="inner", maintain_order="left"
    )
    if options.share < 1:
        drawn = row_uniforms(rows["row_id"].to_numpy(), DRAW + options.seed) < options.share
        rows = rows.filter(drawn)
    first = [*KEYS, "ts_ms", "split", *HEADS]
    ordered: pl.DataFrame = rows.select(*first, pl.exclude(first))
    return ordered
