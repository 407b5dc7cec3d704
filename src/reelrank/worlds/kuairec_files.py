"""The official KuaiRec files of a generated world: their columns, codes and quirks (SCHEMAS §1).

The ``upload_day`` of a catalogue counts from 2020-07-05 here.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.sources.kuairand_schema import USER_COLUMNS
from reelrank.sources.kuairec_schema import (
    BIG_COLUMNS,
    CAPTION_COLUMNS,
    COLLECT_COUNTS,
    DAILY_COLUMNS,
    DAILY_COUNTS,
    LEVELS,
    MISSING_TEXT,
    RELEASE_START_MS,
    RELEASE_STOP_MS,
    UTC_OFFSET_MS,
)
from reelrank.worlds import kuairand_files
from reelrank.worlds.kuairand_files import Catalogue
from reelrank.worlds.latent import SocialGraph
from reelrank.worlds.response import DAY_MS, Doubles

FIRST_DAY = date(2020, 7, 5)
N_DAYS = (RELEASE_STOP_MS - RELEASE_START_MS) // DAY_MS
COLLECTED_FROM = date(2020, 7, 28)  # earlier days have no counts of favourites
ROWS_AT_ONCE = 1_000_000
# values and counts in the real files
ACTIVE_DEGREES = {"full_active": 6092, "high_active": 938, "UNKNOWN": 118, "middle_active": 28}
ONEHOT_SIZES = (2, 8, 30, 1076, 12, 10, 3, 47, 340, 7, 5, 3, 2, 2, 2, 2, 2, 2)
ONEHOT_NULLS = {4: 201, 12: 77, 13: 75, 14: 75, 15: 74, 16: 74, 17: 74}
N_TAGS = {1: 8970, 2: 1562, 3: 185, 4: 11}
REAL_USERS = 7176
MAX_FRIENDS = 5
BARE_CR_EVERY = 2_682  # four captions of the real file hold one
BARE_CR = "\x1e"  # stands for it until the text is written: a field with a real one would be quoted
PLATFORM_USERS = 64  # sampled users whose mean response is the platform's
FADE_DAYS = 15.0  # a video's daily shows fall to 1/e, down to a twentieth


def write_matrix(rows: pl.DataFrame, catalogue: Catalogue, path: Path) -> None:
    """Write a matrix, a million rows at once.

    Args:
        rows: user_id, video_id, play_ms, ts_ms in file order; ``is_timed``, where there is such a column, says which rows have a time.
        catalogue: videos.
        path: file.
    """
    duration_ms = pl.Series(catalogue.duration_ms)
    with path.open("wb") as file:
        for first in range(0, max(rows.height, 1), ROWS_AT_ONCE):
            part = rows[first : first + ROWS_AT_ONCE]
            table = part.with_columns(video_duration=duration_ms[part["video_id"]])
            _matrix(table).write_csv(file, include_header=first == 0)


def _matrix(rows: pl.DataFrame) -> pl.DataFrame:
    """The official columns: local time with its zeros trimmed, and a date that is printed as a float where some are missing."""
    local = pl.from_epoch(pl.col("ts_ms") + UTC_OFFSET_MS, "ms")
    time = local.dt.to_string("%Y-%m-%d %H:%M:%S%.3f").str.strip_chars_end("0").str.strip_suffix(".")  # fmt: skip
    day = local.dt.to_string("%Y%m%d").cast(pl.Int64)
    seconds = pl.col("ts_ms") / 1000
    if "is_timed" in rows.columns:
        time, day, seconds = (
            pl.when("is_timed").then(column) for column in (time, day.cast(pl.Float64), seconds)
        )
    return rows.select(
        "user_id",
        "video_id",
        "video_duration",
        play_duration="play_ms",
        time=time,
        date=day,
        timestamp=seconds,
        watch_ratio=pl.col("play_ms") / pl.col("video_duration"),
    ).select(column.name for column in BIG_COLUMNS)


def small_order(observed: pl.DataFrame) -> pl.DataFrame:
    """The pairs as the small matrix has them: by user and time, those without a time last."""
    return observed.sort("user_id", ~pl.col("is_timed"), "ts_ms")


def user_features(rng: np.random.Generator, n_users: int, graph: SocialGraph) -> pl.DataFrame:
    """The 31 official columns; follow and fan counts grow with the planted graph's degrees."""
    shares = np.array(list(ACTIVE_DEGREES.values())) / REAL_USERS
    onehots = []
    for k, size in enumerate(ONEHOT_SIZES):
        is_null = rng.random(n_users) < ONEHOT_NULLS.get(k, 0) / REAL_USERS
        values = pl.Series(f"onehot_feat{k}", rng.integers(0, size, n_users))
        onehots.append(values.set(pl.Series(is_null), None))
    table = kuairand_files.user_features(rng, n_users, graph).with_columns(
        pl.col("register_days").clip(15),
        pl.col("register_days_range").replace("8-14", "15-30"),
        pl.Series("user_active_degree", rng.choice(list(ACTIVE_DEGREES), n_users, p=shares)),
        pl.Series("is_lowactive_period", rng.random(n_users) < 3 / REAL_USERS).cast(pl.Int8),
        pl.Series("is_live_streamer", rng.random(n_users) < 49 / REAL_USERS).cast(pl.Int8),
        *onehots,
    )
    return table.select(list(USER_COLUMNS))


