"""Text of any layout under a mapping: what is read, what is refused and why."""

import csv
import io
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reelrank.sources.errors import MissingRawFiles, WrongHeader
from reelrank.sources.text_fields import Layout, TextReader, hash_texts
from reelrank.sources.text_log import (
    Column,
    CountColumn,
    FlagColumn,
    IdColumn,
    KindColumn,
    LengthColumn,
    LogMapping,
    NumberColumn,
    ScenarioColumn,
    TextLog,
    TimeColumn,
    WrongMapping,
    build_items,
    check_columns,
    codes_of,
    first_appearances,
    id_texts,
    named_files,
    read_mapping,
    read_side_table,
)
from reelrank.tables import Items

T0 = 1_714_521_600  # 2024-05-01 00:00 UTC
HEADER = "user,item,ts,like"
MAPPING = LogMapping(
    user="user", item="item", user_ids="integer", item_ids="integer",
    time={"column": "ts", "unit": "s"}, feedback={"like": "like"},
)  # fmt: skip


def write(tmp_path, content, name="log.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parse(path, mapping=MAPPING, layout=None, chunk_bytes=1 << 20):
    """Rows and bad lines of a whole file, lines counted from the first of data."""
    log = TextLog(TextReader.of(path, layout or Layout()), mapping)
    n, rows, bad = 0, [], []
    for chunk in log.plan(path, chunk_bytes):
        parsed = log.parse(chunk)
        rows.append(parsed.rows.with_columns(pl.col("line") + n))
        bad.append(parsed.bad.with_columns(pl.col("line") + n))
        n += parsed.n_lines
    return n, pl.concat(rows), pl.concat(bad)


def read_texts(path, layout, chunk_bytes=1 << 20):
    reader = TextReader.of(path, layout)
    fields = [reader.read(c, reader.columns) for c in reader.plan(path, chunk_bytes)]
    return [row for f in fields for row in f.texts.rows()], [r for f in fields for r in f.bad.rows()]  # fmt: skip


# --- values ---------------------------------------------------------------------------------------------------


def test_columns_of_a_log_become_raw_interactions(tmp_path):
    mapping = LogMapping(
        user="who", item="what", item_ids="integer",
        time={"column": "at", "unit": "ms"},
        scenario={"column": "page", "kind": "text", "values": ["search", "home"]},
        feedback={"click": {"column": "event", "ones": ["click", "buy"]}, "like": "heart"},
        is_rand="random",
        play_ms={"column": "watched", "unit": "s"},
        duration_ms="length",
    )  # fmt: skip
    path = write(
        tmp_path,
        "junk,who,what,at,page,event,heart,random,watched,length\n"
        f"x,ann,7,{T0}000,home,view,,0,1.5,0\n"
        f"y,bob,8.0,{T0}001,search,buy,1,,,9000\n",
    )
    _, rows, bad = parse(path, mapping)
    ann, bob = hash_texts(pl.Series(["ann", "bob"]))
    assert bad.is_empty()
    assert rows.drop("row_hash").to_dicts() == [
        {"user_id": ann, "item_id": 7, "ts_ms": T0 * 1000, "scenario": 1, "play_ms": 1500, "duration_ms": None,
         "click": 0, "like": None, "is_rand": 0, "line": 0},
        {"user_id": bob, "item_id": 8, "ts_ms": T0 * 1000 + 1, "scenario": 0, "play_ms": None, "duration_ms": 9000,
         "click": 1, "like": 1, "is_rand": 0, "line": 1},
    ]  # fmt: skip
    parsed = TextLog(TextReader.of(path, Layout()), mapping)
    texts = parsed.parse(parsed.plan(path, 1 << 20)[0])
    assert dict(texts.user_text.iter_rows()) == {ann: "ann", bob: "bob"}
    assert texts.item_text is None


@pytest.mark.parametrize(
    ("column", "text", "ms"),
    [
        ({"unit": "s"}, str(T0), 0),
        ({"unit": "s"}, f"{T0}.438", 438),
        ({"unit": "s"}, "1.7145216e9", 0),
        ({"unit": "ms"}, f"{T0}438", 438),
        ({"unit": "us"}, f"{T0}438600", 439),
        ({"unit": "iso"}, "2024-05-01T00:00:00Z", 0),
        ({"unit": "iso"}, "2024-05-01 08:00:00.25+08:00", 250),
        ({"unit": "iso"}, "2024-04-30T20:30:00-0330", 0),
        ({"unit": "iso", "utc_offset_h": 8}, "2024-05-01 08:00:00", 0),
        ({"unit": "iso", "utc_offset_h": 5.5}, "2024-05-01 05:30:00", 0),
        ({"unit": "iso", "utc_offset_h": 8}, "2024-05-01T00:00:00Z", 0),
        ({"unit": "s"}, "now", None),
        ({"unit": "s"}, "nan", None),
        ({"unit": "s"}, "1e400", None),
        ({"unit": "s"}, f"{T0}000", None),  # ms given as s
        ({"unit": "ms"}, str(T0), None),  # s given as ms: January 1970
        ({"unit": "iso"}, "2024-05-01 00:00:00", None),
        ({"unit": "iso"}, "2024-02-30T00:00:00Z", None),
        ({"unit": "iso"}, "01.05.2024 00:00", None),
        ({"unit": "s", "last_day": "2024-04-30"}, str(T0), None),
        ({"unit": "s", "first_day": "2024-05-01"}, str(T0), 0),
        ({"unit": "s", "first_day": "2024-05-01"}, str(T0 - 1), None),
    ],
)
def test_times(column, text, ms):
    got = pl.DataFrame({"t": [text]}).select(TimeColumn(column="t", **column).value()).item()
    assert got == (None if ms is None else T0 * 1000 + ms)


@pytest.mark.parametrize(
    ("column", "good", "refused"),
    [
        (IdColumn(column="c", ids="integer"), {"0": 0, "7.0": 7, str(2**63 - 1): 2**63 - 1}, ["-1", "1.5", "x", "1e3", " 1", str(2**63)]),
        (FlagColumn(column="c"), {"0": 0, "1": 1, "1.0": 1, "true": 1, "False": 0}, ["2", "-1", "yes", "01"]),
        (FlagColumn(column="c", ones=["yes"]), {"yes": 1, "no": 0, "2": 0}, [""]),
        (LengthColumn(column="c", unit="s"), {"1.5": 1500, "0": 0}, ["-1", "x", "2147484", "nan"]),
        (NumberColumn(column="c"), {"-1.5": -1.5, "2e3": 2000.0}, ["x", "inf", "nan", "1e39"]),
        (CountColumn(column="c"), {"0": 0, "3.0": 3, "2147483647": 2**31 - 1}, ["-1", "2147483648", "a"]),
        (ScenarioColumn(column="c"), {"0": 0, "32767": 32767}, ["-1", "32768", "home"]),
        (ScenarioColumn(column="c", kind="text", values=["b", "a"]), {"b": 0, "a": 1}, ["c", "", "A"]),
        (KindColumn(column="c", used=["v"], unused=["w"]), {"v": 0, "w": 1}, ["x"]),
        (Column(column="c"), {"x": "x"}, [""]),
    ],
)  # fmt: skip
def test_typed_values(column, good, refused):
    frame = pl.DataFrame({"c": [*good, *refused]})
    assert frame.select(column.value()).to_series().to_list() == [
        *good.values(),
        *[None] * len(refused),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f",1,{T0},0", "user is empty"),
        (f"a,1,{T0},0", "user must be an integer of 0 or more, is a"),
        (f"-3,1,{T0},0", "user must be an integer of 0 or more, is -3"),
        (f"1,,{T0},0", "item is empty"),
        ("1,1,,0", "time is empty"),
        ("1,1,soon,0", "time must be a Unix time in s from 1990-01-01 to 2099-12-31, is soon"),
        (f"1,1,{T0}000,0", f"time must be a Unix time in s from 1990-01-01 to 2099-12-31, is {T0}000"),
        (f"1,1,{T0},7", "like must be 0 or 1, is 7"),
        (f"1,1,{T0}", "wrong number of fields: 3 instead of 4"),
        (f"1,1,{T0},0,5", "wrong number of fields: 5 instead of 4"),
        (f"1;1;{T0};0", "wrong number of fields: 1 instead of 4"),
        ("", "empty line"),
        (f"1,\0,{T0},0", "NUL byte"),
        (f"1,1,{T0},".encode() + b"\xe9", "not UTF-8"),
        (f'1,"1,{T0},0', "a quote is not closed on its line, or text follows its end"),
        (f'1,"1"2,{T0},0', "a quote is not closed on its line, or text follows its end"),
    ],
)  # fmt: skip
def test_bad_lines_say_why(tmp_path, line, reason):
    raw = line if isinstance(line, bytes) else line.encode()
    good = f"1,2,{T0},1".encode()
    path = write(tmp_path, b"\n".join([HEADER.encode(), good, raw, good, b""]))
    n_lines, rows, bad = parse(path)
    assert n_lines == 3
    assert rows["line"].to_list() == [0, 2]
    shown = raw.decode(errors="replace").replace("\0", "␀")
    assert bad.rows() == [(1, reason, shown)]


