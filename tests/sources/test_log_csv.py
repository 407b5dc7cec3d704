"""Logs as text: what the compiled parser makes of every field, and why it refuses a line."""

import csv
import io
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.sources.errors import WrongHeader
from reelrank.sources.log_csv import (
    Chunk,
    Column,
    CsvFormat,
    parse_table,
    plan_chunks,
    read_lines,
)

COLUMNS = (
    Column("a", low=-5, high=99, rule="−5…99"),
    Column("b", "decimal", scale=1),
    Column("c", "text"),
    Column("d", "category", categories=("x", "y")),
    Column("e", nullable=True, low=0, high=9, rule="0…9"),
    Column("f", "skip"),
)
HEADER = "a,b,c,d,e,f\n"


def parse(tmp_path, body, columns=COLUMNS, header=HEADER):
    path = tmp_path / "log.csv"
    path.write_bytes(header.encode() + (body if isinstance(body, bytes) else body.encode()))
    return parse_table(Chunk(path, len(header), path.stat().st_size), columns)


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("1,2.5,text,x,9,", (1, 25, "text", 0, 9)),
        ('-5,2,"a, b",y,,skipped', (-5, 20, "a, b", 1, None)),
        ('99,1.684742e+12,"say ""x""",x,0,"q, q"', (99, 16847420000000, 'say "x"', 0, 0)),
        ("1,20200705.0,,x,1,z", (1, 202007050, "", 0, 1)),
        ("1,0.04999,中,x,1,", (1, 0, "中", 0, 1)),
        ("1,-0.05,a,x,1,\r", (1, -1, "a", 0, 1)),
    ],
)
def test_a_good_line(tmp_path, line, row):
    table = parse(tmp_path, line + "\n")
    assert table.bad.is_empty()
    assert table.rows.row(0) == row


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty line"),
        ("100,1,a,x,1,", "a must be −5…99, is 100"),
        ("1.0,1,a,x,1,", "a is not an integer: '1.0'"),
        (",1,a,x,1,", "a is empty"),
        ("1,one,a,x,1,", "b is not a number: 'one'"),
        ("1,,a,x,1,", "b is empty"),
        ("1,1e,a,x,1,", "b is not a number: '1e'"),
        ("1,1,a,z,1,", "d must be one of x, y, is 'z'"),
        ("1,1,a,x,10,", "e must be 0…9, is 10"),
        ("1,1,a,x,1", "wrong number of fields: 5 instead of 6"),
        ("1,1,a,x,1,,", "wrong number of fields: 7 instead of 6"),
        ('1,1,"a,x,1,', "a quote is not closed on its line"),
        ('1,1,"a"b,x,1,', "c: text follows a closing quote"),
        (b"1,1,\xff\xfe,x,1,", "not UTF-8"),
        (b"1,1,a\0,x,1,", "NUL byte"),
        (b"1,1,a,x,1,\0", "NUL byte"),
    ],
)
@pytest.mark.parametrize("good_before", [0, 2])
def test_a_bad_line_and_its_reason(tmp_path, line, reason, good_before):
    good = b"1,1,a,x,1,\n"
    line = line if isinstance(line, bytes) else line.encode()
    table = parse(tmp_path, good * good_before + line + b"\n" + good)
    assert table.bad.select("line", "reason").rows() == [(good_before, reason)]
    assert table.line.tolist() == [*range(good_before), good_before + 1]


def test_a_file_cut_off_in_its_last_line(tmp_path):
    table = parse(tmp_path, "1,1,a,x,1,\n1,1,a")
    assert table.bad["reason"].to_list() == ["truncated last line: 3 instead of 6"]
    assert parse(tmp_path, "1,1,a,x,1,").rows.height == 1


def test_columns_are_found_by_name(tmp_path):
    table = parse(tmp_path, "q,3,x,7,text,2.5\n", header="f,e,d,a,c,b\n")
    assert table.rows.row(0, named=True) == {"e": 3, "d": 0, "a": 7, "c": "text", "b": 25}
    with pytest.raises(WrongHeader, match=r"Missing columns: \['f'\]; unexpected columns: \['g'\]"):
        parse(tmp_path, "", header="a,b,c,d,e,g\n")


def test_equal_lines_have_equal_hashes_and_others_not(tmp_path):
    lines = ["1,1,a,x,1,", "1,1,a,x,1,", "1,1,a,x,1,\r", "1,1,a,x,1,z", "1,1.0,a,x,1,"]
    hashes = parse(tmp_path, "\n".join(lines) + "\n").row_hash
    assert len(set(hashes[:3])) == 1
    assert len(set(hashes[2:])) == 3


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(-(10**17), 10**17), FIELD, st.decimals(-(10**9), 10**9, places=4)),
        min_size=1,
        max_size=30,
    ),
    chunk_bytes=st.integers(1, 200),
)
def test_any_table_comes_back_whatever_the_chunks(tmp_path_factory, rows, chunk_bytes):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("n", "t", "x"), *rows])
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    columns = (Column("n"), Column("t", "text"), Column("x", "decimal", scale=2))
    tables = [parse_table(chunk, columns) for chunk in plan_chunks(path, chunk_bytes)]
    assert sum(table.bad.height for table in tables) == 0
    got = pl.concat([table.rows for table in tables]).rows()
    cents = [
        int((abs(x) * 100).quantize(Decimal(1), ROUND_HALF_UP)) * (-1 if x < 0 else 1)
        for _, _, x in rows
    ]
    assert got == [(n, t, x) for (n, t, _), x in zip(rows, cents, strict=True)]


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=300))
def test_no_bytes_break_the_parser(tmp_path_factory, body):
    table = parse(tmp_path_factory.mktemp("csv"), body)
    assert table.rows.height + table.bad.height == table.n_lines
    ends = body.count(b"\n") + (not body.endswith(b"\n") and body != b"")
    assert table.n_lines == ends


def test_every_line_belongs_to_one_chunk(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"head\n" + b"\n".join(b"x" * k for k in range(40)))
    for size in (1, 7, 64):
        pieces = b"".join(read_lines(chunk) for chunk in plan_chunks(path, size))
        assert pieces == path.read_bytes()[5:]
    assert read_lines(Chunk(path, 0, 3)) == b"head\n"


def split_rows(raw):
    odd, large = pl.col("a") % 2 == 1, pl.col("a") > 6
    return raw.select(
        user_id="a",
        item_id="a",
        ts_ms="a",
        excluded=pl.when(odd).then(pl.lit("odd")),
        reason=pl.when(~odd & large).then(pl.lit("a is too large")),
    )


def test_a_source_may_refuse_and_exclude_rows(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("a\n2\nno\n3\n8\n4\n5\n")
    format_ = CsvFormat((Column("a"),), split_rows)
    (chunk,) = format_.plan(path, 1 << 20)
    parsed = format_.parse(chunk)
    assert parsed.rows.select("user_id", "line").rows() == [(2, 0), (4, 4)]
    assert parsed.excluded == {"odd": 2}
    assert parsed.bad.rows() == [
        (1, "a is not an integer: 'no'", "no"),
        (3, "a is too large", "8"),
    ]
    assert parsed.rows.schema["row_hash"] == pl.UInt64
    assert parsed.n_lines == 6
    assert parsed.rows["line"].dtype == pl.Int32
    assert np.all(np.diff(parsed.rows["line"]) > 0)
