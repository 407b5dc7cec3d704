"""The tables that the nodes hand to one another; torch is not needed to read them."""

from __future__ import annotations

import polars as pl

BEST, SOFT = "greedy", "softened"
"""How an arm serves: the best first, or drawn as the off-policy estimators take it (equal entropy)."""
RESPONSE_SUMS = ("watch_time", "follow", "comment")
COUNT_SUMS = ("rows", "sessions", "ended", "returned")
SUMS = (*RESPONSE_SUMS, *COUNT_SUMS)
DAYS_SCHEMA = {
    "arm": pl.String, "serving": pl.String, "user_id": pl.Int32, "day": pl.Int16, "lives": pl.Int32,
    **dict.fromkeys(RESPONSE_SUMS, pl.Float64), **dict.fromkeys(COUNT_SUMS, pl.Int64),
}  # fmt: skip
"""A row per arm, user and day: sums over the user's lives; null where a response is not known."""
ESTIMATORS = ("ncis", "dr", "dm")
BANDIT = "bandit_value"
"""The truth of a world about the same policies in the same contexts with the same candidates: what the estimators are about, exactly."""
JUDGED = ("watch_time", "follow", "comment")
"""Responses that both the log and the test know."""
CHECKS = ("mean_weight", "ess", "clip_rate", "max_share")
OFF_POLICY_SCHEMA = {
    "arm": pl.String, "estimator": pl.String, "response": pl.String, "user_id": pl.Int32,
    "numerator": pl.Float64, "denominator": pl.Float64, "rows": pl.Int64, "reliable": pl.Boolean, **dict.fromkeys(CHECKS, pl.Float64),
}  # fmt: skip
"""A row per arm, estimator, response and user; what the weights are like is the same in all rows of an estimate."""
TEMPERATURE_SCHEMA = {"arm": pl.String, "temperature": pl.Float64, "decisions": pl.Int64}
