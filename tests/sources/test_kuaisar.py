import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kuaisar_files import (
    ITEM_LINE,
    ITEMS,
    REC,
    REC_DOCUMENTED,
    REC_LINE,
    SEARCH,
    SEARCH_DOCUMENTED,
    SEARCH_LINE,
    SOCIAL,
    T0,
    USER_LINE,
    USERS,
    item_line,
    items,
    rec,
    rec_line,
    reordered,
    search,
    search_line,
    table,
    user_line,
    users,
    write_release,
)

from reelrank.buckets import EngineOptions
from reelrank.sources.errors import EmptyFile, MissingRawFiles, TooManyBadRows, WrongHeader
from reelrank.sources.ingest import LogOptions
from reelrank.sources.kuaisar import find_files, ingest
from reelrank.sources.kuaisar_schema import DAY_MS, ITEM_TYPES, PERIODS
from reelrank.tables import (
    IdMap,
    Interactions,
    Items,
    ItemWords,
    Quarantine,
    Queries,
    RecSearches,
    SocialEdges,
    Users,
)

INT32 = 2**31 - 1
ID = 10**18 - 1
STOP = PERIODS["small"][1]


def run(root, variant="small", n_buckets=2, workers=1, kind="files", **options):
    options = LogOptions(**({"max_bad_share": 1.0} | options))
    engine = EngineOptions(n_buckets=n_buckets, workers=workers, staging=Path(root) / "staging")
    return ingest(find_files(Path(root), variant, kind), options, engine)


def rows(ingested):
    return ingested.interactions.scan().sort("user_id", "ts_ms", "row_id").collect()


# --- finding files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "variant"),
    [
        ("KuaiSAR_final", "small"),
        ("KuaiSAR-small", "small"),
        ("KuaiSAR", "small"),
        ("KuaiSAR_v2", "full"),
        ("KuaiSAR_final", "full"),
        (".", "small"),
        (".", "full"),
    ],
)
def test_every_official_folder_is_found(tmp_path, folder, variant):
    manifest = find_files(write_release(tmp_path, folder), variant)
    assert [file.role for file in manifest.files] == [
        "rec_inter", "src_inter", "user_features", "item_features", "social_network",
    ]  # fmt: skip
    assert manifest.root == (tmp_path / folder).resolve()
    assert all(file.path.is_absolute() for file in manifest.files)
    assert find_files(tmp_path / folder, variant).files == manifest.files


def test_two_releases_side_by_side_are_told_apart(tmp_path):
    write_release(tmp_path, "KuaiSAR_v2")
    write_release(tmp_path, "KuaiSAR_final")
    assert find_files(tmp_path, "small").root.name == "KuaiSAR_final"
    assert find_files(tmp_path, "full").root.name == "KuaiSAR_v2"


def test_missing_files_are_listed_with_where_to_get_them(tmp_path):
    root = write_release(tmp_path, **{SEARCH: None, ITEMS: None})
    with pytest.raises(MissingRawFiles) as error:
        find_files(root, "small")
    for part in (SEARCH, ITEMS, str(root), "KuaiSAR.zip", "no commercial use", "raw_root"):
        assert part in str(error.value)
    assert USERS not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"KuaiSAR_v2\.zip"):
        find_files(tmp_path / "nowhere", "full")


