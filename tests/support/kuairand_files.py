"""Tiny files in KuaiRand's official format."""

from pathlib import Path

from reelrank.sources.kuairand_schema import (
    LOG_COLUMNS,
    RELEASE_START_MS,
    USER_COLUMNS,
    VIDEO_BASIC_COLUMNS,
)

STANDARD = "log_standard_4_08_to_4_21_pure.csv"
LATER = "log_standard_4_22_to_5_08_pure.csv"
RANDOM = "log_random_4_22_to_5_08_pure.csv"
USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"

T0 = RELEASE_START_MS
_LOG = dict.fromkeys(LOG_COLUMNS, 0) | {
    "date": 20220408,
    "time_ms": T0,
    "play_time_ms": 5000,
    "duration_ms": 10_000,
    "tab": 1,
}
_USER = dict.fromkeys(USER_COLUMNS, 0) | {
    "user_active_degree": "full_active",
    "is_live_streamer": -124,
    "follow_user_num_range": '"(0,10]"',
    "fans_user_num_range": "0",
    "friend_user_num_range": '"[1,5)"',
    "register_days_range": "730+",
    "onehot_feat4": "3.0",
    "onehot_feat12": "",
}
_VIDEO = {
    "video_id": 0,
    "author_id": 77,
    "video_type": "NORMAL",
    "upload_dt": "2022-04-09",
    "upload_type": "Web",
    "visible_status": "0.0",
    "video_duration": "10000.0",
    "server_width": "720.0",
    "server_height": "1280.0",
    "music_id": 4,
    "music_type": "9.0",
    "tag": '"67,11"',
}


def _line(defaults, changes):
    assert changes.keys() <= defaults.keys()
    return ",".join(str(value) for value in (defaults | changes).values())


def log_line(**changes):
    return _line(_LOG, changes)


def user_line(**changes):
    return _line(_USER, changes)


def video_line(**changes):
    return _line(_VIDEO, changes)


def table(columns, lines, end="\n"):
    return "".join(line + end for line in [",".join(columns), *lines])


def log(*lines, end="\n"):
    return table(LOG_COLUMNS, lines, end)


def write_release(root: Path, **files: str | bytes) -> Path:
    """A release with two users and three videos; ``files`` (by constant's name) replace or add contents."""
    contents = {
        STANDARD: log(log_line(), log_line(user_id=1, video_id=2)),
        USERS: table(USER_COLUMNS, [user_line(), user_line(user_id=1)]),
        VIDEOS: table(VIDEO_BASIC_COLUMNS, [video_line(video_id=v) for v in range(3)]),
    } | files
    folder = root / "KuaiRand-Pure" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)
    return root
