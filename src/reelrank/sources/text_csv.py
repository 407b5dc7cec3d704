"""CSV files with text in them: attributes of users and items, small beside the logs.

Records are taken apart by the rules of RFC 4180 (quotes, doubled quotes, commas inside quotes), then typed column by
column. Where text may hold line ends, ``line`` is where a record starts; a record whose quotes are unsound costs its
first line only, so that one stray quote does not swallow what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from reelrank.sources.log_csv import COMMA, CR, LF, MAX_TEXT, QUOTE_MARK, is_utf8
from reelrank.tables import Quarantine

BLOCK_BYTES = 16 << 20
MAX_RECORD_BYTES = 1 << 16  # a quote still open here is taken for a stray one
PROBLEMS = (
    "",
    "empty line",
    "NUL byte",
    "a quote is not closed on its line or within 64 KiB, or text follows its end",
    "wrong number of fields",
    "not UTF-8",
)
FINE, EMPTY, NUL, QUOTE, FIELDS, NOT_UTF8 = range(6)

_KINDS = {
    pl.Date: "a date YYYY-MM-DD",
    pl.Float64: "a number",
    pl.List: "a comma list of whole numbers",
}
_NUMBERS = r"\d{1,9}(?:, ?\d{1,9})*"
_LIST = rf"^(?:{_NUMBERS}|\[(?:{_NUMBERS})?\])$"


def read_text_table(
    path: Path,
    header: Sequence[str],
    columns: Mapping[str, pl.DataType],
    key: str,
    *,
    missing_code: int,
    multiline: bool = False,
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Read a table whose rows are identified by one non-negative integer.

    Numbers may be printed as floats (``720.0``); an empty field and ``missing_code`` are null. A ``Date`` is
    ``YYYY-MM-DD``. Of several rows with one key the first is kept: those equal to an earlier one in all columns are
    dropped, those with other values quarantined.

    Args:
        path: file.
        header: its column names in file order.
        columns: name to type: integers, Float64, Date, String, List(Int32) (numbers with commas between, in brackets or not).
        key: the identifying column.
        missing_code: integer that stands for a missing value.
        multiline: quoted text may hold line ends; a record with quotes is then at most 64 KiB long.

    Returns:
        ``(table, quarantine, n_duplicates)``: the columns in the order of ``columns``, one row per record that cannot be
        used, and the number of exact duplicates dropped.
    """
    tables, refused = [], []
    for records, damaged in _blocks(path, header, multiline):
        checked = records.with_columns(reason=_reason(columns, key, missing_code))
        is_good = pl.col("reason").is_null()
        typed = [_typed(name, dtype, missing_code).alias(name) for name, dtype in columns.items()]
        refused += [damaged, checked.filter(~is_good).select("line", "reason", "text")]
        tables.append(checked.filter(is_good).select("line", "text", *typed))
    table = pl.concat(tables)
    # few keys stand twice: only their rows are compared in full
    repeated = table.filter(pl.col(key).is_duplicated())
    distinct = repeated.unique([*columns], keep="first", maintain_order=True)
    is_first = pl.col(key).is_first_distinct()
    twice = pl.format(f"{key} {{}} stands twice with other values", key).alias("reason")
    refused.append(distinct.filter(~is_first).select("line", twice, "text"))
    quarantine = pl.concat(refused).with_columns(
        pl.col("text").str.slice(0, MAX_TEXT), file=pl.lit(path.name)
    )
    return (
        table.filter(is_first).drop("line", "text"),
        Quarantine.conform(quarantine.sort("line")),
        repeated.height - distinct.height,
    )


def _number(name: str) -> pl.Expr:
    return pl.col(name).str.strip_suffix(".0").cast(pl.Int64, strict=False)


def _typed(name: str, dtype: pl.DataType, missing_code: int) -> pl.Expr:
    """The column as ``dtype``; null where the text is empty, means missing or does not fit."""
    text = pl.col(name)
    if dtype == pl.String:
        return text.replace("", None)
    if dtype == pl.Date:
        return text.str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.List(pl.Int32):
        return pl.when(text.str.contains(_LIST)).then(text.str.extract_all(r"\d+").cast(dtype))
    number = _number(name) if dtype.is_integer() else text.cast(pl.Float64, strict=False)
    return pl.when(number != missing_code).then(number).cast(dtype, strict=False)


def _reason(columns: Mapping[str, pl.DataType], key: str, missing_code: int) -> pl.Expr:
    """Why a record cannot be typed, naming its first bad column; null where it can."""
    reasons = [
        pl.when(pl.col(key) == "").then(pl.lit(f"{key} is empty")),
        pl.when(_number(key) < 0).then(pl.format(f"{key} is negative: {{}}", key)),
    ]
    for name, dtype in columns.items():
        wrong = (
            (pl.col(name) != "")
            & _typed(name, dtype, missing_code).is_null()
            & (_number(name) != missing_code).fill_null(True)
        )
        kind = _KINDS.get(type(dtype), f"a whole number ({dtype})")
        reasons.append(pl.when(wrong).then(pl.format(f"{name} is not {kind}: '{{}}'", name)))
    return pl.coalesce(reasons)


