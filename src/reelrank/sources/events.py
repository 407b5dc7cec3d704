"""Any store's own log, as CSV or Parquet with a mapping beside it → canonical tables.

The folder holds ``mapping.yml`` and the files that it names; :class:`EventsMapping` says what it may hold. A reward that the log
gives stays out of the interactions, which hold what users did: it is a table of its own, ``RewardsGiven``, for who learns from given
rewards (RUIE) instead of its own rule over feedbacks.

Source: METHODS §8.1 (``events.csv``: user, item, scenario, ts, reward), §5.2 (what a reward is made of elsewhere).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from reelrank.buckets import (
    BucketedTable,
    EngineOptions,
    bucket_path,
    finish_table,
    map_buckets,
    map_tasks,
    write_bucket,
)
from reelrank.options import Options
from reelrank.provenance import fingerprint
from reelrank.sources.errors import EmptyFile
from reelrank.sources.ingest import (
    FILE_ROWS,
    SHOWN_REASONS,
    Ingested,
    IngestedLogs,
    LogOptions,
    check_share,
    id_map,
    ingest_logs,
)
from reelrank.sources.log_format import Chunk, LogFile
from reelrank.sources.manifest import Manifest, RawFile
from reelrank.sources.report import rows_report
from reelrank.sources.spill import read_spill, write_spill
from reelrank.sources.text_fields import Layout, TextReader
from reelrank.sources.text_log import (
    Column,
    CountColumn,
    IdColumn,
    LengthColumn,
    LogMapping,
    SideTable,
    TextLog,
    TimeColumn,
    build_items,
    check_columns,
    codes_of,
    first_appearances,
    id_texts,
    known_ids,
    named_files,
    read_mapping,
    read_side_table,
    texts_of,
)
from reelrank.tables import RewardsGiven

MAPPING_FILE = "mapping.yml"
LICENCE = "the store's own data"
CATEGORIES = ("category_1", "category_2", "category_3", "category_4")


class CategoryColumn(Column):
    """A category: an integer code, or a name, coded in alphabetical order."""

    kind: Literal["text", "integer"] = Field("text", description="names or codes")

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return CountColumn(column=self.column).rule

    def value(self) -> pl.Expr:
        """Name or Int32 code; null where there is none."""
        return super().value() if self.kind == "text" else CountColumn(column=self.column).value()


class ItemsMapping(Options):
    """The file of items, if there is one."""

    file: str = Field(description="file beside the mapping")
    layout: Layout | None = Field(None, description="of this file; none = that of the logs")
    item: Column = Field(description="the id, of the kind that the logs have")
    author_id: IdColumn | None = Field(None, description="who made it")
    upload_ts: TimeColumn | None = Field(None, description="since when it is there")
    duration_ms: LengthColumn | None = Field(None, description="length of the video; 0 is null")
    category_1: CategoryColumn | None = Field(None, description="first-level category")
    category_2: CategoryColumn | None = Field(None, description="second-level category")
    category_3: CategoryColumn | None = Field(None, description="third-level category")
    category_4: CategoryColumn | None = Field(None, description="fourth-level category")
    caption: Column | None = Field(None, description="text by the author, or the item's title")
    cover_text: Column | None = Field(None, description="more text")


class EventsMapping(LogMapping):
    """``mapping.yml``: which files there are, how they are laid out, what their columns mean."""

    logs: tuple[str, ...] = Field(
        min_length=1, description="files or patterns (log_*.csv) beside the mapping, in time order"
    )
    layout: Layout = Field(Layout(), description="of the logs")
    items: ItemsMapping | None = Field(None, description="attributes of the items")

    @model_validator(mode="after")
    def _layouts_differ_by_reason(self) -> Self:
        if self.items and self.items.layout is None and self.layout.columns:
            raise ValueError("items.layout is needed where the logs have no header")
        return self

    @property
    def item_columns(self) -> dict[str, Column]:
        """Every named column of the items' file under its key."""
        assert self.items is not None
        named = {key: getattr(self.items, key) for key in ItemsMapping.model_fields}
        columns = {key: c for key, c in named.items() if isinstance(c, Column)}
        return columns | {"item": IdColumn(column=self.items.item.column, ids=self.item_ids)}


