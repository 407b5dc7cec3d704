"""The value model's 64 features, as raw values: what is known of user, video, moment and past when a video is shown.

Source: METHODS §6.3 [A].
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.features.bursts import burst_edges, burst_of
from reelrank.features.histories import MS_PER_DAY
from reelrank.features.local_time import LOCAL_OFFSET

Group = Literal["session", "user", "item", "context", "history"]
Kind = Literal["continuous", "binary", "categorical"]
Clock = Literal["local", "utc"]
Block = Literal["user", "item", "edge"]
SATURDAY = 6
UNKNOWN_TEXT = "UNKNOWN"  # the releases' own word for a value that they do not know
COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")


@dataclass(frozen=True)
class ValueFeature:
    """One of the 64.

    Attributes:
        name: column.
        group: what an ablation drops together (GV-04).
        kind: how the typed encoding reads it.
        needs: canonical column that it is made of.
        literal_fill: what stands for a missing value in the author's table [A].
    """

    name: str
    group: Group
    kind: Kind
    needs: str
    literal_fill: float = 0.0

    @property
    def block(self) -> Block:
        """Whom it belongs to: what never changes for a user or an item is theirs, all else an edge's."""
        if self.group == "user":
            return "user"
        return "item" if self.group == "item" and self.name != "age_since_upload_days" else "edge"


def _of(group: Group, kind: Kind, *names: str) -> list[ValueFeature]:
    """Features that are columns of the same name."""
    return [ValueFeature(name, group, kind, f"{group}s.{name}") for name in names]


def _item(name: str, kind: Kind, *columns: str) -> ValueFeature:
    return ValueFeature(name, "item", kind, ", ".join(f"items.{c}" for c in columns or (name,)))


def _history(name: str, kind: Kind = "continuous", fill: float = 0.0, source: str = "") -> ValueFeature:  # fmt: skip
    return ValueFeature(name, "history", kind, f"histories.{source or name}", fill)


VALUE_FEATURES: tuple[ValueFeature, ...] = (
    ValueFeature("burst_id", "session", "categorical", "bursts"),
    ValueFeature("session", "session", "categorical", "interactions.session_id"),
    *_of("user", "categorical", "user_active_degree"),
    *_of("user", "binary", "is_lowactive_period", "is_live_streamer", "is_video_author"),
    *(
        feature
        for count in COUNTS
        for feature in (*_of("user", "continuous", count), *_of("user", "categorical", f"{count}_range"))
    ),
    *_of("user", "categorical", *(f"onehot_feat{k}" for k in range(18))),
    *(ValueFeature(f"log1p_{count}", "user", "continuous", f"users.{count}") for count in COUNTS),
    _item("aspect_ratio", "continuous", "width", "height"),
    _item("author_id", "categorical"),
    _item("video_type", "categorical"),
    _item("upload_type", "categorical"),
    _item("visible_status", "categorical"),
    _item("music_id", "categorical"),
    _item("video_tag_id", "categorical", "tags"),
    _item("video_tag_name", "categorical"),
    _item("video_duration", "continuous", "duration_ms"),
    _item("age_since_upload_days", "continuous", "upload_ts"),
    *(_item(f"cat_level{k}_id", "categorical", f"category_{k}") for k in (1, 2, 3)),
    ValueFeature("hour_sin", "context", "continuous", "interactions.ts_ms"),
    ValueFeature("hour_cos", "context", "continuous", "interactions.ts_ms"),
    ValueFeature("is_weekend", "context", "binary", "interactions.ts_ms"),
    *(_history(f"ema_{name}") for name in ("complete", "long", "rewatch", "neg", "watch_ratio")),
    _history("ema_category_complete"),
    _history("category_entropy"),
    _history("author_days_since_last", fill=60.0),
    _history("author_last_completion", "binary", source="author_days_since_completion"),
    _history("author_seen", "binary"),
    _history("previous_session_rows"),
    _history("session_gap_hours"),
)  # fmt: skip
FEATURE_BY_NAME = {feature.name: feature for feature in VALUE_FEATURES}
FEATURE_NAMES = tuple(FEATURE_BY_NAME)
FEATURE_GROUPS: dict[Group, tuple[str, ...]] = {
    group: tuple(f.name for f in VALUE_FEATURES if f.group == group)
    for group in ("session", "user", "item", "context", "history")
}
FEATURE_KINDS: dict[Kind, tuple[str, ...]] = {
    kind: tuple(f.name for f in VALUE_FEATURES if f.kind == kind)
    for kind in ("continuous", "binary", "categorical")
}
FEATURE_BLOCKS: dict[Block, tuple[str, ...]] = {
    block: tuple(f.name for f in VALUE_FEATURES if f.block == block)
    for block in ("user", "item", "edge")
}
# These depend on which item is shown: anew for each candidate. All other edge features belong to the moment.
ITEM_EDGE_FEATURES = (
    "age_since_upload_days", "ema_category_complete", "author_days_since_last", "author_last_completion", "author_seen",
)  # fmt: skip
# Why a column may lack values although the release has the file
NOT_INGESTED = {
    "visible_status": "its state when the release was made, after test: not an input (L4)",
    "video_tag_name": "a name for video_tag_id: not ingested",
}
DAILY_FILE = "KuaiRec has it in item_daily_features.csv alone"
FROM_DAILY_FILE = ("aspect_ratio", "author_id", "video_type", "upload_type", "music_id", "age_since_upload_days")  # fmt: skip


