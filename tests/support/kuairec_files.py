"""Tiny files in KuaiRec's official format."""

from pathlib import Path

from reelrank.sources.kuairand_schema import USER_COLUMNS
from reelrank.sources.kuairec_schema import (
    CAPTION_COLUMNS,
    CATEGORY_COLUMNS,
    DAILY_COLUMNS,
    FILES,
    RELEASE_START_MS,
    SOCIAL_COLUMNS,
)

BIG = "big_matrix.csv"
SMALL = "small_matrix.csv"
USERS = "user_features.csv"
TAGS = "item_categories.csv"
DAILY = "item_daily_features.csv"
SOCIAL = "social_network.csv"
CAPTIONS = "kuairec_caption_category.csv"
MATRIX_COLUMNS = FILES["big_matrix"][1]
T0_S = RELEASE_START_MS // 1000

_MATRIX = {
    "user_id": 0,
    "video_id": 0,
    "play_duration": 5000,
    "video_duration": 10_000,
    "time": "2020-07-05 00:00:00",
    "date": 20200705,
    "timestamp": f"{T0_S}.0",
    "watch_ratio": 0.5,
}
_USER = dict.fromkeys(USER_COLUMNS, 0) | {
    "user_active_degree": "full_active",
    "follow_user_num_range": '"(0,10]"',
    "fans_user_num_range": "0",
    "friend_user_num_range": '"[1,5)"',
    "register_days_range": "730+",
    "onehot_feat4": "",
}
_DAILY = dict.fromkeys((c.name for c in DAILY_COLUMNS), 0) | {
    "date": 20200705,
    "author_id": 77,
    "video_type": "NORMAL",
    "upload_dt": "2020-07-04",
    "upload_type": "ShortImport",
    "visible_status": "public",
    "video_duration": "10000.0",
    "video_width": 720,
    "video_height": 1280,
    "music_id": 4,
    "video_tag_name": "祝福",
    "show_cnt": 7716,
    "play_progress": 0.579695,
    "collect_cnt": "",
}
_CAPTION = {
    "video_id": 0,
    "manual_cover_text": "UNKNOWN",
    "caption": "晚饭后，运动一下！",
    "topic_tag": '"[博美俊介,直播]"',
    "first_level_category_id": 17,
    "first_level_category_name": "宠物",
    "second_level_category_id": 233,
    "second_level_category_name": "宠物日常记录",
    "third_level_category_id": -124,
    "third_level_category_name": "UNKNOWN",
}


def _line(defaults, changes):
    assert changes.keys() <= defaults.keys()
    return ",".join(str(value) for value in (defaults | changes).values())


def row(**changes):
    return _line(_MATRIX, changes)


def untimed(**changes):
    return row(time="", date="", timestamp="", **changes)


def user_line(**changes):
    return _line(_USER, changes)


def daily_line(**changes):
    return _line(_DAILY, changes)


def caption_line(**changes):
    return _line(_CAPTION, changes)


def table(columns, lines, end="\n"):
    return "".join(line + end for line in [",".join(columns), *lines])


def matrix(*lines, end="\n"):
    return table(MATRIX_COLUMNS, lines, end)


def users(*lines, end="\n"):
    return table(USER_COLUMNS, lines, end)


def tags(*lines, end="\n"):
    return table(CATEGORY_COLUMNS, lines, end)


def social(*lines, end="\n"):
    return table(SOCIAL_COLUMNS, lines, end)


def daily(*lines, end="\n"):
    return table((c.name for c in DAILY_COLUMNS), lines, end)


def captions(*lines, end="\n"):
    return table(CAPTION_COLUMNS, lines, end)


def write_release(root: Path, *, folder="KuaiRec 2.0/data", **files: str | bytes | None) -> Path:
    """A release with two users and three videos; ``files`` (by constant's name) replace, add or leave out contents."""
    contents = {
        BIG: matrix(row(), row(user_id=1, video_id=2)),
        USERS: users(user_line(), user_line(user_id=1)),
        TAGS: tags("0,[8]", '1,"[27, 9]"', "2,[9]"),
    } | files
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (place / name).write_bytes(data)
    return root
