"""Logs and side tables of any layout under a mapping: which column is the user, the item, the time, a feedback.

Values are checked column by column with Polars; the few rows that do not pass are explained one by one.

Source: METHODS §8.1 (generic adapter), §1.1 (null ≠ 0).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from reelrank.options import Options
from reelrank.sources.errors import MissingRawFiles
from reelrank.sources.log_format import BAD_LINES, RAW_COLUMNS, Chunk, ParsedChunk
from reelrank.sources.manifest import RawFile
from reelrank.sources.text_fields import Fields, TextReader, hash_texts
from reelrank.tables import Items, Quarantine

Feedback = Literal["click", "like", "follow", "comment", "forward", "hate", "long_view"]
Ids = Literal["text", "integer"]
M = TypeVar("M", bound=Options)

INT32_MAX = 2**31 - 1
INT16_MAX = 2**15 - 1
LARGEST_NUMBER = 1e30
SHOWN_CHARACTERS = 40
UNITS = {"s": 1e3, "ms": 1.0, "us": 1e-3}  # ms in one
# one row: user, item and time are asked of every row
REQUIRED = ("user", "item", "time", "scenario", "kind")
_RAW_NAMES = {"user": "user_id", "item": "item_id", "time": "ts_ms"}
_ISO = r"^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)(Z|[+-]\d{2}:?\d{2})?$"


class WrongMapping(ValueError):
    """A mapping cannot be read, or names what its files do not have."""


def _text(value: object) -> object:
    """A value of the files as YAML may give it: ``1`` is the text "1", ``yes`` and ``on`` must be quoted."""
    if isinstance(value, bool):
        raise ValueError(f'YAML reads this as {value}: put it in quotes ("yes", "true" …)')
    return str(value) if isinstance(value, int) else value


Text = Annotated[str, BeforeValidator(_text)]


class Column(Options):
    """Where a value stands; in YAML the column's name alone will do."""

    column: str = Field(min_length=1, description="name of the column in the file")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"column": value} if isinstance(value, str) else value

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return "text"

    def value(self) -> pl.Expr:
        """The typed value of the text; null where there is none or it breaks the rule."""
        return pl.col(self.column).replace("", None)


class IdColumn(Column):
    """An id; text stands for its 63-bit hash."""

    ids: Ids = Field("text", description="text (any) or integer (0 or more)")

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return "an integer of 0 or more"

    def value(self) -> pl.Expr:
        """Int64, null where it breaks the rule."""
        text = pl.col(self.column)
        if self.ids == "text":
            return pl.when(text != "").then(text.map_batches(hash_texts, return_dtype=pl.Int64))
        number = _whole(text)
        return pl.when(number >= 0).then(number)


class TimeColumn(Column):
    """A moment."""

    unit: Literal["s", "ms", "us", "iso"] = Field(
        description="Unix time in s, ms or us (fractions allowed), or iso: 2024-05-01T12:00:00.5+08:00, a space for the T allowed"
    )
    utc_offset_h: float | None = Field(
        None, ge=-14, le=14, description="hours east of UTC of ISO times that name no offset"
    )
    first_day: date = Field(
        date(1990, 1, 1), description="UTC day before which a time is taken for an error"
    )
    last_day: date = Field(
        date(2099, 12, 31), description="UTC day after which a time is taken for an error"
    )

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        offset = "" if self.utc_offset_h is not None else " with a UTC offset (or set utc_offset_h)"
        what = f"an ISO time{offset}" if self.unit == "iso" else f"a Unix time in {self.unit}"
        return f"{what} from {self.first_day} to {self.last_day}"

    def value(self) -> pl.Expr:
        """UTC epoch ms, Int64, null where it breaks the rule."""
        text = pl.col(self.column)
        if self.unit == "iso":
            ms = _iso_ms(text, self.utc_offset_h)
        else:
            ms = _finite(text.cast(pl.Float64, strict=False) * UNITS[self.unit]).round()
        first, stop = _day_ms(self.first_day), _day_ms(self.last_day + timedelta(days=1))
        return pl.when(ms.is_between(first, stop, closed="left")).then(ms).cast(pl.Int64)


class ScenarioColumn(Column):
    """The place in the app."""

    kind: Literal["integer", "text"] = Field("integer", description="codes, or names to be coded")
    values: tuple[Text, ...] = Field(
        (),
        max_length=INT16_MAX,
        description="names in the order of their codes 0, 1 …; empty = order of first appearance, which costs one more reading",
    )

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return f"one of {', '.join(self.values)}" if self.kind == "text" else f"0…{INT16_MAX}"

    def value(self) -> pl.Expr:
        """Int16 code, null where it breaks the rule."""
        if self.kind == "text":
            return _coded(pl.col(self.column), self.values)
        code = _whole(pl.col(self.column))
        return pl.when(code.is_between(0, INT16_MAX)).then(code).cast(pl.Int16)