def item_categories(rng: np.random.Generator, catalogue: Catalogue) -> pl.DataFrame:
    """One to four tags of each video, its topic first; other tags are drawn at random."""
    n = len(catalogue.topic)
    shares = np.array(list(N_TAGS.values()), float)
    n_topics = int(catalogue.topic.max()) + 1
    tags = np.column_stack([catalogue.topic, rng.integers(0, n_topics, (n, max(N_TAGS) - 1))])
    wanted = rng.choice(list(N_TAGS), n, p=shares / shares.sum())
    lists = pl.DataFrame({"tags": tags, "wanted": wanted}).select(
        pl.col("tags").arr.to_list().list.head(pl.col("wanted")).list.unique(maintain_order=True)
    )
    return pl.DataFrame({"video_id": np.arange(n), "feat": _printed(lists["tags"])})


def social_network(
    rng: np.random.Generator, n_users: int, graph: SocialGraph, listed_share: float
) -> pl.DataFrame:
    """Up to five friends of some users, in no order."""
    order = rng.permutation(len(graph.src))
    edges = pl.DataFrame({"user_id": graph.src[order], "friend": graph.dst[order]})
    is_listed = (rng.random(n_users) < listed_share)[edges["user_id"]]
    lists = edges.filter(is_listed).group_by("user_id", maintain_order=True).agg(pl.col("friend").head(MAX_FRIENDS))  # fmt: skip
    return lists.select("user_id", friend_list=_printed(lists["friend"]))


def _printed(lists: pl.Series) -> pl.Series:
    """Lists of numbers as text: ``[27, 9]``."""
    inside = lists.cast(pl.List(pl.String)).list.join(", ")
    return pl.select(pl.format("[{}]", inside)).to_series()


def write_captions(rng: np.random.Generator, catalogue: Catalogue, path: Path) -> None:
    """Captions, cover texts, topics and two levels of categories; some captions hold a bare CR, outside quotes."""
    text = kuairand_files.captions(rng, catalogue).rename({"final_video_id": "video_id"})
    levels = kuairand_files.categories(catalogue).drop("final_video_id")
    words = pl.col("caption").str.strip_prefix("#").str.split(" ")
    topics = pl.when(pl.col("video_id") % 2 == 0).then(words.list.head(2)).otherwise(words.list.head(1))  # fmt: skip
    has_text = pl.col("caption") != ""
    broken = has_text & ((has_text.cum_sum() - 1) % BARE_CR_EVERY == 0)
    table = pl.concat([text, levels], how="horizontal").with_columns(
        caption=pl.when(broken).then(pl.col("caption") + f"{BARE_CR}~").otherwise("caption"),
        manual_cover_text=pl.col("show_cover_text").replace("", MISSING_TEXT),
        topic_tag=pl.when(has_text).then(pl.format("[{}]", topics.list.join(","))).otherwise(pl.lit("[]")),
    ).with_columns(pl.col(f"{level}_level_category_id").cast(pl.Int64) for level in LEVELS)  # fmt: skip
    stream = io.BytesIO()
    table.select(list(CAPTION_COLUMNS)).write_csv(stream)
    path.write_bytes(stream.getvalue().replace(BARE_CR.encode(), b"\r"))