@pytest.mark.parametrize("content", [None, "", "user_id,user_follow_id\n"])
def test_a_release_without_follow_edges_has_an_empty_table(tmp_path, content):
    got = run(write_release(tmp_path, **{SOCIAL: content}))
    assert got.extras["social_edges"].is_empty()
    SocialEdges.validate(got.extras["social_edges"])
    files = {file["role"]: file["rows_read"] for file in got.report["files"]}
    assert files.get("social_network") == (None if content is None else 0)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (REC, rec(rec_line()).replace("click", "clicks", 1), WrongHeader, r"Missing columns: \['click'\]; unexpected columns: \['clicks'\]"),
        (REC, table([*REC_LINE, "extra"], [rec_line() + ",1"]), WrongHeader, r"unexpected columns: \['extra'\]"),
        (SEARCH, table([*SEARCH_LINE, "keyword"], [search_line() + ",1"]), WrongHeader, r"unexpected columns: \['keyword'\]"),
        (SEARCH, table(list(SEARCH_LINE)[:-1], [""]), WrongHeader, r"Missing columns: \['search_session_time'\]"),
        (REC, rec(rec_line()).replace(",", "\t"), WrongHeader, "comma-separated"),
        (REC, rec(rec_line()).encode("utf-16"), WrongHeader, "UTF-8"),
        (REC, gzip.compress(rec(rec_line()).encode()), WrongHeader, "wrong header"),
        (USERS, users(user_line()).replace("reco_active_level", "active_level"), WrongHeader, "reco_active_level"),
        (USERS, table([*USER_LINE, "rec_active_level"], [user_line() + ",1"]), WrongHeader, "rec_active_level"),
        (ITEMS, items(item_line()).replace("caption", "\0", 1), WrongHeader, "caption"),
        (SOCIAL, "user_id,friend_list\n", WrongHeader, "user_follow_id"),
        (REC, rec(), EmptyFile, "no rows in"),
        (REC, b"", EmptyFile, "no rows in"),
        (SEARCH, b"", EmptyFile, "no rows in"),
        (USERS, users(), EmptyFile, "no rows in"),
        (ITEMS, b"", EmptyFile, "no rows in"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, name, content, error, message):
    with pytest.raises(error, match=message) as caught:
        find_files(write_release(tmp_path, **{name: content}), "small")
    assert name in str(caught.value)


def test_columns_are_taken_by_name_in_either_order_and_spelling(tmp_path):
    as_found = write_release(tmp_path / "found")
    contents = {
        name: (as_found / "KuaiSAR_final" / name).read_text(encoding="utf-8")
        for name in (REC, SEARCH, USERS, ITEMS)
    }
    documented = {
        REC: reordered(contents[REC], REC_DOCUMENTED),
        SEARCH: "\ufeff" + reordered(contents[SEARCH], SEARCH_DOCUMENTED),
        USERS: reordered(
            contents[USERS],
            ("user_id", "search_active_level", "reco_active_level", "onehot_feat1", "onehot_feat2"),
            {"reco_active_level": "rec_active_level"},
        ),
        ITEMS: reordered(contents[ITEMS], [name for name in ITEM_LINE if name != "music_id"]),
    }
    assert "music_id" not in documented[ITEMS]
    one = run(as_found)
    two = run(write_release(tmp_path / "documented", **documented))
    assert rows(two).equals(rows(one))
    assert two.users.equals(one.users)
    assert one.users.row(0, named=True) == {
        "user_id": 0, "search_active_level": 6, "rec_active_level": 2, "onehot_feat1": 3, "onehot_feat2": 1,
    }  # fmt: skip
    assert two.items.drop("music_id").equals(one.items.drop("music_id"))
    assert (one.items["music_id"].to_list(), two.items["music_id"].to_list()) == (
        [4] * 3,
        [None] * 3,
    )
    for name, extra in one.extras.items():
        assert two.extras[name].equals(extra), name


# --- bad rows ------------------------------------------------------------------------------------------------