def test_the_first_broken_column_gives_the_reason_and_long_lines_are_cut(tmp_path):
    path = write(tmp_path, f"{HEADER}\n{'x' * 600},,{T0},0\n")
    ((_, reason, text),) = parse(path)[2].rows()
    assert reason == f"user must be an integer of 0 or more, is {'x' * 40}"
    assert text == "x" * 500


def test_a_file_cut_in_its_last_line(tmp_path):
    path = write(tmp_path, f"{HEADER}\n1,2,{T0},1\n1,2,{T0}")
    assert parse(path)[2].rows() == [(1, "truncated last line: 3 instead of 4", f"1,2,{T0}")]
    path = write(tmp_path, f"{HEADER}\n1,2,{T0},1\n1,3,{T0},1")  # only its line end is missing
    assert parse(path)[1]["item_id"].to_list() == [2, 3]


def test_rows_that_are_no_interactions_are_counted(tmp_path):
    mapping = MAPPING.model_copy(update={"kind": KindColumn(column="like", used=["1"], unused=["0"]), "feedback": {}})  # fmt: skip
    log = TextLog(TextReader.of(path := write(tmp_path, f"{HEADER}\n1,2,{T0},1\n1,3,{T0},0\n1,4,{T0},2\n"), Layout()), mapping)  # fmt: skip
    parsed = log.parse(log.plan(path, 1 << 20)[0])
    assert parsed.rows["item_id"].to_list() == [2]
    assert parsed.excluded == {"like is 0": 1}
    assert parsed.bad["reason"].to_list() == ["kind must be one of 1, 0, is 2"]


