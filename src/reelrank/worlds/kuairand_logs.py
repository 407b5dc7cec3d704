"""The logs of a KuaiRand world as they are simulated: lines of the official files, the truth of every line, sums per video.

A block of users is simulated, written as text and summed in one thread, then appended to the files in order of users, so that memory
does not grow with the logs, but for 28 bytes a row of the second parts and 56 a session.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from reelrank.sources.kuairand_schema import DAY_MS, LOG_COLUMNS, RELEASE_START_MS, RELEASE_STOP_MS
from reelrank.worlds.folder import EXPOSURES_FILE, REQUESTS_FILE
from reelrank.worlds.kuairand_files import SUMS, Catalogue
from reelrank.worlds.latent import Ints
from reelrank.worlds.policy import RandomState, seed_state, uniform
from reelrank.worlds.response import VALID_PLAY_MS, Doubles, jit_borrowing, jit_inlined
from reelrank.worlds.sessions import AT_ONCE, SESSION_COLUMNS, Log

HOUR_MS = 3_600_000
SHORT_PLAY_MS = 3_000
DATES = np.array([*range(20220408, 20220431), *range(20220501, 20220509)])
SECOND_FILE_DATE = 20220422
# uniform up to here: 1 row in 6 lands in the next hour's partition
PARTITION_DELAY_MS = 20 * 60_000
REPEATED_SHARE = 0.024 / (1 - 0.024)  # of standard rows: 2.4 % of the lines are exact duplicates
# role and which of its sorted parts; random logs are one part
PARTS = (("log_standard_1", 0), ("log_standard_1", 1), ("log_standard_2", 0), ("log_standard_2", 1), ("log_random", 0))  # fmt: skip
LINE_BYTES = 2 * 112  # at most, with a repeat: ids of 7 digits, int32 times
ZERO, COMMA, NEWLINE = map(np.uint64, b"0,\n")
U0, U1, U2, U3, U4, U8, U9 = map(np.uint64, (0, 1, 2, 3, 4, 8, 9))
U99, U999, U9999, U99999, U999999, U9999999 = (np.uint64(10**k - 1) for k in range(2, 8))
U10K, U100M = map(np.uint64, (10_000, 100_000_000))
FOUR_DIGITS = np.array([list(b"%04d" % k) for k in range(10_000)], np.uint8)
SUMMED_FLAGS = (3, 4, 5, 6, 8)  # rows of ROW_COLUMNS: like, follow, comment, forward, long_view
Bytes = NDArray[np.uint8]
Columns = tuple[NDArray[np.int64], Doubles, NDArray[np.int16], NDArray[np.int64]]
_EXPOSURES = pa.schema(
    [
        pa.field("file", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),
        pa.field("position", pa.int16(), nullable=False),
        pa.field("request", pa.int64()),
    ]
)
_REQUESTS = pa.schema({"request": pa.int64(), "candidates": pa.list_(pa.int32())})


class Quirks(NamedTuple):
    """What turns rows into lines, for compiled code; V videos, 31 days."""

    seed: int  # of the partition delays, parts and repeats; a stream of each user's own
    published_ms: NDArray[np.int64]  # (V,)
    true_ms: NDArray[np.int64]  # (V,)
    dates: NDArray[np.int64]  # (31,)
    second_file_day: int
    n_parts: int


class Lines(NamedTuple):
    """Lines of one block of users, part by part of ``PARTS``; N rows at most."""

    text: Bytes  # (5·N·LINE_BYTES,), each part from its own fifth on
    n_bytes: NDArray[np.int64]  # (5,)
    n_lines: NDArray[np.int64]  # (5,) repeats included
    n_rows: NDArray[np.int64]  # (5,) first occurrences
    line: NDArray[
        np.int64
    ]  # (5, N) of each first occurrence within the part's lines of this block, from 0
    propensity: Doubles  # (5, N)
    request: NDArray[np.int64]  # (5, N) within the block
    position: NDArray[np.int16]  # (5, N)
    scratch: Bytes  # of one line
    state: RandomState


class Totals(NamedTuple):
    """What the statistics of V videos are made of; sums of whole numbers, so the order of blocks plays no part."""

    sums: NDArray[np.int64]  # (V, 12) by ``SUMS``
    tabs: NDArray[np.uint16]  # (V, 31) bits of the tabs that showed a video on a day


def quirks(seed: int, catalogue: Catalogue) -> Quirks:
    """The quirks of one world's logs under a seed."""
    return Quirks(
        seed=seed,
        published_ms=catalogue.published_ms,
        true_ms=catalogue.duration_ms,
        dates=DATES,
        second_file_day=int(np.searchsorted(DATES, SECOND_FILE_DATE)),
        n_parts=len(PARTS),
    )  # fmt: skip


