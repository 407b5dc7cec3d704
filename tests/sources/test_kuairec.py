import gzip
import logging
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kuairec_files import (
    BIG,
    CAPTIONS,
    DAILY,
    MATRIX_COLUMNS,
    SMALL,
    SOCIAL,
    T0_S,
    TAGS,
    USERS,
    caption_line,
    captions,
    daily,
    daily_line,
    matrix,
    row,
    social,
    table,
    tags,
    untimed,
    user_line,
    users,
    write_release,
)

from reelrank.buckets import EngineOptions
from reelrank.sources import kuairec_facts, kuairec_schema
from reelrank.sources.errors import EmptyFile, MissingRawFiles, TooManyBadRows, WrongHeader
from reelrank.sources.kuairand_schema import USER_COLUMNS
from reelrank.sources.kuairec import KuaiRecLogOptions, find_files, ingest
from reelrank.sources.kuairec_schema import (
    BURSTS,
    DAY_MS,
    RELEASE_START_MS,
    RELEASE_STOP_MS,
)
from reelrank.tables import (
    IdMap,
    Interactions,
    ItemDaily,
    Items,
    ItemTopics,
    Observed,
    Quarantine,
    SocialEdges,
    Users,
)

T0 = RELEASE_START_MS
INT = f"0…{2**31 - 1}"


def run(root, n_buckets=2, workers=1, kind="files", **options):
    options = KuaiRecLogOptions(**({"max_bad_share": 1.0} | options))
    engine = EngineOptions(n_buckets=n_buckets, workers=workers, staging=Path(root) / "staging")
    return ingest(find_files(Path(root), "v2", kind), options, engine)


def rows(ingested):
    return ingested.interactions.scan().sort("user_id", "ts_ms", "row_id").collect()


def file_of(report, name):
    return next(file for file in report["files"] if file["file"] == name)


# --- finding files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["KuaiRec 2.0/data", "KuaiRec/data", "KuaiRec", "data", "."])
def test_every_official_folder_name_is_found(tmp_path, folder):
    root = write_release(tmp_path, folder=folder, **{SMALL: matrix(row(video_id=1))})
    manifest = find_files(root)
    assert [file.path.name for file in manifest.files] == [BIG, SMALL, USERS, TAGS]
    assert {file.path.parent for file in manifest.files} == {(root / folder).resolve()}
    assert run(root).extras["observed"].height == 1


def test_captions_downloaded_apart_may_lie_beside_the_folder(tmp_path):
    root = write_release(tmp_path)
    (root / CAPTIONS).write_text(captions(caption_line()))
    assert find_files(root).files_of("captions")[0].path == root / CAPTIONS