def test_equal_lines_have_equal_hashes_and_others_not(tmp_path):
    lines = [f"1,2,{T0},1", f"1,2,{T0},1", f"1,2,{T0},0", f"1,2,{T0}.0,1"]
    rows = parse(write(tmp_path, "\n".join([HEADER, *lines, ""])))[1]
    first, second, third, fourth = rows["row_hash"]
    assert first == second
    assert len({first, third, fourth}) == 3


def test_hashes_of_ids_do_not_change():
    # an id must keep its number from run to run and machine to machine
    texts = pl.Series(["", "a", "b", "u000001", "日本語のユーザー"])
    hashes = hash_texts(texts)
    assert hashes.n_unique() == 5
    assert hashes.min() >= 0
    assert hash_texts(texts[3:4]).item() == hashes[3]
    # worked out with Python's integers: fold 8 bytes in, multiply by 0xD6E8FEB86659FD93, xor the upper half
    assert hashes.to_list() == [
        2_775_648_793_878_369_624,
        8_975_409_465_942_461_075,
        2_943_003_142_705_860_926,
        4_388_966_926_511_154_760,
        9_213_638_729_158_159_860,
    ]


def test_hashes_of_many_ids_are_distinct_in_all_their_bits():
    n = 200_000
    hashes = hash_texts(pl.Series(range(n)).cast(pl.String)).to_numpy()
    assert len(np.unique(hashes)) == n
    ones = np.array([((hashes >> bit) & 1).mean() for bit in range(63)])
    assert np.abs(ones - 0.5).max() < 0.01  # 5 sd = 0.0056