class KindColumn(Column):
    """Says which rows are interactions at all."""

    used: tuple[Text, ...] = Field(min_length=1, description="values of interactions")
    unused: tuple[Text, ...] = Field((), description="values of rows to leave out, counted")

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return f"one of {', '.join(self.used + self.unused)}"

    def value(self) -> pl.Expr:
        """Place among used and unused values, null for any other."""
        return _coded(pl.col(self.column), self.used + self.unused)


class FlagColumn(Column):
    """A yes or no; an empty field is null."""

    ones: tuple[Text, ...] = Field(
        (), description="texts that mean 1, any other 0; empty = the column holds 0 and 1, or false and true"
    )  # fmt: skip

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return "0 or 1"

    def value(self) -> pl.Expr:
        """0 or 1, Int8, null where it breaks the rule."""
        text = pl.col(self.column)
        if self.ones:
            return pl.when(text != "").then(text.is_in(self.ones)).cast(pl.Int8)
        known = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "False": 0, "True": 1}
        return text.replace_strict(known, default=None, return_dtype=pl.Int8)


class LengthColumn(Column):
    """A length of time."""

    unit: Literal["s", "ms"] = Field("ms", description="of the number, fractions allowed")

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return f"0 … {INT32_MAX} ms, given in {self.unit}"

    def value(self) -> pl.Expr:
        """Milliseconds, Int32, null where it breaks the rule."""
        ms = _finite(pl.col(self.column).cast(pl.Float64, strict=False) * UNITS[self.unit]).round()
        return pl.when(ms.is_between(0, INT32_MAX)).then(ms).cast(pl.Int32)


class NumberColumn(Column):
    """Any number."""

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return "a finite number"

    def value(self) -> pl.Expr:
        """Float32, null where it breaks the rule."""
        return _finite(pl.col(self.column).cast(pl.Float64, strict=False)).cast(pl.Float32)


class CountColumn(Column):
    """A count or a code."""

    @property
    def rule(self) -> str:
        """What the text must be, in words."""
        return f"an integer, 0…{INT32_MAX}"

    def value(self) -> pl.Expr:
        """Int32, null where it breaks the rule."""
        count = _whole(pl.col(self.column))
        return pl.when(count.is_between(0, INT32_MAX)).then(count).cast(pl.Int32)


class LogMapping(Options):
    """What the columns of a log mean."""

    user: Column = Field(description="who acted")
    item: Column = Field(description="on what")
    user_ids: Ids = Field("text", description="text (any) or integer (0 or more)")
    item_ids: Ids = Field("text", description="text (any) or integer (0 or more)")
    time: TimeColumn = Field(description="when")
    scenario: ScenarioColumn | None = Field(None, description="place in the app; none = 0")
    kind: KindColumn | None = Field(
        None, description="which rows are interactions; none = all of them"
    )
    feedback: dict[Feedback, FlagColumn] = Field({}, description="what is not named is null")
    is_rand: FlagColumn | None = Field(None, description="uniformly random exposure; none = 0")
    play_ms: LengthColumn | None = Field(None, description="time watched")
    duration_ms: LengthColumn | None = Field(None, description="length of the video; 0 is null")
    reward: NumberColumn | None = Field(None, description="a reward that the log itself gives")

    @property
    def columns(self) -> dict[str, Column]:
        """Every named column under its key."""
        columns: dict[str, Column] = {
            "user": IdColumn(column=self.user.column, ids=self.user_ids),
            "item": IdColumn(column=self.item.column, ids=self.item_ids),
        }
        columns.update({str(name): column for name, column in self.feedback.items()})
        for key in ("time", "scenario", "kind", "is_rand", "play_ms", "duration_ms", "reward"):
            if (column := getattr(self, key)) is not None:
                columns[key] = column
        return columns