def new_lines(n_rows: int) -> Lines:
    """Empty room for the lines of ``n_rows`` rows."""
    n = len(PARTS)
    return Lines(
        np.empty(n * n_rows * LINE_BYTES, np.uint8),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.empty((n, n_rows), np.int64),
        np.empty((n, n_rows)),
        np.empty((n, n_rows), np.int64),
        np.empty((n, n_rows), np.int16),
        np.empty(LINE_BYTES, np.uint8),
        np.zeros(1, np.uint64),
    )


# places and digits are unsigned: numba tests the sign of every other index, and of every other quotient
@jit_inlined
def put_four(text: Bytes, at: np.uint64, value: np.uint64) -> None:
    """Write ``value`` < 10⁴ as four digits from ``text[at]``."""
    text[at], text[at + U1] = FOUR_DIGITS[value, U0], FOUR_DIGITS[value, U1]
    text[at + U2], text[at + U3] = FOUR_DIGITS[value, U2], FOUR_DIGITS[value, U3]


@jit_inlined
def put_before(text: Bytes, at: np.uint64, number: int) -> np.uint64:
    """Write ``number`` ≥ 0 and a comma so that they end before ``text[at]``; returns the place of the first digit.

    Eight digits at a time, without a branch: zeros in front are written over by what comes before.
    """
    value = np.uint64(number)
    at -= U1
    text[at] = COMMA
    while value >= U100M:
        high = value // U100M
        rest = value - U100M * high
        four = rest // U10K
        put_four(text, at - U8, four)
        put_four(text, at - U4, rest - U10K * four)
        value, at = high, at - U8
    four = value // U10K
    put_four(text, at - U8, four)
    put_four(text, at - U4, value - U10K * four)
    width = 1 + (value > U9) + (value > U99) + (value > U999) + (value > U9999)
    width += (value > U99999) + (value > U999999) + (value > U9999999)
    return at - np.uint64(width)


