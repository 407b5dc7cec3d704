"""Sessions, their candidates and p̂ as two tables, and the problem that they make.

``sessions``: a row per session (or request of a generated world) in order: position, keys, part, what was known before it and what the
user did in the session before. ``candidates``: its items, with predictions, true probabilities where a world knows them, and what
became of those that were shown.

Source: METHODS §6.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.buckets import BucketedTable
from reelrank.features.candidate_features import (
    CandidateOptions,
    LogTables,
    candidate_rows,
    pair_features,
    ranking_sessions,
)
from reelrank.features.candidates import availability_ts
from reelrank.features.heads import HEADS, head_columns
from reelrank.features.histories import HistoryOptions
from reelrank.features.sessions import request_and_session_ids
from reelrank.features.splits import row_uniforms
from reelrank.features.value_encoder import ValueEncoder
from reelrank.features.value_features import Clock, NodeFeatures, edge_features
from reelrank.models import registry
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.run_options import RankedSetOptions
from reelrank.worlds.truth import Truth

if TYPE_CHECKING:
    from reelrank.models.value_model import ValueModel
    from reelrank.training.artifact import ModelCheckpoint

Floats = npt.NDArray[np.float32]
Score = Callable[[pl.DataFrame], Floats]  # pairs with edge features → (n, 4)
Heads = Literal["learned", "true"]

PARTS = ("val", "test")
COVARIATES = (
    "session", "previous_session_rows", "session_gap_hours", "hour_sin", "hour_cos", "is_weekend", "ema_watch_ratio", "category_entropy",
)  # fmt: skip
LAGGED = ("lag_rows", "lag_watch_ratio", *(f"lag_{head}" for head in HEADS))
KEYS = ("user_id", "session_id", "burst_id", "ts_start", "split")
WATCH_CAP = 2.0  # METHODS §3.8


@dataclass(frozen=True)
class RankingLog:
    """The log that sessions are taken from, bucket by bucket.

    Attributes:
        interactions: ``Interactions``.
        histories: ``Histories`` of the same rows.
        splits: ``Splits``.
        items: ``Items``.
        bursts: ``Bursts``.
        history: options that made ``histories``.
        clock: of hour and weekend, as the model was trained.
    """

    interactions: BucketedTable
    histories: BucketedTable
    splits: BucketedTable
    items: pl.DataFrame
    bursts: pl.DataFrame
    history: HistoryOptions
    clock: Clock

    def read(self, bucket: int) -> LogTables:
        """One bucket."""
        return LogTables(
            self.interactions.read(bucket),
            self.histories.read(bucket),
            self.items,
            self.history,
            self.bursts,
            self.clock,
        )

    def availability(self) -> npt.NDArray[np.int64]:
        """(n_items,) time from which each item may be shown (L7)."""
        shown = self.interactions.scan().select("item_id", "ts_ms").collect()
        return availability_ts(shown, self.items)


@dataclass(frozen=True)
class Ranked:
    """The two tables.

    Attributes:
        sessions: position, user_id, session_id, burst_id (−1 = outside of all), ts_start, split, n_rows, ``COVARIATES``, ``LAGGED``.
        candidates: position, item_id, rank_shown, p_<head>, y_<head> (null: not shown or not known), and on worlds true_<head>.
    """

    sessions: pl.DataFrame
    candidates: pl.DataFrame

    def problem(self, part: str | None = None, heads: Heads = "learned") -> RankingSessions:
        """The sessions of a part (None: of all) with learned or true probabilities.

        Raises:
            ValueError: there is no such session.
        """
        own = self.sessions if part is None else self.sessions.filter(pl.col("split") == part)
        if own.is_empty():
            raise ValueError(f"no session of {part or 'any part'} can be ranked: raise the number of sessions or lower min_length")  # fmt: skip
        rows = self.rows(part)
        prefix = "p" if heads == "learned" else "true"
        p = rows.select(f"{prefix}_{head}" for head in HEADS).to_numpy().astype(np.float32)
        edges = np.searchsorted(rows["position"].to_numpy(), own["position"].to_numpy())
        return RankingSessions(
            user_id=own["user_id"].to_numpy(),
            session_id=own["session_id"].to_numpy(),
            ts_start=own["ts_start"].to_numpy(),
            burst_id=own["burst_id"].to_numpy(),
            first=np.append(edges, rows.height).astype(np.int64),
            item_id=rows["item_id"].to_numpy(),
            heads=np.ascontiguousarray(p),
            rank_shown=rows["rank_shown"].to_numpy(),
        )

    def rows(self, part: str | None = None) -> pl.DataFrame:
        """The candidates of :meth:`problem`, in its order."""
        if part is None:
            return self.candidates
        own = self.sessions.filter(pl.col("split") == part).select("position")
        return self.candidates.join(own, on="position", how="semi", maintain_order="left")

    def outcomes(self, part: str | None = None) -> npt.NDArray[np.float64]:
        """(N, 4) what the user did with each candidate; NaN where it was not shown or is not known."""
        found = self.rows(part).select(pl.col(f"y_{h}").cast(pl.Float64) for h in HEADS)
        values: npt.NDArray[np.float64] = found.fill_null(np.nan).to_numpy()
        return values


@dataclass(frozen=True)
class Scorer:
    """A value model rebuilt from its checkpoint, with the node vectors that val chose."""

    model: ValueModel
    encoder: ValueEncoder
    nodes: NodeFeatures
    block_rows: int

    @classmethod
    def of(
        cls, checkpoint: ModelCheckpoint, encoder: ValueEncoder, nodes: NodeFeatures, block_rows: int
    ) -> Scorer:  # fmt: skip
        """Rebuild the model; its name must be registered."""
        from reelrank.models.value_model import ValueModel  # noqa: PLC0415 (torch)

        config = checkpoint.config
        model = registry.build(config["name"], config["options"], config["spec"], ValueModel)
        model.load_state_dict(dict(checkpoint.best))
        model.eval()
        return cls(model, encoder, nodes, block_rows)

    def function(self) -> Score:
        """p̂ of pairs; nodes are encoded once."""
        encoded = self.encoder.encode_nodes(self.nodes)
        return lambda pairs: self.model.predict(
            self.encoder.with_edges(encoded, pairs), self.block_rows
        )

    def item_vectors(self) -> Floats:
        """(n_items, H) vectors that sets of items are compared by.

        Raises:
            ValueError: the model has none.
        """
        vectors = self.model.item_vectors()
        if vectors is None:
            raise ValueError("this value model has no item vectors: take a GNN, or another embedding")  # fmt: skip
        return vectors


def find_sessions(
    log: RankingLog, options: RankedSetOptions, gap_s: int | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Sessions of val and test, drawn where there are more than asked for.

    Args:
        log: the log.
        options: least length, how many.
        gap_s: longest gap inside a session; None = that of the log's own session ids.

    Returns:
        bucket, first_row_id, n_rows, and the columns of ``Ranked.sessions`` but position, in order of (bucket, user, time); counts of
        ``ranking_sessions`` over all parts, and of each part before and after the draw.
    """
    frames, counts = [], Counter[str]()
    for bucket in range(log.interactions.n_buckets):
        tables = log.read(bucket)
        rows = tables.interactions if gap_s is None else _with_gap(tables.interactions, gap_s)
        found, own = ranking_sessions(rows, log.splits.read(bucket), log.bursts, options.min_length)
        counts.update(own)
        found = found.filter(pl.col("split").is_in(PARTS)).with_columns(
            pl.col("burst_id").fill_null(-1).cast(pl.Int16),
            bucket=pl.lit(bucket, pl.Int32),
            ts_start="start_ms",
        )
        frames.append(_with_past(found, tables).select("bucket", "first_row_id", *KEYS, "n_rows", *COVARIATES, *LAGGED))  # fmt: skip
    sessions = pl.concat(frames)
    drawn = _draw(sessions, options.sessions, options.seed)
    for part in PARTS:
        counts[part] = sessions.filter(pl.col("split") == part).height
        counts[f"{part}_drawn"] = drawn.filter(pl.col("split") == part).height
    return drawn, dict(counts)


