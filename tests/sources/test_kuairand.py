import hashlib
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kuairand_files import (
    LATER,
    RANDOM,
    STANDARD,
    T0,
    USERS,
    VIDEOS,
    log,
    log_line,
    table,
    user_line,
    video_line,
    write_release,
)

from reelrank.buckets import EngineOptions
from reelrank.sources.errors import EmptyFile, MissingRawFiles, TooManyBadRows, WrongHeader
from reelrank.sources.ingest import LogOptions
from reelrank.sources.kuairand import find_files, ingest
from reelrank.sources.kuairand_report import uniformity
from reelrank.sources.kuairand_schema import (
    CAPTION_COLUMNS,
    CATEGORY_COLUMNS,
    DAY_MS,
    LOG_COLUMNS,
    RELEASE_STOP_MS,
    USER_COLUMNS,
    VIDEO_BASIC_COLUMNS,
    VIDEO_STATISTIC_COLUMNS,
)
from reelrank.tables import IdMap, Interactions, Items, Quarantine, Users


def run(root, n_buckets=2, workers=1, **options):
    options = LogOptions(**({"max_bad_share": 1.0} | options))
    staging = Path(root) / "staging"
    engine = EngineOptions(n_buckets=n_buckets, workers=workers, staging=staging)
    return ingest(find_files(Path(root), "pure"), options, engine)


def rows(ingested):
    return ingested.interactions.scan().sort("user_id", "ts_ms", "row_id").collect()


# --- finding files -------------------------------------------------------------------------------------------


def test_all_official_files_are_found_with_parts_in_order(tmp_path):
    root = write_release(
        tmp_path,
        **{
            STANDARD: None,
            "log_standard_4_08_to_4_21_pure_part2.csv": log(log_line(user_id=1)),
            "log_standard_4_08_to_4_21_pure_part1.csv": log(log_line()),
            LATER: log(log_line(time_ms=T0 + 14 * DAY_MS)),
            RANDOM: log(log_line(is_rand=1)),
        },
    )
    manifest = find_files(root, "pure")
    assert [file.path.name for file in manifest.files] == [
        "log_standard_4_08_to_4_21_pure_part1.csv",
        "log_standard_4_08_to_4_21_pure_part2.csv",
        LATER,
        RANDOM,
        USERS,
        VIDEOS,
    ]
    assert find_files(root / "KuaiRand-Pure", "pure").files == manifest.files
    assert run(root).report["steps"][0]["rows"] == 4


def test_missing_files_are_listed_with_where_to_get_them(tmp_path):
    root = write_release(tmp_path, **{STANDARD: None, USERS: None})
    with pytest.raises(MissingRawFiles) as error:
        find_files(root, "pure")
    for part in (USERS, STANDARD, LATER, str(root), "KuaiRand-Pure.tar.gz", "CC BY-SA", "raw_root"):
        assert part in str(error.value)
    assert VIDEOS not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"KuaiRand-27K\.tar\.gz"):
        find_files(tmp_path / "nowhere", "27k")


def test_a_partial_release_may_be_one_log(tmp_path):
    root = write_release(tmp_path, **{STANDARD: None, USERS: None, VIDEOS: None, RANDOM: log(log_line(is_rand=1))})  # fmt: skip
    with pytest.raises(MissingRawFiles):
        find_files(root, "pure")
    engine = EngineOptions(n_buckets=1, staging=tmp_path / "staging")
    got = ingest(find_files(root, "pure", partial=True), LogOptions(), engine)
    assert (got.interactions.n_rows, got.users.height, got.items.height) == (1, 1, 1)
    assert got.report["unknown_users"] == 1
    assert got.items["author_id"].to_list() == [None]


