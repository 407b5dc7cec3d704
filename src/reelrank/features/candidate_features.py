"""Sessions and what could have been shown in them, with the edge features that each candidate has at the session's start.

No release logs what was considered: the candidates that were not shown are constructed, and must be reported as such.
Source: METHODS §6.6, §1.5 L1, L7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field

from reelrank.draws import stream_key, uniform
from reelrank.features.bursts import burst_of
from reelrank.features.heads import HEADS, head_columns
from reelrank.features.histories import (
    MS_PER_DAY,
    HistoryOptions,
    ItemCodes,
    require_time_order,
)
from reelrank.features.histories_kernel import NO_CODE, UNKNOWN, blend
from reelrank.features.value_features import (
    FEATURE_BLOCKS,
    ITEM_EDGE_FEATURES,
    Clock,
    age_days,
    edge_features,
    last_completion,
    visit_starts,
)
from reelrank.options import Options

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]


class CandidateOptions(Options):
    """Which items could have been shown in a session, beside those that were."""

    catalogue: Literal["available", "all"] = Field(
        "available",
        description="available: uploaded and known at the session's start (L7); all: the whole catalogue [A]",
    )
    exclude_seen: bool = Field(
        True, description="leave out what the user had seen before the session"
    )
    share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of a session's non-shown candidates that is kept, drawn per item [D]",
    )
    seed: int = Field(0, ge=0, description="seed of the draws (share < 1)")
    max_rows: int = Field(
        2_000_000,
        ge=1,
        description="candidates held at once; bounds memory, never changes results; a session stays whole",
    )


@dataclass(frozen=True)
class LogTables:
    """Every row of some users with what their features are made of.

    Attributes:
        interactions: ``Interactions``, sorted by (user_id, ts_ms, row_id).
        histories: ``Histories`` of the same rows in the same order.
        items: ``Items``.
        history: the options that made ``histories``.
        bursts: ``Bursts``; None or no rows = the log is one piece.
        clock: of hour and weekend.
    """

    interactions: pl.DataFrame
    histories: pl.DataFrame
    items: pl.DataFrame
    history: HistoryOptions
    bursts: pl.DataFrame | None = None
    clock: Clock = "local"


def ranking_sessions(
    interactions: pl.DataFrame,
    splits: pl.DataFrame,
    bursts: pl.DataFrame | None = None,
    min_length: int = 5,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The sessions that head weights are estimated from (bucket function).

    A session belongs to the part of its rows; one with rows in two parts, or outside of all, is in none, so that no part
    sees another's rows (L9). Its length counts rows [A]; K counts items, each once however often the session repeats it.

    Args:
        interactions: every row of some users, as ``Interactions``, sorted by (user_id, ts_ms, row_id).
        splits: ``Splits`` of the rows.
        bursts: ``Bursts``; None or no rows = the log is one piece.
        min_length: rows that a session must have.

    Returns:
        The sessions in order of (user, time): user_id, session_id, burst_id (null = outside of all), start_ms, first_row_id, n_rows,
        n_shown = K, split; and counts: sessions, across_parts, too_short (of the others), kept, repeats (rows of kept sessions that show
        an item again).

    Raises:
        ValueError: rows are not in order.

    Source: METHODS §6.6 [A: length ≥ 5], repeats and parts [D].
    """
    require_time_order(interactions)
    rows = interactions.select("user_id", "session_id", "row_id", "ts_ms", "item_id").with_columns(
        burst_id=pl.Series(burst_of(interactions["ts_ms"].to_numpy(), bursts)).replace(-1, None)
    )
    rows = rows.join(splits.select("row_id", "split"), on="row_id", how="left", maintain_order="left")  # fmt: skip
    one_part = (pl.col("split").n_unique() == 1) & (pl.col("split").null_count() == 0)
    found = rows.group_by("user_id", "session_id", "burst_id", maintain_order=True).agg(
        start_ms=pl.first("ts_ms"),
        first_row_id=pl.first("row_id"),
        n_rows=pl.len().cast(pl.Int32),
        n_shown=pl.col("item_id").n_unique().cast(pl.Int32),
        split=pl.when(one_part).then(pl.first("split")),
    )
    inside = found.filter(pl.col("split").is_not_null())
    kept = inside.filter(pl.col("n_rows") >= min_length)
    counts = {
        "sessions": found.height,
        "across_parts": found.height - inside.height,
        "too_short": inside.height - kept.height,
        "kept": kept.height,
        "repeats": kept.select(pl.sum("n_rows") - pl.sum("n_shown")).item(),
    }
    return kept, counts