def test_missing_files_are_listed_with_where_to_get_them(tmp_path):
    root = write_release(tmp_path, **{USERS: None, TAGS: None})
    with pytest.raises(MissingRawFiles) as error:
        find_files(root)
    for part in (USERS, TAGS, str(root), "KuaiRec.zip", "CC BY-SA", "raw_root", CAPTIONS):
        assert part in str(error.value)
    assert BIG not in str(error.value)
    with pytest.raises(FileNotFoundError, match=BIG):
        find_files(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (BIG, matrix(row()).replace("watch_ratio", "ratio", 1), WrongHeader, r"Missing columns: \['watch_ratio'\]; unexpected columns: \['ratio'\]"),
        (BIG, table([*MATRIX_COLUMNS, "extra"], [row() + ",1"]), WrongHeader, r"unexpected columns: \['extra'\]"),
        (BIG, table(MATRIX_COLUMNS[:-1], [row()]), WrongHeader, r"Missing columns: \['watch_ratio'\]"),
        (BIG, matrix(row()).replace(",", ";"), WrongHeader, "comma-separated"),
        (BIG, matrix(row()).encode("utf-16"), WrongHeader, "wrong header"),
        (BIG, gzip.compress(b"0" * 10**7), WrongHeader, "wrong header"),
        (SMALL, matrix(row()).replace(",", "\t"), WrongHeader, "wrong header"),
        (DAILY, "video_id,date\n0,20200705\n", WrongHeader, "show_cnt"),
        (USERS, table(list(USER_COLUMNS)[:-1], [""]), WrongHeader, "onehot_feat17"),
        ("video_raw_categories_multi.csv", "video_id\n", WrongHeader, "category_name"),
        (BIG, matrix(), EmptyFile, "no rows in"),
        (BIG, b"", EmptyFile, "no rows in"),
        (USERS, users(), EmptyFile, "no rows in"),
        (TAGS, b"", EmptyFile, "no rows in"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path, name, content, error, message):
    with pytest.raises(error, match=message) as caught:
        find_files(write_release(tmp_path, **{name: content}))
    assert name in str(caught.value)


@pytest.mark.parametrize("is_header_there", [True, False])
def test_an_empty_optional_file_counts_as_no_rows(tmp_path, is_header_there):
    empty = {SMALL: matrix(), DAILY: daily(), SOCIAL: social(), CAPTIONS: captions()}
    files = {name: text if is_header_there else b"" for name, text in empty.items()}
    got = run(write_release(tmp_path, **files))
    read = {file["file"]: file["rows_read"] for file in got.report["files"]}
    assert read == dict.fromkeys(empty, 0) | {BIG: 2, USERS: 2, TAGS: 3}
    assert {name: frame.height for name, frame in got.extras.items()} == dict.fromkeys(got.extras, 0)  # fmt: skip
    assert got.report["observed_density"] is None


def test_personal_data_are_refused_unread(tmp_path, caplog):
    root = write_release(tmp_path)
    path = root / "KuaiRec 2.0/data/user_features_raw.csv"
    path.mkdir()  # a folder cannot be opened as a file
    got = run(root)
    assert "personal data" in caplog.text
    assert list(got.report["refused_files"]) == [str(path)]
    assert "personal data" in got.report["refused_files"][str(path)]
    assert "gender" not in got.users.columns


def test_columns_are_taken_by_name(tmp_path):
    backwards = [",".join(reversed(line.split(","))) for line in (",".join(MATRIX_COLUMNS), row(video_id=2))]  # fmt: skip
    got = rows(run(write_release(tmp_path, **{BIG: "\ufeff" + "\n".join(backwards) + "\n"})))
    assert got.select("user_id", "item_id", "ts_ms", "play_ms").rows() == [(0, 2, T0, 5000)]


# --- bad rows ------------------------------------------------------------------------------------------------

GOOD = row(user_id=1)
TIMES = "timestamp must be within a day of 2020-07-05…2020-09-05 Asia/Shanghai, in seconds, is "
BAD_LINES = [
    (row(video_id="12a"), "video_id is not an integer: '12a'"),
    (row(video_id="12.0"), "video_id is not an integer: '12.0'"),
    (row(timestamp="noon"), "timestamp is not a number: 'noon'"),
    (row(watch_ratio="inf"), "watch_ratio is not a number: 'inf'"),
    (row(watch_ratio=-0.5), "watch_ratio must be 0 or more, is -0.5"),
    (row(play_duration=-1), f"play_duration must be {INT}, is -1"),
    (row(video_duration=-5), f"video_duration must be {INT}, is -5"),
    (row(play_duration=2**31), f"play_duration must be {INT}, is {2**31}"),
    (row(user_id=-1), f"user_id must be {INT}, is -1"),
    (row(video_id=2**31), f"video_id must be {INT}, is {2**31}"),
    (row(timestamp=T0_S - 86_401), TIMES + str(T0_S - 86_401)),
    (row(timestamp=(RELEASE_STOP_MS + DAY_MS) // 1000), TIMES),
    (row(timestamp=T0), TIMES),  # milliseconds
    (row(date=20210705), "date must be within a day of 20200705…20200905, is 20210705"),
    (row(user_id=""), "user_id is empty"),
    (row().replace(",", ";"), "wrong number of fields: 1 instead of 8"),
    (row().rpartition(",")[0], "wrong number of fields: 7 instead of 8"),
    (row() + ",1", "wrong number of fields: 9 instead of 8"),
    (row(time="\0"), "NUL byte"),
    ("", "empty line"),
]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("line", "reason"), [*BAD_LINES, (untimed(), "date is empty"), (row(timestamp=""), "timestamp is empty")]
)  # fmt: skip
def test_a_bad_line_of_the_big_matrix_is_quarantined(tmp_path, line, reason, end):
    got = run(write_release(tmp_path, **{BIG: matrix(GOOD, line, GOOD, row(), end=end)}))
    bad = got.quarantine.row(0, named=True)
    assert got.quarantine.height == 1
    assert (bad["file"], bad["line"], bad["text"]) == (BIG, 3, line.replace("\0", "␀"))
    assert bad["reason"].startswith(reason)
    assert rows(got)["row_id"].to_list() == [5, 2]
    assert file_of(got.report, BIG)["duplicates"] == file_of(got.report, BIG)["bad"] == 1


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [*BAD_LINES, (row(video_id=1, play_duration=7), "user_id and item_id 0, 1 stand twice with other values")],
)  # fmt: skip
def test_a_bad_line_of_the_small_matrix_is_quarantined(tmp_path, line, reason, end):
    good = row(video_id=1)
    got = run(write_release(tmp_path, **{SMALL: matrix(good, line, good, untimed(), end=end)}))
    bad = got.quarantine.row(0, named=True)
    assert got.quarantine.height == 1
    assert (bad["file"], bad["line"], bad["text"]) == (SMALL, 3, line.replace("\0", "␀"))
    assert bad["reason"].startswith(reason)
    assert got.extras["observed"].select("item_id", "ts_ms").rows() == [(0, None), (1, T0)]
    file = file_of(got.report, SMALL)
    assert (file["rows_read"], file["duplicates"], file["bad"]) == (4, 1, 1)


def test_bytes_that_are_no_text_and_a_cut_end_are_quarantined(tmp_path):
    content = matrix(row()).encode() + b"\xff\xfe,1\n" + row().encode()[:20]
    got = run(write_release(tmp_path, **{BIG: content}))
    assert got.quarantine.select("line", "reason").rows() == [
        (3, "not UTF-8"),
        (4, "truncated last line: 5 instead of 8"),
    ]


SIDE_LINES = [
    (USERS, user_line(user_id=2, fans_user_num="many"), "fans_user_num is not a whole number (Int32): 'many'"),
    (USERS, user_line(user_id=-3), "user_id is negative: -3"),
    (USERS, user_line(user_id=2, register_days_range="\0"), "NUL byte"),
    (TAGS, "9,[a]", "feat is not a comma list of whole numbers: '[a]'"),
    (TAGS, "9,[27, 9]", "wrong number of fields"),
    (TAGS, "1,[5]", "video_id 1 stands twice with other values"),
    (SOCIAL, "9,\"['x']\"", "friend_list is not a comma list"),
    (SOCIAL, "9,[1]x[2]", "friend_list is not a comma list"),
    (CAPTIONS, caption_line(video_id=2, first_level_category_id="x"), "first_level_category_id is not a whole"),
    (CAPTIONS, caption_line(video_id=2, caption='"open'), "a quote is not closed"),
    (DAILY, daily_line(video_id=2, show_cnt=-1), f"show_cnt must be {INT}, is -1"),
    (DAILY, daily_line(video_id=2, date=20200732), "date is no day: 20200732"),
    (DAILY, daily_line(video_id=2, date=20190705), "date must be within a day of 20200705…20200905, is 20190705"),
    (DAILY, daily_line(video_id=2, upload_dt="2020-13-01"), "upload_dt is not a date YYYY-MM-DD: '2020-13-01'"),
    (DAILY, daily_line(video_id=2, like_cnt="x"), "like_cnt is not a number: 'x'"),
    (DAILY, daily_line(video_id=1, like_cnt=9), "video_id and date 1, 2020-07-05 stand twice with other values"),
]  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("name", "line", "reason"), SIDE_LINES)
def test_a_bad_record_of_a_side_table_is_quarantined(tmp_path, name, line, reason, end):
    make, good = {
        USERS: (users, [user_line(user_id=u) for u in (0, 1)]),
        TAGS: (tags, ["0,[8]", '1,"[27, 9]"']),
        SOCIAL: (social, ["0,[1]", '1,"[0, 2]"']),
        CAPTIONS: (captions, [caption_line(video_id=v) for v in (0, 1)]),
        DAILY: (daily, [daily_line(video_id=v) for v in (0, 1)]),
    }[name]
    got = run(write_release(tmp_path, **{name: make(*good, line, good[0], end=end)}))
    bad = got.quarantine.row(0, named=True)
    assert got.quarantine.height == 1
    assert (bad["file"], bad["line"], bad["text"]) == (name, 4, line.replace("\0", "␀"))
    assert bad["reason"].startswith(reason)
    file = file_of(got.report, name)
    assert (file["rows_read"], file["bad"], file["duplicates"]) == (4, 1, 1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (BIG, matrix(row(), *["x"] * 4)),
        (SMALL, matrix(row(), *["x"] * 4)),
        (DAILY, daily(daily_line(), *["x"] * 4)),
        (USERS, users(user_line(), *["x"] * 4)),
    ],
)
def test_too_many_bad_rows_stop_the_run(tmp_path, name, content):
    with pytest.raises(TooManyBadRows) as error:
        run(write_release(tmp_path, **{name: content}), max_bad_share=0.5)
    text = str(error.value)
    assert all(f"line {n}: " in text for n in (3, 4, 5))
    for part in (name, "4 of 5", "80.00%", "kuairec.ingest.max_bad_share"):
        assert part in text
    assert list((tmp_path / "staging").glob("*")) == []


