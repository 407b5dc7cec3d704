"""The official KuaiSAR files of a generated world: their columns, codes and quirks (SCHEMAS §3).

Columns stand in the order observed in the files, which is not the documented one; the activity level is spelt ``reco_active_level``;
times of rec_inter and lengths are printed as floats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from reelrank.sources.kuaisar_schema import (
    DAY_MS,
    ITEM_COLUMNS,
    ITEM_TYPES,
    LEVELS,
    NO_UPLOAD_DAY,
    UTC_OFFSET_MS,
    rec_columns,
    search_columns,
)
from reelrank.worlds.kuaisar_search import Feed, Searches
from reelrank.worlds.latent import Ints, SocialGraph
from reelrank.worlds.sessions import ROW_COLUMNS, Log

TOPIC_WORDS = 30  # words of a topic's vocabulary
COMMON_WORDS = 60  # words of all topics
CAPTION_WORDS, QUERY_WORDS = 8, 3  # most words of each
NO_CAPTION_SHARE = 0.05
PADDING_SHARE = 0.02  # of items without author, upload time, second category
SEARCH_LEVELS, REC_LEVELS = 7, 4  # values seen in the real file
ONEHOT_SIZES = (8, 3)  # observed; documented the other way round
# the one documented source, and one of ours for searches begun from a recommended item
USER_INPUT, FROM_FEED = "USER_INPUT", "FEED_MAGNIFIER"
UPLOAD_TYPES = ("LongImport", "ShortImport", "Web", "Kmovie", "LongPicture", "ShortCamera")


class Catalogue(NamedTuple):
    """What the official files say of the items, (V,) each."""

    topic: Ints
    duration_ms: NDArray[np.int64]
    upload_day: NDArray[np.int64]  # days from the first local day, may be negative
    is_picture: NDArray[np.bool_]
    popularity: NDArray[np.float64]


def feed_of(logs: list[Log]) -> Feed:
    """What the searches need of the recommendation log."""
    names = ("user_id", "video_id", "position")
    user, item, position = (
        np.concatenate([log.rows[ROW_COLUMNS.index(name)] for log in logs]).astype(np.int64)
        for name in names
    )
    return Feed(user, item, np.concatenate([log.ts_ms for log in logs]), position)


def rec_inter(logs: list[Log], catalogue: Catalogue, searches: Searches) -> pl.DataFrame:
    """All recommended rows in (user, time) order with the official columns, then those that only the truth keeps."""
    names = {
        "user_id": "user_id", "item_id": "video_id", "playing_time": "play_time_ms", "forward": "is_forward", "like": "is_like",
        "follow": "is_follow", "click": "is_click", "position": "position",
    }  # fmt: skip
    columns = {
        name: np.concatenate([log.rows[ROW_COLUMNS.index(of_log)] for log in logs])
        for name, of_log in names.items()
    }
    ts_ms = np.concatenate([log.ts_ms for log in logs])
    request = np.cumsum(columns["position"] == 0) - 1
    item = columns["item_id"]
    begun = searches.feed_row >= 0
    row, topic = searches.feed_row[begun], searches.topic[begun]
    search, related = np.zeros((2, len(item)), np.int8)
    search[row] = 1
    related[row] = topic == catalogue.topic[item[row]]
    frame = pl.DataFrame(
        columns
        | {
            "timestamp": ts_ms.astype(np.float64),
            "duration_ms": catalogue.duration_ms[item].astype(np.float64),
            "search": search,
            "search_item_related": related,
            "time": ts_ms + UTC_OFFSET_MS,
            "request": request,
            "propensity": np.concatenate([log.propensity for log in logs]),
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("ms")), pl.col("playing_time").cast(pl.Float64))
    official = [column.name for column in rec_columns("small")]
    return frame.select(*official, "request", "position", "propensity")


def src_inter(
    rng: np.random.Generator, searches: Searches, words: NDArray[np.int32]
) -> pl.DataFrame:
    """One row per thing shown, with the official columns."""
    n = len(searches.user)
    sessions = pl.DataFrame(
        {
            "keyword": _word_lists(rng, searches.topic, words, QUERY_WORDS, common=0),
            "search_session_id": np.arange(1, n + 1),
            "user_id": searches.user,
            "search_session_timestamp": searches.ts_ms,
            "search_source": np.where(searches.feed_row >= 0, FROM_FEED, USER_INPUT),
        }
    ).with_columns(
        search_session_time=(pl.col("search_session_timestamp") + UTC_OFFSET_MS).cast(pl.Datetime("ms"))
    )  # fmt: skip
    rows = sessions[searches.search].with_columns(
        item_id=pl.Series(searches.item),
        click_cnt=pl.Series(searches.clicks),
        item_type=pl.Series(ITEM_TYPES)[searches.kind],
    )
    return rows.select(column.name for column in search_columns("small"))


def user_features(
    rng: np.random.Generator, n_rec: NDArray[np.int64], n_search: NDArray[np.int64]
) -> pl.DataFrame:
    """The five official columns; activity levels are quantiles of the rows of each scenario (U,)."""
    n = len(n_rec)
    first, second = (rng.integers(0, size, n) for size in ONEHOT_SIZES)
    return pl.DataFrame(
        {
            "user_id": np.arange(n),
            "onehot_feat1": first,
            "onehot_feat2": second,
            "search_active_level": _level(n_search, SEARCH_LEVELS),
            "reco_active_level": _level(n_rec, REC_LEVELS),
        }
    )


def _level(counts: NDArray[np.int64], n_levels: int) -> NDArray[np.int64]:
    rank = np.argsort(np.argsort(counts, kind="stable"))
    return rank * n_levels // len(counts)


def social_network(graph: SocialGraph) -> pl.DataFrame:
    """The two official columns."""
    return pl.DataFrame({"user_id": graph.src, "user_follow_id": graph.dst})


def item_features(
    rng: np.random.Generator, catalogue: Catalogue, words: NDArray[np.int32], start_ms: int
) -> pl.DataFrame:
    """The 19 official columns: first level = topic + 1, second level = one of four groups in it, deeper levels are padding."""
    n = len(catalogue.topic)
    topic = catalogue.topic.astype(np.int64)
    author = rng.integers(1, max(2, n // 2), n)
    first_day = (start_ms + UTC_OFFSET_MS) // DAY_MS
    upload = (first_day + catalogue.upload_day).astype("datetime64[D]").astype(str)
    no_author, no_upload, no_group, no_caption = (
        rng.random(n) < share for share in (*[PADDING_SHARE] * 3, NO_CAPTION_SHARE)
    )
    caption = _word_lists(rng, topic, words, CAPTION_WORDS, common=2)
    columns = {
        "item_id": np.arange(n),
        "caption": np.where(no_caption, "[]", caption.to_numpy()),
        "author_id": np.where(no_author, 0, author),
        "item_type": np.where(rng.random(n) < 0.01, "AD", "NORMAL"),
        "upload_time": np.where(no_upload, NO_UPLOAD_DAY, upload),
        "upload_type": np.where(catalogue.is_picture, "PictureSet", rng.choice(UPLOAD_TYPES, n)),
        "music_id": np.where(rng.random(n) < 0.03, 0, rng.integers(1, 10**10, n)),
    }
    group = topic * 4 + np.arange(n) % 4 + 1
    ids = {"first": topic + 1, "second": np.where(no_group, 0, group)}
    for level in LEVELS:
        number = ids.get(level, np.zeros(n, np.int64))
        name = np.strings.add(level, number.astype(str))
        columns |= {
            f"{level}_level_category_id": number,
            f"{level}_level_category_name": np.where(number == 0, "空", name),
            f"{level}_level_category_name_en": np.where(number == 0, "empty", name),
        }
    return pl.DataFrame(columns).select(column.name for column in ITEM_COLUMNS)


def vocabulary(rng: np.random.Generator, n_topics: int) -> NDArray[np.int32]:
    """Hashed word ids (K + 1, TOPIC_WORDS or more): a row per topic, then the common words; one id stands for one word."""
    n = n_topics * TOPIC_WORDS + COMMON_WORDS
    ids = rng.choice(10 * n, n, replace=False).astype(np.int32) + 1
    table = np.full((n_topics + 1, max(TOPIC_WORDS, COMMON_WORDS)), -1, np.int32)
    table[:n_topics, :TOPIC_WORDS] = ids[:-COMMON_WORDS].reshape(n_topics, TOPIC_WORDS)
    table[n_topics, :COMMON_WORDS] = ids[-COMMON_WORDS:]
    return table


def _word_lists(
    rng: np.random.Generator,
    topic: NDArray[np.int64],
    words: NDArray[np.int32],
    most: int,
    common: int,
) -> pl.Series:
    """``[20, 34, 3]`` and the like, (n,): 1 … ``most`` words of the topic, ``common`` of them replaced by common words where there are so many."""
    n = len(topic)
    table = words[topic[:, None], rng.integers(0, TOPIC_WORDS, (n, most))]
    if common:
        table[:, 1 : 1 + common] = words[-1, rng.integers(0, COMMON_WORDS, (n, common))]
    length = rng.integers(1, most + 1, n)
    columns = {f"w{k}": table[:, k] for k in range(most)}
    shown = [
        pl.when(pl.lit(pl.Series(length > k))).then(pl.col(name).cast(pl.String))
        for k, name in enumerate(columns)
    ]
    joined = pl.concat_str(shown, separator=", ", ignore_nulls=True)
    return pl.DataFrame(columns).select(pl.format("[{}]", joined)).to_series()
