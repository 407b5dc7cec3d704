"""Watched, liked, shared: the behaviours that MT-DQN foretells, and the columns of a log that tell them.

Source: METHODS §3.7.
"""

from __future__ import annotations

from typing import Literal

import polars as pl

BEHAVIOURS = ("watch", "like", "share")
WatchRule = Literal["long_view", "watch_ratio"]
WATCHED_RATIO = 1.0  # METHODS §3.7 [D]


def watch_rule(log: pl.LazyFrame) -> WatchRule:
    """What tells that a video was watched: ``long_view``, or ``watch_ratio`` in a log that has it and no long view (KuaiRec).

    Judged on the whole log, not on a bucket, so that everybody is labelled alike.

    Args:
        log: long_view and watch_ratio, as ``Interactions`` or ``Events``.
    """
    if log.select(pl.col("long_view").count()).collect().item():
        return "long_view"
    has_ratio = log.select(pl.col("watch_ratio").count()).collect().item()
    return "watch_ratio" if has_ratio else "long_view"


def watched(rule: WatchRule) -> pl.Expr:
    """1 where the row's video was watched, 0 where not, null where nobody knows.

    Source: METHODS §3.7: long_view (KuaiRand), watch_ratio ≥ 1 (KuaiRec) [D].
    """
    if rule == "long_view":
        return pl.col("long_view")
    return (pl.col("watch_ratio") >= WATCHED_RATIO).cast(pl.Int8)


def behaviour_labels(rule: WatchRule) -> dict[str, pl.Expr]:
    """The label of each of ``BEHAVIOURS``."""
    labels = (watched(rule), pl.col("like"), pl.col("forward"))
    return dict(zip(BEHAVIOURS, labels, strict=True))


def label_names(rule: WatchRule) -> dict[str, str]:
    """In words, what the label of each of ``BEHAVIOURS`` is."""
    watch = "long_view" if rule == "long_view" else f"watch_ratio ≥ {WATCHED_RATIO:g}"
    return dict(zip(BEHAVIOURS, (watch, "like", "forward"), strict=True))