@dataclass(frozen=True)
class TextLog:
    """One log under a mapping; a ``LogFormat``."""

    reader: TextReader
    mapping: LogMapping

    @property
    def has_header(self) -> bool:
        """Whether line 1 names the columns."""
        return self.reader.has_header

    def plan(self, path: Path, chunk_bytes: int) -> list[Chunk]:
        """Cut a file into chunks of about ``chunk_bytes``."""
        return self.reader.plan(path, chunk_bytes)

    def parse(self, chunk: Chunk) -> ParsedChunk:
        """Parse and check one chunk (chunk function)."""
        n_lines, rows, bad, excluded = self._rows(chunk)
        texts = {
            side: rows.select(raw_id=side, raw_text=f"{side}_text").unique()
            for side in ("user", "item")
            if f"{side}_text" in rows.columns
        }
        rows = rows.rename(_RAW_NAMES)
        if "duration_ms" in rows.columns:
            rows = rows.with_columns(duration_ms=pl.when(pl.col("duration_ms") > 0).then("duration_ms"))  # fmt: skip
        if "is_rand" in rows.columns:
            rows = rows.with_columns(pl.col("is_rand").fill_null(0))
        kept = [name for name in RAW_COLUMNS if name in rows.columns]
        rows = rows.select(*kept, "line", "row_hash")
        return ParsedChunk(
            n_lines, rows, bad, excluded, user_text=texts.get("user"), item_text=texts.get("item")
        )

    def rewards(self, chunk: Chunk) -> tuple[int, pl.DataFrame]:
        """Lines of a chunk, and user (raw id), line and reward of its interactions (chunk function)."""
        n_lines, rows, _, _ = self._rows(chunk)
        return n_lines, rows.select("user", "line", "reward")

    def _rows(self, chunk: Chunk) -> tuple[int, pl.DataFrame, pl.DataFrame, dict[str, int]]:
        """Lines of a chunk, its interactions under the mapping's keys, its bad lines, and what is no interaction."""
        columns = self.mapping.columns
        fields = self.reader.read(chunk, wanted(columns))
        rows, bad = type_fields(fields, columns, REQUIRED)
        kind, excluded = self.mapping.kind, {}
        if kind is not None:
            values = kind.used + kind.unused
            counts = rows.filter(pl.col("kind") >= len(kind.used))["kind"].value_counts()
            excluded = {f"{kind.column} is {values[code]}": n for code, n in counts.iter_rows()}
            rows = rows.filter(pl.col("kind") < len(kind.used))
        return fields.n_lines, rows, bad, excluded


def wanted(columns: Mapping[str, Column]) -> list[str]:
    """The file's columns that a mapping reads, each once."""
    return list(dict.fromkeys(column.column for column in columns.values()))