@dataclass(frozen=True)
class NodeFeatures:
    """What never changes.

    Attributes:
        users: row i = user i, the columns of ``FEATURE_BLOCKS["user"]``.
        items: row i = item i, the columns of ``FEATURE_BLOCKS["item"]``.
    """

    users: pl.DataFrame
    items: pl.DataFrame

    @classmethod
    def of(cls, users: pl.DataFrame, items: pl.DataFrame) -> NodeFeatures:
        """Static features of ``Users`` and ``Items``; a column that the source lacks is null.

        The first tag stands in for the video's tag [D]. Attributes only, no statistics over time (L4).

        Raises:
            ValueError: a table is not in order of its ids 0 … n−1.
        """
        _require_rows_are_ids(users, "user_id", "users")
        _require_rows_are_ids(items, "item_id", "items")
        tag = pl.coalesce([c for c in ("video_tag_id",) if c in items.columns] + [pl.col("tags").list.first()])  # fmt: skip
        users = users.with_columns(
            pl.col(c).cast(pl.Float64).log1p().alias(f"log1p_{c}")
            for c in COUNTS
            if c in users.columns
        )
        items = items.with_columns(
            aspect_ratio=pl.col("width") / pl.col("height"),
            video_tag_id=tag,
            video_duration="duration_ms",
            **{f"cat_level{k}_id": f"category_{k}" for k in (1, 2, 3)},
        )
        return cls(_columns(users, FEATURE_BLOCKS["user"]), _columns(items, FEATURE_BLOCKS["item"]))


def _require_rows_are_ids(table: pl.DataFrame, key: str, name: str) -> None:
    if not np.array_equal(table[key].to_numpy(), np.arange(table.height)):
        raise ValueError(f"{name}.{key} must be 0 … n−1 in order: sort the table by {key}")


