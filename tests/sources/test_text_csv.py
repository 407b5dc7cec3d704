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
        table, bad = read_text_table(
            path, list(COLUMNS), COLUMNS, "id", missing_code=-124, multiline=True
        )
    assert bad.is_empty()
    assert table.rows() == [(n, a or None, b or None) for n, (a, b) in enumerate(texts)]


def test_an_open_quote_takes_the_rest_of_a_table_with_line_ends_and_one_line_of_another(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,a,b\n0,x,y\n1,"x,y\n2,x,y\n')
    arguments = (path, list(COLUMNS), COLUMNS, "id")
    table, bad = read_text_table(*arguments, missing_code=-124, multiline=True)
    assert table["id"].to_list() == [0]
    assert bad.select("line", "text").rows() == [(3, '1,"x,y\n2,x,y\n')]
    table, bad = read_text_table(*arguments, missing_code=-124)
    assert table["id"].to_list() == [0, 2]
    assert bad.select("line", "text").rows() == [(3, '1,"x,y')]


def test_a_bare_carriage_return_belongs_to_its_field(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,a,b\n0,x\ry,z\n")
    table, _ = read_text_table(path, list(COLUMNS), COLUMNS, "id", missing_code=-124)
    assert table.rows() == [(0, "x\ry", "z")]
