"""What a source says of its logs, so that one ingestion (``sources.ingest``) serves all of them.

A *format* cuts a file into chunks and parses a chunk into raw interactions. It is picklable and knows nothing of buckets,
engines or dense ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl

from reelrank.sources.manifest import RawFile

# What a format's rows may hold: raw ids, and the names of ``tables.Interactions`` for the rest. The first three are required and
# never null; what a log lacks is left out and becomes null (``scenario`` and ``is_rand``: 0).
RAW_COLUMNS: dict[str, pl.DataType] = {
    "user_id": pl.Int64(),
    "item_id": pl.Int64(),
    "ts_ms": pl.Int64(),
    "scenario": pl.Int16(),
    "play_ms": pl.Int32(),
    "duration_ms": pl.Int32(),
    "click": pl.Int8(),
    "like": pl.Int8(),
    "follow": pl.Int8(),
    "comment": pl.Int8(),
    "forward": pl.Int8(),
    "hate": pl.Int8(),
    "long_view": pl.Int8(),
    "is_rand": pl.Int8(),
}
BAD_LINES: dict[str, pl.DataType] = {"line": pl.Int64(), "reason": pl.String(), "text": pl.String()}


@dataclass(frozen=True)
class Chunk:
    """A part of a file: the lines that start in the byte range [start, stop), or the row groups [start, stop) of a Parquet file."""

    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class ParsedChunk:
    """What a chunk holds.

    ``rows``: columns of ``RAW_COLUMNS`` with those types, then ``line`` (Int32, the chunk's lines counted from 0, ascending) and ``row_hash``
    (UInt64; rows of equal user, item, time and hash are exact duplicates of one another: hash the line as it stands);
    ``bad``: ``BAD_LINES``, line counted likewise; ``excluded``: sound rows that are no interactions, counted by reason; ``noted``: rows that are kept but
    odd, counted likewise;
    ``user_text`` and ``item_text``: where ids are text, frames of raw_id (63-bit hash) and raw_text, each once.
    """

    n_lines: int
    rows: pl.DataFrame
    bad: pl.DataFrame
    excluded: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)
    user_text: pl.DataFrame | None = None
    item_text: pl.DataFrame | None = None


class LogFormat(Protocol):
    """How one kind of log file is read."""

    @property
    def has_header(self) -> bool:
        """Whether line 1 names the columns; the first data line is then line 2."""
        ...

    def plan(self, path: Path, chunk_bytes: int) -> list[Chunk]:
        """Cut a file into chunks of about ``chunk_bytes``, in order."""
        ...

    def parse(self, chunk: Chunk) -> ParsedChunk:
        """Parse and check one chunk (chunk function)."""
        ...


@dataclass(frozen=True)
class LogFile:
    """One log of a manifest and how it is read."""

    file: RawFile
    format: LogFormat
