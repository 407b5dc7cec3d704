import csv
import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.sources import text_csv
from reelrank.sources.text_csv import read_text_table

COLUMNS = {"id": pl.Int64(), "a": pl.String(), "b": pl.String()}
_text = st.text(st.sampled_from('x,"\n\r é视'), max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(_text, _text), max_size=12),
    st.integers(1, 40),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_the_csv_module_writes_is_read_back_at_any_block_size(
    tmp_path_factory, texts, block_bytes, end
):
    buffer = io.StringIO()
    # quoted, because a CR at the end of a line could not be told from a CRLF
    csv.writer(buffer, lineterminator=end).writerow(COLUMNS)
    writer = csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows((number, *pair) for number, pair in enumerate(texts))
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(buffer.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_csv, "BLOCK_BYTES", block_bytes)
        table, bad, _ = read_text_table(
            path, list(COLUMNS), COLUMNS, "id", missing_code=-124, multiline=True
        )
    assert bad.is_empty()
    assert table.rows() == [(n, a or None, b or None) for n, (a, b) in enumerate(texts)]


@pytest.mark.parametrize("block_bytes", [1_000, 16 << 20])
@pytest.mark.parametrize("multiline", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "line", ["{},x,y", '{},"x, ""x""",', "{},x," + "y" * 200], ids=["bare", "quoted", "long"]
)
def test_a_stray_quote_costs_its_own_line_only(
    tmp_path, monkeypatch, line, end, multiline, block_bytes
):
    monkeypatch.setattr(text_csv, "BLOCK_BYTES", block_bytes)
    lines = [line.format(number) for number in range(1_000)]
    lines[500] = '500,"x,y'
    path = tmp_path / "t.csv"
    path.write_text(end.join(["id,a,b", *lines, ""]), newline="")
    table, bad, _ = read_text_table(
        path, list(COLUMNS), COLUMNS, "id", missing_code=-124, multiline=multiline
    )
    assert table["id"].to_list() == [n for n in range(1_000) if n != 500]
    assert bad.select("line", "text").rows() == [(502, '500,"x,y')]


def test_every_line_of_a_damaged_record_is_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,a,b\n0,"two\nlines"x,y\n1,"two\nlines",y\n')
    table, bad, _ = read_text_table(
        path, list(COLUMNS), COLUMNS, "id", missing_code=-124, multiline=True
    )
    assert table.rows() == [(1, "two\nlines", "y")]
    assert bad.select("line", "text").rows() == [(2, '0,"two'), (3, 'lines"x,y')]


@pytest.mark.parametrize(("extra", "is_read"), [(0, True), (1, False)])
@pytest.mark.parametrize("block_bytes", [10_000, 16 << 20])
def test_a_record_with_quotes_may_be_64_kib_long(
    tmp_path, monkeypatch, extra, is_read, block_bytes
):
    monkeypatch.setattr(text_csv, "BLOCK_BYTES", block_bytes)
    text = "x\n" * (2**15 - 3) + "x" * extra
    record = f'0,y,"{text}"\n'
    path = tmp_path / "t.csv"
    path.write_text(f"id,a,b\n{record}1,x,y\n")
    table, bad, _ = read_text_table(
        path, list(COLUMNS), COLUMNS, "id", missing_code=-124, multiline=True
    )
    assert len(record.rstrip()) == 2**16 + extra
    assert table["id"].to_list() == ([0, 1] if is_read else [1])
    assert bad.height == (0 if is_read else record.count("\n"))


def test_rows_are_the_same_when_their_values_are(tmp_path):
    columns = {"id": pl.Int64(), "a": pl.Int32(), "b": pl.List(pl.Int32)}
    path = tmp_path / "t.csv"
    path.write_text('id,a,b\n0,1,"2,3"\n1,,\n0,1.0,"2,3"\n1,-124,\n0,1,\n0,1,\n1,,""\n')
    table, bad, n_duplicates = read_text_table(
        path, list(columns), columns, "id", missing_code=-124
    )
    assert table.rows() == [(0, 1, [2, 3]), (1, None, None)]
    assert bad.select("line", "reason").rows() == [(6, "id 0 stands twice with other values")]
    assert n_duplicates == 4


def test_a_bare_carriage_return_belongs_to_its_field(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,a,b\n0,x\ry,z\n")
    table, _, _ = read_text_table(path, list(COLUMNS), COLUMNS, "id", missing_code=-124)
    assert table.rows() == [(0, "x\ry", "z")]


def test_a_list_of_numbers_may_stand_in_brackets(tmp_path):
    columns = {"id": pl.Int64(), "a": pl.List(pl.Int32)}
    path = tmp_path / "t.csv"
    wrong = ['"[1, 2"', '"1, 2]"', "[a]", '"[1,,2]"', '"[1 2]"', "[1000000000]", "['1']"]
    good = ["[7]", '"[1, 2]"', '"[1,2]"', '"1, 2"', "[]", ""]
    path.write_text("\n".join(["id,a", *(f"{n},{text}" for n, text in enumerate(good + wrong))]))
    table, bad, _ = read_text_table(path, list(columns), columns, "id", missing_code=-124)
    assert table["a"].to_list() == [[7], [1, 2], [1, 2], [1, 2], [], None]
    assert bad["line"].to_list() == [*range(8, 15)]
    assert bad["reason"].to_list()[0] == "a is not a comma list of whole numbers: '[1, 2'"
