"""What the official KuaiRand files hold: columns, value ranges, file names, published counts.

Source: the data set's README and profiles of the full files (Gao et al., CIKM'22, doi 10.1145/3511808.3557624) [S].
"""

from __future__ import annotations

from typing import Literal

import polars as pl

Variant = Literal["pure", "1k", "27k"]

FOLDERS: dict[Variant, str] = {"pure": "KuaiRand-Pure", "1k": "KuaiRand-1K", "27k": "KuaiRand-27K"}
LICENCE = "CC BY-SA 4.0, © Gao et al., CIKM 2022, doi 10.1145/3511808.3557624"
DOWNLOADS: dict[Variant, str] = {
    variant: f"https://zenodo.org/records/10439422/files/{folder}.tar.gz"
    for variant, folder in FOLDERS.items()
}
EXTRA_DOWNLOADS = "https://zenodo.org/records/18159199"
# md5 of the files as published
OFFICIAL_MD5 = {
    "user_features_pure.csv": "c7ad8218429f511868c6335970555de5",
    "video_features_basic_pure.csv": "628641f5eec078fcd9d50ce938cb8dc5",
    "kuairand_video_captions.csv": "9fd4e7587ffd0c8dc289d013858fb229",
    "kuairand_video_categories.csv": "8a4c772d3d8f8cf65fa1e1eb896f4177",
}

# Asia/Shanghai, no daylight saving time since 1991
UTC_OFFSET_MS = 8 * 3_600_000
DAY_MS = 86_400_000
# local 2022-04-08 00:00 and 2022-05-09 00:00: the release's days
RELEASE_START_MS = 1_649_347_200_000
RELEASE_STOP_MS = RELEASE_START_MS + 31 * DAY_MS

MISSING_CODE = -124
N_TABS = 15
FLAGS = ("is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view")

LOG_COLUMNS: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "video_id": pl.Int64(),
    "date": pl.Int32(),  # hour of the log partition, not of the event: time_ms is the truth
    "hourmin": pl.Int16(),
    "time_ms": pl.Int64(),
    "is_click": pl.Int8(),
    "is_like": pl.Int8(),
    "is_follow": pl.Int8(),
    "is_comment": pl.Int8(),
    "is_forward": pl.Int8(),
    "is_hate": pl.Int8(),
    "long_view": pl.Int8(),
    "play_time_ms": pl.Int32(),
    "duration_ms": pl.Int32(),
    "profile_stay_time": pl.Int32(),
    "comment_stay_time": pl.Int32(),
    "is_profile_enter": pl.Int8(),
    "is_rand": pl.Int8(),
    "tab": pl.Int16(),
}

# `onehot_feat4` and 12–17 are printed as floats ("1.0") because they hold nulls
USER_COLUMNS: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "user_active_degree": pl.String(),
    "is_lowactive_period": pl.Int8(),
    "is_live_streamer": pl.Int8(),
    "is_video_author": pl.Int8(),
    "follow_user_num": pl.Int32(),
    "follow_user_num_range": pl.String(),
    "fans_user_num": pl.Int32(),
    "fans_user_num_range": pl.String(),
    "friend_user_num": pl.Int32(),
    "friend_user_num_range": pl.String(),
    "register_days": pl.Int32(),
    "register_days_range": pl.String(),
} | {f"onehot_feat{k}": pl.Int16() for k in range(18)}

# visible_status … server_height and music_type are printed as floats ("720.0")
VIDEO_BASIC_COLUMNS: dict[str, pl.DataType] = {
    "video_id": pl.Int64(),
    "author_id": pl.Int64(),
    "video_type": pl.String(),
    "upload_dt": pl.String(),
    "upload_type": pl.String(),
    "visible_status": pl.Int8(),
    "video_duration": pl.Int32(),
    "server_width": pl.Int32(),
    "server_height": pl.Int32(),
    "music_id": pl.Int64(),
    "music_type": pl.Int16(),
    "tag": pl.String(),
}