def video_attributes(rng: np.random.Generator, catalogue: Catalogue) -> pl.DataFrame:
    """What the daily file says of each video itself, on every one of its days."""
    # video_basic counts days from 2022-04-08
    days_apart = (FIRST_DAY - date(2022, 4, 8)).days
    shifted = catalogue._replace(upload_day=catalogue.upload_day + days_apart)
    return kuairand_files.video_basic(rng, shifted).select(
        "video_id",
        "author_id",
        "video_type",
        "upload_dt",
        "upload_type",
        "video_duration",
        "music_id",
        visible_status=pl.lit("public"),
        video_width=pl.col("server_width").cast(pl.Int32),
        video_height=pl.col("server_height").cast(pl.Int32),
        video_tag_id=pl.Series(catalogue.topic),
        video_tag_name=pl.format("topic{}", pl.Series(catalogue.topic)),
    )


def mean_response(
    rng: np.random.Generator,
    n_users: int,
    n_videos: int,
    expected_matrix: Callable[..., dict[str, Doubles]],
) -> dict[str, Doubles]:
    """Mean true response of a sample of users to each video in the middle of the release, (V,) each."""
    users = rng.choice(n_users, min(PLATFORM_USERS, n_users), replace=False)
    middle = (RELEASE_START_MS + RELEASE_STOP_MS) // 2
    expected = expected_matrix(users, np.arange(n_videos), middle, 0)
    return {name: values.mean(axis=0) for name, values in expected.items()}


def item_daily(
    rng: np.random.Generator,
    attributes: pl.DataFrame,
    catalogue: Catalogue,
    shows: Doubles,
    response: dict[str, Doubles],
) -> pl.DataFrame:
    """The 58 official columns: a row for each day on which a video is shown.

    Shows are Poisson and fade with the video's age, what follows is binomial at the mean true rates. What a world does not have (cancelled likes,
    downloads …) is 0.

    Args:
        rng: of all draws.
        attributes: of the videos.
        catalogue: of the videos.
        shows: mean shows on a video's first day, (V,).
        response: mean true response to each video.
    """
    age = np.arange(N_DAYS) - catalogue.upload_day[:, None]
    fade = np.maximum(np.exp(-np.maximum(age, 0) / FADE_DAYS), 0.05) * (age >= 0)
    drawn = rng.poisson(shows[:, None] * fade)
    video, day = np.nonzero(drawn)
    show = drawn[video, day]
    p = {name: values[video] for name, values in response.items()}
    valid = rng.binomial(show, p["click"])
    played = np.maximum(rng.binomial(show, 0.99), valid)
    totals = {
        "show": show,
        "play": played,
        "valid_play": valid,
        "long_time_play": rng.binomial(valid, np.minimum(p["long_view"] / p["click"], 1)),
        "complete_play": rng.binomial(valid, 0.7),
        "short_time_play": rng.binomial(played - valid, 0.6),
        "share": rng.binomial(show, p["forward"]),
        **{name: rng.binomial(show, p[name]) for name in ("like", "comment", "follow")},
    }
    counts = {f"{name}_cnt": values for name, values in totals.items()}
    counts |= {f"{name}_user_num": _users(values) for name, values in totals.items()}
    counts |= {"click_like_cnt": totals["like"], "direct_comment_cnt": totals["comment"]}
    reals = {
        "play_duration": np.rint(played * p["play_ms"]).astype(np.int64),
        "play_progress": np.round(p["watch_ratio"], 6),
    }
    zeros = np.zeros(len(video), np.int64)
    table = pl.DataFrame(
        {"video_id": video}
        | {"day": day}
        | {name: (counts | reals).get(name, zeros) for name in DAILY_COUNTS}
    )
    days = pl.lit(FIRST_DAY) + pl.duration(days=pl.col("day"))
    collected = days >= COLLECTED_FROM
    return (
        table.with_columns(
            *(pl.when(collected).then(pl.col(name).cast(pl.Float64)).alias(name) for name in COLLECT_COUNTS),
            date=days.dt.to_string("%Y%m%d").cast(pl.Int32),
        )
        .join(attributes, on="video_id", how="left", maintain_order="left")
        .select(column.name for column in DAILY_COLUMNS)
    )  # fmt: skip


def _users(count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Users behind a count: one in ten acts comes from somebody who had acted before."""
    return count - count // 10