def _columns(table: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """The columns by name, those that the table lacks null, whole numbers as Int64 and all others but text as Float32."""
    lacking = [pl.lit(None).alias(name) for name in names if name not in table.columns]
    return table.with_columns(lacking).select(_typed(table, name) for name in names)


def _typed(table: pl.DataFrame, name: str) -> pl.Expr:
    if FEATURE_BY_NAME[name].kind != "categorical":
        return pl.col(name).cast(pl.Float32)
    if table.schema.get(name) == pl.String:
        return pl.col(name).replace(UNKNOWN_TEXT, None)
    return pl.col(name).cast(pl.Int64)


def edge_features(
    interactions: pl.DataFrame,
    histories: pl.DataFrame,
    items: pl.DataFrame,
    bursts: pl.DataFrame | None = None,
    clock: Clock = "local",
) -> pl.DataFrame:
    """Features of each row that belong to neither its user nor its item (bucket function).

    ``session`` is the number of sessions that the user had in the burst before, so that it means the same for all users [D].
    ``author_last_completion`` says whether the user completed the latest video of the author in the burst; both it and
    ``author_seen`` are 0 without one. Hours are whole hours. No outcome of the row or its session is read (L5).

    Args:
        interactions: every row of some users, as ``Interactions``, sorted by (user_id, ts_ms, row_id).
        histories: ``Histories`` of the same rows in the same order.
        items: ``Items``, for upload times.
        bursts: ``Bursts``; None or no rows = the log is one piece, ``burst_id`` is null.
        clock: of hour and weekend; utc is the author's slip (METHODS §1.3).

    Returns:
        user_id, item_id, row_id and the columns of ``FEATURE_BLOCKS["edge"]``, one row per row, in the same order; null = missing.

    Raises:
        ValueError: ``histories`` are of other rows.

    Source: METHODS §6.3 [A].
    """
    if not interactions["row_id"].equals(histories["row_id"]):
        raise ValueError(
            "histories: row_id differs from that of interactions; give histories of the same rows in the same order"
        )
    ts_ms = interactions["ts_ms"].to_numpy()
    burst = pl.Series(burst_of(ts_ms, bursts)).replace(-1, None)
    upload_ts = items["upload_ts"].gather(interactions["item_id"])
    edges = histories.drop("user_id", "row_id").with_columns(
        interactions["user_id"],
        interactions["item_id"],
        interactions["row_id"],
        burst_id=burst,
        session=session_number(interactions, bursts),
        age_since_upload_days=age_days(interactions["ts_ms"], upload_ts),
        author_last_completion=last_completion(),
        **moment_features(interactions["ts_ms"], clock).to_dict(),
    )
    keys = edges.select("user_id", "item_id", "row_id")
    return keys.hstack(_columns(edges, FEATURE_BLOCKS["edge"]))


def moment_features(ts_ms: pl.Series, clock: Clock) -> pl.DataFrame:
    """hour_sin, hour_cos and is_weekend of each time; see :func:`edge_features`."""
    moment = pl.from_epoch(ts_ms, "ms") + (LOCAL_OFFSET if clock == "local" else timedelta(0))
    angle = moment.dt.hour().cast(pl.Float64) * (2 * np.pi / 24)
    columns = {"hour_sin": angle.sin(), "hour_cos": angle.cos(), "is_weekend": moment.dt.weekday() >= SATURDAY}  # fmt: skip
    return pl.DataFrame(columns).cast(pl.Float32)


def age_days(ts_ms: pl.Series, upload_ts: pl.Series) -> pl.Series:
    """Days since the upload, 0 before it; null where the upload time is."""
    return ((ts_ms - upload_ts) / MS_PER_DAY).clip(lower_bound=0).cast(pl.Float32)


def last_completion() -> pl.Expr:
    """Whether the author's latest video was completed, from ``Histories``' author columns; null = no author."""
    completed = pl.col("author_days_since_completion") == pl.col("author_days_since_last")
    return pl.when(pl.col("author_seen").is_not_null()).then(completed.fill_null(False))


def session_number(interactions: pl.DataFrame, bursts: pl.DataFrame | None) -> npt.NDArray[np.int64]:  # fmt: skip
    """(n,) sessions that the row's user had before this one in the same burst; whole users, rows in order."""
    session = interactions["session_id"].to_numpy()
    first = visit_starts(interactions, bursts)
    starts = first.copy()
    starts[1:] |= session[1:] != session[:-1]
    number = np.cumsum(starts)
    return number - np.maximum.accumulate(np.where(first, number, 0))


def visit_starts(interactions: pl.DataFrame, bursts: pl.DataFrame | None) -> npt.NDArray[np.bool_]:
    """(n,) whether a row is its user's first, or the first in a burst or after one; whole users, rows in order."""
    user, ts_ms = (interactions[name].to_numpy() for name in ("user_id", "ts_ms"))
    segment = np.searchsorted(burst_edges(bursts), ts_ms, side="right")
    starts = np.ones(len(user), np.bool_)
    starts[1:] = (user[1:] != user[:-1]) | (segment[1:] != segment[:-1])
    return starts


def value_features(edges: pl.DataFrame, nodes: NodeFeatures) -> pl.DataFrame:
    """The 64 columns of METHODS §6.3, in its order, one row per edge; null = missing.

    Args:
        edges: from :func:`edge_features`.
        nodes: static features.
    """
    parts = (edges, nodes.users[edges["user_id"]], nodes.items[edges["item_id"]])
    features = [part.select(n for n in FEATURE_NAMES if n in part.columns) for part in parts]
    return pl.concat(features, how="horizontal").select(FEATURE_NAMES)


def missing_report(shares: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Why features lack values: ``{feature: {share, reason}}`` of those that do.

    Args:
        shares: share of rows without a value, by feature.
    """
    return {
        name: {"share": share, "reason": _reason(FEATURE_BY_NAME[name], share)}
        for name, share in shares.items()
        if share > 0
    }


def missing_shares(features: pl.DataFrame) -> dict[str, float]:
    """Share of rows without a value, by column."""
    n = max(features.height, 1)
    return {column.name: column.null_count() / n for column in features}


def _reason(feature: ValueFeature, share: float) -> str:
    if feature.name in NOT_INGESTED:
        return NOT_INGESTED[feature.name]
    rows = "every row" if share == 1 else "some rows"
    where = f"; {DAILY_FILE}" if feature.name in FROM_DAILY_FILE else ""
    if feature.group == "history":
        return f"{feature.needs} is null in {rows}: nothing of its kind came before"
    return f"{feature.needs} is null in {rows}{where}"
