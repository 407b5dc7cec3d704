"""The official KuaiRand files of a generated world: their columns, codes and quirks (SCHEMAS §2)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.sources.kuairand_schema import (
    CAPTION_COLUMNS,
    CATEGORY_COLUMNS,
    MISSING_CODE,
    USER_COLUMNS,
    VIDEO_BASIC_COLUMNS,
    VIDEO_STATISTIC_COLUMNS,
)
from reelrank.worlds.latent import Ints, SocialGraph

# values and counts in the real file of 27,285 users
ACTIVE_DEGREES = {
    "full_active": 17959, "high_active": 6158, "middle_active": 2133, "2_14_day_new": 635, "low_active": 300,
    "single_low_active": 68, "30day_retention": 15, "day_new": 11, "UNKNOWN": 6,
}  # fmt: skip
UPLOAD_TYPES = {
    "LongImport": 2925, "Web": 2416, "ShortImport": 917, "Kmovie": 879, "LongPicture": 143, "UNKNOWN": 80,
    "LongCamera": 64, "ShortCamera": 43, "ShareFromOtherApp": 29,
}  # fmt: skip
ONEHOT_SIZES = (2, 7, 50, 1471, 15, 34, 3, 118, 454, 7, 5, 5, 2, 2, 2, 2, 2, 2)
FOLLOW_RANGES = ([0, 10, 50, 100, 150, 250, 500], ["0", "(0,10]", "(10,50]", "(50,100]", "(100,150]", "(150,250]", "(250,500]", "500+"])  # fmt: skip
FAN_RANGES = ([0, 9, 99, 999, 4999, 9999, 99999], ["0", "[1,10)", "[10,100)", "[100,1k)", "[1k,5k)", "[5k,1w)", "[1w,10w)", "[10w,100w)"])  # fmt: skip
FRIEND_RANGES = ([0, 4, 29, 59, 119, 249], ["0", "[1,5)", "[5,30)", "[30,60)", "[60,120)", "[120,250)", "250+"])  # fmt: skip
REGISTER_RANGES = ([14, 30, 60, 90, 180, 365, 730], ["8-14", "15-30", "31-60", "61-90", "91-180", "181-365", "366-730", "730+"])  # fmt: skip
COMMON_WORDS = np.array(["today", "look", "new", "friends", "my", "best", "wow", "again", "daily", "fun"])  # fmt: skip
TOPIC_WORDS = 30

SUMS = ("show", "play", "complete", "valid", "short", "play_ms", "comment_ms", "like", "follow", "comment", "share", "long")  # fmt: skip


class Catalogue(NamedTuple):
    """What the official files say of the videos, (V,) each."""

    topic: Ints
    duration_ms: NDArray[np.int64]
    published_ms: NDArray[np.int64]  # duration, 0 = null
    upload_day: NDArray[np.int64]  # days from 2022-04-08, may be negative


def _pick(rng: np.random.Generator, shares: dict[str, int], n: int) -> NDArray[np.str_]:
    weights = np.array(list(shares.values()), float)
    return rng.choice(np.array(list(shares)), n, p=weights / weights.sum())


def _ranges(values: NDArray[np.int64], table: tuple[list[int], list[str]]) -> NDArray[np.str_]:
    return np.array(table[1])[np.searchsorted(table[0], values, "left")]


def user_features(rng: np.random.Generator, n_users: int, graph: SocialGraph) -> pl.DataFrame:
    """The 31 official columns; follow and fan counts grow with the planted graph's degrees."""
    follow = np.bincount(graph.src, minlength=n_users)
    fans = np.bincount(graph.dst, minlength=n_users)
    follow_num = (follow * np.exp(rng.normal(2.5, 1.0, n_users))).astype(np.int64)
    fans_num = (fans * np.exp(rng.normal(1.5, 1.2, n_users))).astype(np.int64)
    friends = np.minimum(follow_num, fans_num) // 3
    days = np.maximum(np.exp(rng.normal(6.3, 0.9, n_users)).astype(np.int64), 8)
    columns = {
        "user_id": np.arange(n_users),
        "user_active_degree": _pick(rng, ACTIVE_DEGREES, n_users),
        "is_lowactive_period": np.zeros(n_users, np.int8),
        "is_live_streamer": np.where(rng.random(n_users) < 0.774, MISSING_CODE, 1),
        "is_video_author": (rng.random(n_users) < 0.6).astype(np.int8),
        "follow_user_num": follow_num,
        "follow_user_num_range": _ranges(follow_num, FOLLOW_RANGES),
        "fans_user_num": fans_num,
        "fans_user_num_range": _ranges(fans_num, FAN_RANGES),
        "friend_user_num": friends,
        "friend_user_num_range": _ranges(friends, FRIEND_RANGES),
        "register_days": days,
        "register_days_range": _ranges(days, REGISTER_RANGES),
    } | {f"onehot_feat{k}": rng.integers(0, size, n_users) for k, size in enumerate(ONEHOT_SIZES)}
    late_null = rng.random(n_users) < 714 / 27285
    nulls = {"onehot_feat4": rng.random(n_users) < 874 / 27285}
    nulls |= {f"onehot_feat{k}": late_null for k in range(12, 18)}
    with_nulls = [
        pl.when(~pl.lit(pl.Series(mask))).then(pl.col(name).cast(pl.Float64)).alias(name)
        for name, mask in nulls.items()
    ]
    return pl.DataFrame(columns).with_columns(with_nulls).select(list(USER_COLUMNS))


