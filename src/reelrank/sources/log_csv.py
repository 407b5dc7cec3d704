"""Large delimited logs: cut into chunks, parsed at memory speed, every bad line explained.

A file is never held whole: each chunk is a byte range that owns the lines starting in it, so chunks can be parsed apart and in any
order. Lines end in LF or CRLF; a quoted field may hold commas and doubled quotes, not line ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from reelrank.sources.errors import WrongHeader
from reelrank.sources.log_format import BAD_LINES, RAW_COLUMNS, Chunk, ParsedChunk
from reelrank.sources.words import load_word, trailing_zeros

Kind = Literal["integer", "decimal", "category", "text", "skip"]
KINDS: tuple[Kind, ...] = ("integer", "decimal", "category", "text", "skip")
INTEGER, DECIMAL, CATEGORY, TEXT, SKIP = range(len(KINDS))
MAX_TEXT = 500
MAX_HEADER_BYTES = 1 << 16
INT64_MAX = 2**63 - 1
NULL = -(2**63)
PADDING = 16  # bytes after a chunk that its parser may look at
LF, CR, QUOTE_MARK, COMMA, MINUS, PLUS, POINT, ZERO, NINE, SMALL_E, LARGE_E = b'\n\r",-+.09eE'
GOLDEN, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
ZEROS, ONE, HALF = np.uint64(0), np.uint64(1), np.uint64(32)
LOW_BITS, HIGH_BITS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
COMMAS, LINE_ENDS = LOW_BITS * np.uint64(COMMA), LOW_BITS * np.uint64(LF)
POWERS = 10 ** np.arange(19, dtype=np.int64)
_INTEGER = re.compile(r"-?\d{1,18}\Z", re.ASCII)
_DECIMAL = re.compile(r"-?\d{1,18}(\.\d*)?([eE][-+]?\d{1,2})?\Z", re.ASCII)


@dataclass(frozen=True)
class Column:
    """A column of a log and the values it may hold.

    ``integer`` and ``category`` (place in ``categories``) hold what they say; ``decimal`` holds value · 10^scale, rounded; ``text`` is taken as it
    stands; ``skip`` is not read. ``rule`` says in words what ``low`` … ``high`` (of the stored number) means.
    """

    name: str
    kind: Kind = "integer"
    low: int = -INT64_MAX
    high: int = INT64_MAX
    rule: str = ""
    scale: int = 0
    nullable: bool = False
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class CsvFormat:
    """A log of one record per line under a header; a ``LogFormat``.

    ``to_rows`` turns the columns that are not skipped (integer and decimal Int64, category Int16, text String) into columns of
    ``RAW_COLUMNS``, row by row; it may add ``reason`` (where not null the row is quarantined), ``excluded`` (where not null the row is
    sound but no interaction, counted by this text) and ``noted`` (where not null the row is kept and counted by this text).
    """

    columns: tuple[Column, ...]
    to_rows: Callable[[pl.DataFrame], pl.DataFrame]
    has_header: bool = True

    def plan(self, path: Path, chunk_bytes: int) -> list[Chunk]:
        """Cut a file's lines after the header into chunks of about ``chunk_bytes``."""
        return plan_chunks(path, chunk_bytes)

    def parse(self, chunk: Chunk) -> ParsedChunk:
        """Parse a chunk, check every value against its column, and turn rows into raw interactions."""
        table = parse_table(chunk, self.columns)
        return to_interactions(table, self.to_rows)


@dataclass(frozen=True)
class ParsedTable:
    """The good lines of a chunk as typed columns, and the bad ones."""

    n_lines: int
    rows: pl.DataFrame
    line: NDArray[np.int32]  # (n_rows,), counted from 0
    row_hash: NDArray[np.uint64]  # (n_rows,) of the line as it stands
    bad: pl.DataFrame
    body: bytes

    def text_of(self, lines: NDArray[np.integer]) -> list[str]:
        """The text of some lines, cut to what a quarantine keeps."""
        ends = np.flatnonzero(np.frombuffer(self.body, np.uint8) == LF)
        starts = np.concatenate([[0], ends[:-1] + 1])
        return [
            shown_text(self.body[starts[k] : ends[k]].removesuffix(b"\r"))[:MAX_TEXT] for k in lines
        ]