# --- what the tables hold ------------------------------------------------------------------------------------


def test_tables_hold_what_the_files_say(tmp_path):
    hour = 3600
    root = write_release(
        tmp_path,
        **{
            BIG: matrix(
                row(user_id=500, video_id=31_999),
                row(user_id=7, video_id=2, timestamp=f"{T0_S + 2 * hour}.0", video_duration=0, watch_ratio=""),
                row(user_id=7, video_id=1, timestamp=f"{T0_S}.45", play_duration=15_000, watch_ratio=1.5),
                row(user_id=7, video_id=0, timestamp=f"{T0_S + hour}.45", watch_ratio=0.7),
            ),
            SMALL: matrix(
                untimed(user_id=7, video_id=8, watch_ratio=0.5),
                row(user_id=7, video_id=3, date="20200705.0", timestamp=f"{T0_S}.001", watch_ratio=0.1),
            ),
            SOCIAL: social("1,[500]", '7,"[9, 0]"'),
            CAPTIONS: captions(
                caption_line(video_id=2, caption="a\rb", topic_tag="[]"),
                caption_line(video_id=0, manual_cover_text="封面"),
                caption_line(video_id=1, caption="", topic_tag="[a]", first_level_category_id=-124),
            ),
            DAILY: daily(
                daily_line(video_id=2, date=20200706, author_id=88, show_cnt=9, collect_cnt="1.0"),
                daily_line(video_id=2, play_duration=10**11),
                daily_line(video_id=1, video_duration="", music_id=0, upload_dt="", video_type="", date=20200905),
            ),
        },
    )  # fmt: skip
    got = run(root)
    assert got.quarantine.is_empty()
    assert got.user_map["raw_id"].to_list() == [0, 1, 7, 9, 500]
    assert got.item_map["raw_id"].to_list() == [0, 1, 2, 3, 8, 31_999]
    none = (None,) * 7
    assert rows(got).rows() == [
        # user item ts row_id tab request session play duration ratio, no feedback, rand
        (2, 1, T0 + 450, 4, 0, 0, 0, 15_000, 10_000, 1.5, *none, 0),
        (2, 0, T0 + 3_600_450, 5, 0, 1, 0, 5_000, 10_000, 0.5, *none, 0),
        (2, 2, T0 + 7_200_000, 3, 0, 2, 0, 5_000, None, None, *none, 0),
        (4, 5, T0, 2, 0, 3, 1, 5_000, 10_000, 0.5, *none, 0),
    ]
    extras = got.extras
    ratio = np.float32(0.5)
    assert extras["observed"].rows() == [
        (2, 3, T0 + 1, 5_000, 10_000, ratio),
        (2, 4, None, 5_000, 10_000, ratio),
    ]
    assert extras["social_edges"].rows() == [(1, 4, None), (2, 0, None), (2, 3, None)]
    assert extras["item_topics"].rows() == [(0, 0, "博美俊介"), (0, 1, "直播"), (1, 0, "a")]
    counts = extras["item_daily"].select("item_id", "date", "show_cnt", "play_duration", "play_progress", "collect_cnt")  # fmt: skip
    assert counts.rows() == [
        (1, date(2020, 9, 5), 7716, 0, 0.579695, None),
        (2, date(2020, 7, 5), 7716, 10**11, 0.579695, None),
        (2, date(2020, 7, 6), 9, 0, 0.579695, 1),
    ]
    assert len(extras["item_daily"].columns) == 2 + 45
    first, second, third, fourth, *_ = got.items.rows(named=True)
    assert third == {
        "item_id": 2, "author_id": 77, "duration_ms": 10_000, "upload_ts": T0 - DAY_MS,
        "category_1": 17, "category_2": 233, "category_3": None, "category_4": None, "tags": [9],
        "music_id": 4, "music_type": None, "width": 720, "height": 1280, "video_type": "NORMAL",
        "upload_type": "ShortImport", "caption": "a\rb", "cover_text": None,
    }  # fmt: skip
    assert (first["author_id"], first["duration_ms"], first["cover_text"]) == (None, 10_000, "封面")
    assert first["tags"] == [8]
    assert {name for name, value in second.items() if value is None} == {
        "upload_ts", "category_1", "category_3", "category_4", "music_id", "music_type", "video_type", "caption", "cover_text",
    }  # fmt: skip
    assert (second["duration_ms"], second["tags"]) == (10_000, [27, 9])  # from the log
    assert fourth["duration_ms"] is None
    assert got.users.filter(user_id=0)["follow_user_num_range"].item() == "(0,10]"
    assert got.users.filter(user_id=4)["user_active_degree"].item() is None
    report = got.report
    assert (report["users"], report["items"]) == (5, 6)
    assert (report["unknown_users"], report["unknown_items"]) == (3, 3)
    assert report["watch_ratio_differs"] == {"big_matrix": 1, "small_matrix": 1}
    assert (report["observed_rows"], report["observed_untimed"], report["observed_density"]) == (2, 1, 1.0)  # fmt: skip
    for model, frame in (
        (Items, got.items), (Users, got.users), (IdMap, got.user_map), (Quarantine, got.quarantine),
        (Observed, extras["observed"]), (SocialEdges, extras["social_edges"]), (ItemDaily, extras["item_daily"]),
        (ItemTopics, extras["item_topics"]),
    ):  # fmt: skip
        model.validate(frame)
    for bucket in got.interactions.iter_buckets():
        Interactions.validate(bucket)