def test_a_part_missing_between_others_is_named(tmp_path):
    part = "log_standard_4_08_to_4_21_pure_part{}.csv"
    root = write_release(
        tmp_path, **{part.format(n): log(log_line()) for n in (1, 3)} | {STANDARD: None}
    )
    with pytest.raises(MissingRawFiles, match=r"not log_standard_4_08_to_4_21_pure_part2\.csv"):
        find_files(root, "pure")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (STANDARD, log(log_line()).replace("tab", "tabs", 1), WrongHeader, r"Missing columns: \['tab'\]; unexpected columns: \['tabs'\]"),
        (STANDARD, table([*LOG_COLUMNS, "extra"], [log_line() + ",1"]), WrongHeader, r"unexpected columns: \['extra'\]"),
        (STANDARD, table([*LOG_COLUMNS, "tab"], [log_line() + ",1"]), WrongHeader, r"unexpected columns: \['tab'\]"),
        (STANDARD, log(log_line()).replace(",", ";"), WrongHeader, "comma-separated"),
        (STANDARD, b"\x1f\x8b\x08\x00" + b"\x00" * 99, WrongHeader, "wrong header"),
        (USERS, table(list(USER_COLUMNS)[:-1], [""]), WrongHeader, "onehot_feat17"),
        ("video_features_statistic_pure.csv", "video_id,counts\n0,1\n", WrongHeader, "show_cnt"),
        (STANDARD, log(), EmptyFile, "no rows in"),
        (STANDARD, b"", EmptyFile, "no rows in"),
        (USERS, table(USER_COLUMNS, []), EmptyFile, "no rows in"),
        (VIDEOS, b"", EmptyFile, "no rows in"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, name, content, error, message):
    with pytest.raises(error, match=message) as caught:
        find_files(write_release(tmp_path, **{name: content}), "pure")
    assert name in str(caught.value)


@pytest.mark.parametrize("is_header_there", [True, False])
def test_an_empty_optional_file_counts_as_no_rows(tmp_path, is_header_there):
    columns = {
        LATER: LOG_COLUMNS, RANDOM: LOG_COLUMNS, "kuairand_video_captions.csv": CAPTION_COLUMNS,
        "kuairand_video_categories.csv": CATEGORY_COLUMNS, "video_features_statistic_pure.csv": VIDEO_STATISTIC_COLUMNS,
    }  # fmt: skip
    files = {name: table(c, []) if is_header_there else b"" for name, c in columns.items()}
    got = run(write_release(tmp_path, **files))
    read = {file["file"]: file["rows_read"] for file in got.report["files"]}
    assert read == dict.fromkeys(columns, 0) | {
        STANDARD: 2, USERS: 2, VIDEOS: 3, "video_features_statistic_pure.csv": None,
    }  # fmt: skip
    assert got.interactions.n_rows == 2
    assert got.quarantine.is_empty()


def test_paths_of_a_manifest_are_absolute(tmp_path, monkeypatch):
    write_release(tmp_path)
    monkeypatch.chdir(tmp_path)
    manifest = find_files(Path(), "pure")
    assert manifest == find_files(tmp_path, "pure")
    assert all(path.is_absolute() for path in (manifest.root, *(f.path for f in manifest.files)))