def find_files(root: Path, kind: Literal["world", "files"] = "files") -> Manifest:
    """Read the mapping, find the files that it names and check that they have the columns.

    Args:
        root: folder of ``mapping.yml``.
        kind: who made the files.

    Raises:
        MissingRawFiles: no mapping, or a pattern that fits no file.
        WrongMapping: the mapping is wrong; names file, key and the columns that the file does have.
        WrongHeader: a file is packed, is no Parquet file, or names a column twice.
        EmptyFile: no log holds a byte.
    """
    root = root.resolve()
    path = root / MAPPING_FILE
    mapping = read_mapping(path, EventsMapping)
    files = [RawFile("mapping", path, path.stat().st_size)]
    logs = named_files(path, "logs", mapping.logs, "log")
    if not any(log.bytes for log in logs):
        raise EmptyFile(f"no rows in {' and '.join(str(log.path) for log in logs)}")
    for log in logs:
        if log.bytes:
            reader = TextReader.of(log.path, mapping.layout)
            check_columns(path, "", mapping.columns, log.path, reader)
    files += [log for log in logs if log.bytes]
    if mapping.items is not None:
        items = named_files(path, "items.file", [mapping.items.file], "items")
        reader = TextReader.of(items[0].path, mapping.items.layout or mapping.layout)
        check_columns(path, "items.", mapping.item_columns, items[0].path, reader)
        files += items
    return Manifest("events", "own", kind, root, tuple(files), LICENCE)


def ingest(manifest: Manifest, options: LogOptions, engine: EngineOptions) -> Ingested:
    """Read the files of a manifest into canonical tables; users and items are numbered by sorted id.

    ``extras`` holds ``rewards_given`` (a ``BucketedTable``), null on every row where the log gives none.

    Raises:
        TooManyBadRows: a file's quarantined share exceeds ``options.max_bad_share``.
        WrongMapping: the mapping changed since the manifest was made.
        ValueError: not one row of the logs can be used.

    Source: METHODS §1.1, §8.1.
    """
    chunk_bytes = round(options.chunk_mb * 2**20)
    mapping = read_mapping(manifest.files_of("mapping")[0].path, EventsMapping)
    raw = manifest.files_of("log")
    readers = [TextReader.of(file.path, mapping.layout) for file in raw]
    scenario = mapping.scenario
    if scenario is not None and scenario.kind == "text" and not scenario.values:
        in_order = zip((file.path for file in raw), readers, strict=True)
        names = first_appearances(list(in_order), scenario.column, chunk_bytes)
        scenario = scenario.model_copy(update={"values": names})
        mapping = mapping.model_copy(update={"scenario": scenario})
    logs = [LogFile(f, TextLog(reader, mapping)) for f, reader in zip(raw, readers, strict=True)]
    side = {file.path.name: _read_items(file, mapping, options) for file in manifest.files_of("items")}  # fmt: skip
    items = next((table.rows for table in side.values()), None)
    known_items = known_ids() if items is None else known_ids(items["item"])
    meta = fingerprint("events", manifest.fingerprint, options)
    ingested = ingest_logs("events", logs, known_ids(), known_items, options, engine, meta)
    item_texts = None if items is None else texts_of(items, "item")
    item_map = id_map(ingested.item_ids, id_texts(ingested.item_text, item_texts))
    attributes, categories = _attributes(items)
    quarantine = pl.concat([*(table.quarantine for table in side.values()), ingested.quarantine])
    extras: dict[str, Any] = {"rewards_given": _rewards_given(logs, mapping, ingested, options, engine)}  # fmt: skip
    names = () if scenario is None else scenario.values
    user_map = ingested.user_map
    return Ingested(
        ingested.interactions,
        build_items(item_map, attributes),
        user_map.select(user_id="dense_id"),
        user_map,
        item_map,
        quarantine,
        rows_report(
            manifest,
            ingested,
            quarantine,
            {name: table.n_read for name, table in side.items()},
            {name: table.n_duplicates for name, table in side.items()},
        )
        | _more_of(ingested.interactions, names, categories),
        extras,
    )


def _read_items(file: RawFile, mapping: EventsMapping, options: LogOptions) -> SideTable:
    assert mapping.items is not None
    reader = TextReader.of(file.path, mapping.items.layout or mapping.layout)
    chunk_bytes = round(options.chunk_mb * 2**20)
    table = read_side_table(file.path, reader, mapping.item_columns, ["item"], chunk_bytes, "item")
    bad = table.quarantine
    check_share("events", file.path.name, bad.height, table.n_read, bad.head(SHOWN_REASONS), options.max_bad_share)  # fmt: skip
    return table