def to_interactions(
    table: ParsedTable, to_rows: Callable[[pl.DataFrame], pl.DataFrame]
) -> ParsedChunk:
    """Turn typed columns into raw interactions, setting aside what the source refuses or excludes."""
    rows = to_rows(table.rows)
    rows = rows.with_columns(pl.Series("line", table.line), pl.Series("row_hash", table.row_hash))
    bad = table.bad
    counts = {
        name: dict(rows[name].drop_nulls().value_counts().iter_rows())
        for name in ("excluded", "noted")
        if name in rows.columns
    }
    if "excluded" in rows.columns:
        rows = rows.filter(pl.col("excluded").is_null()).drop("excluded")
    if "reason" in rows.columns:
        refused = rows.filter(pl.col("reason").is_not_null()).select("line", "reason")
        if refused.height:
            text = table.text_of(refused["line"].to_numpy())
            more = refused.with_columns(pl.Series("text", text, pl.String))
            bad = pl.concat([bad, more.cast(BAD_LINES)]).sort("line")  # type: ignore[arg-type]
            rows = rows.filter(pl.col("reason").is_null())
        rows = rows.drop("reason")
    names = [name for name in RAW_COLUMNS if name in rows.columns]
    typed = rows.select(pl.col(name).cast(RAW_COLUMNS[name]) for name in names)
    keys = rows.select("line", "row_hash")
    return ParsedChunk(
        table.n_lines,
        pl.concat([typed, keys], how="horizontal"),
        bad,
        counts.get("excluded", {}),
        counts.get("noted", {}),
    )


def check_header(path: Path, expected: Iterable[str]) -> list[str]:
    """The column names of a file, which may stand in any order; a file of no bytes passes for one without rows.

    Raises:
        WrongHeader: a column is missing, unknown or named twice.
    """
    found = read_header(path)
    expected = list(expected)
    if not found:
        return expected
    missing = [name for name in expected if name not in found]
    unexpected = [n for i, n in enumerate(found) if n not in expected or n in found[:i]]
    if missing or unexpected:
        shown = [name[:40] for name in unexpected[:20]]
        raise WrongHeader(
            f"{path}: wrong header. Missing columns: {missing or 'none'}; unexpected columns: {shown or 'none'}. "
            "The file must be comma-separated UTF-8 with the official column names, in any order."
        )
    return found


def read_header(path: Path, separator: str = ",") -> list[str]:
    """The names in a file's first line; none for a file of no bytes."""
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES)
    if not line:
        return []
    return line.decode("utf-8-sig", errors="replace").rstrip("\r\n").split(separator)


def has_rows(path: Path) -> bool:
    """Whether anything follows the header."""
    with path.open("rb") as file:
        file.readline()
        return file.read(1) != b""


def plan_chunks(path: Path, chunk_bytes: int, has_header: bool = True) -> list[Chunk]:
    """Cut a file's lines (after the header) into chunks of about ``chunk_bytes``."""
    with path.open("rb") as file:
        start = len(file.readline()) if has_header else 0
    size = path.stat().st_size
    starts = range(start, size, chunk_bytes)
    return [Chunk(path, at, min(at + chunk_bytes, size)) for at in starts]


def read_lines(chunk: Chunk) -> bytes:
    """The chunk's lines, whole: a line that starts before ``stop`` is read to its end."""
    with chunk.path.open("rb") as file:
        start = chunk.start
        if start > 0:
            file.seek(start - 1)
            start += len(file.readline()) - 1  # one byte where the line before ends there
        if start >= chunk.stop:
            return b""
        body = file.read(chunk.stop - start)
        return body if body.endswith(b"\n") else body + file.readline()