BAD_LINES = [
    (REC, rec_line(item_id="12a"), "item_id is not an integer: '12a'"),
    (REC, rec_line(timestamp="soon"), "timestamp is not a number: 'soon'"),
    (REC, rec_line(timestamp=""), "timestamp is empty"),
    (REC, rec_line().rpartition(",")[0], "wrong number of fields: 11 instead of 12"),
    (REC, rec_line() + ",1", "wrong number of fields: 13 instead of 12"),
    (REC, rec_line().replace(",", ";"), "wrong number of fields: 1 instead of 12"),
    (REC, rec_line(playing_time="-1.0"), f"playing_time must be 0…{INT32}, is -1.0"),
    (REC, rec_line(duration_ms="-45400.0"), f"duration_ms must be 0…{INT32}, is -45400.0"),
    (REC, rec_line(duration_ms="1e12"), f"duration_ms must be 0…{INT32}, is 1e12"),
    (REC, rec_line(duration_ms="NaN"), "duration_ms is not a number: 'NaN'"),
    (REC, rec_line(like=2), "like must be 0 or 1, is 2"),
    (REC, rec_line(search=-1), "search must be 0 or 1, is -1"),
    (REC, rec_line(timestamp=T0 - DAY_MS - 1), "timestamp must be within a day of 2023-05-22…2023-05-31"),
    (REC, rec_line(timestamp=STOP + DAY_MS + 1), "timestamp must be within a day of"),
    (REC, rec_line(timestamp=T0 // 1000), "timestamp must be within a day of"),
    (REC, rec_line(user_id=-1), f"user_id must be 0…{INT32}, is -1"),
    (REC, rec_line(user_id=2**31), f"user_id must be 0…{INT32}, is {2**31}"),
    (REC, rec_line(item_id=-7), f"item_id must be 0…{ID}, is -7"),
    (REC, rec_line(time="\0"), "NUL byte"),
    (REC, "", "empty line"),
    (SEARCH, search_line(click_cnt=-1), f"click_cnt must be 0…{INT32}, is -1"),
    (SEARCH, search_line(click_cnt="yes"), "click_cnt is not an integer: 'yes'"),
    (SEARCH, search_line(item_type="SONG"), "item_type must be one of VIDEO, IMAGE_ATLAS, USER, LIVE, COMMODITY, MUSIC, ADVERT, is 'SONG'"),
    (SEARCH, search_line(keyword='"[20, b]"'), "keyword is not a list of word ids: '[20, b]'"),
    (SEARCH, search_line(keyword='"[20, 34"'), "keyword is not a list of word ids: '[20, 34'"),
    (SEARCH, search_line(keyword='"[20, 34'), "a quote is not closed on its line"),
    (SEARCH, search_line(keyword="[20, 34]"), "wrong number of fields: 10 instead of 9"),
    (SEARCH, search_line(search_session_timestamp=STOP + 2 * DAY_MS), "search_session_timestamp must be within a day of"),
    (SEARCH, search_line(item_id=10**18), f"item_id is not an integer: '{10**18}'"),
    (SEARCH, search_line(user_id="\0"), "NUL byte"),
    (USERS, user_line(user_id=2, onehot_feat1="x"), "onehot_feat1 is not an integer: 'x'"),
    (USERS, user_line(user_id=1, onehot_feat1=7), "user_id 1 stands twice with other values"),
    (USERS, user_line(user_id=""), "user_id is empty"),
    (ITEMS, item_line(item_id=9, caption='"[1, x]"'), "caption is not a list of word ids: '[1, x]'"),
    (ITEMS, item_line(item_id=9, upload_time="2023-13-01"), "upload_time is not a time: '2023-13-01'"),
    (ITEMS, item_line(item_id=9, upload_time="yesterday"), "upload_time is not a time: 'yesterday'"),
    (ITEMS, item_line(item_id=9, author_id="me"), "author_id is not a number: 'me'"),
    (ITEMS, item_line(item_id=2, author_id=11), "item_id 2 stands twice with other values"),
    (ITEMS, item_line(item_id=9, first_level_category_name='"x'), "a quote is not closed on its line"),
    (SOCIAL, "0,x", "user_follow_id is not an integer: 'x'"),
    (SOCIAL, "0", "wrong number of fields: 1 instead of 2"),
]  # fmt: skip
COLUMNS = {REC: REC_LINE, SEARCH: SEARCH_LINE, USERS: USER_LINE, ITEMS: ITEM_LINE, SOCIAL: ("user_id", "user_follow_id")}  # fmt: skip
GOOD = {
    REC: [rec_line(), rec_line(user_id=1)],
    SEARCH: [search_line(), search_line(item_id=2)],
    USERS: [user_line(), user_line(user_id=1)],
    ITEMS: [item_line(), item_line(item_id=2)],
    SOCIAL: ["0,1", "1,0"],
}


@pytest.mark.parametrize(
    ("name", "line", "reason", "end"),
    [(*bad, ("\n", "\r\n")[k % 2]) for k, bad in enumerate(BAD_LINES)],
)
def test_a_bad_line_is_quarantined_with_its_place_and_reason(tmp_path, name, line, reason, end):
    lines = [*GOOD[name], line, GOOD[name][0]]  # the last one is an exact duplicate
    got = run(write_release(tmp_path, **{name: table(COLUMNS[name], lines, end)}), chunk_mb=1e-4)
    assert got.quarantine.height == 1
    bad = got.quarantine.row(0, named=True)
    assert (bad["file"], bad["line"]) == (name, 4)
    assert bad["reason"].startswith(reason)
    assert bad["text"] == line.replace("\0", "␀")
    files = {file["file"]: file for file in got.report["files"]}
    assert [files[name][count] for count in ("rows_read", "bad", "duplicates")] == [4, 1, 1]


@pytest.mark.parametrize("name", [REC, ITEMS])
def test_bytes_that_are_no_text_and_a_cut_end_are_quarantined(tmp_path, name):
    content = table(COLUMNS[name], GOOD[name]).encode() + b"\xff\xfe,1\n"
    content += GOOD[name][0].encode()[:12]
    got = run(write_release(tmp_path, **{name: content}))
    assert got.quarantine.select("file", "line").rows() == [(name, 4), (name, 5)]
    first, last = got.quarantine["reason"]
    assert first == "not UTF-8"
    assert last.startswith("truncated last line" if name == REC else "a quote is not closed")


@pytest.mark.parametrize("name", [SEARCH, USERS])
def test_too_many_bad_rows_stop_the_run(tmp_path, name):
    root = write_release(tmp_path, **{name: table(COLUMNS[name], [GOOD[name][0], *["x"] * 4])})
    with pytest.raises(TooManyBadRows) as error:
        run(root, max_bad_share=0.5)
    for part in (name, "4 of 5", "80.00%", "kuaisar.ingest.max_bad_share", "line 3: wrong number"):
        assert part in str(error.value)
    assert list((tmp_path / "staging").glob("*")) == []


def test_the_other_release_s_days_are_told_by_name(tmp_path):
    late = {REC: rec(rec_line(timestamp=STOP + 5 * DAY_MS))}
    with pytest.raises(TooManyBadRows, match=r"2023-05-22…2023-05-31"):
        run(write_release(tmp_path, **late), max_bad_share=0.01)
    assert run(tmp_path, "full", max_bad_share=0.01).quarantine.is_empty()


# --- what the tables hold ------------------------------------------------------------------------------------


def test_both_scenarios_come_out_sorted_numbered_and_typed(tmp_path):
    minute = 60_000
    root = write_release(
        tmp_path,
        **{
            REC: rec(
                rec_line(user_id=7, item_id=2, timestamp=T0 + 62 * minute, forward=1),
                rec_line(user_id=7, item_id=1, timestamp=f"{T0}.0", duration_ms="0.0", click=0, like=1),
                rec_line(user_id=7, item_id=2, timestamp=f"{T0}.0", playing_time="", follow=1),
            ),
            SEARCH: search(
                search_line(user_id=7, item_id=103_656_000_000, click_cnt=3),
                search_line(user_id=7, item_id=0, click_cnt=0, item_type="IMAGE_ATLAS"),
                search_line(user_id=500, item_id=1, click_cnt=1, search_session_timestamp=T0 + 1),
            ),
        },
    )  # fmt: skip
    got = run(root)
    assert got.user_map["raw_id"].to_list() == [0, 1, 7, 500]
    assert got.item_map["raw_id"].to_list() == [0, 1, 2, 103_656_000_000]
    second = 2**40
    none = (None,) * 7
    assert rows(got).rows() == [
        # user item ts row_id scenario request session play duration ratio click like follow comment forward hate long rand
        (2, 1, T0, 3, 1, 0, 0, 60_792, None, None, 0, 1, 0, None, 0, None, None, 0),
        (2, 2, T0, 4, 1, 0, 0, None, 45_400, None, 1, 0, 1, None, 0, None, None, 0),
        (2, 3, T0 + minute, second + 2, 0, 1, 0, *none[:3], 1, *none[:6], 0),
        (2, 0, T0 + minute, second + 3, 0, 1, 0, *none[:3], 0, *none[:6], 0),
        (2, 2, T0 + 62 * minute, 2, 1, 2, 1, 60_792, 45_400, np.float32(60_792 / 45_400), 1, 0, 0, None, 1, None, None, 0),
        (3, 1, T0 + 1, second + 4, 0, 3, 2, *none[:3], 1, *none[:6], 0),
    ]  # fmt: skip
    for bucket in range(2):
        Interactions.validate(got.interactions.read(bucket))
    for model, frame in (
        (Items, got.items), (Users, got.users), (IdMap, got.user_map), (IdMap, got.item_map), (Quarantine, got.quarantine),
        (SocialEdges, got.extras["social_edges"]), (Queries, got.extras["queries"]), (ItemWords, got.extras["item_words"]),
        (RecSearches, got.extras["rec_searches"]),
    ):  # fmt: skip
        model.validate(frame)
    assert (got.report["unknown_users"], got.report["unknown_items"]) == (2, 1)
    # users 0 and 1 have no rows, user 7 and 500 no attributes, item 103656000000 neither
    assert got.users["onehot_feat1"].to_list() == [3, 3, None, None]
    assert got.items["author_id"].to_list() == [10, 10, 10, None]
    assert got.items["duration_ms"].to_list() == [None, None, 45_400, None]


def test_search_results_that_are_no_video_are_counted_by_type(tmp_path):
    lines = [
        search_line(item_id=10**11 + k, item_type=kind, click_cnt=1)
        for k, kind in enumerate(ITEM_TYPES)
    ]
    got = run(write_release(tmp_path, **{SEARCH: search(*lines, lines[2].replace("103", "104"))}))
    files = {file["file"]: file for file in got.report["files"]}
    assert files[SEARCH]["excluded"] == {
        "ADVERT": 1, "COMMODITY": 1, "LIVE": 1, "MUSIC": 1, "USER": 2,
    }  # fmt: skip
    assert [step["rows"] for step in got.report["steps"]] == [10, 10, 4, 4]
    assert rows(got).filter(scenario=0).height == 2
    facts = {fact["fact"]: fact["measured"] for fact in got.report["facts"]}
    assert (facts["rec_items"], facts["search_items"], facts["items"]) == (2, 7, 9)
    assert got.items.height == 5


def test_exact_duplicates_go_and_near_ones_stay(tmp_path):
    line = rec_line(item_id=1)
    got = run(
        write_release(
            tmp_path,
            **{
                REC: rec(line, line, rec_line(item_id=1, time="2023-05-22 14:50:01")),
                SEARCH: search(search_line(), search_line(), search_line(click_cnt=1)),
            },
        )
    )
    assert rows(got)["row_id"].to_list() == [2, 4, 2**40 + 2, 2**40 + 4]
    files = {file["file"]: file["duplicates"] for file in got.report["files"]}
    assert (files[REC], files[SEARCH]) == (1, 1)


def test_queries_are_search_sessions_whose_rows_need_not_stand_together(tmp_path):
    other = {"search_session_id": 2, "search_session_timestamp": T0 + 5, "keyword": "[7]"}
    root = write_release(
        tmp_path,
        **{
            SEARCH: search(
                search_line(item_id=1),
                search_line(item_id=2, **other, search_source=""),
                search_line(item_id=2, click_cnt=4, item_type="USER"),
                search_line(user_id=1, keyword="[]"),
                search_line(user_id=1, keyword='"[ 5 ,6]"'),
                search_line(user_id=9, keyword="[1]", item_type="LIVE"),
            )
        },
    )
    got = run(root, chunk_mb=1e-4)
    at = T0 + 60_000
    assert got.extras["queries"].rows() == [
        (0, T0 + 5, 2, [7], None, 0),
        (0, at, 1, [20, 34, 3], "USER_INPUT", 1),
        (1, at, 1, None, "USER_INPUT", 0),
        (1, at, 1, [5, 6], "USER_INPUT", 0),
    ]
    # user 9 has no attributes and saw nothing that is an interaction
    assert (got.report["queries"], got.report["queries_of_no_user"]) == (5, 1)
    assert got.report["queries_clicked_share"] == pytest.approx(1 / 5)


def test_searches_from_the_feed_are_kept_apart_from_its_rows(tmp_path):
    went = rec_line(user_id=1, item_id=2, search=1, search_item_related=1)
    root = write_release(
        tmp_path,
        **{REC: rec(rec_line(), went, went, rec_line(item_id=1, search=1, search_item_related=""))},
    )
    got = run(root)
    assert got.extras["rec_searches"].rows() == [(0, 1, T0, None), (1, 2, T0, 1)]
    assert got.report["searches_from_rec"] == 2
    assert "search" not in rows(got).columns


def test_padding_becomes_null(tmp_path):
    lines = [
        item_line(),
        item_line(item_id=1, author_id=0, upload_time="1970-01-01", music_id=0, first_level_category_id=0, caption="[]"),
        item_line(item_id=2, upload_time="1970-01-01 08:00:00", author_id="12.0", second_level_category_id="", caption="[8]", upload_type=""),
        item_line(item_id=3, upload_time="2023-04-22 10:00:01", second_level_category_id=-124, caption="", music_id=-1),
        item_line(item_id=4, upload_time="", author_id=""),
    ]  # fmt: skip
    got = run(write_release(tmp_path, **{ITEMS: items(*lines)}))
    assert got.quarantine.is_empty()
    first, *_ = got.items.rows(named=True)
    assert {name: value for name, value in first.items() if value is not None} == {
        "item_id": 0, "author_id": 10, "duration_ms": 45_400, "upload_ts": 1_682_092_800_000, "category_1": 9, "category_2": 136,
        "music_id": 4, "video_type": "NORMAL", "upload_type": "LongImport",
    }  # fmt: skip
    assert got.items["author_id"].to_list() == [10, None, 12, 10, None]
    day = 1_682_092_800_000
    assert got.items["upload_ts"].to_list() == [day, None, None, day + 36_001_000, None]
    assert got.items["category_1"].to_list() == [9, None, 9, 9, 9]
    assert got.items["category_2"].to_list() == [136, 136, None, None, 136]
    assert got.items["music_id"].to_list() == [4, None, 4, None, 4]
    assert got.items["upload_type"].null_count() == 1
    assert got.extras["item_words"].rows() == [(0, [1, 213, 24]), (2, [8]), (4, [1, 213, 24])]


def test_users_of_follow_edges_are_users(tmp_path):
    got = run(write_release(tmp_path, **{SOCIAL: "user_id,user_follow_id\n77,0\n1,0\n1,0\n"}))
    assert got.user_map["raw_id"].to_list() == [0, 1, 77]
    assert got.extras["social_edges"].rows() == [(1, 0, None), (2, 0, None)]
    assert got.users["onehot_feat1"].to_list() == [3, 3, None]
    assert got.report["files"][-1]["duplicates"] == 1


# --- published facts -----------------------------------------------------------------------------------------


def test_published_counts_stand_beside_the_measured_ones(tmp_path, monkeypatch, caplog):
    root = write_release(tmp_path)
    facts = {fact["fact"]: fact for fact in run(root).report["facts"]}
    assert facts["rec_rows"] == {
        "fact": "rec_rows", "published": 7_493_101, "measured": 2, "status": "partial",
    }  # fmt: skip
    assert {name: fact["measured"] for name, fact in facts.items()} == {
        "rec_rows": 2, "search_rows": 2, "users": 2, "rec_items": 2, "search_items": 2, "items": 3, "queries": 1,
    }  # fmt: skip
    full = {fact["fact"]: fact["published"] for fact in run(root, "full").report["facts"]}
    assert (full["rec_rows"], full["search_rows"], full["queries"]) == (
        14_605_716,
        5_059_169,
        453_667,
    )
    assert {fact["status"] for fact in run(root, kind="world").report["facts"]} == {"generated"}
    # once the logs are whole, every other number is asserted
    whole = {"rec_rows": 2, "search_rows": 2, "users": 3, "rec_items": 1, "queries": 1}
    monkeypatch.setattr("reelrank.sources.kuaisar_report.PUBLISHED_COUNTS", {"small": whole})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        report = run(root).report
    assert {fact["fact"]: fact["status"] for fact in report["facts"]} == {
        "rec_rows": "complete", "search_rows": "complete", "users": "fewer than published", "rec_items": "more than published",
        "queries": "complete",
    }  # fmt: skip
    assert "the logs are whole, but users is 2, published are 3" in caplog.text


def test_documented_rates_are_measured(tmp_path):
    clicks = [rec_line(item_id=k, click=int(k > 0)) for k in range(3)]
    got = run(write_release(tmp_path, **{REC: rec(*clicks)}))
    assert got.report["rec_click_share"] == pytest.approx(2 / 3)
    assert got.report["search_click_share"] == 0.5
    assert got.report["queries_clicked_share"] == 1.0


def test_what_a_table_comes_from_is_stored_with_it(tmp_path):
    root = write_release(tmp_path)
    one, two = run(root), run(root, session_gap_s=900)
    assert one.interactions.meta["fingerprint"] != two.interactions.meta["fingerprint"]
    assert one.interactions.meta["code_version"] == two.interactions.meta["code_version"]


# --- invariants ----------------------------------------------------------------------------------------------

_rec_lines = st.one_of(
    st.builds(rec_line, user_id=st.integers(0, 5), item_id=st.integers(0, 3), search=st.integers(0, 1)),
    st.sampled_from([line for name, line, _ in BAD_LINES if name == REC]),
)  # fmt: skip
_search_lines = st.one_of(
    st.builds(
        search_line,
        user_id=st.integers(0, 5),
        item_id=st.integers(0, 3),
        item_type=st.sampled_from(ITEM_TYPES[:3]),
        keyword=st.sampled_from(['"[1, 2]"', "[3]"]),
    ),
    st.sampled_from([line for name, line, _ in BAD_LINES if name == SEARCH]),
)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(_rec_lines, min_size=1, max_size=20),
    st.lists(_search_lines, min_size=1, max_size=20),
    st.integers(1, 4),
)
def test_every_row_is_accounted_for_whatever_the_chunks_and_buckets(
    tmp_path_factory, of_rec, of_search, n_buckets
):
    of_rec = [rec_line(), *of_rec]
    root = write_release(
        tmp_path_factory.mktemp("release"),
        **{REC: rec(*of_rec), SEARCH: search(search_line(), *of_search)},
    )
    one = run(root, n_buckets=1)
    many = run(root, n_buckets=n_buckets, workers=2, chunk_mb=1e-4)
    assert rows(many).equals(rows(one))
    assert many.quarantine.equals(one.quarantine)
    assert many.report == one.report
    for name, extra in one.extras.items():
        assert many.extras[name].equals(extra), name
    files = one.report["files"]
    excluded = sum(sum(file["excluded"].values()) for file in files)
    duplicates = sum(file["duplicates"] for file in files)
    read = sum(file["rows_read"] for file in files[:2])
    assert read == len(of_rec) + len(of_search) + 1
    assert read == one.interactions.n_rows + duplicates + excluded + one.quarantine.height


def test_a_file_that_changed_after_it_was_found_is_noticed(tmp_path):
    manifest = find_files(write_release(tmp_path), "small")
    (tmp_path / "KuaiSAR_final" / USERS).write_text("user_id\n1\n")
    engine = EngineOptions(n_buckets=1, staging=tmp_path / "staging")
    with pytest.raises(WrongHeader, match=USERS):
        ingest(manifest, LogOptions(), engine)