# --- layouts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "content", "rows"),
    [
        (Layout(), 'a,b\n1,"x,""y"""\r\n"2",\n', [("1", 'x,"y"'), ("2", "")]),
        (Layout(quotes=False), 'a,b\n1,"x\n2,""y\n', [("1", '"x'), ("2", '""y')]),
        (Layout(separator="\t", quotes=False), 'a\tb\r\n1\tx "\r\n', [("1", 'x "')]),
        (Layout(separator="|"), "\ufeffa|b\n1|2\n", [("1", "2")]),
        (Layout(header=False, columns=["a", "b"]), "\ufeff1,2\n3,4", [("1", "2"), ("3", "4")]),
        (Layout(nulls=["\\N", "NULL"]), "a,b\n\\N,NULL\nN,null\n", [("", ""), ("N", "null")]),
        (Layout(), '"a","b"\n1,2\n', [("1", "2")]),
        (Layout(), "a,b\n", []),
    ],
)
def test_layouts(tmp_path, layout, content, rows):
    path = write(tmp_path, content)
    assert TextReader.of(path, layout).columns == ("a", "b")
    assert read_texts(path, layout) == (rows, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"separator": "::"}, "separator must be one ASCII character"),
        ({"separator": "\n"}, "separator must be one ASCII character"),
        ({"separator": "é"}, "separator must be one ASCII character"),
        ({"header": False}, "give columns where header is false"),
        ({"columns": ["a"]}, "give columns where header is false"),
        ({"header": False, "columns": ["a", "a"]}, "must not repeat"),
        ({"delimiter": ","}, "Extra inputs"),
    ],
)
def test_layouts_that_contradict_themselves(changes, message):
    with pytest.raises(ValidationError, match=message):
        Layout(**changes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", b"\x1f\x8b\x08\x00" + bytes(99), "packed .gzip.: unpack it first"),
        ("log.csv", b"PK\x03\x04" + bytes(99), "packed .zip."),
        ("log.csv", b"a,b,a\n1,2,3\n", "names a column twice"),
        ("log.parquet", b"a,b\n1,2\n", "not a Parquet file, or is damaged"),
        ("log.parquet", b"PAR1" + bytes(40) + b"PAR1", "not a Parquet file, or is damaged"),
        ("log.parquet", b"", "not a Parquet file, or is damaged"),
    ],
)
def test_files_that_cannot_be_opened(tmp_path, name, content, message):
    with pytest.raises(WrongHeader, match=message) as error:
        TextReader.of(write(tmp_path, content, name), Layout())
    assert name in str(error.value)


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6),
    separator=st.sampled_from(",;\t|"),
    chunk_bytes=st.integers(5, 60),
)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, separator, chunk_bytes):
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows([("a", "b", "c"), *rows])
    path = write(tmp_path_factory.mktemp("csv"), out.getvalue())
    assert read_texts(path, Layout(separator=separator), chunk_bytes) == (rows, [])