def parse_table(chunk: Chunk, columns: Sequence[Column]) -> ParsedTable:
    """Parse a chunk into typed columns, checking every value.

    Args:
        chunk: byte range.
        columns: those of the file, in any order.

    Raises:
        WrongHeader: the file's header is not that of ``columns``.
    """
    by_name = {column.name: column for column in columns}
    in_order = [by_name[name] for name in check_header(chunk.path, by_name)]
    body = read_lines(chunk)
    cut = body != b"" and not body.endswith(b"\n")
    if cut:
        body += b"\n"
    n_lines = _count_lines(np.frombuffer(body, np.uint8))
    text = np.frombuffer(body + bytes(PADDING), np.uint8)
    kept = [column for column in in_order if column.kind != "skip"]
    width = {"text": 2, "skip": 0}
    slots = np.cumsum([0] + [width.get(column.kind, 1) for column in in_order])
    values = np.empty((slots[-1], n_lines), np.int64)
    line, row_hash = np.empty(n_lines, np.int32), np.empty(n_lines, np.uint64)
    bad = np.empty((4, n_lines), np.int64)
    words = [name.encode() for column in in_order for name in column.categories]
    n_good, n_bad = _parse(
        text[:-PADDING],
        text,
        np.array([KINDS.index(column.kind) for column in in_order]),
        np.array([(c.low, c.high, c.scale, c.nullable) for c in in_order], np.int64),
        slots,
        np.frombuffer(b"".join(words), np.uint8),
        np.cumsum([0] + [len(word) for word in words]),
        np.cumsum([0] + [len(column.categories) for column in in_order]),
        not_text_lines(body),
        values,
        line,
        row_hash,
        bad,
    )
    series = {
        column.name: _series(column, values[slot : slot + 2, :n_good], body)
        for column, slot in zip(in_order, slots[:-1], strict=True)
        if column.kind != "skip"
    }
    explained = [
        (int(number), *_explain(body[start:stop], in_order, int(field), cut and stop == len(body)))
        for number, start, stop, field in bad[:, :n_bad].T
    ]
    return ParsedTable(
        n_lines,
        pl.DataFrame({column.name: series[column.name] for column in kept}),
        line[:n_good],
        row_hash[:n_good],
        pl.DataFrame(explained, BAD_LINES, orient="row"),
        body,
    )


def not_text_lines(body: bytes) -> NDArray[np.bool_]:
    """Whether each line holds a NUL or is not UTF-8, (n_lines,); empty where all is well."""
    if b"\0" not in body and is_utf8(body):
        return np.empty(0, bool)
    return np.array([b"\0" in raw or not is_utf8(raw) for raw in body.split(b"\n")[:-1]])


def _series(column: Column, values: NDArray[np.int64], body: bytes) -> pl.Series:
    """One column of the good lines; ``values`` holds the number, or start and stop of the text."""
    if column.kind == "text":
        start, stop = values
        quoted = np.zeros(len(start), bool)
        if len(start):
            quoted = np.frombuffer(body, np.uint8)[start] == QUOTE_MARK
        start, stop = start + quoted, stop - quoted
        offsets = np.concatenate([[0], np.cumsum(stop - start)])
        data = np.empty(offsets[-1], np.uint8)
        gather_text(np.frombuffer(body, np.uint8), start, offsets, data)
        array = pa.LargeStringArray.from_buffers(
            len(start), pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(data)
        )
        series = pl.Series(column.name, array)
        return series.str.replace_all('""', '"', literal=True) if quoted.any() else series
    series = pl.Series(column.name, values[0])
    if column.kind == "category":
        series = series.cast(pl.Int16)
    if column.nullable:
        series = series.set(pl.Series(values[0] == NULL), None)
    return series


def shown_text(raw: bytes) -> str:
    """A line as a quarantine shows it."""
    return raw.decode(errors="replace").replace("\0", "␀")