def candidate_rows(
    log: LogTables, sessions: pl.DataFrame, availability: Longs, options: CandidateOptions
) -> Iterator[pl.DataFrame]:
    """The candidates of each session with their edge features at its start (bucket function).

    Candidates are the items of the catalogue that the user had not seen, each with the chance ``share``, and always what
    was shown, whatever else is true of it. Everything is known strictly before the session's first row but ``rank_shown``, the label.

    Args:
        log: every row of the sessions' users.
        sessions: from :func:`ranking_sessions`: first_row_id and n_rows, in the order of ``log``.
        availability: (n_items,) from ``features.candidates.availability_ts``.
        options: which candidates, and how many at once.

    Yields:
        Whole sessions, in order: position (row of ``sessions``), item_id, rank_shown (place of the item's first exposure in the
        session among distinct items, from 1; 0 = not shown), user_id, and the columns of ``FEATURE_BLOCKS["edge"]``; items ascend in a session.

    Raises:
        ValueError: a session's rows are not in the log.
    """
    known = _Known.before(log, sessions["first_row_id"])
    n_items = log.items.height
    size = max(options.max_rows // max(n_items, 1), 1)
    n_rows, key = sessions["n_rows"].to_numpy(), sessions["first_row_id"].to_numpy()
    for start in range(0, sessions.height, size):
        here = slice(start, start + size)
        position, item_id, rank = np.empty((3, len(n_rows[here]) * n_items), np.int32)
        n = _collect(
            known.item,
            known.ts_ms,
            (known.first[here], n_rows[here], known.user_start[here], key[here]),
            availability if options.catalogue == "available" else np.zeros(n_items, np.int64),
            options.exclude_seen,
            options.share,
            options.seed,
            (position, item_id, rank),
        )
        found = {"position": position[:n] + start, "item_id": item_id[:n], "rank_shown": rank[:n]}
        yield known.with_features(pl.DataFrame(found))


def pair_features(log: LogTables, first_row_id: pl.Series, pairs: pl.DataFrame) -> pl.DataFrame:
    """Edge features of given candidates at given rows, as they were strictly before those rows.

    For candidates that are known, such as a world's stored sets; a row's own item gets exactly the row's own features.

    Args:
        log: every row of the users.
        first_row_id: rows at which candidates are judged, in the order of ``log``.
        pairs: position in ``first_row_id``, not decreasing, and item_id.

    Returns:
        ``pairs`` with user_id and the columns of ``FEATURE_BLOCKS["edge"]``.

    Raises:
        ValueError: a row is not in the log, or the rows or pairs are not in order.
    """
    if (pairs["position"].diff() < 0).any():
        raise ValueError("pairs.position must not decrease: sort the candidates by session")
    return _Known.before(log, first_row_id).with_features(pairs)


@dataclass(frozen=True)
class _Known:
    """What candidates' features are made of, for sessions that start at given rows."""

    item: Ints
    ts_ms: Longs
    complete: Bytes
    visit: Longs  # number of the user's stay in a burst, from 1
    first: Longs  # (S,) place of each session's first row
    user_start: Longs  # (S,) place of its user's first row
    moments: pl.DataFrame  # (S,) edge features of the first rows
    codes: ItemCodes
    upload_ts: pl.Series
    alpha: float

    @classmethod
    def before(cls, log: LogTables, first_row_id: pl.Series) -> Self:
        rows = log.interactions
        first = _places(rows, first_row_id)
        user, item, ts_ms = (rows[name].to_numpy() for name in ("user_id", "item_id", "ts_ms"))
        complete = rows.select(head_columns(log.history.heads)[HEADS.index("complete")])
        edges = edge_features(rows, log.histories, log.items, log.bursts, log.clock)
        return cls(
            item,
            ts_ms,
            complete.to_series().fill_null(UNKNOWN).to_numpy(),
            np.cumsum(visit_starts(rows, log.bursts)),
            first,
            np.searchsorted(user, user[first]),
            edges[first],
            ItemCodes.of(log.items),
            log.items["upload_ts"],
            log.history.alpha,
        )

    def with_features(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The moment's features as they are, those that depend on the item anew."""
        position, item_id = pairs["position"].to_numpy(), pairs["item_id"].to_numpy()
        asked = np.unique(position)
        average, days, days_complete = np.empty((3, pairs.height), np.float32)
        seen = np.empty(pairs.height, np.int8)
        category, author = (
            (codes, int(codes.max(initial=NO_CODE)) + 1)
            for codes in (self.codes.category_1, self.codes.author)
        )
        _judge(
            (self.item, self.ts_ms, self.complete, self.visit),
            (self.first[asked], self.user_start[asked]),
            np.searchsorted(position, np.append(asked, np.iinfo(np.int32).max)),
            item_id.astype(np.int32),
            category,
            author,
            self.alpha,
            (average, seen, days, days_complete),
        )
        start_ms = pl.Series(self.ts_ms[self.first[position]])
        columns = {
            "age_since_upload_days": age_days(start_ms, self.upload_ts.gather(item_id)),
            "ema_category_complete": average,
            "author_days_since_last": days,
            "author_days_since_completion": days_complete,
            "author_seen": seen,
        }
        anew = pl.DataFrame(columns).with_columns(
            pl.col(pl.Float32).fill_nan(None),
            author_seen=pl.when(pl.col("author_seen") >= 0).then("author_seen").cast(pl.Float32),
        )
        anew = anew.with_columns(author_last_completion=last_completion().cast(pl.Float32))
        moment = self.moments.drop("item_id", "row_id", *ITEM_EDGE_FEATURES)[position]
        features = pl.concat([pairs, moment, anew], how="horizontal")
        return features.select(*pairs.columns, "user_id", *FEATURE_BLOCKS["edge"])


def _places(interactions: pl.DataFrame, row_id: pl.Series) -> Longs:
    """Places of rows in the log by their id."""
    require_time_order(interactions)
    places = interactions.select("row_id").with_row_index("place")
    found = row_id.rename("row_id").to_frame().join(places, on="row_id", how="left", maintain_order="left")  # fmt: skip
    if found["place"].null_count():
        lost = found.filter(pl.col("place").is_null())["row_id"][0]
        raise ValueError(
            f"sessions: first row_id {lost} is not in interactions; give all rows of the sessions' users"
        )
    first: Longs = found["place"].to_numpy().astype(np.int64)
    if (np.diff(first) < 0).any():
        raise ValueError("sessions: not in the order of interactions; sort by (user_id, start_ms)")
    return first


@njit(cache=True, nogil=True)
def _collect(
    item: Ints,
    ts_ms: Longs,
    sessions: tuple[Longs, Ints, Longs, Longs],
    availability: Longs,
    exclude_seen: bool,
    share: float,
    seed: int,
    out: tuple[Ints, Ints, Ints],
) -> int:
    """Fill ``out`` = (session, item, rank shown); answer how many candidates there are.

    ``sessions`` = (first row, rows, first row of the user, key of the draws).
    """
    first, n_rows, user_start, key = sessions
    seen = np.full(len(availability), -1, np.int64)  # first row of the user who had the item
    rank = np.zeros(len(availability), np.int32)
    n = 0
    until, owner = 0, -1
    for s in range(len(first)):
        if user_start[s] != owner:
            owner = until = user_start[s]
        for i in range(until, first[s]):
            seen[item[i]] = owner
        until = first[s]
        rank[:] = 0
        n_shown = 0
        for i in range(first[s], first[s] + n_rows[s]):
            if rank[item[i]] == 0:
                n_shown += 1
                rank[item[i]] = n_shown
        stream = stream_key(seed, key[s])
        for v in range(len(availability)):
            known = availability[v] <= ts_ms[first[s]] and not (exclude_seen and seen[v] == owner)
            if rank[v] > 0 or (known and (share >= 1 or uniform(stream, v) < share)):
                out[0][n], out[1][n], out[2][n] = s, v, rank[v]
                n += 1
    return n


@njit(cache=True, nogil=True)
def _judge(
    log: tuple[Ints, Longs, Bytes, Longs],
    sessions: tuple[Longs, Longs],
    start: Longs,
    candidate: Ints,
    category: tuple[Ints, int],
    author: tuple[Ints, int],
    alpha: float,
    out: tuple[Floats, Bytes, Floats, Floats],
) -> None:
    """Moving average of the candidate's category, whether its author was seen, days since then and since a completion.

    One pass over the rows before the sessions, with the states of ``histories_kernel``. ``sessions`` = (first row, first row of the
    user); session s owns the candidates start[s] … start[s + 1] − 1.
    """
    item, ts_ms, complete, visit = log
    first, user_start = sessions
    mean = np.empty(category[1], np.float64)
    mean_owner = np.full(category[1], -1, np.int64)
    last = np.zeros((author[1], 3), np.int64)  # visit, time, time of a completion
    until, owner = 0, -1
    for s in range(len(first)):
        if user_start[s] != owner:
            owner = until = user_start[s]
        for i in range(until, first[s]):
            c, a = category[0][item[i]], author[0][item[i]]
            if c != NO_CODE:
                if mean_owner[c] != owner:
                    mean_owner[c] = owner
                    mean[c] = np.nan
                if complete[i] != UNKNOWN:
                    mean[c] = blend(mean[c], float(complete[i]), alpha)
            if a != NO_CODE:
                completed = last[a, 2] if last[a, 0] == visit[i] else -1
                last[a, 0] = visit[i]
                last[a, 1] = ts_ms[i]
                last[a, 2] = ts_ms[i] if complete[i] == 1 else completed
        until = first[s]
        now = ts_ms[first[s]]
        for p in range(start[s], start[s + 1]):
            c, a = category[0][candidate[p]], author[0][candidate[p]]
            out[0][p] = mean[c] if c != NO_CODE and mean_owner[c] == owner else np.nan
            known = a != NO_CODE and last[a, 0] == visit[first[s]]
            out[1][p] = -1 if a == NO_CODE else known
            out[2][p] = (now - last[a, 1]) / MS_PER_DAY if known else np.nan
            out[3][p] = (now - last[a, 2]) / MS_PER_DAY if known and last[a, 2] >= 0 else np.nan