STATISTICS = (
    "show_cnt", "show_user_num", "play_cnt", "play_user_num", "play_duration", "complete_play_cnt",
    "complete_play_user_num", "valid_play_cnt", "valid_play_user_num", "long_time_play_cnt",
    "long_time_play_user_num", "short_time_play_cnt", "short_time_play_user_num", "play_progress",
    "comment_stay_duration", "like_cnt", "like_user_num", "click_like_cnt", "double_click_cnt",
    "cancel_like_cnt", "cancel_like_user_num", "comment_cnt", "comment_user_num", "direct_comment_cnt",
    "reply_comment_cnt", "delete_comment_cnt", "delete_comment_user_num", "comment_like_cnt",
    "comment_like_user_num", "follow_cnt", "follow_user_num", "cancel_follow_cnt", "cancel_follow_user_num",
    "share_cnt", "share_user_num", "download_cnt", "download_user_num", "report_cnt", "report_user_num",
    "reduce_similar_cnt", "reduce_similar_user_num", "collect_cnt", "collect_user_num", "cancel_collect_cnt",
    "cancel_collect_user_num", "direct_comment_user_num", "reply_comment_user_num", "share_all_cnt",
    "share_all_user_num", "outsite_share_all_cnt",
)  # fmt: skip
VIDEO_STATISTIC_COLUMNS: dict[str, pl.DataType] = {
    "video_id": pl.Int64(),
    "counts": pl.Int64(),
} | {name: pl.Float64() for name in STATISTICS}

CAPTION_COLUMNS: dict[str, pl.DataType] = {
    "final_video_id": pl.Int64(),
    "caption": pl.String(),
    "show_cover_text": pl.String(),
    "duration": pl.Float64(),
}

LEVELS = ("first", "second", "third", "fourth")
CATEGORY_COLUMNS: dict[str, pl.DataType] = {"final_video_id": pl.Int64()}
for _level in LEVELS:
    CATEGORY_COLUMNS |= {
        f"{_level}_level_category_id": pl.Int32(),
        f"{_level}_level_category_name": pl.String(),
        f"{_level}_level_category_prob": pl.Float64(),
    }

# role → (file name without its part and ending, columns), logs first and in time order
FILES: dict[str, tuple[str, dict[str, pl.DataType]]] = {
    "log_standard_1": ("log_standard_4_08_to_4_21_{variant}", LOG_COLUMNS),
    "log_standard_2": ("log_standard_4_22_to_5_08_{variant}", LOG_COLUMNS),
    "log_random": ("log_random_4_22_to_5_08_{variant}", LOG_COLUMNS),
    "user_features": ("user_features_{variant}", USER_COLUMNS),
    "video_features_basic": ("video_features_basic_{variant}", VIDEO_BASIC_COLUMNS),
    "video_features_statistic": ("video_features_statistic_{variant}", VIDEO_STATISTIC_COLUMNS),
    "captions": ("kuairand_video_captions", CAPTION_COLUMNS),
    "categories": ("kuairand_video_categories", CATEGORY_COLUMNS),
}
STANDARD_LOGS = ("log_standard_1", "log_standard_2")
RANDOM_LOG = "log_random"
LOG_ROLES = (*STANDARD_LOGS, RANDOM_LOG)

# rows as published, duplicates included; items are those that occur in the logs
PUBLISHED_COUNTS: dict[str, dict[str, int]] = {
    "pure": {"standard_rows": 1_436_609, "random_rows": 1_186_059, "users": 27_285, "standard_items": 7_551, "random_items": 7_583},
    "1k": {"standard_rows": 11_713_045, "random_rows": 43_028, "users": 1_000, "standard_items": 4_369_953, "random_items": 7_388},
    "27k": {"standard_rows": 322_278_385, "random_rows": 1_186_059, "users": 27_285, "standard_items": 32_038_725, "random_items": 7_583},
}  # fmt: skip
