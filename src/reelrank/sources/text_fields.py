"""Files of any layout, delimited text or Parquet, → columns of text, line by line.

What the text means is not known here (``text_log``). Lines end in LF or CRLF; a quoted field may hold separators and doubled quotes,
not line ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reelrank.options import Options
from reelrank.sources.errors import WrongHeader
from reelrank.sources.log_csv import (
    CR,
    LF,
    MAX_TEXT,
    PADDING,
    QUOTE_MARK,
    gather_text,
    hash_bytes,
    is_utf8,
    not_text_lines,
    plan_chunks,
    read_header,
    read_lines,
    shown_text,
)
from reelrank.sources.log_format import BAD_LINES, Chunk

BOM = b"\xef\xbb\xbf"
PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"(\xb5/\xfd": "zstd"}
FINE, UNSOUND = 0, 1


class Layout(Options):
    """How a text file is laid out; of a Parquet file (``*.parquet``) only ``nulls`` counts."""

    separator: str = Field(",", description="between fields: one ASCII character")
    quotes: bool = Field(
        True, description='whether "…" encloses a field; a quote inside is doubled'
    )
    header: bool = Field(True, description="whether line 1 names the columns")
    columns: tuple[str, ...] = Field((), description="names in file order where there is no header")
    nulls: tuple[str, ...] = Field(
        (), description=r"texts that mean 'not known', as \N; an empty field always does"
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if len(self.separator) != 1 or not self.separator.isascii() or self.separator in '"\r\n':
            raise ValueError(
                f"separator must be one ASCII character, no quote or line end, is {self.separator!r}"
            )
        if self.header == bool(self.columns):
            raise ValueError("give columns where header is false, and only there")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns must not repeat a name: {list(self.columns)}")
        return self


@dataclass(frozen=True)
class Fields:
    """Wanted columns of the sound lines of a chunk as text, "" where a field is empty or means null; bad lines with their reason.

    ``line`` (n,) counts the chunk's lines from 0, ``row_hash`` (n,) is that of the line as it stands, ``show`` gives the text of
    some rows (by place) for a quarantine.
    """

    n_lines: int
    texts: pl.DataFrame
    line: NDArray[np.int32]
    row_hash: NDArray[np.uint64]
    bad: pl.DataFrame
    show: Callable[[NDArray[np.integer]], list[str]]


@dataclass(frozen=True)
class TextReader:
    """Reads one kind of file: ``columns`` are its names in file order."""

    layout: Layout
    columns: tuple[str, ...]
    is_parquet: bool

    @classmethod
    def of(cls, path: Path, layout: Layout) -> Self:
        """The reader of a file, its names looked up; a file of no bytes has none.

        Raises:
            WrongHeader: the file is packed, is no Parquet file, or names a column twice.
        """
        if path.suffix == ".parquet":
            return cls(layout, _parquet_columns(path), True)
        with path.open("rb") as file:
            start = file.read(4)
        for magic, name in PACKED.items():
            if start.startswith(magic):
                raise WrongHeader(f"{path} is packed ({name}): unpack it first")
        if not layout.header:
            return cls(layout, layout.columns, False)
        names = read_header(path, layout.separator)
        if layout.quotes:
            names = [name.strip('"') for name in names]
        if len(set(names)) < len(names):
            raise WrongHeader(f"{path}: the header names a column twice: {names[:20]}")
        return cls(layout, tuple(names), False)

    @property
    def has_header(self) -> bool:
        """Whether line 1 names the columns."""
        return self.layout.header and not self.is_parquet

    def plan(self, path: Path, chunk_bytes: int) -> list[Chunk]:
        """Cut a file into chunks of about ``chunk_bytes``: lines, or whole row groups of a Parquet file."""
        if not self.is_parquet:
            return plan_chunks(path, chunk_bytes, self.has_header)
        metadata = pq.read_metadata(path)
        chunks, start, size = [], 0, 0
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).total_byte_size
            if size >= chunk_bytes or group == metadata.num_row_groups - 1:
                chunks.append(Chunk(path, start, group + 1))
                start, size = group + 1, 0
        return chunks

    def read(self, chunk: Chunk, wanted: Sequence[str]) -> Fields:
        """Take a chunk apart (chunk function); ``wanted`` names columns of the file."""
        fields = self._read_parquet(chunk, wanted) if self.is_parquet else self._read_text(chunk, wanted)  # fmt: skip
        if not self.layout.nulls:
            return fields
        texts = fields.texts.with_columns(pl.all().replace(dict.fromkeys(self.layout.nulls, "")))
        return Fields(fields.n_lines, texts, fields.line, fields.row_hash, fields.bad, fields.show)

    def _read_parquet(self, chunk: Chunk, wanted: Sequence[str]) -> Fields:
        with pq.ParquetFile(chunk.path) as file:
            groups = file.read_row_groups(range(chunk.start, chunk.stop), columns=list(self.columns))  # fmt: skip
        frame = pl.DataFrame(groups)
        texts = [_as_text(name, frame.schema[name]) for name in wanted]
        shown = pl.concat_str(pl.all().cast(pl.String).fill_null(""), separator=",")
        return Fields(
            frame.height,
            frame.select(texts),
            np.arange(frame.height, dtype=np.int32),
            frame.hash_rows().to_numpy(),
            pl.DataFrame(schema=BAD_LINES),
            lambda rows: [t[:MAX_TEXT] for t in frame[rows].select(shown).to_series().to_list()],
        )

    def _read_text(self, chunk: Chunk, wanted: Sequence[str]) -> Fields:
        body = read_lines(chunk)
        if chunk.start == 0:
            body = body.removeprefix(BOM)
        cut = body != b"" and not body.endswith(b"\n")
        body += b"\n" * cut
        n_lines = body.count(b"\n")
        slot = np.array(
            [wanted.index(name) if name in wanted else -1 for name in self.columns], np.int64
        )
        bounds = np.empty((len(wanted), 2, n_lines), np.int64)
        record = np.empty((4, n_lines), np.int64)
        text = np.frombuffer(body + bytes(PADDING), np.uint8)
        quote = QUOTE_MARK if self.layout.quotes else -1
        has_doubled = _split(text, len(body), ord(self.layout.separator), quote, slot, bounds, record)  # fmt: skip
        start, stop, n_fields, problem = record
        is_fine = (problem == FINE) & (n_fields == len(slot)) & (stop > start)
        not_text = not_text_lines(body)
        if len(not_text):
            is_fine &= ~not_text
        bad = np.flatnonzero(~is_fine)
        explained = []
        for k in bad.tolist():
            raw = body[start[k] : stop[k]]
            reason = self._reason(raw, problem[k], n_fields[k], cut and k == n_lines - 1)
            explained.append((k, reason, shown_text(raw)[:MAX_TEXT]))
        line = np.flatnonzero(is_fine).astype(np.int32)
        columns = {}
        for k, name in enumerate(wanted):
            column = _strings(text, bounds[k, 0, line], bounds[k, 1, line])
            columns[name] = column.str.replace_all('""', '"', literal=True) if has_doubled else column  # fmt: skip
        row_hash = np.empty(len(line), np.uint64)
        _hash_pieces(text, start[line], stop[line], row_hash)
        return Fields(
            n_lines,
            pl.DataFrame(columns),
            line,
            row_hash,
            pl.DataFrame(explained, BAD_LINES, orient="row"),
            lambda rows: [
                body[start[k] : stop[k]].decode()[:MAX_TEXT] for k in line[rows].tolist()
            ],
        )

    def _reason(self, raw: bytes, problem: int, n_fields: int, is_cut: bool) -> str:
        """Why a line cannot be taken apart."""
        if not raw:
            return "empty line"
        if b"\0" in raw:
            return "NUL byte"
        if not is_utf8(raw):
            return "not UTF-8"
        if problem == UNSOUND:
            return "a quote is not closed on its line, or text follows its end"
        what = "truncated last line" if is_cut else "wrong number of fields"
        return f"{what}: {n_fields} instead of {len(self.columns)}"


def hash_texts(texts: pl.Series) -> pl.Series:
    """63-bit hashes, the same on every machine and in every run; Int64 of shape (n,)."""
    array = texts.to_arrow()
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset :][: len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)
    padded = np.concatenate([data, np.zeros(PADDING, np.uint8)])
    hashes = np.empty(len(array), np.uint64)
    _hash_pieces(padded, offsets[:-1], offsets[1:], hashes)
    return pl.Series(texts.name, (hashes >> np.uint64(1)).astype(np.int64))


def _parquet_columns(path: Path) -> tuple[str, ...]:
    """Columns that can be read as text: lists and structs are left out."""
    try:
        schema = pl.DataFrame(pq.read_schema(path).empty_table()).schema
    except (pa.ArrowInvalid, OSError) as error:
        raise WrongHeader(f"{path} is not a Parquet file, or is damaged: {error}") from error
    return tuple(name for name, dtype in schema.items() if not dtype.is_nested())


def _as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A Parquet column as the text that a CSV would hold; times in ISO form, in UTC where a zone is known."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            column = column.dt.to_string("%Y-%m-%dT%H:%M:%S%.f")
        else:
            column = column.dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ")
    return column.cast(pl.String).fill_null("")


def _strings(
    text: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> pl.Series:
    """The pieces ``text[start:stop]``."""
    offsets = np.concatenate([[0], np.cumsum(stop - start)])
    data = np.empty(offsets[-1], np.uint8)
    gather_text(text, start, offsets, data)
    buffers = pa.py_buffer(offsets), pa.py_buffer(data)
    return pl.Series(pa.LargeStringArray.from_buffers(len(start), *buffers))


@njit(cache=True, nogil=True)
def _hash_pieces(
    padded: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> None:
    for i in range(len(start)):
        hashes[i] = hash_bytes(padded, start[i], stop[i])


@njit(cache=True, nogil=True)
def _split(
    padded: NDArray[np.uint8],
    size: int,
    separator: int,
    quote: int,
    slot: NDArray[np.int64],
    bounds: NDArray[np.int64],
    record: NDArray[np.int64],
) -> bool:
    """Find lines and fields; answers whether a quoted field holds a doubled quote.

    Args:
        padded: whole lines, and bytes after them that may be looked at.
        size: bytes of the lines.
        separator: byte between fields.
        quote: byte that encloses a field, or −1.
        slot: (n_columns,) place of a column in ``bounds``, −1 = not wanted.
        bounds: (n_wanted, 2, n_lines) gets start and stop of each field, without its quotes.
        record: (4, n_lines) gets start, stop, number of fields and problem of each line.
    """
    n, at, has_doubled = 0, 0, False
    while at < size:
        first, found, problem, is_last = at, 0, FINE, False
        while not is_last:
            is_quoted = padded[at] == quote
            at += is_quoted
            start = at
            if is_quoted:
                while padded[at] != LF and (padded[at] != quote or padded[at + 1] == quote):
                    is_doubled = padded[at] == quote
                    has_doubled = has_doubled or is_doubled
                    at += 1 + is_doubled
                stop = at
                if padded[at] == quote:
                    at += 1
                    at += padded[at] == CR and padded[at + 1] == LF
                else:
                    problem = UNSOUND
                if padded[at] != separator and padded[at] != LF:
                    problem = UNSOUND
            while padded[at] != separator and padded[at] != LF:
                at += 1
            is_last = padded[at] == LF
            if not is_quoted:
                stop = at - 1 if is_last and at > start and padded[at - 1] == CR else at
            if found < len(slot) and slot[found] >= 0:
                bounds[slot[found], 0, n] = start
                bounds[slot[found], 1, n] = stop
            found += 1
            at += 1
        end = at - 1
        end -= end > first and padded[end - 1] == CR
        record[0, n], record[1, n], record[2, n], record[3, n] = first, end, found, problem
        n += 1
    return has_doubled