def type_fields(
    fields: Fields, columns: Mapping[str, Column], required: Collection[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sound rows with a typed column per key, and ``BAD_LINES``: those of the fields, and rows that break a rule.

    Beside the keys stand ``<key>_text`` for every text id, ``line`` and ``row_hash``.

    Args:
        fields: text of the columns' columns.
        columns: key to column.
        required: keys that may not be empty; the others are then null.
    """
    texts = fields.texts
    values = texts.select(column.value().alias(key) for key, column in columns.items())
    failed = {}
    for key, column in columns.items():
        if values[key].null_count():
            absent = values[key].is_null()
            failed[key] = absent if key in required else absent & (texts[column.column] != "")
    ids = {
        f"{key}_text": texts[column.column]
        for key, column in columns.items()
        if isinstance(column, IdColumn) and column.ids == "text"
    }
    rows = values.with_columns(
        line=pl.Series(fields.line), row_hash=pl.Series(fields.row_hash), **ids
    )
    if not any(mask.any() for mask in failed.values()):
        return rows, fields.bad
    is_bad = pl.DataFrame(failed).select(pl.any_horizontal(pl.all())).to_series()
    place = is_bad.arg_true().to_numpy()
    reasons = [
        pl.when(pl.lit(mask.filter(is_bad))).then(_reason(key, columns[key]))
        for key, mask in failed.items()
    ]
    refused = pl.DataFrame(
        {
            "line": fields.line[place],
            "reason": texts.filter(is_bad).select(pl.coalesce(reasons)).to_series(),
            "text": pl.Series(fields.show(place), dtype=pl.String),
        }
    )
    bad = pl.concat([fields.bad, refused.cast(BAD_LINES)]).sort("line")  # type: ignore[arg-type]
    return rows.filter(~is_bad), bad


@dataclass(frozen=True)
class SideTable:
    """A table beside the logs, whole: rows by key (with ``<key>_text`` of text ids), bad rows, and what was read and dropped."""

    rows: pl.DataFrame
    quarantine: pl.DataFrame
    n_read: int
    n_duplicates: int


def read_side_table(
    path: Path,
    reader: TextReader,
    columns: Mapping[str, Column],
    required: Collection[str],
    chunk_bytes: int,
    unique: str | None = None,
) -> SideTable:
    """Read a table beside the logs into memory; exact duplicates (equal lines) are dropped, the first kept.

    Args:
        path: file.
        reader: its layout.
        columns: key to column.
        required: keys that may not be empty.
        chunk_bytes: read at once.
        unique: key that may stand only once; later rows with it are quarantined.
    """
    tables, refused, n_read, first = [], [], 0, 2 if reader.has_header else 1
    chunks = reader.plan(path, chunk_bytes)
    names = wanted(columns)
    for chunk in chunks or [Chunk(path, 0, 0)]:  # no rows have types too
        fields = reader.read(chunk, names)
        rows, bad = type_fields(fields, columns, required)
        shift = pl.col("line").cast(pl.Int64) + first + n_read
        tables.append(rows.with_columns(shift))
        refused.append(bad.with_columns(shift))
        n_read += fields.n_lines
    table = pl.concat(tables)
    distinct = table.unique([*columns, "row_hash"], keep="first", maintain_order=True)
    n_duplicates = table.height - distinct.height
    if unique is not None:
        is_first = distinct[unique].is_first_distinct()
        twice = distinct.filter(~is_first)["line"]
        refused.append(refuse(path, reader, twice, f"{unique} stands twice with other values", chunk_bytes))  # fmt: skip
        distinct = distinct.filter(is_first)
    quarantine = pl.concat(refused).sort("line").with_columns(file=pl.lit(path.name))
    return SideTable(
        distinct.drop("row_hash"), Quarantine.conform(quarantine), n_read, n_duplicates
    )


def refuse(
    path: Path, reader: TextReader, lines: pl.Series, reason: str, chunk_bytes: int
) -> pl.DataFrame:
    """``BAD_LINES`` of sound lines (numbered as the file's) that are refused after all: the file is read again for their text."""
    if lines.is_empty():
        return pl.DataFrame(schema=BAD_LINES)
    first, found, shown = 2 if reader.has_header else 1, [], []
    for chunk in reader.plan(path, chunk_bytes):
        fields = reader.read(chunk, [])
        place = np.flatnonzero(np.isin(fields.line + np.int64(first), lines.to_numpy()))
        found += (fields.line[place] + np.int64(first)).tolist()
        shown += fields.show(place)
        first += fields.n_lines
    return pl.DataFrame({"line": found, "reason": reason, "text": shown}, BAD_LINES)


def build_items(item_map: pl.DataFrame, attributes: pl.DataFrame) -> pl.DataFrame:
    """``Items`` of the map; ``attributes`` has raw_id, each once, and any of the other columns; what it lacks is null."""
    joined = item_map.join(attributes, on="raw_id", how="left", maintain_order="left")
    named = joined.with_columns(item_id="dense_id")
    absent = {n: pl.lit(None, t) for n, t in Items.polars_schema().items() if n not in named.columns}  # fmt: skip
    return Items.conform(named.with_columns(**absent))


def id_texts(*tables: pl.DataFrame | None) -> pl.DataFrame | None:
    """The raw_id and raw_text of several tables, each once; None where there is none.

    Raises:
        ValueError: two texts have one hash.
    """
    given = [table for table in tables if table is not None]
    if not given:
        return None
    ids = pl.concat(given).unique()
    twice = ids.filter(pl.col("raw_id").is_duplicated())
    if twice.height:
        raise ValueError(f"ids {twice['raw_text'].head(2).to_list()} have one 63-bit hash; rename one of them")  # fmt: skip
    return ids


def texts_of(table: pl.DataFrame, *keys: str) -> pl.DataFrame | None:
    """The raw_id and raw_text of the text ids under ``keys``; None where ids are integers."""
    frames = [
        table.select(raw_id=key, raw_text=f"{key}_text").drop_nulls("raw_id")
        for key in keys
        if f"{key}_text" in table.columns
    ]
    return id_texts(*frames)


def first_appearances(
    logs: Sequence[tuple[Path, TextReader]], column: str, chunk_bytes: int
) -> tuple[str, ...]:
    """The distinct texts of a column over all logs, in order of appearance; empty fields do not count.

    Raises:
        ValueError: more than scenarios can be numbered.
    """
    found: dict[str, None] = {}
    for path, reader in logs:
        for chunk in reader.plan(path, chunk_bytes):
            texts = reader.read(chunk, [column]).texts[column]
            found |= dict.fromkeys(texts.filter(texts != "").unique(maintain_order=True))
            if len(found) > INT16_MAX:
                raise ValueError(
                    f"{path}: column {column!r} has more than {INT16_MAX} values: no scenarios"
                )
    return tuple(found)


def codes_of(names: pl.Series) -> tuple[pl.Series, list[str]]:
    """Names as Int32 codes in alphabetical order, null staying null, and the names by code."""
    distinct = names.drop_nulls().unique().sort()
    codes = names.replace_strict(distinct, np.arange(len(distinct)), default=None, return_dtype=pl.Int32)  # fmt: skip
    return codes, distinct.to_list()


def read_mapping(path: Path, kind: type[M]) -> M:
    """Read a mapping in YAML.

    Raises:
        MissingRawFiles: there is none.
        WrongMapping: it is no YAML, or a key is wrong; the message names the key.
    """
    if not path.is_file():
        raise MissingRawFiles(
            f"{path} not found. It says what the columns of the logs mean: {', '.join(kind.model_fields)}"
        )
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WrongMapping(f"{path} is no YAML: {error}") from error
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, found['loc'])) or 'the mapping'}: {found['msg']} (given: {found['input']!r:.80})"
            for found in error.errors()
        )
        raise WrongMapping(f"{path}: {wrong}") from error