def test_known_checksums_are_looked_up(tmp_path, monkeypatch, caplog):
    root = write_release(tmp_path)
    content = (root / "KuaiRand-Pure/data" / USERS).read_bytes()
    official = {USERS: hashlib.md5(content).hexdigest(), VIDEOS: "0" * 32}
    monkeypatch.setattr("reelrank.sources.kuairand_schema.OFFICIAL_MD5", official)
    manifest = find_files(root, "pure")
    assert [f.checksum for f in manifest.files] == ["", "official", "differs"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    of_videos = (root / "KuaiRand-Pure/data" / VIDEOS).read_bytes()
    assert all(part in caplog.text for part in (VIDEOS, "0" * 32, hashlib.md5(of_videos).hexdigest()))  # fmt: skip
    assert [f["checksum"] for f in run(root).report["files"]] == ["", "official", "differs"]
    caplog.clear()
    assert {f.checksum for f in find_files(root, "pure", "world").files} == {""}
    assert not caplog.records


def test_columns_are_taken_by_name(tmp_path):
    backwards = [
        ",".join(reversed(line.split(",")))
        for line in (",".join(LOG_COLUMNS), log_line(video_id=2))
    ]
    got = rows(run(write_release(tmp_path, **{STANDARD: "\ufeff" + "\n".join(backwards) + "\n"})))
    assert got.select("user_id", "item_id", "ts_ms", "scenario").rows() == [(0, 2, T0, 1)]


# --- bad rows ------------------------------------------------------------------------------------------------

GOOD = log_line(user_id=1)
BAD_LINES = [
    (log_line(video_id="12a"), "video_id is not an integer: '12a'"),
    (log_line(time_ms="1.6e12"), "time_ms is not an integer: '1.6e12'"),
    (log_line(time_ms="9" * 19), "time_ms is not an integer"),
    (log_line(user_id='"0"'), "user_id is not an integer"),
    (log_line(tab="1 "), "tab is not an integer: '1 '"),
    (log_line().replace(",", ";"), "wrong number of fields: 1 instead of 19"),
    (log_line().rpartition(",")[0], "wrong number of fields: 18 instead of 19"),
    (log_line() + ",1", "wrong number of fields: 20 instead of 19"),
    (log_line() + ",", "wrong number of fields: 20 instead of 19"),
    (log_line(video_id=""), "video_id is empty"),
    (log_line(tab=""), "tab is empty"),
    (log_line(play_time_ms=-1), f"play_time_ms must be 0…{2**31 - 1}, is -1"),
    (log_line(duration_ms=-5), f"duration_ms must be 0…{2**31 - 1}, is -5"),
    (log_line(play_time_ms=2**31), f"play_time_ms must be 0…{2**31 - 1}, is {2**31}"),
    (log_line(is_like=2), "is_like must be 0 or 1, is 2"),
    (log_line(is_click=-1), "is_click must be 0 or 1, is -1"),
    (log_line(tab=15), "tab must be 0…14, is 15"),
    (log_line(tab=-1), "tab must be 0…14, is -1"),
    (log_line(time_ms=T0 - DAY_MS - 1), "time_ms must be within a day of 2022-04-08…2022-05-08"),
    (log_line(time_ms=RELEASE_STOP_MS + DAY_MS), "time_ms must be within a day of"),
    (log_line(time_ms=T0 // 1000), "time_ms must be within a day of"),
    (log_line(user_id=-1), f"user_id must be 0…{2**31 - 1}, is -1"),
    (log_line(video_id=-7), f"video_id must be 0…{2**31 - 1}, is -7"),
    (log_line(is_rand=1), "is_rand must be 0 in this log, is 1"),
    (log_line(tab="\0"), "NUL byte"),
    ("", "empty line"),
    (log_line(tab="1\r2"), "tab is not an integer"),
]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_line_is_quarantined_with_its_place_and_reason(tmp_path, line, reason, end):
    got = run(write_release(tmp_path, **{STANDARD: log(GOOD, line, GOOD, log_line(), end=end)}))
    assert got.quarantine.height == 1
    bad = got.quarantine.row(0, named=True)
    assert (bad["file"], bad["line"]) == (STANDARD, 3)
    assert bad["reason"].startswith(reason)
    assert bad["text"] == line.replace("\0", "␀")
    assert rows(got)["row_id"].to_list() == [5, 2]
    assert got.report["files"][0] | {"role": ""} == {
        "file": STANDARD, "role": "", "rows_read": 4, "bad": 1, "duplicates": 1, "excluded": {}, "noted": {}, "checksum": "",
    }  # fmt: skip


def test_bytes_that_are_no_text_and_a_cut_end_are_quarantined(tmp_path):
    content = log(log_line()).encode() + b"\xff\xfe,1\n" + log_line().encode()[:20]
    got = run(write_release(tmp_path, **{STANDARD: content}))
    assert got.quarantine["line"].to_list() == [3, 4]
    assert got.quarantine["reason"].to_list() == [
        "not UTF-8",
        "truncated last line: 5 instead of 19",
    ]


def test_a_whole_last_line_needs_no_line_end(tmp_path):
    got = run(write_release(tmp_path, **{STANDARD: log(log_line(), GOOD).rstrip("\n")}))
    assert got.interactions.n_rows == 2
    assert got.quarantine.is_empty()


def test_the_random_log_must_be_random(tmp_path):
    got = run(write_release(tmp_path, **{RANDOM: log(log_line(is_rand=1), log_line(is_rand=0))}))
    assert got.quarantine["reason"].to_list() == ["is_rand must be 1 in this log, is 0"]
    assert got.report["is_rand_rows"] == 1


@pytest.mark.parametrize("name", [STANDARD, USERS])
def test_too_many_bad_rows_stop_the_run(tmp_path, name):
    lines = {STANDARD: log_line(tab="x"), USERS: user_line(register_days="x")}[name]
    columns = {STANDARD: LOG_COLUMNS, USERS: USER_COLUMNS}[name]
    good = {STANDARD: log_line(), USERS: user_line()}[name]
    root = write_release(tmp_path, **{name: table(columns, [good, *[lines] * 4])})
    with pytest.raises(TooManyBadRows) as error:
        run(root, max_bad_share=0.5)
    text = str(error.value)
    assert all(f"line {n}: " in text for n in (3, 4, 5))
    assert "line 6" not in text
    for part in (name, "4 of 5", "80.00%", "50.00%", "kuairand.ingest.max_bad_share"):
        assert part in text
    assert list((tmp_path / "staging").glob("*")) == []


def test_logs_without_one_usable_row_are_refused(tmp_path):
    root = write_release(tmp_path, **{STANDARD: log("x", "y")})
    with pytest.raises(
        ValueError, match=rf"^None of the 2 rows .*; the first, {STANDARD} line 2: wrong number"
    ):
        run(root)
    assert list((tmp_path / "staging").glob("*")) == []


SIDE_LINES = [
    (USERS, user_line(user_id=2, fans_user_num="many"), "fans_user_num is not a whole number (Int32): 'many'"),
    (USERS, user_line(user_id=""), "user_id is empty"),
    (USERS, user_line(user_id=-3), "user_id is negative: -3"),
    (USERS, user_line(user_id=1, fans_user_num=8), "user_id 1 stands twice with other values"),
    (VIDEOS, video_line(video_id=2, tag="5"), "video_id 2 stands twice with other values"),
    (USERS, user_line(user_id=2).rpartition(",")[0], "wrong number of fields"),
    (USERS, user_line(user_id=2, onehot_feat4="1.5"), "onehot_feat4 is not a whole number (Int16): '1.5'"),
    (USERS, user_line(user_id=2, register_days_range='"730+'), "a quote is not closed"),
    (USERS, user_line(user_id=2, register_days_range="\0"), "NUL byte"),
    (USERS, "", "empty line"),
    (VIDEOS, video_line(video_id=9, upload_dt="2022-13-01"), "upload_dt is not a date YYYY-MM-DD: '2022-13-01'"),
    (VIDEOS, video_line(video_id=9, tag="a"), "tag is not a comma list of whole numbers: 'a'"),
    (VIDEOS, video_line(video_id=9, tag='"1"2'), "a quote is not closed on its line or within 64 KiB, or text follows its end"),
]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "line", "reason"), SIDE_LINES)
def test_a_bad_record_of_a_side_table_is_quarantined(tmp_path, name, line, reason, end):
    columns, good = {
        USERS: (USER_COLUMNS, [user_line(user_id=u) for u in (0, 1)]),
        VIDEOS: (VIDEO_BASIC_COLUMNS, [video_line(video_id=v) for v in (0, 2)]),
    }[name]
    lines = [*good, line, good[0]]  # the last one is an exact duplicate
    got = run(write_release(tmp_path, **{name: table(columns, lines, end)}))
    bad = got.quarantine.filter(line=4).row(0, named=True)
    assert (bad["file"], bad["text"]) == (name, line.replace("\0", "␀"))
    assert bad["reason"].startswith(reason)
    assert got.quarantine["line"].to_list() == [4]
    files = {file["file"]: file for file in got.report["files"]}
    assert [files[name][count] for count in ("rows_read", "bad", "duplicates")] == [4, 1, 1]


@pytest.mark.parametrize(
    ("name", "columns", "line"),
    [
        ("kuairand_video_captions.csv", CAPTION_COLUMNS, '0,"two\nlines",,1.0'),
        ("kuairand_video_categories.csv", CATEGORY_COLUMNS, "0,7.0,运动,0.9" + "," * 9),
    ],
)
def test_exact_duplicates_of_optional_tables_are_dropped(tmp_path, name, columns, line):
    other = line.replace("0,", "1,", 1)
    conflict = line.replace(",", ",1", 1) if "7.0" in line else line.replace("two", "2")
    lines = [line, other, line, conflict, conflict]
    got = run(write_release(tmp_path, **{name: table(columns, lines)}))
    assert got.report["files"][-1] | {"role": "", "checksum": ""} == {
        "file": name, "role": "", "rows_read": 5, "bad": 1, "duplicates": 2, "excluded": {}, "noted": {}, "checksum": "",
    }  # fmt: skip
    assert got.quarantine["reason"].to_list() == ["final_video_id 0 stands twice with other values"]
    assert got.items["caption" if "caption" in name else "category_1"].null_count() == 1


def test_invalid_utf8_in_a_side_table_costs_its_row_only(tmp_path):
    content = table(VIDEO_BASIC_COLUMNS, [video_line(), video_line(video_id=1)]).encode()
    content += video_line(video_id=2, upload_type="@").encode().replace(b"@", b"\xff") + b"\n"
    got = run(write_release(tmp_path, **{VIDEOS: content}))
    assert got.quarantine.select("file", "line", "reason").rows() == [(VIDEOS, 4, "not UTF-8")]
    assert got.report["unknown_items"] == 1


# --- what the tables hold ------------------------------------------------------------------------------------


def test_rows_come_out_sorted_numbered_and_typed(tmp_path):
    minute = 60_000
    root = write_release(
        tmp_path,
        **{
            STANDARD: log(
                log_line(user_id=500, video_id=31_999_999, time_ms=T0 + 31 * minute),
                log_line(user_id=7, video_id=2, time_ms=T0 + 30 * minute, duration_ms=0, tab=14),
                log_line(user_id=7, video_id=1, time_ms=T0, play_time_ms=15_000, is_click=1),
                log_line(user_id=7, video_id=0, time_ms=T0),
            ),
            RANDOM: log(log_line(user_id=7, video_id=1, time_ms=T0 + 61 * minute, is_rand=1, is_hate=1)),
        },
    )  # fmt: skip
    got = run(root)
    assert got.user_map["raw_id"].to_list() == [0, 1, 7, 500]
    assert got.item_map["raw_id"].to_list() == [0, 1, 2, 31_999_999]
    assert rows(got).rows() == [
        # user item ts row_id tab request session play duration ratio click like follow comment forward hate long rand
        (2, 1, T0, 4, 1, 0, 0, 15_000, 10_000, 1.5, 1, 0, 0, 0, 0, 0, 0, 0),
        (2, 0, T0, 5, 1, 0, 0, 5_000, 10_000, 0.5, 0, 0, 0, 0, 0, 0, 0, 0),
        (2, 2, T0 + 30 * minute, 3, 14, 1, 0, 5_000, None, None, 0, 0, 0, 0, 0, 0, 0, 0),
        (2, 1, T0 + 61 * minute, 2**40 + 2, 1, 2, 1, 5_000, 10_000, 0.5, 0, 0, 0, 0, 0, 1, 0, 1),
        (3, 3, T0 + 31 * minute, 2, 1, 3, 2, 5_000, 10_000, 0.5, 0, 0, 0, 0, 0, 0, 0, 0),
    ]
    for bucket in range(2):
        stored = got.interactions.read(bucket)
        raw = stored.join(got.user_map, left_on="user_id", right_on="dense_id")["raw_id"]
        assert set(raw % 2) <= {bucket}
        Interactions.validate(stored)
    for model, frame in (
        (Items, got.items), (Users, got.users), (IdMap, got.user_map), (IdMap, got.item_map), (Quarantine, got.quarantine),
    ):  # fmt: skip
        model.validate(frame)
    report = got.report
    assert report["unknown_users"] == 2
    assert report["unknown_items"] == 1
    assert (report["users"], report["items"]) == (4, 4)
    assert (report["requests"], report["sessions"]) == (4, 3)
    assert (report["first_ts_ms"], report["last_ts_ms"]) == (T0, T0 + 61 * minute)
    assert (report["duration_null"], report["is_rand_rows"]) == (1, 1)
    assert report["rows_per_tab"] == {"1": 4, "14": 1}
    assert got.users.filter(user_id=2)["user_active_degree"].to_list() == [None]
    assert got.items.filter(item_id=3)["author_id"].to_list() == [None]


def test_click_stays_as_logged_against_the_documented_rule(tmp_path):
    root = write_release(
        tmp_path,
        **{
            STANDARD: log(
                # 8 s of 10 s is a valid play (> 7 s), 18 s of 20 s is a long view
                log_line(play_time_ms=8_000, is_click=0, tab=1, time_ms=T0),
                log_line(play_time_ms=0, is_click=1, tab=9, time_ms=T0 + 1),
                log_line(play_time_ms=18_000, duration_ms=20_000, is_click=1, long_view=1, time_ms=T0 + 2),
                log_line(play_time_ms=7_000, duration_ms=7_000, is_click=1, long_view=1, time_ms=T0 + 3),
            )
        },
    )  # fmt: skip
    got = run(root)
    assert rows(got)["click"].to_list() == [0, 1, 1, 1]
    assert got.report["valid_play_agreement"] == 0.5
    assert got.report["long_view_agreement"] == 1.0


def test_exact_duplicates_go_and_near_ones_stay(tmp_path):
    line = log_line(video_id=1)
    root = write_release(
        tmp_path,
        **{
            STANDARD: log(line, log_line(), line, log_line(video_id=1, comment_stay_time=9), line),
            LATER: log(line, log_line(user_id=1)),
        },
    )
    got = run(root)
    assert rows(got)["row_id"].to_list() == [2, 3, 5, 2**40 + 3]
    assert [file["duplicates"] for file in got.report["files"][:2]] == [2, 1]
    assert [step["rows"] for step in got.report["steps"]] == [7, 7, 4]


def test_the_row_counts_are_logged(tmp_path, caplog):
    root = write_release(tmp_path, **{STANDARD: log(log_line(), log_line(), GOOD, "x", GOOD, GOOD)})
    with caplog.at_level(logging.INFO, "reelrank.sources.report"):
        run(root)
    logged = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert logged == [
        "kuairand pure: 6 rows read, 1 quarantined, 0 no interactions, 3 exact duplicates dropped, 2 canonical rows"
    ]


def test_attributes_are_typed_and_codes_for_missing_become_null(tmp_path):
    tables = {
        VIDEOS: table(
            VIDEO_BASIC_COLUMNS,
            [
                video_line(),
                video_line(video_id=1, upload_dt="", video_duration="", server_width="0.0", music_id=-1, music_type="", tag=""),
                video_line(video_id=2, author_id=-124, music_id=0, tag="5", video_duration="0.0"),
            ],
        ),
        "kuairand_video_captions.csv": table(
            CAPTION_COLUMNS, ['0,"two\nlines, ""quoted""",封面,1.0', "2,,,", "99,unknown video,x,1.0"]
        ),
        "kuairand_video_categories.csv": table(
            CATEGORY_COLUMNS, ["0,7.0,运动,0.9,126.0,球类,1.0,1056.0,篮球,1.0,-124.0,UNKNOWN,0.0"]
        ),
    }  # fmt: skip
    got = run(write_release(tmp_path, **tables))
    assert got.quarantine.is_empty()
    first, second, third = got.items.rows(named=True)
    assert first == {
        "item_id": 0, "author_id": 77, "duration_ms": 10_000, "upload_ts": 1_649_433_600_000,
        "category_1": 7, "category_2": 126, "category_3": 1056, "category_4": None, "tags": [67, 11],
        "music_id": 4, "music_type": 9, "width": 720, "height": 1280, "video_type": "NORMAL", "upload_type": "Web",
        "caption": 'two\nlines, "quoted"', "cover_text": "封面",
    }  # fmt: skip
    nulls = (
        "upload_ts",
        "duration_ms",
        "width",
        "music_id",
        "music_type",
        "tags",
        "caption",
        "category_1",
    )
    assert all(second[name] is None for name in nulls)
    assert [third[name] for name in ("author_id", "music_id", "duration_ms", "tags", "caption")] == [None, None, None, [5], None]  # fmt: skip
    user = got.users.row(0, named=True)
    assert user["is_live_streamer"] is None
    assert user["follow_user_num_range"] == "(0,10]"
    assert (user["onehot_feat4"], user["onehot_feat12"]) == (3, None)
    assert got.users.schema["onehot_feat4"] == pl.Int16


def test_published_counts_stand_beside_the_measured_ones(tmp_path):
    root = write_release(tmp_path)
    facts = {fact["fact"]: fact for fact in run(root).report["facts"]}
    assert facts["standard_rows"] == {
        "fact": "standard_rows", "published": 1_436_609, "measured": 2, "status": "partial",
    }  # fmt: skip
    engine = EngineOptions(n_buckets=1, staging=tmp_path / "staging")
    world = ingest(find_files(root, "pure", "world"), LogOptions(), engine)
    assert {fact["status"] for fact in world.report["facts"]} == {"generated"}
    assert world.report["random_log_uniformity"] is None


def test_uniformity_is_a_chi_square_of_the_item_counts():
    frame = pl.LazyFrame({"item_id": [0] * 4 + [1] * 6 + [2] * 8})
    # expected 6 each: (4 + 0 + 4) / 6
    got = uniformity(frame)
    assert got["chi2"] == pytest.approx(8 / 6)
    assert (got["dof"], got["expected"], got["reliable"]) == (2, 6.0, True)
    assert got["p_value"] == pytest.approx(np.exp(-8 / 12))  # χ² with 2 degrees of freedom


# --- invariants ----------------------------------------------------------------------------------------------

_lines = st.one_of(
    st.builds(
        log_line,
        user_id=st.integers(0, 5),
        video_id=st.integers(0, 3),
        time_ms=st.integers(T0, T0 + 3).map(lambda t: T0 + (t - T0) * 1_000_000),
    ),
    st.sampled_from([line for line, _ in BAD_LINES]),
)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(_lines, min_size=1, max_size=30), st.integers(1, 5), st.sampled_from(["\n", "\r\n"])
)
def test_every_row_is_accounted_for_whatever_the_chunks_and_buckets(
    tmp_path_factory, lines, n_buckets, end
):
    lines = [log_line(), *lines]
    root = write_release(
        tmp_path_factory.mktemp("release"), **{STANDARD: log(*lines, end=end), LATER: log(*lines)}
    )
    one = run(root, n_buckets=1)
    many = run(root, n_buckets=n_buckets, chunk_mb=100 / 2**20)
    assert rows(many).equals(rows(one))
    assert many.quarantine.equals(one.quarantine)
    assert many.report == one.report
    read, sound, canonical = (step["rows"] for step in one.report["steps"])
    duplicates = sum(file["duplicates"] for file in one.report["files"])
    assert read == 2 * len(lines) == canonical + duplicates + one.quarantine.height
    assert sound == read - one.quarantine.height
    assert rows(one)["request_id"].n_unique() == rows(one).select("user_id", "ts_ms").n_unique()


