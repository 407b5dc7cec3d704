"""Rewards of the events made anew in memory, under other options or in another order (MT-03, MT-10, MT-12).

Source: METHODS §3.8.
"""

from __future__ import annotations

import polars as pl

from reelrank.features.events import assemble_events
from reelrank.features.modal import pooled_vectors
from reelrank.features.rewards import RewardOptions, reward_terms, rewards
from reelrank.features.splits import Cuts
from reelrank.models.behaviours import watch_rule


def rewarded(
    events: pl.DataFrame, item_modal: pl.DataFrame, cuts: Cuts, options: RewardOptions
) -> pl.DataFrame:
    """The events with their rewards, returns and links as ``compute_rewards`` and ``assemble`` would make them.

    Args:
        events: as ``Events``, of all users.
        item_modal: as ``ItemModal``, as it was read: frozen features are no matter of a study.
        cuts: boundaries of the splits.
        options: of the reward.
    """
    rows = events.sort("user_id", "ts_ms", "row_id")
    shown = rows.filter(pl.col("split") == "train")["item_id"].unique().sort()
    made = rewards(
        rows,
        rows.select("row_id", "split"),
        pooled_vectors(item_modal, shown.to_numpy()),
        terms=reward_terms(events.lazy()),
        cuts=cuts,
        options=options,
        watch=watch_rule(events.lazy()),
    )
    return assemble_events(events.lazy(), events.lazy().select("row_id", "split"), made.lazy())