def named_files(mapping: Path, key: str, patterns: Sequence[str], role: str) -> list[RawFile]:
    """The files beside a mapping that its patterns name: patterns in order, the files of one by name.

    Raises:
        WrongMapping: a pattern leaves the folder, or two files have one name.
        MissingRawFiles: a pattern fits no file.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise WrongMapping(f"{mapping}: {key}: {pattern!r} must stay in {mapping.parent}")
        paths = sorted(path for path in mapping.parent.glob(pattern) if path.is_file())
        if not paths:
            raise MissingRawFiles(f"{mapping}: {key}: no file {pattern!r} in {mapping.parent}")
        found |= dict.fromkeys(paths)
    names = [path.name for path in found]
    if len(set(names)) < len(names):
        raise WrongMapping(f"{mapping}: {key}: two files have one name, and reports tell files by name: {names}")  # fmt: skip
    return [RawFile(role, path, path.stat().st_size) for path in found]


def check_columns(
    mapping: Path, block: str, columns: Mapping[str, Column], path: Path, reader: TextReader
) -> None:
    """Check that a file has the columns that a mapping names.

    Raises:
        WrongMapping: names the key, the file and the columns that it does have.
    """
    for key, column in columns.items():
        if column.column not in reader.columns:
            raise WrongMapping(
                f"{mapping}: {block}{key} names the column {column.column!r}, which {path.name} does not have. "
                f"It has: {[name[:40] for name in reader.columns[:50]]}"
                + ("" if reader.is_parquet else f" (separator {reader.layout.separator!r})")
            )


def _reason(key: str, column: Column) -> pl.Expr:
    """Why a row is refused for a column, from the text that it holds."""
    text = pl.col(column.column)
    shown = text.str.slice(0, SHOWN_CHARACTERS)
    broken = pl.concat_str(pl.lit(f"{key} must be {column.rule}, is "), shown)
    return pl.when(text == "").then(pl.lit(f"{key} is empty")).otherwise(broken)


def _whole(text: pl.Expr) -> pl.Expr:
    """Integers, ``7.0`` being one; null where the text is none."""
    return text.str.strip_suffix(".0").cast(pl.Int64, strict=False)


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.abs() < LARGEST_NUMBER).then(number)


def _coded(text: pl.Expr, values: Sequence[str]) -> pl.Expr:
    """Place of a text among the values, Int16; null for any other."""
    codes = {value: code for code, value in enumerate(values)}
    return text.replace_strict(codes, default=None, return_dtype=pl.Int16)


def _day_ms(day: date) -> int:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return round(start.timestamp() * 1000)


def _iso_ms(text: pl.Expr, utc_offset_h: float | None) -> pl.Expr:
    """UTC epoch ms of ISO times; null where a time is none or its offset is not known."""
    parts = text.str.extract_groups(_ISO).struct
    moment = pl.concat_str(parts[0], parts[1], separator=" ")
    local = moment.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ms", strict=False)
    zone = parts[2].str.replace("Z", "+00:00", literal=True)
    hours = zone.str.slice(1, 2).cast(pl.Int64, strict=False)
    minutes = zone.str.slice(-2, 2).cast(pl.Int64, strict=False)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    default = None if utc_offset_h is None else round(utc_offset_h * 60)
    offset = pl.coalesce(sign * (60 * hours + minutes), pl.lit(default, pl.Int64))
    return local.dt.epoch("ms") - offset * 60_000


def known_ids(*columns: pl.Series) -> NDArray[np.int64]:
    """Sorted distinct raw ids of several columns; nulls do not count."""
    ids = pl.concat([pl.Series([], dtype=pl.Int64), *columns]).drop_nulls().unique().sort()
    array: NDArray[np.int64] = ids.to_numpy()
    return array
