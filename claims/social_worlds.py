"""Weibo worlds in which the claims on social diffusion are judged: each plants one way in which users hang together, or none.

All have the size of ``LOG``: many users with a short history each, so that there is something left to be learnt from others. What a world changes is
``worlds.weibo``'s; in ``base`` a forward by a followed user is worth 1.5 of log-odds, and interests are half the followed users'.
"""

from __future__ import annotations

import polars as pl

LOG = {"users": 800, "posts": 400, "exposures_per_user": 30.0}
_STRANGERS = {"homophily": 0.0, "social_weight": 0.0, "follow_bonus": 0.0, "influence": 0.0}
WORLDS = {
    "taste": ("interests are drawn towards those of the followed users", {**_STRANGERS, "social_weight": 4.0}),
    "post": ("a post that a followed user forwarded within a day is forwarded more", {**_STRANGERS, "influence": 3.0}),
    "strangers": ("nobody is like those that he follows, or does as they do", _STRANGERS),
}  # fmt: skip
WINDOW_MS = 24 * 3_600_000


def forwarded_by_followed(events: pl.DataFrame, social_edges: pl.DataFrame) -> pl.Series:
    """Whether a user whom the row's user follows had forwarded the row's post within the window, strictly before, (rows of events,) bool.

    Args:
        events: user_id, item_id, ts_ms, forward.
        social_edges: src follows dst.
    """
    rows = events.with_row_index("row").select("row", "user_id", "item_id", "ts_ms")
    forwards = events.filter(pl.col("forward") == 1).select("item_id", dst="user_id", at="ts_ms")
    follows = social_edges.select(user_id="src", dst="dst").unique().cast({"user_id": events.schema["user_id"], "dst": events.schema["user_id"]})  # fmt: skip
    met = (
        forwards.join(follows, on="dst")
        .join(rows, on=["user_id", "item_id"])
        .filter(pl.col("at") < pl.col("ts_ms"), pl.col("ts_ms") - pl.col("at") <= WINDOW_MS)
    )
    return rows["row"].is_in(met["row"].unique().implode())