def _attributes(items: pl.DataFrame | None) -> tuple[pl.DataFrame, dict[str, list[str]]]:
    """Columns of ``Items`` by raw_id, and the names of the categories that had names."""
    if items is None:
        return pl.DataFrame(schema={"raw_id": pl.Int64}), {}
    names = {}
    for key in CATEGORIES:
        if key in items.columns and items.schema[key] == pl.String:
            codes, names[key] = codes_of(items[key])
            items = items.with_columns(codes.alias(key))
    if "duration_ms" in items.columns:
        items = items.with_columns(duration_ms=pl.when(pl.col("duration_ms") > 0).then("duration_ms"))  # fmt: skip
    return items.rename({"item": "raw_id"}).drop("line"), names


def _more_of(
    interactions: BucketedTable, scenarios: Sequence[str], categories: dict[str, list[str]]
) -> dict[str, Any]:
    """What the report says beyond rows: scenarios with their codes, and category names by code."""
    counts = interactions.scan().group_by("scenario").len().sort("scenario").collect()
    return {
        "rows_per_scenario": {str(code): n for code, n in counts.iter_rows()},
        "scenarios": {name: code for code, name in enumerate(scenarios)},
        "categories": categories,
    }


# --- given rewards -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _RewardTask:
    chunk: Chunk
    log: TextLog
    file_number: int
    target: Path


def _rewards_given(
    logs: Sequence[LogFile],
    mapping: EventsMapping,
    ingested: IngestedLogs,
    options: LogOptions,
    engine: EngineOptions,
) -> BucketedTable:
    """Read the logs once more for their rewards, parted as the interactions are; all null where none is mapped."""
    interactions = ingested.interactions
    if mapping.reward is None:
        return map_buckets(_no_rewards, [interactions], engine, "events-rewards", interactions.meta)
    spill, folder = engine.stage("events-reward-spill"), engine.stage("events-rewards")
    tasks = [
        _RewardTask(chunk, log.format, number, spill / f"{number:03d}-{k:06d}.arrow")
        for number, log in enumerate(logs)
        if isinstance(log.format, TextLog)
        for k, chunk in enumerate(log.format.plan(log.file.path, round(options.chunk_mb * 2**20)))
    ]
    try:
        n_lines = list(map_tasks(partial(_spill_rewards, interactions.n_buckets), tasks, engine))
        next_line = [2 if log.format.has_header else 1 for log in logs]
        parts = []
        for task, n in zip(tasks, n_lines, strict=True):
            first = task.file_number * FILE_ROWS + next_line[task.file_number]
            parts.append((task.target, first))
            next_line[task.file_number] += n
        build = partial(_build_rewards, parts, interactions, folder)
        n_rows = sum(map_tasks(build, range(interactions.n_buckets), engine))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(spill, ignore_errors=True)
    return finish_table(folder, interactions.n_buckets, n_rows, interactions.meta)


def _no_rewards(interactions: pl.DataFrame) -> pl.DataFrame:
    """A null for every row (bucket function)."""
    return RewardsGiven.conform(interactions.with_columns(reward=pl.lit(None, pl.Float32)))


def _spill_rewards(n_buckets: int, task: _RewardTask) -> int:
    """Part a chunk's rewards by user; answers its number of lines (chunk function)."""
    n_lines, rows = task.log.rewards(task.chunk)
    bucket = rows["user"].to_numpy() % n_buckets
    write_spill(task.target, rows.select("line", "reward"), bucket, n_buckets)
    return n_lines


def _build_rewards(
    parts: Sequence[tuple[Path, int]], interactions: BucketedTable, folder: Path, bucket: int
) -> int:
    """Rewards of one bucket's interactions in their order (bucket function); answers how many."""
    rewards = pl.concat(
        read_spill(path, bucket).select(row_id=pl.col("line").cast(pl.Int64) + first, reward="reward")
        for path, first in parts
    )  # fmt: skip
    rows = interactions.read(bucket, ["user_id", "row_id"])
    joined = rows.join(rewards, on="row_id", how="left", maintain_order="left")
    write_bucket(RewardsGiven.conform(joined), bucket_path(folder, bucket))
    return joined.height