def _explain(raw: bytes, columns: Sequence[Column], field: int, is_cut: bool) -> tuple[str, str]:
    """Reason and text of a bad line; ``field`` is the first field that did not parse or fit."""
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    text = shown_text(raw)
    fields = re.findall(r'(?:^|(?<=,))(?:"(?:[^"]|"")*"|[^,]*)(?=,|$)', text)
    column, value = columns[min(field, len(columns) - 1)], fields[min(field, len(fields) - 1)]
    if not raw:
        reason = "empty line"
    elif b"\0" in raw:
        reason = "NUL byte"
    elif not is_utf8(raw):
        reason = "not UTF-8"
    elif raw.count(b'"') % 2:
        reason = "a quote is not closed on its line"
    elif len(fields) != len(columns):
        what = "truncated last line" if is_cut else "wrong number of fields"
        reason = f"{what}: {len(fields)} instead of {len(columns)}"
    elif not value:
        reason = f"{column.name} is empty"
    elif column.kind == "category":
        reason = f"{column.name} must be one of {', '.join(column.categories)}, is {value[:40]!r}"
    elif column.kind == "integer" and not _INTEGER.match(value):
        reason = f"{column.name} is not an integer: {value[:40]!r}"
    elif column.kind == "decimal" and not _DECIMAL.match(value):
        reason = f"{column.name} is not a number: {value[:40]!r}"
    elif column.kind in ("text", "skip"):
        reason = f"{column.name}: text follows a closing quote"
    else:
        reason = f"{column.name} must be {column.rule}, is {value[:40]}"
    return reason, text[:MAX_TEXT]


