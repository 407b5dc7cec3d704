"""Delimited tables that several columns identify together: read in chunks, one row kept per key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from reelrank.buckets import EngineOptions, map_tasks
from reelrank.sources.log_csv import MAX_TEXT, Column, ParsedTable, parse_table, plan_chunks
from reelrank.sources.log_format import BAD_LINES, Chunk
from reelrank.sources.manifest import RawFile
from reelrank.tables import Quarantine


@dataclass(frozen=True)
class KeyedTable:
    """A table as read: one row per key in file order, and what was set aside."""

    rows: pl.DataFrame
    quarantine: pl.DataFrame
    n_read: int
    n_duplicates: int


def read_keyed_table(
    file: RawFile | None,
    columns: Sequence[Column],
    to_rows: Callable[[pl.DataFrame], pl.DataFrame],
    key: Sequence[str],
    chunk_bytes: int,
    engine: EngineOptions,
) -> KeyedTable:
    """Read a whole file; of several rows with one key the first is kept, equal lines dropped and others quarantined.

    Args:
        file: raw file; None gives an empty table.
        columns: its columns, in any order.
        to_rows: typed columns → columns of the table, row by row (chunk function); a ``reason`` that is not null quarantines its row.
        key: columns of the table that identify a row.
        chunk_bytes: read at once by a worker.
        engine: who reads the chunks.
    """
    empty = _empty(columns, to_rows)
    if file is None:
        return KeyedTable(
            empty.drop("line", "row_hash"), pl.DataFrame(schema=Quarantine.polars_schema()), 0, 0
        )
    chunks = plan_chunks(file.path, chunk_bytes)
    parts = list(map_tasks(partial(_read_chunk, columns, to_rows), chunks, engine))
    first_line, tables, refused = 2, [empty], [pl.DataFrame(schema=BAD_LINES)]
    for n_lines, rows, bad in parts:
        tables.append(rows.with_columns(pl.col("line") + first_line))
        refused.append(bad.with_columns(pl.col("line") + first_line))
        first_line += n_lines
    table = pl.concat(tables)
    repeated = table.filter(pl.struct(key).is_duplicated())
    distinct = repeated.unique([*key, "row_hash"], keep="first", maintain_order=True)
    other = distinct.filter(~pl.struct(key).is_first_distinct())
    if other.height:
        name = " and ".join(key)
        again = pl.format(f"{name} {{}} stand twice with other values", pl.concat_str(key, separator=", "))  # fmt: skip
        text = pl.Series("text", _text_of(file, set(other["line"])), pl.String)
        refused.append(other.select("line", again.alias("reason")).with_columns(text))
    if repeated.height:
        table = table.filter(pl.struct(key).is_first_distinct())
    return KeyedTable(
        table.drop("line", "row_hash"),
        Quarantine.conform(pl.concat(refused).sort("line").with_columns(file=pl.lit(file.path.name))),
        first_line - 2,
        repeated.height - distinct.height,
    )  # fmt: skip


def _read_chunk(
    columns: Sequence[Column], to_rows: Callable[[pl.DataFrame], pl.DataFrame], chunk: Chunk
) -> tuple[int, pl.DataFrame, pl.DataFrame]:
    """Number of lines, rows with line and row_hash, and bad lines of a chunk, lines counted from 0."""
    table = parse_table(chunk, columns)
    rows = _with_keys(table, to_rows)
    if "reason" not in rows.columns:
        return table.n_lines, rows, table.bad
    refused = rows.filter(pl.col("reason").is_not_null()).select("line", "reason")
    text = pl.Series("text", table.text_of(refused["line"].to_numpy()), pl.String)
    bad = pl.concat([table.bad, refused.with_columns(text)])
    return table.n_lines, rows.filter(pl.col("reason").is_null()).drop("reason"), bad


def _with_keys(table: ParsedTable, to_rows: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    line = pl.Series("line", table.line, pl.Int64)
    return to_rows(table.rows).with_columns(line, pl.Series("row_hash", table.row_hash, pl.UInt64))


def _empty(
    columns: Sequence[Column], to_rows: Callable[[pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    """The table of a file without rows."""
    types = {"integer": pl.Int64, "decimal": pl.Int64, "category": pl.Int16, "text": pl.String}
    raw = pl.DataFrame(schema={c.name: types[c.kind] for c in columns if c.kind != "skip"})
    rows = to_rows(raw).with_columns(line=pl.lit(None, pl.Int64), row_hash=pl.lit(None, pl.UInt64))
    return rows.drop("reason", strict=False).clear()


def _text_of(file: RawFile, lines: set[int]) -> list[str]:
    """The text of some lines of a file, in order (few: keys rarely stand twice)."""
    with file.path.open("rb") as stream:
        found = [raw for number, raw in enumerate(stream, start=1) if number in lines]
    return [raw.decode(errors="replace").rstrip("\r\n")[:MAX_TEXT] for raw in found]
