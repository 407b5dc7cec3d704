"""What the official KuaiRec files hold: columns, value ranges, file and folder names, published counts.

Version 2.0 (2022-05-16) took out video 1225, which nobody had watched, and numbered those after it anew: ids of older copies are one
higher from there on. ``time`` is China time, ``timestamp`` Unix seconds; trailing zeros of the milliseconds are trimmed. There are no
likes: the only feedback is how much of a video was watched.

Source: the data set's README and notebooks, profiles of the full files (Gao et al., CIKM'22, doi 10.1145/3511808.3557220) [S].
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

import polars as pl

from reelrank.features.bursts import KUAIREC_BURSTS
from reelrank.features.local_time import day_start_ms
from reelrank.sources.kuairand_schema import STATISTICS, USER_COLUMNS
from reelrank.sources.log_csv import Column

Variant = Literal["v2"]

# KuaiRec.zip unpacks to the first, its README shows the second
FOLDERS: dict[Variant, tuple[str, ...]] = {"v2": ("KuaiRec 2.0", "KuaiRec")}
LICENCE = "CC BY-SA 4.0, © Gao et al., CIKM 2022, doi 10.1145/3511808.3557220"
_RECORD = "https://zenodo.org/records/18164998/files"
DOWNLOADS: dict[Variant, str] = {"v2": f"{_RECORD}/KuaiRec.zip"}  # no checksum is published
EXTRA_DOWNLOADS: dict[str, str] = {
    name: f"{_RECORD}/{name}"
    for name in ("kuairec_caption_category.csv", "video_raw_categories_multi.csv")
}
# md5 of the files as published
OFFICIAL_MD5 = {
    "user_features.csv": "33b5d7ae19378fb7c68c2238eed7720c",
    "item_categories.csv": "c53dbd1f0bdb4b352763025e86833a37",
    "kuairec_caption_category.csv": "31bc38cdccdf75a71df137779035f8cb",
}
# published beside the rest, but never opened
REFUSED_FILES = {
    "user_features_raw.csv": "personal data of users (gender, age, city, phone): not ingested",
}

# Asia/Shanghai, no daylight saving time since 1991
UTC_OFFSET_MS = 8 * 3_600_000
DAY_MS = 86_400_000
# local 2020-07-05 00:00 and 2020-09-06 00:00: the release's days
RELEASE_START_MS = 1_593_878_400_000
RELEASE_STOP_MS = RELEASE_START_MS + 63 * DAY_MS
EARLIEST_MS, LATEST_MS = RELEASE_START_MS - DAY_MS, RELEASE_STOP_MS + DAY_MS - 1
# when nearly all rows of the big matrix were collected: [start, stop), UTC epoch ms
BURSTS: tuple[tuple[int, int], ...] = tuple(
    (day_start_ms(first), day_start_ms(last + timedelta(days=1))) for first, last in KUAIREC_BURSTS
)

MISSING_CODE = -124
MISSING_TEXT = "UNKNOWN"
INT32_MAX = 2**31 - 1
RATIO_SCALE = 9  # decimals kept of a ratio
RATIO_UNIT: int = 10**RATIO_SCALE


def _whole(name: str) -> Column:
    return Column(name, "integer", 0, INT32_MAX, f"0…{INT32_MAX}")


def _printed_as_float(name: str, high: int = INT32_MAX) -> Column:
    """A whole number that may be printed as ``17200.0`` because its column holds nulls."""
    return Column(name, "decimal", 0, high, f"0…{high}", nullable=True)


def _ratio(name: str) -> Column:
    return Column(name, "decimal", 0, 10**18, "0 or more", RATIO_SCALE, nullable=True)


_DAY = Column("date", "decimal", 20200704, 20200906, "within a day of 20200705…20200905")
BIG_COLUMNS: tuple[Column, ...] = (
    _whole("user_id"),
    _whole("video_id"),
    _whole("play_duration"),
    _whole("video_duration"),
    Column("time", "skip"),
    _DAY,
    Column(
        "timestamp",
        "decimal",
        EARLIEST_MS,
        LATEST_MS,
        "within a day of 2020-07-05…2020-09-05 Asia/Shanghai, in seconds",
        scale=3,
    ),
    _ratio("watch_ratio"),
)
# some rows of the small matrix have no time, so its dates are printed as floats ("20200705.0")
SMALL_COLUMNS = tuple(replace(c, nullable=c.nullable or c.name in ("date", "timestamp")) for c in BIG_COLUMNS)  # fmt: skip

# counts of one day on the whole platform, not of the users at hand
DAILY_COUNTS = STATISTICS[: STATISTICS.index("cancel_collect_user_num") + 1]
COLLECT_COUNTS = DAILY_COUNTS[-4:]  # null before 2020-07-28
DURATION_SUMS = ("play_duration", "comment_stay_duration")
DAILY_COLUMNS: tuple[Column, ...] = (
    _whole("video_id"),
    _DAY,
    _printed_as_float("author_id"),
    Column("video_type", "text"),
    Column("upload_dt", "text"),
    Column("upload_type", "text"),
    Column("visible_status", "skip"),
    _printed_as_float("video_duration"),
    _printed_as_float("video_width"),
    _printed_as_float("video_height"),
    _printed_as_float("music_id", 10**15),
    _printed_as_float("video_tag_id"),
    Column("video_tag_name", "skip"),
    *(
        _ratio(name)
        if name == "play_progress"
        else _printed_as_float(name, 10**15 if name in DURATION_SUMS else INT32_MAX)
        for name in DAILY_COUNTS
    ),
)

# lists are printed "[27, 9]", in quotes where they hold a comma
CATEGORY_COLUMNS: dict[str, pl.DataType] = {"video_id": pl.Int64(), "feat": pl.List(pl.Int32)}
SOCIAL_COLUMNS: dict[str, pl.DataType] = {"user_id": pl.Int64(), "friend_list": pl.List(pl.Int32)}

LEVELS = ("first", "second", "third")
# four captions hold a bare CR; topics are printed "[博美俊介,直播]", without quotes around each
CAPTION_COLUMNS: dict[str, pl.DataType] = {
    "video_id": pl.Int64(),
    "manual_cover_text": pl.String(),
    "caption": pl.String(),
    "topic_tag": pl.String(),
}
for _level in LEVELS:
    CAPTION_COLUMNS |= {
        f"{_level}_level_category_id": pl.Int32(),
        f"{_level}_level_category_name": pl.String(),
    }

RAW_CATEGORY_COLUMNS = (
    "video_id", "category_name", "category_id", "category_level", "prob", "source", "upload_date", "category_online",
    "root_id", "root_name", "parent_id", "parent_name", "type",
)  # fmt: skip

# role → (file name without its ending, names of its columns), in reading order
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "big_matrix": ("big_matrix", tuple(c.name for c in BIG_COLUMNS)),
    "small_matrix": ("small_matrix", tuple(c.name for c in SMALL_COLUMNS)),
    "user_features": ("user_features", tuple(USER_COLUMNS)),
    "item_categories": ("item_categories", tuple(CATEGORY_COLUMNS)),
    "item_daily_features": ("item_daily_features", tuple(c.name for c in DAILY_COLUMNS)),
    "social_network": ("social_network", tuple(SOCIAL_COLUMNS)),
    "captions": ("kuairec_caption_category", tuple(CAPTION_COLUMNS)),
    "raw_categories": ("video_raw_categories_multi", RAW_CATEGORY_COLUMNS),  # its header only
}
NEEDED = ("big_matrix", "user_features", "item_categories")

# rows as published, duplicates included
PUBLISHED_ROWS = {
    "big_matrix": 12_530_806,
    "small_matrix": 4_676_570,
    "user_features": 7_176,
    "item_categories": 10_728,
    "item_daily_features": 343_341,
    "social_network": 472,
    "captions": 10_728,
}
PUBLISHED_USERS = {"big_matrix": 7_176, "small_matrix": 1_411}
PUBLISHED_ITEMS = {"big_matrix": 10_728, "small_matrix": 3_327}
PUBLISHED_BURST_ROWS = (2_191_645, 7_006_993, 3_329_274)  # [A]
# sessions of the rows inside the bursts, with gaps of at most an hour [A]
SESSION_GAP_S = 3_600
PUBLISHED_SESSIONS = {
    "sessions": 555_591,
    "session_rows_mean": 22.5488,
    "session_rows_median": 7,
    "session_rows_max": 3_299,
}