def video_basic(rng: np.random.Generator, catalogue: Catalogue) -> pl.DataFrame:
    """The 12 official columns; ``tag`` is the topic + 1, sometimes with a second one."""
    n = len(catalogue.topic)
    n_topics = int(catalogue.topic.max()) + 1
    upload = np.datetime64("2022-04-08") + catalogue.upload_day
    wide = rng.random(n) < 0.22
    null = catalogue.published_ms == 0
    second = rng.integers(1, n_topics + 1, n)
    authors = rng.integers(0, 8_839_735, max(1, int(0.86 * n)))
    return pl.DataFrame(
        {
            "video_id": np.arange(n),
            "author_id": authors[rng.integers(0, len(authors), n)],
            "video_type": np.where(rng.random(n) < 0.01, "AD", "NORMAL"),
            "upload_dt": upload.astype(str),
            "upload_type": np.where(null, "PictureSet", _pick(rng, UPLOAD_TYPES, n)),
            "visible_status": np.zeros(n),
            "video_duration": catalogue.duration_ms.astype(float),
            "server_width": np.where(wide, 1280.0, 720.0),
            "server_height": np.where(wide, 720.0, 1280.0),
            "music_id": np.where(rng.random(n) < 0.027, 0, rng.integers(1, 10**10, n)),
            "music_type": rng.choice([9.0, 4.0, 8.0, 7.0], n, p=[0.904, 0.089, 0.005, 0.002]),
            "first": catalogue.topic + 1,
            "second": second,
            "has_second": rng.random(n) < 0.3,
            "no_tag": rng.random(n) < 96 / 7583,
            "no_music_type": rng.random(n) < 203 / 7583,
            "null": null,
        }
    ).with_columns(
        pl.when(~pl.col("null")).then("video_duration").alias("video_duration"),
        pl.when(~pl.col("no_music_type")).then("music_type").alias("music_type"),
        tag=pl.when("no_tag")
        .then(None)
        .when(pl.col("has_second") & (pl.col("first") != pl.col("second")))
        .then(pl.format("{},{}", "first", "second"))
        .otherwise(pl.col("first").cast(pl.String)),
    ).select(list(VIDEO_BASIC_COLUMNS))  # fmt: skip


