"""Tiny files in KuaiSAR's official format."""

from pathlib import Path

from reelrank.sources.kuaisar_schema import PERIODS

REC = "rec_inter.csv"
SEARCH = "src_inter.csv"
USERS = "user_features.csv"
ITEMS = "item_features.csv"
SOCIAL = "social_network.csv"

T0 = PERIODS["small"][0]
# the files' own order of columns, then the documented one
REC_LINE = {
    "user_id": 0, "item_id": 0, "duration_ms": "45400.0", "playing_time": "60792.0", "timestamp": f"{T0}.0", "forward": 0, "like": 0,
    "follow": 0, "search_item_related": 0, "search": 0, "click": 1, "time": "2023-05-22 14:50:00",
}  # fmt: skip
REC_DOCUMENTED = (
    "user_id", "item_id", "playing_time", "duration_ms", "time", "timestamp", "click", "forward", "like", "follow", "search",
    "search_item_related",
)  # fmt: skip
SEARCH_LINE = {
    "keyword": '"[20, 34, 3]"', "item_id": 1, "click_cnt": 0, "search_session_id": 1, "item_type": "VIDEO", "user_id": 0,
    "search_session_timestamp": T0 + 60_000, "search_source": "USER_INPUT", "search_session_time": "2023-05-22 14:51:00",
}  # fmt: skip
SEARCH_DOCUMENTED = (
    "user_id", "search_session_id", "search_session_time", "search_session_timestamp", "keyword", "search_source", "item_id",
    "click_cnt", "item_type",
)  # fmt: skip
USER_LINE = {
    "user_id": 0,
    "onehot_feat1": 3,
    "onehot_feat2": 1,
    "search_active_level": 6,
    "reco_active_level": 2,
}
_CATEGORY = {
    "first": (9, "搞笑", "Funny"), "second": (136, "搞笑段子", "Funny joke"), "third": (0, "空", "empty"), "fourth": (0, "空", "empty"),
}  # fmt: skip
ITEM_LINE = {
    "item_id": 0, "caption": '"[1, 213, 24]"', "author_id": 10, "item_type": "NORMAL", "upload_time": "2023-04-22",
    "upload_type": "LongImport", "music_id": 4,
}  # fmt: skip
for _level, (_id, _name, _english) in _CATEGORY.items():
    ITEM_LINE |= {f"{_level}_level_category_id": _id, f"{_level}_level_category_name": _name}
for _level, (_id, _name, _english) in _CATEGORY.items():
    ITEM_LINE |= {f"{_level}_level_category_name_en": _english}


def _line(defaults, changes):
    assert changes.keys() <= defaults.keys()
    return ",".join(str(value) for value in (defaults | changes).values())


def rec_line(**changes):
    return _line(REC_LINE, changes)


def search_line(**changes):
    return _line(SEARCH_LINE, changes)


def user_line(**changes):
    return _line(USER_LINE, changes)


def item_line(**changes):
    return _line(ITEM_LINE, changes)


def table(columns, lines, end="\n"):
    return "".join(line + end for line in [",".join(columns), *lines])


def rec(*lines, end="\n"):
    return table(REC_LINE, lines, end)


def search(*lines, end="\n"):
    return table(SEARCH_LINE, lines, end)


def users(*lines, end="\n"):
    return table(USER_LINE, lines, end)


def items(*lines, end="\n"):
    return table(ITEM_LINE, lines, end)


def reordered(content, order, names=None):
    """The same file with its columns in another order, some under another name."""
    rows = [_split(line) for line in content.splitlines()]
    header = rows[0]
    places = [header.index(name) for name in order]
    rows[0] = [(names or {}).get(name, name) for name in header]
    return "".join(",".join(row[k] for k in places) + "\n" for row in rows)


def _split(line):
    """Fields of a line whose quoted fields hold commas."""
    fields, open_quote = [], False
    for part in line.split(","):
        if open_quote:
            fields[-1] += "," + part
        else:
            fields.append(part)
        open_quote ^= part.count('"') % 2 == 1
    return fields


def write_release(root: Path, folder: str = "KuaiSAR_final", **files: str | bytes | None) -> Path:
    """A release with two users, three videos and both scenarios; ``files`` (by constant's name) replace, add or drop contents."""
    contents = {
        REC: rec(rec_line(), rec_line(user_id=1, item_id=2)),
        SEARCH: search(search_line(), search_line(item_id=2, click_cnt=2)),
        USERS: users(user_line(), user_line(user_id=1)),
        ITEMS: items(*(item_line(item_id=k) for k in range(3))),
        SOCIAL: "user_id,user_follow_id\n0,1\n",
    } | files
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (root / folder / name).write_bytes(data)
    return root
