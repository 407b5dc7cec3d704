"""Large CSV files of integers: cut into chunks, parsed at memory speed, every bad line explained.

A file is never held whole: each chunk is a byte range that owns the lines starting in it, so chunks can be parsed
apart and in any order. Lines end in LF or CRLF.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numba import njit
from numpy.typing import NDArray

from reelrank.sources.errors import WrongHeader

MAX_TEXT = 500
MAX_HEADER_BYTES = 1 << 16
LF, CR, QUOTE_MARK, COMMA, MINUS, ZERO, NINE = b'\n\r",-09'
_INTEGER = re.compile(r"-?\d{1,18}\Z", re.ASCII)


@dataclass(frozen=True)
class IntegerColumn:
    """A column and the values it may hold; ``rule`` says in words what ``low`` … ``high`` means."""

    name: str
    dtype: pl.DataType
    low: int
    high: int
    rule: str


@dataclass(frozen=True)
class Chunk:
    """The lines of a file that start in the byte range [start, stop)."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class ParsedChunk:
    """What a chunk holds: rows in file order, and the lines that are none.

    ``columns`` maps names to arrays of shape (n_rows,); ``line`` (n_rows,) counts the chunk's lines from 0;
    ``bad`` has columns line, reason, text.
    """

    n_lines: int
    columns: dict[str, NDArray[np.integer]]
    line: NDArray[np.int32]
    bad: pl.DataFrame


def check_header(path: Path, expected: Iterable[str]) -> list[str]:
    """The column names of a file, which may stand in any order; a file of no bytes passes for one without rows.

    Raises:
        WrongHeader: a column is missing, unknown or named twice.
    """
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES)
    expected = list(expected)
    if not line:
        return expected
    found = line.decode("utf-8-sig", errors="replace").rstrip("\r\n").split(",")
    missing = [name for name in expected if name not in found]
    unexpected = [n for i, n in enumerate(found) if n not in expected or n in found[:i]]
    if missing or unexpected:
        shown = [name[:40] for name in unexpected[:20]]
        raise WrongHeader(
            f"{path}: wrong header. Missing columns: {missing or 'none'}; unexpected columns: {shown or 'none'}. "
            "The file must be comma-separated UTF-8 with the official column names, in any order."
        )
    return found


def has_rows(path: Path) -> bool:
    """Whether anything follows the header."""
    with path.open("rb") as file:
        file.readline()
        return file.read(1) != b""


def plan_chunks(path: Path, chunk_bytes: int) -> list[Chunk]:
    """Cut a file's lines after the header into chunks of about ``chunk_bytes``."""
    with path.open("rb") as file:
        start = len(file.readline())
    size = path.stat().st_size
    starts = range(start, size, chunk_bytes)
    return [Chunk(path, at, min(at + chunk_bytes, size)) for at in starts]


def read_lines(chunk: Chunk) -> bytes:
    """The chunk's lines, whole: a line that starts before ``stop`` is read to its end."""
    with chunk.path.open("rb") as file:
        file.seek(chunk.start - 1)
        skipped = len(file.readline())  # one byte where the line before ends there
        start = chunk.start - 1 + skipped
        if start >= chunk.stop:
            return b""
        body = file.read(chunk.stop - start)
        return body if body.endswith(b"\n") else body + file.readline()


def parse_chunk(
    chunk: Chunk, header: Sequence[str], columns: Sequence[IntegerColumn]
) -> ParsedChunk:
    """Parse a chunk into typed columns, checking every value against its column's range.

    Args:
        chunk: byte range.
        header: the file's column names in file order.
        columns: one per name of the header, in any order.
    """
    body = read_lines(chunk)
    cut = body != b"" and not body.endswith(b"\n")
    if cut:
        body += b"\n"
    by_name = {column.name: column for column in columns}
    in_order = [by_name[name] for name in header]
    n_lines = body.count(b"\n")
    values = np.empty((len(in_order), n_lines), np.int64)
    line = np.empty(n_lines, np.int32)
    bad = np.empty((4, n_lines), np.int64)
    n_good, n_bad = _parse(
        np.frombuffer(body, np.uint8),
        np.array([(column.low, column.high) for column in in_order], np.int64),
        values,
        line,
        bad,
    )
    explained = [
        (int(number), *_explain(body[start:stop], in_order, int(field), cut and stop == len(body)))
        for number, start, stop, field in bad[:, :n_bad].T
    ]
    return ParsedChunk(
        n_lines,
        {c.name: v[:n_good].astype(_numpy_type(c.dtype)) for c, v in zip(in_order, values, strict=True)},
        line[:n_good],
        pl.DataFrame(
            explained, {"line": pl.Int64, "reason": pl.String, "text": pl.String}, orient="row"
        ),
    )  # fmt: skip


def _numpy_type(dtype: pl.DataType) -> np.dtype[np.integer]:
    dtype_of: np.dtype[np.integer] = pl.Series([], dtype=dtype).to_numpy().dtype
    return dtype_of


def _explain(
    raw: bytes, columns: Sequence[IntegerColumn], field: int, is_cut: bool
) -> tuple[str, str]:
    """Reason and text of a bad line; ``field`` is the first field that did not parse or fit."""
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    text = raw.decode(errors="replace").replace("\0", "␀")
    fields = text.split(",")
    column, value = columns[min(field, len(columns) - 1)], fields[min(field, len(fields) - 1)]
    if not raw:
        reason = "empty line"
    elif b"\0" in raw:
        reason = "NUL byte"
    elif not is_utf8(raw):
        reason = "not UTF-8"
    elif len(fields) != len(columns):
        what = "truncated last line" if is_cut else "wrong number of fields"
        reason = f"{what}: {len(fields)} instead of {len(columns)}"
    elif not value:
        reason = f"{column.name} is empty"
    elif not _INTEGER.match(value):
        reason = f"{column.name} is not an integer: {value[:40]!r}"
    else:
        reason = f"{column.name} must be {column.rule}, is {value}"
    return reason, text[:MAX_TEXT]


def is_utf8(raw: bytes) -> bool:
    """Whether the bytes are UTF-8 text."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@njit(cache=True)
def _parse(
    text: NDArray[np.uint8],
    limits: NDArray[np.int64],
    values: NDArray[np.int64],
    line: NDArray[np.int32],
    bad: NDArray[np.int64],
) -> tuple[int, int]:
    """Fill ``values`` (n_columns, n_lines) with the good lines; ``bad`` with (line, start, stop, first bad field)."""
    n_columns = len(limits)
    n_good = n_bad = at = number = 0
    while at < len(text):
        start = at
        field = 0
        while field < n_columns:
            negative = text[at] == MINUS
            at += negative
            first = at
            value = np.int64(0)
            while ZERO <= text[at] <= NINE and at - first < 18:
                value = value * 10 + (text[at] - ZERO)
                at += 1
            value = -value if negative else value
            if at == first or value < limits[field, 0] or value > limits[field, 1]:
                break
            if field == n_columns - 1:
                if text[at] == CR:
                    at += 1
                if text[at] != LF:
                    break
            elif text[at] != COMMA:
                break
            values[field, n_good] = value
            at += 1
            field += 1
        if field == n_columns:
            line[n_good] = number
            n_good += 1
        else:
            # the value that failed may have run over the line's end, which is never before `first`
            while text[at] != LF:
                at += 1
            at += 1
            bad[0, n_bad], bad[1, n_bad], bad[2, n_bad], bad[3, n_bad] = number, start, at, field
            n_bad += 1
        number += 1
    return n_good, n_bad