def _blocks(
    path: Path, header: Sequence[str], multiline: bool
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Well-formed records as text columns (with line, text), and the others with their reason."""
    line = 2
    rest = b""
    with path.open("rb") as file:
        file.readline()
        while True:
            block = file.read(BLOCK_BYTES)
            body = rest + block
            at_end = not block
            if at_end and body and not body.endswith(b"\n"):
                body += b"\n"
            capacity = body.count(b"\n") + 1  # one more for a record that the block cuts
            field = np.empty((len(header), 2, capacity), np.int64)
            record = np.empty((4, capacity), np.int64)
            n, used = _take_apart(np.frombuffer(body, np.uint8), multiline, at_end, field, record)
            record[0] += line
            field, record, text = field[:, :, :n], record[:, :n], body[:used]
            if not is_utf8(text):
                for i, (_, start, stop, _) in enumerate(record.T):
                    if not is_utf8(text[start:stop]):
                        record[3, i] = NOT_UTF8
            yield _frames(text, header, field, record)
            if at_end:
                return
            line += text.count(b"\n")
            rest = body[used:]


def _frames(
    body: bytes, header: Sequence[str], field: NDArray[np.int64], record: NDArray[np.int64]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Columns of the records that are fine; line, reason and text of the others."""
    text = np.frombuffer(body, np.uint8)
    is_fine = record[3] == FINE
    line, start, stop, _ = record[:, is_fine]
    whole = {"line": pl.Series(line), "text": _strings(text, start, stop)}
    fields = {
        name: _strings(text, start[is_fine], stop[is_fine])
        for name, (start, stop) in zip(header, field, strict=True)
    }
    damaged = [
        (line, PROBLEMS[problem], body[start:stop].decode(errors="replace").replace("\0", "␀"))
        for line, start, stop, problem in record[:, ~is_fine].T
    ]
    schema = {"line": pl.Int64, "reason": pl.String, "text": pl.String}
    return pl.DataFrame(whole | fields), pl.DataFrame(damaged, schema, orient="row")


def _strings(
    text: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> pl.Series:
    """The pieces ``text[start:stop]`` as strings; a piece that starts with a quote loses its quoting."""
    offsets = np.zeros(len(start) + 1, np.int64)
    pieces = np.empty(int((stop - start).sum()), np.uint8)
    _copy_pieces(text, start, stop, offsets, pieces)
    return pl.Series(
        pa.LargeStringArray.from_buffers(len(start), pa.py_buffer(offsets), pa.py_buffer(pieces))
    )


@njit(cache=True)
def _copy_pieces(
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    offsets: NDArray[np.int64],
    pieces: NDArray[np.uint8],
) -> None:
    size = 0
    for i in range(len(start)):
        quoted = start[i] < stop[i] and text[start[i]] == QUOTE_MARK
        at = start[i] + quoted
        while at < stop[i] - quoted:
            pieces[size] = text[at]
            size += 1
            at += 2 if quoted and text[at] == QUOTE_MARK else 1  # a doubled quote stands for one
        offsets[i + 1] = size


@njit(cache=True)
def _field_end(text: NDArray[np.uint8], at: int, multiline: bool, limit: int) -> tuple[int, bool]:
    """Where the comma or line end after a field stands (``len(text)`` if nowhere), and whether its quotes are sound.

    Quotes must be closed before ``limit``.
    """
    size = len(text)
    quoted = at < size and text[at] == QUOTE_MARK
    closed = not quoted
    if quoted:
        at += 1
        while at < limit and (multiline or text[at] != LF) and not closed:
            doubled = text[at] == QUOTE_MARK and at + 1 < size and text[at + 1] == QUOTE_MARK
            closed = text[at] == QUOTE_MARK and not doubled
            at += 2 if doubled else 1
    after = at
    while at < size and text[at] != COMMA and text[at] != LF:
        at += 1
    ends_with_cr = at == after + 1 and at < size and text[after] == CR and text[at] == LF
    return at, closed and (not quoted or at == after or ends_with_cr)


@njit(cache=True)
def _take_apart(
    text: NDArray[np.uint8],
    multiline: bool,
    at_end: bool,
    field: NDArray[np.int64],
    record: NDArray[np.int64],
) -> tuple[int, int]:
    """Find records and fields; answers the number of whole records and the bytes they take.

    ``field`` (n_fields, 2, n) gets start and stop of every field, quotes included; ``record`` (4, n) gets line counted
    from 0, start, stop and problem.
    """
    # not the literal 0: what takes it would be compiled twice
    n = at = line = int(np.int64(0))
    while at < len(text):
        first, found, sound, is_last = at, 0, True, False
        limit = min(first + MAX_RECORD_BYTES, len(text)) if multiline else len(text)
        stop = at
        while not is_last:
            end, well_quoted = _field_end(text, at, multiline, limit)
            sound = sound and well_quoted
            is_last = end == len(text) or text[end] == LF
            stop = end - 1 if is_last and end > at and text[end - 1] == CR else end
            if found < len(field):
                field[found, 0, n] = at
                field[found, 1, n] = stop
            found += 1
            at = end + 1
        if at > len(text) and not at_end:
            return n, first
        if not sound:  # the next record may start on the next line, whatever the quotes say
            stop = first
            while text[stop] != LF:
                stop += 1
            at = stop + 1
            stop -= stop > first and text[stop - 1] == CR
        has_nul = False
        inner_lines = 0
        for i in range(first, stop):
            has_nul = has_nul or text[i] == 0
            inner_lines += text[i] == LF
        if stop == first:
            problem = EMPTY
        elif has_nul:
            problem = NUL
        elif not sound:
            problem = QUOTE
        else:
            problem = FINE if found == len(field) else FIELDS
        record[0, n], record[1, n], record[2, n], record[3, n] = line, first, stop, problem
        line += 1 + inner_lines
        n += 1
    return n, at