def test_a_user_without_rows_and_a_video_that_no_table_knows_are_counted(tmp_path):
    root = write_release(tmp_path, **{BIG: matrix(row(video_id=9))})
    got = run(root)
    assert got.users.height == 2
    facts = {fact["fact"]: fact["measured"] for fact in got.report["facts"]}
    assert (facts["big_matrix_users"], facts["user_features_rows"]) == (1, 2)
    assert got.report["unknown_items"] == 1
    assert got.items.filter(item_id=3)["tags"].to_list() == [None]


# --- published facts -----------------------------------------------------------------------------------------


def test_rows_in_both_matrices_are_counted_and_said_aloud(tmp_path, caplog):
    root = write_release(
        tmp_path,
        **{
            BIG: matrix(row(), row(user_id=1), row(user_id=1, video_id=2)),
            SMALL: matrix(row(play_duration=1), row(user_id=1, timestamp=T0_S + 9), untimed(video_id=2)),
        },
    )  # fmt: skip
    got = run(root)
    assert (got.report["shared_rows"], got.report["shared_pairs"]) == (1, 2)
    assert "1 rows stand in both matrices" in caplog.text


def test_bursts_and_sessions_are_counted_inside_the_bursts(tmp_path):
    start = [burst[0] // 1000 for burst in BURSTS]
    stop = [burst[1] // 1000 for burst in BURSTS]
    times = [start[0] - 1, start[0], stop[0] - 1, stop[0], start[1] + 1, start[1] + 3601, stop[2] - 1]  # fmt: skip
    got = run(write_release(tmp_path, **{BIG: matrix(*(row(timestamp=t) for t in times))}))
    facts = {fact["fact"]: fact["measured"] for fact in got.report["facts"]}
    assert [facts[f"burst_{k}_rows"] for k in (1, 2, 3)] == [2, 2, 1]
    assert got.report["rows_outside_bursts"] == 2
    assert (facts["sessions"], facts["session_rows_mean"]) == (4, 1.25)
    assert (facts["session_rows_median"], facts["session_rows_max"]) == (1, 2)
    other = run(tmp_path, session_gap_s=1800)
    assert "sessions" not in {fact["fact"] for fact in other.report["facts"]}


def test_published_counts_stand_beside_the_measured_ones(tmp_path):
    root = write_release(tmp_path)
    facts = {fact["fact"]: fact for fact in run(root).report["facts"]}
    assert facts["big_matrix_rows"] == {
        "fact": "big_matrix_rows", "published": 12_530_806, "measured": 2, "status": "partial",
    }  # fmt: skip
    assert "small_matrix_rows" not in facts
    world = run(root, kind="world")
    assert {fact["status"] for fact in world.report["facts"]} == {"generated"}


def test_the_published_burst_counts_add_up():
    assert sum(kuairec_schema.PUBLISHED_BURST_ROWS) == 12_527_912
    sessions = kuairec_schema.PUBLISHED_SESSIONS
    assert 12_527_912 / sessions["sessions"] == pytest.approx(sessions["session_rows_mean"], abs=5e-5)  # fmt: skip
    days = [(stop - start) // DAY_MS for start, stop in BURSTS]
    assert days == [8, 10, 10]
    assert (BURSTS[0][0], BURSTS[2][1]) == (RELEASE_START_MS, RELEASE_STOP_MS)


def test_on_the_full_release_a_count_that_differs_is_said_aloud(tmp_path, monkeypatch, caplog):
    published = kuairec_schema.PUBLISHED_ROWS | {"big_matrix": 2, "small_matrix": 1}
    monkeypatch.setattr(kuairec_facts.schema, "PUBLISHED_ROWS", published)
    monkeypatch.setattr(kuairec_facts.schema, "PUBLISHED_USERS", {"big_matrix": 2, "small_matrix": 3})  # fmt: skip
    root = write_release(tmp_path, **{SMALL: matrix(row(video_id=1))})
    status = {fact["fact"]: fact["status"] for fact in run(root).report["facts"]}
    assert status["big_matrix_users"] == status["small_matrix_rows"] == "complete"
    assert status["small_matrix_users"] == status["sessions"] == "differs"
    assert "small_matrix_users is 1 on the full release, published are 3" in caplog.text
    assert any(record.levelno == logging.WARNING for record in caplog.records)


# --- invariants ----------------------------------------------------------------------------------------------

_lines = st.one_of(
    st.builds(
        row,
        user_id=st.integers(0, 3),
        video_id=st.integers(0, 2),
        timestamp=st.integers(0, 3).map(lambda t: T0_S + 2000 * t),
    ),
    st.sampled_from([line for line, _ in BAD_LINES]),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(_lines, min_size=1, max_size=25), st.integers(1, 4))
def test_every_row_is_accounted_for_whatever_the_chunks_and_buckets(
    tmp_path_factory, lines, n_buckets
):
    content = matrix(row(), *lines)
    root = write_release(tmp_path_factory.mktemp("release"), **{BIG: content, SMALL: content})
    one = run(root, n_buckets=1)
    many = run(root, n_buckets=n_buckets, workers=2, chunk_mb=100 / 2**20)
    assert rows(many).equals(rows(one))
    assert many.quarantine.equals(one.quarantine)
    assert many.report == one.report
    assert many.extras["observed"].equals(one.extras["observed"])
    for name, kept in ((BIG, one.interactions.n_rows), (SMALL, one.report["observed_rows"])):
        file = file_of(one.report, name)
        assert file["rows_read"] == len(lines) + 1 == kept + file["bad"] + file["duplicates"]


# --- real rows -----------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_golden_rows_come_out_exactly(real_data, tmp_path):
    engine = EngineOptions(n_buckets=3, staging=tmp_path)
    manifest = find_files(real_data)
    got = ingest(manifest, KuaiRecLogOptions(), engine)
    checksums = {file.path.name: file.checksum for file in manifest.files if file.checksum}
    assert checksums == dict.fromkeys((USERS, TAGS, CAPTIONS), "official")
    assert got.quarantine.is_empty()
    assert (got.report["users"], got.report["unknown_users"]) == (7_176, 0)
    assert (got.report["items"], got.report["unknown_items"]) == (10_728, 0)
    assert got.report["watch_ratio_differs"] == {"big_matrix": 0, "small_matrix": 0}
    big = rows(got).select("user_id", "item_id", "ts_ms", "play_ms", "duration_ms", "watch_ratio")
    assert big.row(0) == (0, 3649, 1_593_878_903_438, 13_838, 10_867, np.float32(13_838 / 10_867))
    assert big.filter(item_id=2935)["ts_ms"].item() == 1_599_079_699_450  # printed "….45"
    assert big.row(-1)[:4] == (7175, 10_389, 1_599_311_631_419, 12_263)
    assert big.height == 15
    # 3 sessions of user 0, 2 and 7175 … gaps of 43 min stay inside, of 4 h and 2 h do not
    assert rows(got)["session_id"].to_list() == [0] * 5 + [1] * 5 + [2] * 2 + [3] * 2 + [4]
    seen = got.extras["observed"]
    assert (seen.height, seen["ts_ms"].null_count()) == (20, 5)
    assert seen.row(0) == (14, 148, 1_593_898_068_378, 4_381, 6_067, np.float32(4_381 / 6_067))
    assert seen.filter(user_id=7162, item_id=2267).row(0)[2:5] == (None, 11_908, 5_467)


@pytest.mark.real
def test_real_attributes_come_in_whole(real_data, tmp_path):
    got = ingest(find_files(real_data), KuaiRecLogOptions(), EngineOptions(staging=tmp_path))
    items, users_ = got.items, got.users
    nulls = {name: items[name].null_count() for name in ("caption", "cover_text", "category_1", "category_2", "category_3")}  # fmt: skip
    assert nulls == {
        "caption": 1_355, "cover_text": 6_694, "category_1": 40, "category_2": 3_583, "category_3": 6_832,
    }  # fmt: skip
    assert items.row(1378, named=True)["caption"] == "张凯教练：“我希望我们能开启一段王朝\r！”"
    assert items["tags"].list.len().value_counts().sort("tags")["count"].to_list() == [8_970, 1_562, 185, 11]  # fmt: skip
    assert items["tags"].explode().max() == 30
    topics = got.extras["item_topics"]
    assert topics["item_id"].n_unique() == 10_728 - 4_611
    assert topics.filter(item_id=4)["topic"].to_list() == ["五爱市场", "感谢快手我要上热门", "搞笑"]
    assert [users_[f"onehot_feat{k}"].null_count() for k in (4, 12, 13)] == [201, 77, 75]
    assert users_["user_active_degree"].value_counts().sort("count")["count"].to_list() == [28, 118, 938, 6_092]  # fmt: skip
    edges = got.extras["social_edges"]
    assert edges["src"].n_unique() == 472
    assert edges.group_by("src").len()["len"].value_counts().sort("len")["count"].to_list() == [349, 77, 27, 9, 10]  # fmt: skip
    video = items.row(3784, named=True)
    assert (video["author_id"], video["duration_ms"], video["width"], video["height"]) == (441, 17_200, 720, 1280)  # fmt: skip
    assert video["upload_ts"] == 1_594_137_600_000
    day = got.extras["item_daily"].row(0, named=True)
    assert (day["item_id"], day["date"], day["show_cnt"], day["play_progress"]) == (3784, date(2020, 7, 30), 7716, 0.579695)  # fmt: skip
