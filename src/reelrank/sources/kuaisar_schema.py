"""What the official KuaiSAR files hold: columns, value ranges, file and folder names, published counts.

All times are Beijing time, the Unix milliseconds are authoritative. The time of a recommended row is when the item was *distributed*
(items sent together share it), not when it was viewed; the time of a search row is that of its search session. Captions and
keywords are lists of hashed word ids of one vocabulary.

Source: the data set's documentation (Sun et al., CIKM'23, doi 10.1145/3583780.3615123) [S]; column order, spellings and folders as public
code reads them [A]: nobody's real rows were at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from reelrank.sources.errors import WrongHeader
from reelrank.sources.log_csv import Column, read_header

Variant = Literal["small", "full"]

# KuaiSAR.zip (small) unpacks to KuaiSAR_final/, KuaiSAR_v2.zip to KuaiSAR_v2/; the other names are what people rename them to
FOLDERS: dict[Variant, tuple[str, ...]] = {
    "small": ("KuaiSAR-small", "KuaiSAR_small", "KuaiSAR_final", "KuaiSAR"),
    "full": ("KuaiSAR_v2", "KuaiSAR_final", "KuaiSAR"),
}
LICENCE = (
    "CC BY-NC-SA 4.0 (no commercial use), © Sun et al., CIKM 2023, doi 10.1145/3583780.3615123"
)
DOWNLOADS: dict[Variant, str] = {
    "small": "https://zenodo.org/record/8181109/files/KuaiSAR.zip",
    "full": "https://zenodo.org/record/8181109/files/KuaiSAR_v2.zip",
}

SEARCH, REC = 0, 1  # scenario, METHODS §1.1
# Asia/Shanghai, no daylight saving time since 1991
UTC_OFFSET_MS = 8 * 3_600_000
DAY_MS = 86_400_000
# local 2023-05-22 14:50 … 05-31 14:50 and 2023-05-22 14:30 … 06-10 09:30
PERIODS: dict[Variant, tuple[int, int]] = {
    "small": (1_684_738_200_000, 1_685_515_800_000),
    "full": (1_684_737_000_000, 1_686_360_600_000),
}
DAYS: dict[Variant, str] = {
    "small": "2023-05-22…2023-05-31",
    "full": "2023-05-22…2023-06-10",
}

ITEM_TYPES = ("VIDEO", "IMAGE_ATLAS", "USER", "LIVE", "COMMODITY", "MUSIC", "ADVERT")
N_VIDEO_TYPES = 2  # the first two are items that are watched; the rest can be searched for only
NO_UPLOAD_DAY = "1970-01-01"  # padding of upload_time
ID_MAX = 10**18 - 1
INT32_MAX = 2**31 - 1


def _whole(name: str, high: int = INT32_MAX, *, low: int = 0, nullable: bool = False) -> Column:
    return Column(name, "integer", low, high, f"{low}…{high}", nullable=nullable)


def _printed_as_float(
    name: str, high: int = INT32_MAX, *, low: int = 0, rule: str = "", nullable: bool = False
) -> Column:
    return Column(name, "decimal", low, high, rule or f"{low}…{high}", nullable=nullable)


def _flag(name: str, nullable: bool = False) -> Column:
    return Column(name, "integer", 0, 1, "0 or 1", nullable=nullable)


def _time(name: str, variant: Variant) -> Column:
    start, stop = PERIODS[variant]
    rule = f"within a day of {DAYS[variant]}, in Unix milliseconds"
    return _printed_as_float(name, stop + DAY_MS, low=start - DAY_MS, rule=rule)


def rec_columns(variant: Variant) -> tuple[Column, ...]:
    """Columns of rec_inter.csv."""
    return (
        _whole("user_id"),
        _whole("item_id", ID_MAX),
        _printed_as_float("duration_ms", nullable=True),
        _printed_as_float("playing_time", nullable=True),
        _time("timestamp", variant),
        _flag("forward"),
        _flag("like"),
        _flag("follow"),
        _flag("search_item_related", nullable=True),  # valid only where search is 1
        _flag("search"),
        _flag("click"),
        Column("time", "skip"),
    )


def search_columns(variant: Variant) -> tuple[Column, ...]:
    """Columns of src_inter.csv."""
    return (
        Column("keyword", "text"),
        _whole("item_id", ID_MAX),
        _whole("click_cnt"),
        _whole("search_session_id", ID_MAX),
        Column("item_type", "category", 0, len(ITEM_TYPES) - 1, categories=ITEM_TYPES),
        _whole("user_id"),
        _time("search_session_timestamp", variant),
        Column("search_source", "text"),
        Column("search_session_time", "skip"),
    )


USER_COLUMNS = (
    _whole("user_id"),
    _whole("onehot_feat1", nullable=True),
    _whole("onehot_feat2", nullable=True),
    _whole("search_active_level", nullable=True),
    _whole("reco_active_level", nullable=True),
)
SOCIAL_COLUMNS = (_whole("user_id"), _whole("user_follow_id"))
LEVELS = ("first", "second", "third", "fourth")
ITEM_COLUMNS = (
    _whole("item_id", ID_MAX),
    Column("caption", "text"),
    _printed_as_float("author_id", ID_MAX, nullable=True),
    Column("item_type", "text"),
    Column("upload_time", "text"),
    Column("upload_type", "text"),
    _printed_as_float("music_id", ID_MAX, low=-ID_MAX, nullable=True),
    *(
        column
        for level in LEVELS
        for column in (
            _printed_as_float(f"{level}_level_category_id", nullable=True, low=-INT32_MAX),
            Column(f"{level}_level_category_name", "skip"),
        )
    ),
    *(Column(f"{level}_level_category_name_en", "skip") for level in LEVELS),
)
LOG_ROLES = ("rec_inter", "src_inter")
ROLES = (*LOG_ROLES, "user_features", "item_features", "social_network")
# documented spelling → the files' own
SPELLINGS = {"rec_active_level": "reco_active_level"}
UNDOCUMENTED = ("music_id",)  # a file may lack it

PUBLISHED_COUNTS: dict[str, dict[str, int]] = {
    "small": {
        "rec_rows": 7_493_101, "search_rows": 3_171_231, "users": 25_877, "rec_items": 2_281_034, "search_items": 2_012_476,
        "items": 4_195_529, "queries": 267_608,
    },
    "full": {
        "rec_rows": 14_605_716, "search_rows": 5_059_169, "users": 25_877, "rec_items": 4_046_367, "search_items": 3_026_189,
        "items": 6_890_707, "queries": 453_667,
    },
}  # fmt: skip


def file_columns(role: str, variant: Variant, path: Path) -> tuple[Column, ...]:
    """The columns that a file's header names, whichever official spelling it uses.

    Raises:
        WrongHeader: a column is missing, unknown or named twice.
    """
    official: Mapping[str, tuple[Column, ...]] = {
        "rec_inter": rec_columns(variant),
        "src_inter": search_columns(variant),
        "user_features": USER_COLUMNS,
        "item_features": ITEM_COLUMNS,
        "social_network": SOCIAL_COLUMNS,
    }
    columns = {column.name: column for column in official[role]}
    found = read_header(path)
    if not found:
        return official[role]
    renamed = [SPELLINGS.get(name, name) for name in found]
    missing = [name for name in columns if name not in renamed and name not in UNDOCUMENTED]
    unexpected = [found[i] for i, n in enumerate(renamed) if n not in columns or n in renamed[:i]]
    if missing or unexpected:
        shown = [name[:40] for name in unexpected[:20]]
        raise WrongHeader(
            f"{path}: wrong header. Missing columns: {missing or 'none'}; unexpected columns: {shown or 'none'}. "
            "The file must be comma-separated UTF-8 with the official column names, in any order."
        )
    return tuple(
        replace(columns[name], name=as_found) for name, as_found in zip(renamed, found, strict=True)
    )