def video_statistics(
    sums: NDArray[np.int64], tabs: NDArray[np.uint16], catalogue: Catalogue
) -> pl.DataFrame:
    """The 52 official columns: totals over the month divided by ``counts`` = number of (day, tab) pairs with a show.

    Users are counted as rows (few see a video twice); what a world does not have (cancelled likes, downloads …) is 0.

    Args:
        sums: (V, 12) by ``SUMS``.
        tabs: (V, 31) bits of the tabs that showed a video on a day.
        catalogue: the videos.
    """
    n = len(catalogue.topic)
    total = dict(zip(SUMS, sums.T.astype(float), strict=True))
    counts = np.maximum(np.bitwise_count(tabs).sum(axis=1, dtype=np.int64), 1)
    counted = {
        "show": "show",
        "play": "play",
        "complete_play": "complete",
        "valid_play": "valid",
        "long_time_play": "long",
        "short_time_play": "short",
        "like": "like",
        "comment": "comment",
        "direct_comment": "comment",
        "follow": "follow",
        "share": "share",
        "share_all": "share",
    }
    columns = {f"{name}_cnt": total[of] / counts for name, of in counted.items()}
    columns |= {f"{name}_user_num": total[of] / counts for name, of in counted.items()}
    columns |= {
        "video_id": np.arange(n),
        "counts": counts,
        "play_duration": total["play_ms"] / counts,
        "play_progress": total["play_ms"] / catalogue.duration_ms / np.maximum(total["show"], 1),
        "comment_stay_duration": total["comment_ms"] / counts,
    }
    order = list(VIDEO_STATISTIC_COLUMNS)
    return pl.DataFrame({name: columns.get(name, np.zeros(n)) for name in order})


def captions(rng: np.random.Generator, catalogue: Catalogue) -> pl.DataFrame:
    """Captions of the topic's hashtag and words; one in eight is empty, as are two in three cover texts."""
    n = len(catalogue.topic)
    topic = catalogue.topic.astype(str)
    words = np.strings.add(
        np.strings.add("t", topic[:, None]),
        np.strings.add("w", rng.integers(0, TOPIC_WORDS, (n, 5)).astype(str)),
    )
    common = COMMON_WORDS[rng.integers(0, len(COMMON_WORDS), (n, 2))]
    text = pl.DataFrame({"topic": topic} | {f"w{k}": words[:, k] for k in range(5)} | {f"c{k}": common[:, k] for k in range(2)})  # fmt: skip
    return text.select(
        final_video_id=pl.int_range(n, dtype=pl.Int64),
        caption=pl.when(pl.Series(rng.random(n) >= 0.125))
        .then(pl.format("#topic{} {} {} {} {}", "topic", "w0", "c0", "w1", "w2"))
        .otherwise(pl.lit("")),
        show_cover_text=pl.when(pl.Series(rng.random(n) >= 0.62))
        .then(pl.format("{} {} {}", "c1", "w3", "w4"))
        .otherwise(pl.lit("")),
        duration=pl.Series(catalogue.duration_ms.astype(float)),
    ).select(list(CAPTION_COLUMNS))


def categories(catalogue: Catalogue) -> pl.DataFrame:
    """First level = topic, second level = topic and one of four groups by video id; deeper levels are missing."""
    n = len(catalogue.topic)
    group = catalogue.topic.astype(np.int64) * 4 + np.arange(n) % 4
    frame = pl.DataFrame({"final_video_id": np.arange(n), "first": catalogue.topic + 1, "second": group + 1})  # fmt: skip
    levels: list[pl.Expr] = []
    for level in ("first", "second"):
        name = f"{level}_level_category"
        levels += [
            pl.col(level).cast(pl.Float64).alias(f"{name}_id"),
            pl.format(f"{level}{{}}", level).alias(f"{name}_name"),
            pl.lit(1.0).alias(f"{name}_prob"),
        ]
    for level in ("third", "fourth"):
        name = f"{level}_level_category"
        levels += [
            pl.lit(float(MISSING_CODE)).alias(f"{name}_id"),
            pl.lit("UNKNOWN").alias(f"{name}_name"),
            pl.lit(0.0).alias(f"{name}_prob"),
        ]
    return frame.with_columns(levels).select(list(CATEGORY_COLUMNS))