def test_two_workers_give_what_one_gives(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        log_line(user_id=u, video_id=v, time_ms=T0 + 1000 * t)
        for u, v, t in zip(*rng.integers(0, (9, 3, 9999), (300, 3)).T, strict=True)
    ]
    root = write_release(tmp_path, **{STANDARD: log(*lines, "x"), RANDOM: log(log_line(is_rand=1))})
    one = run(root, n_buckets=3, workers=1)
    two = run(root, n_buckets=3, workers=2, chunk_mb=0.005)
    assert rows(two).equals(rows(one))
    assert two.quarantine.equals(one.quarantine)
    assert two.report == one.report


# --- real rows -----------------------------------------------------------------------------------------------


@pytest.mark.real
def test_real_pure_rows_come_in_whole(real_data, tmp_path):
    manifest = find_files(real_data, "pure")
    engine = EngineOptions(n_buckets=3, staging=tmp_path)
    got = ingest(manifest, LogOptions(), engine)
    files = {file["role"]: file for file in got.report["files"]}
    assert files["log_standard_1"]["rows_read"] == 696
    assert files["log_standard_2"]["rows_read"] == 169_924
    assert files["log_random"]["rows_read"] == got.report["is_rand_rows"] == 345
    assert files["user_features"]["rows_read"] == got.users.height == 27_285
    assert files["video_features_basic"]["rows_read"] == got.items.height == 7_583
    assert got.quarantine.is_empty()
    checksums = {role: file["checksum"] for role, file in files.items() if file["checksum"]}
    assert checksums == {"user_features": "official", "video_features_basic": "official"}

    paths = [
        file.path for file in manifest.files_of("log_standard_1", "log_standard_2", "log_random")
    ]
    raw = pl.concat(pl.read_csv(path) for path in paths)
    distinct = raw.unique()
    assert (
        sum(file["duplicates"] for file in files.values()) == raw.height - distinct.height == 4_059
    )
    assert got.interactions.n_rows == distinct.height
    assert got.report["duration_null"] == distinct.filter(duration_ms=0).height
    assert got.report["requests"] == distinct.select("user_id", "time_ms").n_unique()
    assert rows(got)["play_ms"].cast(pl.Int64).sum() == distinct["play_time_ms"].sum()
    # observed on the full file: missing durations, tags, music types
    assert got.items.select("duration_ms", "tags", "music_type").null_count().row(0) == (
        239,
        96,
        203,
    )
    assert got.items["music_id"].null_count() == 204
    assert got.users["is_live_streamer"].null_count() == 21_127
    assert got.users["onehot_feat4"].null_count() == 874


@pytest.mark.real
def test_a_real_folder_without_its_tables_says_what_is_missing(real_data):
    with pytest.raises(MissingRawFiles, match=r"user_features_1k\.csv"):
        find_files(real_data, "1k")
