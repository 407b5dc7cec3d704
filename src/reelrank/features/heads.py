"""The value model's binary heads, from time watched and length of the video.

Source: METHODS §6.2.
"""

from __future__ import annotations

from typing import Literal

import polars as pl
from pydantic import Field

from reelrank.options import Options

HEADS = ("complete", "long", "rewatch", "neg")


class HeadRule(Options):
    """Which thresholds make the heads."""

    rule: Literal["code", "poster"] = Field(
        "code",
        description="code: the thresholds count as reached [A]; poster: they must be passed [S]",
    )


def head_columns(options: HeadRule) -> list[pl.Expr]:
    """The four heads as Int8 columns over ``play_ms`` and ``watch_ratio``; null where a head cannot be known.

    Without a duration ``long`` is still known where the play alone is long enough.
    Source: METHODS §6.2 [A code, S poster].
    """
    ratio, play = pl.col("watch_ratio"), pl.col("play_ms")
    if options.rule == "code":
        rules = (ratio >= 1, (ratio >= 1.5) | (play >= 12_000), ratio >= 2, play <= 2_000)
    else:
        rules = (ratio > 1, (ratio > 1.5) | (play > 12_000), ratio >= 2, play < 2_000)
    return [rule.cast(pl.Int8).alias(name) for name, rule in zip(HEADS, rules, strict=True)]