def rank_sessions(
    log: RankingLog, sessions: pl.DataFrame, candidates: CandidateOptions, score: Score
) -> Ranked:
    """Candidates of sessions with p̂ at the session's start.

    Args:
        log: the log.
        sessions: from :func:`find_sessions`.
        candidates: which items.
        score: of pairs.
    """
    availability = log.availability()

    def pieces() -> Iterator[pl.DataFrame]:
        for bucket, first, own in _by_bucket(sessions):
            tables = log.read(bucket)
            for rows in candidate_rows(tables, own, availability, candidates):
                yield _predicted(rows, first, score)

    return _ranked(log, sessions, pieces())


def find_requests(
    log: RankingLog, truth: Truth, item_map: pl.DataFrame, options: RankedSetOptions
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The requests of a world with the candidates that it had, of all parts.

    Args:
        log: the log.
        truth: of its world.
        item_map: dense and raw ids.
        options: how many.

    Returns:
        sessions as from :func:`find_sessions` (``session_id`` is the request, ``n_rows`` its shown items), and first_row_id, item_id,
        rank_shown of their candidates.
    """
    first = truth.exposures().filter(pl.col("position") == 0).select("request", first_row_id="line")
    asked = truth.session_candidates().lazy().join(first, on="request").select(
        "request", "request_ms", "first_row_id", "candidates", "shown"
    )  # fmt: skip
    requests = asked.collect()
    frames = []
    for bucket in range(log.interactions.n_buckets):
        tables = log.read(bucket)
        rows = tables.interactions.select("user_id", "session_id", "row_id").join(
            log.splits.read(bucket).select("row_id", "split"), on="row_id", maintain_order="left"
        )
        found = rows.join(
            requests, left_on="row_id", right_on="first_row_id", maintain_order="left"
        )
        found = found.filter(pl.col("split").is_not_null()).with_columns(
            first_row_id="row_id",
            ts_start="request_ms",
            bucket=pl.lit(bucket, pl.Int32),
            n_rows=pl.col("shown").list.len().cast(pl.Int32),
        )
        frames.append(_with_past(found, tables).with_columns(session_id="request"))
    drawn = _draw(pl.concat(frames), options.requests, options.seed)
    dense = dict(item_map.select("raw_id", "dense_id").iter_rows())
    shown = drawn.select("first_row_id", item_id="shown").explode("item_id", empty_as_null=False)
    shown = shown.with_columns(
        rank_shown=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("first_row_id")
    )
    pairs = (
        drawn.select("first_row_id", item_id="candidates")
        .explode("item_id", empty_as_null=False)
        .join(shown, on=["first_row_id", "item_id"], how="left", maintain_order="left")
        .with_columns(
            pl.col("item_id").replace_strict(dense, return_dtype=pl.Int32),
            pl.col("rank_shown").fill_null(0),
        )
    )
    columns = ("bucket", "first_row_id", *KEYS, "n_rows", *COVARIATES, *LAGGED)
    return drawn.select(columns), pairs


def rank_requests(
    log: RankingLog, requests: pl.DataFrame, pairs: pl.DataFrame, score: Score
) -> Ranked:
    """p̂ of given candidates as of the first row of each request. Arguments from :func:`find_requests`."""

    def pieces() -> Iterator[pl.DataFrame]:
        for bucket, first, own in _by_bucket(requests):
            keys = own.select("first_row_id", position=pl.int_range(pl.len(), dtype=pl.Int32))
            known = pairs.join(keys, on="first_row_id").sort("position", "item_id")
            features = pair_features(
                log.read(bucket), own["first_row_id"], known.select("position", "item_id", "rank_shown")
            )  # fmt: skip
            yield _predicted(features, first, score)

    return _ranked(log, requests, pieces())


def with_truth(
    ranked: Ranked, truth: Truth, user_map: pl.DataFrame, item_map: pl.DataFrame
) -> Ranked:
    """With true_<head>: the world's own probabilities at the session's start, rule ``code``, by which it ranks."""
    of_row = ranked.candidates["position"].to_numpy()
    raw_user, raw_item = (
        table.sort("dense_id")["raw_id"].to_numpy() for table in (user_map, item_map)
    )
    own = ranked.sessions
    found = truth.head_probabilities(
        raw_user[own["user_id"].to_numpy()][of_row],
        raw_item[ranked.candidates["item_id"].to_numpy()],
        own["ts_start"].to_numpy()[of_row],
    )
    true = {f"true_{head}": pl.Series(found[head], dtype=pl.Float32) for head in HEADS}
    return Ranked(own, ranked.candidates.with_columns(**true))


def text_vectors(item_modal: pl.DataFrame, n_items: int) -> Floats | None:
    """(n_items, D) mean text vector, zeros where an item has none; None where no item has one."""
    text = item_modal.filter(modality="text", present=True)
    if text.is_empty():
        return None
    width = int(text["dim"][0])
    out = np.zeros((n_items, width), np.float32)
    for item, array in text.select("item_id", "array").iter_rows():
        out[item] = np.asarray(array, np.float32).reshape(-1, width).mean(axis=0)
    return out


def category_codes(items: pl.DataFrame) -> tuple[npt.NDArray[np.int64], int]:
    """(n_items,) code of the first-level category from 0, −1 = unknown, and how many there are."""
    names = items["category_1"].drop_nulls().unique().sort()
    code = items["category_1"].replace_strict(
        names, pl.Series(range(len(names)), dtype=pl.Int64), default=-1, return_dtype=pl.Int64
    )
    return code.fill_null(-1).to_numpy(), len(names)


def train_counts(
    log: RankingLog, category: npt.NDArray[np.int64], n_categories: int, n_users: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Train rows of each item (n_items,), and of each user by category (n_users, C + 1), the last for none (L2)."""
    train = log.splits.scan().filter(pl.col("split") == "train").select("row_id")
    rows = log.interactions.scan().select("row_id", "user_id", "item_id")
    shown = rows.join(train, on="row_id", how="semi").collect()
    item, user = shown["item_id"].to_numpy(), shown["user_id"].to_numpy()
    width = n_categories + 1
    code = np.where(category < 0, n_categories, category)
    history = np.bincount(user * np.int64(width) + code[item], minlength=n_users * width)
    return np.bincount(item, minlength=len(category)), history.reshape(n_users, width)


def _with_gap(interactions: pl.DataFrame, gap_s: int) -> pl.DataFrame:
    """Sessions by another gap; the rows themselves stay."""
    user, ts_ms = (interactions[name].to_numpy() for name in ("user_id", "ts_ms"))
    _, session = request_and_session_ids(user, ts_ms, gap_s * 1000)
    return interactions.with_columns(session_id=pl.Series(session))


def _with_past(sessions: pl.DataFrame, tables: LogTables) -> pl.DataFrame:
    """``sessions`` with what is known before each first row, and outcomes of the session before in the burst (null: none)."""
    edges = edge_features(
        tables.interactions, tables.histories, tables.items, tables.bursts, tables.clock
    )
    known = edges.select("row_id", "burst_id", *COVARIATES).with_columns(
        pl.col("burst_id").fill_null(-1).cast(pl.Int16), pl.col(COVARIATES).cast(pl.Float32)
    )
    heads = [h.cast(pl.Float32) for h in head_columns(tables.history.heads)]
    rows = tables.interactions.select(
        "user_id", "session_id", "row_id", pl.col("watch_ratio").clip(upper_bound=WATCH_CAP), *heads
    ).with_columns(known["burst_id"])
    past = rows.group_by("user_id", "burst_id", "session_id", maintain_order=True).agg(
        pl.col("row_id"),
        lag_rows=pl.len().cast(pl.Float32),
        lag_watch_ratio=pl.mean("watch_ratio"),
        **{f"lag_{head}": pl.mean(head) for head in HEADS},
    )
    past = past.with_columns(pl.col(LAGGED).shift(1).over("user_id", "burst_id"))
    by_row = past.select("row_id", *LAGGED).explode("row_id", empty_as_null=False)
    out = sessions if "burst_id" in sessions.columns else sessions.join(
        known.select(first_row_id="row_id", burst_id="burst_id"), on="first_row_id", maintain_order="left"
    )  # fmt: skip
    return out.join(
        known.drop("burst_id"), left_on="first_row_id", right_on="row_id", maintain_order="left"
    ).join(by_row, left_on="first_row_id", right_on="row_id", maintain_order="left")


def _draw(sessions: pl.DataFrame, size: int, seed: int) -> pl.DataFrame:
    """At most ``size`` of each part, in order; who is drawn depends on the seed and the row alone."""
    draw = pl.Series("draw", row_uniforms(sessions["first_row_id"].to_numpy(), seed))
    place = pl.col("draw").rank("ordinal").over("split")
    return sessions.with_columns(draw).filter(place <= size).drop("draw")


def _by_bucket(sessions: pl.DataFrame) -> Iterator[tuple[int, int, pl.DataFrame]]:
    """Bucket, place of its first session among all, its sessions."""
    first = 0
    for own in sessions.partition_by("bucket", maintain_order=True):
        yield int(own["bucket"][0]), first, own
        first += own.height


def _predicted(rows: pl.DataFrame, first: int, score: Score) -> pl.DataFrame:
    p = score(rows)
    return rows.select(pl.col("position").cast(pl.Int32) + first, "item_id", "rank_shown").with_columns(
        **{f"p_{head}": pl.Series(p[:, j]) for j, head in enumerate(HEADS)}
    )  # fmt: skip


def _ranked(log: RankingLog, sessions: pl.DataFrame, pieces: Iterator[pl.DataFrame]) -> Ranked:
    """The tables, with what became of the shown items."""
    candidates = pl.concat(list(pieces))
    numbered = sessions.with_columns(position=pl.int_range(pl.len(), dtype=pl.Int32))
    shown = candidates.filter(pl.col("rank_shown") > 0).select("position", "item_id")
    wanted = shown.join(numbered.select("position", "user_id", "ts_start"), on="position", maintain_order="left")  # fmt: skip
    columns = ["user_id", "item_id", "ts_ms", "play_ms", "watch_ratio"]
    exposures = log.interactions.scan().select(columns).with_columns(
        h.alias(f"y_{h.meta.output_name()}") for h in head_columns(log.history.heads)
    )  # fmt: skip
    # the item's first exposure since the session began
    outcomes = wanted.sort("ts_start").join_asof(
        exposures.drop("play_ms", "watch_ratio").sort("ts_ms").collect(),
        left_on="ts_start", right_on="ts_ms", by=["user_id", "item_id"], strategy="forward", check_sortedness=False,
    )  # fmt: skip
    labels = outcomes.select("position", "item_id", *(f"y_{head}" for head in HEADS))
    return Ranked(
        numbered.select("position", *KEYS, "n_rows", *COVARIATES, *LAGGED),
        candidates.join(labels, on=["position", "item_id"], how="left", maintain_order="left"),
    )