def is_utf8(raw: bytes) -> bool:
    """Whether the bytes are UTF-8 text."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@njit(cache=True, nogil=True)
def _count_lines(text: NDArray[np.uint8]) -> int:
    n = 0
    for i in range(len(text)):
        n += text[i] == LF
    return n


@njit(cache=True, nogil=True)
def gather_text(
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
) -> None:
    """Copy the texts that begin at ``start`` (n,) into ``data``, text i to ``offsets[i]`` … ``offsets[i + 1]``."""
    for i in range(len(start)):
        for k in range(offsets[i + 1] - offsets[i]):
            data[offsets[i] + k] = text[start[i] + k]


@njit(cache=True, nogil=True)
def hash_bytes(text: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """64-bit hash of a line: multiply and fold, word by word."""
    state = GOLDEN ^ np.uint64(stop - start)
    at = start
    while at + 8 <= stop:
        state = (state ^ load_word(text, at)) * MIX
        state ^= state >> HALF
        at += 8
    if at < stop:
        rest = (ONE << np.uint64(8 * (stop - at))) - ONE
        state = (state ^ (load_word(text, at) & rest)) * MIX
        state ^= state >> HALF
    state *= MIX
    return state ^ (state >> HALF)


@njit(cache=True, nogil=True)
def _decimal(  # noqa: PLR0912 (one way through a number)
    text: NDArray[np.uint8], at: int, scale: int
) -> tuple[int, int]:
    """A decimal number times 10^scale, rounded half away from zero, and where it ends (at ``at`` where there is none)."""
    first = at
    negative = text[at] == MINUS
    at += negative
    value, digits, fraction = 0, 0, 0
    while ZERO <= text[at] <= NINE:
        if digits < 18:
            value = value * 10 + int(text[at] - ZERO)
            digits += value > 0
        else:
            return 0, first
        at += 1
    if at == first + negative:
        return 0, first
    if text[at] == POINT:
        at += 1
        while ZERO <= text[at] <= NINE:
            if digits < 18:  # digits beyond are below what a double holds
                value = value * 10 + int(text[at] - ZERO)
                digits += value > 0
                fraction += 1
            at += 1
    exponent = 0
    if text[at] == SMALL_E or text[at] == LARGE_E:
        at += 1
        minus = text[at] == MINUS
        at += minus or text[at] == PLUS
        start = at
        while ZERO <= text[at] <= NINE and at - start < 2:
            exponent = exponent * 10 + int(text[at] - ZERO)
            at += 1
        if at == start:
            return 0, first
        exponent = -exponent if minus else exponent
    shift = scale + exponent - fraction
    if shift >= 0:
        if shift > 18 or value > INT64_MAX // POWERS[shift]:
            return 0, first
        value *= POWERS[shift]
    elif shift < -18:
        value = 0
    else:
        unit = POWERS[-shift]
        value = (value + unit // 2) // unit
    return (-value if negative else value), at


@njit(cache=True, nogil=True)
def _field_end(text: NDArray[np.uint8], at: int) -> int:
    """Where an unread field ends: at its comma or line end; −1 where a quote is unsound."""
    if text[at] != QUOTE_MARK:
        found = ZEROS
        while found == ZEROS:  # a byte of the word is 0 where the text has a comma or a line end
            word = load_word(text, at)
            comma, end = word ^ COMMAS, word ^ LINE_ENDS
            found = ((comma - LOW_BITS) & ~comma | (end - LOW_BITS) & ~end) & HIGH_BITS
            at += 8
        return at - 8 + int(trailing_zeros(found) >> np.uint64(3))
    at += 1
    while True:
        if text[at] == LF:
            return -1
        if text[at] == QUOTE_MARK:
            at += 1
            if text[at] != QUOTE_MARK:
                return at
        at += 1


@njit(cache=True, nogil=True)
def _category(
    text: NDArray[np.uint8],
    start: int,
    stop: int,
    words: NDArray[np.uint8],
    word_at: NDArray[np.int64],
    first: int,
    last: int,
) -> int:
    """Place of a field among the words ``first`` … ``last − 1``, or −1."""
    for k in range(first, last):
        if word_at[k + 1] - word_at[k] == stop - start:
            same = True
            for i in range(stop - start):
                if text[start + i] != words[word_at[k] + i]:
                    same = False
                    break
            if same:
                return k - first
    return -1


@njit(cache=True, nogil=True)
def _parse(  # noqa: PLR0912, PLR0915 (one loop over lines and fields; numba takes no keywords)
    text: NDArray[np.uint8],
    padded: NDArray[np.uint8],
    kinds: NDArray[np.int64],
    rules: NDArray[np.int64],
    slots: NDArray[np.int64],
    words: NDArray[np.uint8],
    word_at: NDArray[np.int64],
    first_word: NDArray[np.int64],
    refused: NDArray[np.bool_],
    values: NDArray[np.int64],
    line: NDArray[np.int32],
    row_hash: NDArray[np.uint64],
    bad: NDArray[np.int64],
) -> tuple[int, int]:
    """Fill ``values`` (slots, n_lines), ``line`` and ``row_hash`` with the good lines; ``bad`` with (line, start, stop, first bad field)."""
    n_columns = len(kinds)
    # not the literal 0: what takes it would be compiled twice
    n_good = n_bad = at = number = int(np.int64(0))
    while at < len(text):
        start = at
        field = 0
        while field < n_columns and not (len(refused) > 0 and refused[number]):
            kind, first, value = kinds[field], at, NULL
            stop = at
            ends_here = padded[at] == COMMA or padded[at] == LF or padded[at] == CR
            if kind == INTEGER:
                negative = padded[at] == MINUS
                at += negative
                digits = at
                value = 0
                while ZERO <= padded[at] <= NINE and at - digits < 18:
                    value = value * 10 + int(padded[at] - ZERO)
                    at += 1
                value = -value if negative else value
                stop = first if at == digits else at
            elif kind == DECIMAL:
                value, at = _decimal(padded, at, rules[field, 2])
                stop = at
            else:
                stop = _field_end(padded, at)
                if stop < 0:
                    break
                at = stop
                if padded[at] == LF and at > first and padded[at - 1] == CR:
                    at -= 1
                    stop = at
                if kind == CATEGORY:
                    value = _category(padded, first, stop, words, word_at, first_word[field], first_word[field + 1])  # fmt: skip
                    stop = stop if value >= 0 else first
            if kind <= CATEGORY:
                if stop == first:
                    if not (ends_here and rules[field, 3] == 1):
                        break
                    value = NULL
                elif value < rules[field, 0] or value > rules[field, 1]:
                    break
                values[slots[field], n_good] = value
            elif kind == TEXT:
                values[slots[field], n_good], values[slots[field] + 1, n_good] = first, stop
            if field == n_columns - 1:
                end = at
                if padded[at] == CR:
                    at += 1
                if padded[at] != LF:
                    break
                row_hash[n_good] = hash_bytes(padded, start, end)
            elif padded[at] != COMMA:
                break
            at += 1
            field += 1
        if field == n_columns:
            line[n_good] = number
            n_good += 1
        else:
            while padded[at] != LF:  # no field runs over the end of its line
                at += 1
            at += 1
            bad[0, n_bad], bad[1, n_bad], bad[2, n_bad], bad[3, n_bad] = number, start, at, field
            n_bad += 1
        number += 1
    return n_good, n_bad