@jit_inlined
def put_line(text: Bytes, rows: Ints, i: int, ts_ms: int, cell: int, q: Quirks) -> np.uint64:
    """Write row ``i``, logged in the day and hour ``cell``, to the end of ``text``, last field first; returns its start."""
    end = np.uint64(len(text))
    at = put_before(text, end, rows[14, i])
    text[end - U1] = NEWLINE
    for k in range(13, 11, -1):
        at -= U2
        text[at], text[at + U1] = ZERO + np.uint64(rows[k, i]), COMMA
    at = put_before(text, at, rows[11, i])
    at = put_before(text, at, rows[10, i])
    at = put_before(text, at, q.published_ms[rows[1, i]])
    at = put_before(text, at, rows[9, i])
    for k in range(8, 1, -1):
        at -= U2
        text[at], text[at + U1] = ZERO + np.uint64(rows[k, i]), COMMA
    at = put_before(text, at, ts_ms)
    at = put_before(text, at, cell % 24 * 100)
    at = put_before(text, at, q.dates[cell // 24])
    at = put_before(text, at, rows[1, i])
    return put_before(text, at, rows[0, i])


@jit_inlined
def add_row(totals: Totals, rows: Ints, i: int, day: int, duration_ms: int) -> None:
    """Count row ``i`` in the totals of its video."""
    sums, video, play = totals.sums, rows[1, i], rows[9, i]
    valid = play >= duration_ms if duration_ms <= VALID_PLAY_MS else play > VALID_PLAY_MS
    sums[video, 0] += 1
    sums[video, 1] += play > 0
    sums[video, 2] += play >= duration_ms
    sums[video, 3] += valid
    sums[video, 4] += play < min(SHORT_PLAY_MS, duration_ms)
    sums[video, 5] += play
    sums[video, 6] += rows[11, i]
    for c in range(5):
        sums[video, 7 + c] += rows[SUMMED_FLAGS[c], i]
    totals.tabs[video, day] |= 1 << rows[14, i]


@jit_borrowing
def write_lines(
    rows: Ints, ts_ms: NDArray[np.int64], propensity: Doubles, q: Quirks, out: Lines, totals: Totals
) -> None:
    """Write the rows of a :class:`Log` as lines of their parts into ``out``, and add them to ``totals``.

    The partition (``date``, ``hourmin``) is up to 20 minutes late, as in the real files, ``time_ms`` exact; a standard log is two
    sorted parts one after the other, not sorted as a whole, and repeats some rows exactly.
    """
    text, lines, scratch, state = out.text, out.line, out.scratch, out.state
    n_bytes, n_lines, n_rows = out.n_bytes, out.n_lines, out.n_rows
    room = len(text) // q.n_parts
    for part in range(q.n_parts):
        n_bytes[part] = n_lines[part] = n_rows[part] = 0
    user = request = -1
    half = 0
    for i in range(len(ts_ms)):
        if rows[0, i] != user:
            user = rows[0, i]
            seed_state(state, q.seed, user)
        is_rand = rows[13, i] == 1
        if not is_rand and rows[15, i] != request:
            request = rows[15, i]
            half = int(uniform(state) < 0.5)
        written = ts_ms[i] + int(uniform(state) * PARTITION_DELAY_MS)
        local = min(written, RELEASE_STOP_MS - 1) - RELEASE_START_MS
        day = local // DAY_MS
        part = 4 if is_rand else half + 2 * (day >= q.second_file_day)
        k = n_rows[part]
        lines[part, k], out.propensity[part, k] = n_lines[part], propensity[i]
        out.request[part, k], out.position[part, k] = rows[15, i], rows[16, i]
        n_rows[part] += 1
        begin = put_line(scratch, rows, i, ts_ms[i], local // HOUR_MS, q)
        length = len(scratch) - int(begin)
        repeats = 1 + (not is_rand and uniform(state) < REPEATED_SHARE)
        n_lines[part] += repeats
        for _ in range(repeats):
            to = np.uint64(part * room + n_bytes[part])
            for c in range(length):
                text[to + np.uint64(c)] = scratch[begin + np.uint64(c)]
            n_bytes[part] += length
        add_row(totals, rows, i, day, q.true_ms[rows[1, i]])


class Block(NamedTuple):
    """One block of users, written as text."""

    lines: Lines
    candidates: Ints  # (m, C)
    sessions: Doubles  # (q, 7) by SESSION_COLUMNS


class Scribe:
    """Turns blocks into text and keeps the sums of each place of ``AT_ONCE``.

    Args:
        seed: of the quirks.
        catalogue: the videos.
    """

    def __init__(self, seed: int, catalogue: Catalogue) -> None:
        n = len(catalogue.topic)
        self._quirks = quirks(seed, catalogue)
        self._lines = [new_lines(0) for _ in range(AT_ONCE)]
        self._totals = [
            Totals(np.zeros((n, len(SUMS)), np.int64), np.zeros((n, len(DATES)), np.uint16))
            for _ in range(AT_ONCE)
        ]

    def write(self, log: Log, place: int) -> Block:
        """The log as text, in memory of its own for each ``place``."""
        if len(log.ts_ms) > self._lines[place].line.shape[1]:
            self._lines[place] = new_lines(round(1.2 * len(log.ts_ms)))
        lines = self._lines[place]
        write_lines(log.rows, log.ts_ms, log.propensity, self._quirks, lines, self._totals[place])
        return Block(lines, log.candidates, log.sessions)

    @property
    def totals(self) -> Totals:
        """Of all blocks."""
        sums = np.sum([totals.sums for totals in self._totals], axis=0)
        return Totals(sums, np.bitwise_or.reduce([totals.tabs for totals in self._totals]))


def write_logs(blocks: Iterator[Block], paths: Mapping[str, Path], folder: Path) -> None:
    """Append blocks to the log files, and their truth to the tables in ``folder``.

    Args:
        blocks: in order of users.
        paths: file of each role. No random log is left if nothing was shown at random.
        folder: gets exposures, requests and sessions. Exposures stand in order of users, those of second parts after all others.
    """
    names = pa.array([paths[role].name for role, _ in PARTS])
    n_lines = np.ones(len(PARTS), np.int64)  # the header is line 1
    n_requests = 0
    second: list[tuple[int, Columns]] = []
    sessions: list[Doubles] = []
    with ExitStack() as stack:
        opened = stack.enter_context
        files = [opened(_part_path(paths[role], half).open("wb+")) for role, half in PARTS]
        # Arrow's own format: what is simulated lands as it lies in memory, Parquet's encoding took a tenth of the time
        exposures = opened(pa.ipc.new_file(folder / EXPOSURES_FILE, _EXPOSURES))
        requests = opened(pa.ipc.new_file(folder / REQUESTS_FILE, _REQUESTS))
        for (_, half), file in zip(PARTS, files, strict=True):
            file.write(b"" if half else (",".join(LOG_COLUMNS) + "\n").encode())
        for lines, candidates, of_sessions in blocks:
            for k, (_, half) in enumerate(PARTS):
                start = k * (len(lines.text) // len(PARTS))
                files[k].write(lines.text[start : start + lines.n_bytes[k]].data)
                columns = _columns(lines, k, int(n_lines[k]), n_requests)
                if half:
                    second.append((k, columns))
                else:
                    exposures.write_batch(_exposures(names, k, columns))
            requests.write_batch(_requests(candidates, n_requests))
            sessions.append(of_sessions.copy())
            n_lines += lines.n_lines
            n_requests += len(candidates)
        for k, columns in second:
            columns[0][:] += n_lines[k - 1] - 1
            exposures.write_batch(_exposures(names, k, columns))
        for k, (role, half) in enumerate(PARTS):
            if half:
                _append(files[k], files[k - 1])
                _part_path(paths[role], half).unlink()
    if n_lines[-1] == 1:
        paths[PARTS[-1][0]].unlink()
    pl.DataFrame(np.concatenate(sessions), schema=list(SESSION_COLUMNS), orient="row").with_columns(
        pl.col("user_id", "start_ms", "end_ms", "n_rows").cast(pl.Int64),
        pl.col("returned").cast(pl.Boolean),
    ).write_parquet(folder / "sessions.parquet")


def _append(part: BinaryIO, to: BinaryIO) -> None:
    """Copy a whole file to the end of another, inside the system where it can."""
    left = part.tell()
    part.flush()
    to.flush()
    part.seek(0)
    if not hasattr(os, "copy_file_range"):
        shutil.copyfileobj(part, to, 1 << 20)
        return
    while left:
        left -= os.copy_file_range(part.fileno(), to.fileno(), left)


def _part_path(path: Path, half: int) -> Path:
    """The log itself, or where its second part waits for the end of the first."""
    return path.with_suffix(".second") if half else path


def _columns(lines: Lines, part: int, first_line: int, first_request: int) -> Columns:
    """Line + ``first_line``, propensity, position and request + ``first_request`` of a part's rows; −1 stays."""
    n = lines.n_rows[part]
    request = lines.request[part, :n]
    return (
        lines.line[part, :n] + first_line + 1,
        lines.propensity[part, :n].copy(),
        lines.position[part, :n].copy(),
        np.where(request < 0, -1, request + first_request),
    )


def _exposures(names: pa.StringArray, part: int, columns: Columns) -> pa.RecordBatch:
    line, propensity, position, request = columns
    code = pa.array(np.full(len(line), part, np.int8))
    file = pa.DictionaryArray.from_arrays(code, names)
    arrays = [file, line, propensity, position, pa.array(request, mask=request < 0)]
    return pa.record_batch(arrays, schema=_EXPOSURES)


def _requests(candidates: Ints, first: int) -> pa.RecordBatch:
    m, width = candidates.shape
    ends = np.arange(0, (m + 1) * width, width, dtype=np.int32)
    lists = pa.ListArray.from_arrays(ends, candidates.ravel())
    return pa.record_batch([np.arange(first, first + m), lists], schema=_REQUESTS)