@settings(max_examples=40, deadline=None)
@given(
    body=st.lists(st.sampled_from([b"1", b",", b'"', b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xc3\xa9", b"1,2,%d,0" % T0]), max_size=60),
    chunk_bytes=st.integers(1, 50),
)  # fmt: skip
def test_any_bytes_are_rows_or_bad_lines_whatever_the_chunks(tmp_path_factory, body, chunk_bytes):
    content = HEADER.encode() + b"\n" + b"".join(body)
    path = write(tmp_path_factory.mktemp("any"), content + b"\n")
    n_lines, rows, bad = parse(path)
    assert n_lines == content.count(b"\n")
    lines = [*rows["line"], *bad["line"]]
    assert sorted(lines) == list(range(n_lines))
    assert (bad["reason"].str.len_chars() > 0).all()
    n_again, rows_again, bad_again = parse(path, chunk_bytes=chunk_bytes)
    assert n_again == n_lines
    assert rows.equals(rows_again)
    assert bad.equals(bad_again)


def test_parquet_holds_the_same_texts_as_csv(tmp_path):
    moment = datetime(2024, 5, 1, 12, 30, 1, 250_000, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "i": [1, None, 3],
            "x": [0.5, None, 2.0],
            "flag": [True, False, None],
            "text": ["a,b", None, '"'],
            "utc": [moment, None, moment],
            "list": [[1], [2], [3]],
        }
    ).with_columns(naive=pl.col("utc").dt.replace_time_zone(None))
    path = tmp_path / "log.parquet"
    frame.write_parquet(path, row_group_size=2)
    reader = TextReader.of(path, Layout())
    assert reader.columns == ("i", "x", "flag", "text", "utc", "naive")  # lists are no columns
    assert [(c.start, c.stop) for c in reader.plan(path, 1)] == [(0, 1), (1, 2)]
    assert [(c.start, c.stop) for c in reader.plan(path, 1 << 20)] == [(0, 2)]
    times = TimeColumn(column="t", unit="iso"), TimeColumn(column="t", unit="iso", utc_offset_h=0)
    for chunk_bytes in (1, 1 << 20):
        rows, bad = read_texts(path, Layout(), chunk_bytes)
        assert bad == []
        assert [row[:4] for row in rows] == [
            ("1", "0.5", "true", "a,b"),
            ("", "", "false", ""),
            ("3", "2.0", "", '"'),
        ]
        ms = round(moment.timestamp() * 1000)
        for place, time in zip((4, 5), times, strict=True):
            values = pl.DataFrame({"t": [row[place] for row in rows]}).select(time.value())
            assert values.to_series().to_list() == [ms, None, ms]


# --- tables beside the logs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [1, 12, 1 << 20])
def test_side_tables_drop_repeats_and_refuse_second_versions(tmp_path, chunk_bytes):
    path = write(tmp_path, "id,n,x\na,1,p\nb,2,q\na,1,p\na,3,r\n,4,s\nc,-1,t\nd,,u\n")
    columns = {"key": IdColumn(column="id"), "n": CountColumn(column="n")}
    reader = TextReader.of(path, Layout())
    table = read_side_table(path, reader, columns, ["key"], chunk_bytes, "key")
    assert table.rows.select("key_text", "n", "line").rows() == [("a", 1, 2), ("b", 2, 3), ("d", None, 8)]  # fmt: skip
    assert table.quarantine.rows() == [
        ("log.csv", 5, "key stands twice with other values", "a,3,r"),
        ("log.csv", 6, "key is empty", ",4,s"),
        ("log.csv", 7, "n must be an integer, 0…2147483647, is -1", "c,-1,t"),
    ]
    assert (table.n_read, table.n_duplicates) == (7, 1)


@pytest.mark.parametrize("content", ["id,n\n", "id,n"])
def test_a_side_table_without_rows_has_types(tmp_path, content):
    path = write(tmp_path, content)
    columns = {"key": IdColumn(column="id"), "n": CountColumn(column="n")}
    table = read_side_table(path, TextReader.of(path, Layout()), columns, ["key"], 100, "key")
    assert table.rows.schema["n"] == pl.Int32
    assert (table.rows.height, table.n_read, table.quarantine.height) == (0, 0, 0)


def test_names_in_order_of_first_appearance(tmp_path):
    one = write(tmp_path, "s,t\nhome,1\n,1\nsearch,1\nhome,1\n", "1.csv")
    two = write(tmp_path, "t,s\n1,cart\n1,home\n", "2.csv")
    logs = [(path, TextReader.of(path, Layout())) for path in (one, two)]
    for chunk_bytes in (1, 1 << 20):
        assert first_appearances(logs, "s", chunk_bytes) == ("home", "search", "cart")
        assert first_appearances(logs[::-1], "s", chunk_bytes) == ("cart", "home", "search")
    many = write(tmp_path, "s\n" + "\n".join(map(str, range(32_768))), "3.csv")
    with pytest.raises(ValueError, match=r"3\.csv: column 's' has more than 32767 values"):
        first_appearances([(many, TextReader.of(many, Layout()))], "s", 1 << 20)


def test_codes_ids_and_items():
    codes, names = codes_of(pl.Series(["b", None, "a", "b"]))
    assert (codes.to_list(), names) == ([1, None, 0, 1], ["a", "b"])
    ids = pl.DataFrame({"raw_id": [1, 2], "raw_text": ["a", "b"]})
    assert id_texts(None, None) is None
    assert id_texts(ids, None, ids).sort("raw_id").equals(ids)
    with pytest.raises(ValueError, match="have one 63-bit hash"):
        id_texts(ids, ids.with_columns(raw_text=pl.lit("c")))
    item_map = pl.DataFrame({"dense_id": [0, 1], "raw_id": [5, 9], "raw_text": [None, None]})
    items = build_items(item_map, pl.DataFrame({"raw_id": [9], "category_1": [3]}))
    Items.validate(items)
    assert items.select("item_id", "category_1", "caption").rows() == [(0, None, None), (1, 3, None)]  # fmt: skip


# --- mappings -------------------------------------------------------------------------------------------------

GOOD = "user: u\nitem: i\ntime: {column: t, unit: s}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item: i\ntime: {column: t, unit: s}\n", "user: Field required"),
        (GOOD + "users: u\n", "users: Extra inputs are not permitted"),
        (GOOD + "feedback: {clicked: c}\n", r"feedback.clicked.\[key\]: Input should be 'click'"),
        (GOOD + "feedback: {click: {column: c, ones: [yes]}}\n", r"feedback.click.ones.0: .*YAML reads this as True: put it in quotes"),
        ("user: u\nitem: i\ntime: {column: t, unit: hours}\n", "time.unit: Input should be 's', 'ms', 'us' or 'iso'"),
        ("user: u\nitem: i\ntime: t\n", "time.unit: Field required"),
        ("user: [\n", "is no YAML"),
        (b"user: \xff", "is no YAML"),
        ("", "the mapping: Input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_wrong_mappings_name_the_key(tmp_path, content, message):
    path = write(tmp_path, content, "mapping.yml")
    with pytest.raises(WrongMapping, match=message) as error:
        read_mapping(path, LogMapping)
    assert str(path) in str(error.value)


def test_a_mapping_reads_numbers_as_text_and_names_as_columns(tmp_path):
    text = GOOD + "feedback: {like: {column: c, ones: [1, two]}, hate: h}\n"
    mapping = read_mapping(write(tmp_path, text, "m.yml"), LogMapping)
    assert mapping.feedback["like"].ones == ("1", "two")
    assert {key: column.column for key, column in mapping.columns.items()} == {
        "user": "u", "item": "i", "time": "t", "like": "c", "hate": "h",
    }  # fmt: skip
    with pytest.raises(MissingRawFiles, match="says what the columns of the logs mean: user, item"):
        read_mapping(tmp_path / "none.yml", LogMapping)


def test_a_column_that_a_file_lacks(tmp_path):
    path = write(tmp_path, "user;item;ts\n", "log.csv")
    reader = TextReader.of(path, Layout())
    with pytest.raises(WrongMapping) as error:
        check_columns(tmp_path / "mapping.yml", "", MAPPING.columns, path, reader)
    assert "mapping.yml: user names the column 'user', which log.csv does not have. It has: ['user;item;ts'] (separator ',')" in str(error.value)  # fmt: skip


def test_files_named_by_a_mapping(tmp_path):
    for name in ("b.csv", "a.csv", "x/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path, "x", name)
    mapping = tmp_path / "mapping.yml"
    found = named_files(mapping, "logs", ["b.csv", "*.csv"], "log")
    assert [file.path.name for file in found] == ["b.csv", "a.csv"]
    with pytest.raises(MissingRawFiles, match=r"logs: no file 'c\*\.csv'"):
        named_files(mapping, "logs", ["c*.csv"], "log")
    for pattern in ("../*.csv", "/etc/*.csv"):
        with pytest.raises(WrongMapping, match="must stay in"):
            named_files(mapping, "logs", [pattern], "log")
    with pytest.raises(WrongMapping, match="two files have one name"):
        named_files(mapping, "logs", ["**/a.csv"], "log")
