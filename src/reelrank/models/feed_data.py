"""From canonical tables to a feed's tensors, and from positions of decisions to the batch that a policy reads.

Source: METHODS §4.2, §1.5 L1, L2, L6. Shapes as in ``models.feed``.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.feed import (
    PAD,
    RESPONSES,
    WATCH_TIME,
    Decisions,
    FeedBatch,
    FeedInputs,
    FeedRows,
    ItemFeatures,
)
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feed_windows import local_hour
from reelrank.models.user_features import UserFeatures, attribute_codes
from reelrank.tables import SPLITS

ITEM_FIELDS = {"author_id": False, "category_1": False, "tag": False, "duration_ms": True}
"""Static attributes of an item, and whether many values are cut at train deciles."""
_NEEDED = (
    "user_id", "item_id", "ts_ms", "row_id", "scenario", "request_id", "session_id", "play_ms", "is_rand", "split",
    *RESPONSES[:WATCH_TIME],
)  # fmt: skip


def feed_inputs(
    interactions: pl.DataFrame,
    items: pl.DataFrame,
    users: pl.DataFrame,
    options: FeedDataOptions,
    candidate_sets: pl.DataFrame | None = None,
    device: torch.device | str = "cpu",
) -> FeedInputs:
    """All that models of a feed read of a log.

    A row without a split is in histories, but is no decision. Random exposures are decisions too, marked by ``is_rand``.
    A decision's history is the user's rows before its first one: those of one request do not see each other (L1, L6).

    Args:
        interactions: ``Interactions`` with the column ``split``, null where the rule leaves a row out.
        items: ``Items``.
        users: ``Users``.
        options: track and smallest candidate set.
        candidate_sets: ``CandidateSets``; track ``request`` only.
        device: where the tensors go.

    Raises:
        ValueError: a column is missing, a candidate set is missing, smaller than k or not of this log, a request lies
            in two splits, or train shows fewer videos than asked for.
    """
    if missing := [c for c in _NEEDED if c not in interactions.columns]:
        raise ValueError(f"interactions lacks the columns {missing}: join splits to interactions")
    log = interactions.select(_NEEDED).sort("user_id", "ts_ms", "row_id").with_row_index("row")
    log = log.with_columns(
        pl.col("row").cast(pl.Int64),
        watch_time=pl.col("play_ms").cast(pl.Float32) / 1000,
        split=pl.col("split").cast(pl.Enum(SPLITS)).to_physical().cast(pl.Int8),
    )
    train = log.filter(pl.col("split") == 0)
    if train.is_empty():
        raise ValueError("interactions: no row is in train")
    if options.track == "request":
        if candidate_sets is None:
            raise ValueError("track request needs candidate_sets: run the graphs pipeline")
        decisions = _requests(log, candidate_sets)
    else:
        decisions = _top_videos(log, options.top_videos)
    require_candidates(decisions, options.k)
    return FeedInputs(
        rows=_rows(log, users.height),
        decisions=decisions,
        users=UserFeatures.from_frame(users, train["user_id"]),
        items=item_features(items, train["item_id"]),
    ).to(device)


def shown_sets(interactions: pl.DataFrame) -> pl.DataFrame:
    """Candidate sets (user_id, request_id, item_id, shown) that hold what each request shows and nothing else.

    For models that learn from impressions alone: ``feed_inputs`` with k = 1.
    """
    return interactions.select(
        "user_id", "request_id", "item_id", shown=pl.lit(value=True)
    ).unique()


def item_features(items: pl.DataFrame, train_item_ids: pl.Series) -> ItemFeatures:
    """Author, first category, first tag and duration of every item as codes fitted on train items (L2).

    Args:
        items: ``Items``: item_id = row number.
        train_item_ids: items with a train row.

    Raises:
        ValueError: item_id is not 0 … n−1 in order.
    """
    if not np.array_equal(items["item_id"].to_numpy(), np.arange(len(items))):
        raise ValueError("items.item_id must be 0 … n−1 in order: sort the table by item_id")
    train = train_item_ids.unique().sort().to_numpy()
    table = items.with_columns(tag=pl.col("tags").list.first())
    pairs = [attribute_codes(table[c], train, cut=cut) for c, cut in ITEM_FIELDS.items()]
    return ItemFeatures(
        codes=torch.from_numpy(np.stack([c for c, _ in pairs], axis=1).astype(np.int64)),
        cardinalities=tuple(n for _, n in pairs),
        fields=tuple(ITEM_FIELDS),
    )


def require_candidates(decisions: Decisions, k: int) -> None:
    """Refuse candidate sets that are smaller than what is shown of them.

    Raises:
        ValueError: names the first such decision.
    """
    size = (decisions.candidates != PAD).sum(1)
    small = torch.nonzero(size < k).squeeze(1)
    if len(small):
        d = int(small[0])
        raise ValueError(
            f"{len(small)} candidate sets hold fewer than k = {k} items, the first that of user {int(decisions.user[d])} at "
            f"ts_ms {int(decisions.ts_ms[d])} with {int(size[d])}: enlarge candidates.size or lower k"
        )


def trained_decisions(decisions: Decisions) -> Tensor:
    """Positions of the decisions that a model may learn from: train, and no random exposure."""
    return torch.nonzero((decisions.split == 0) & ~decisions.is_rand).squeeze(1)


def batch(inputs: FeedInputs, index: Tensor, history_length: int) -> FeedBatch:
    """States and candidates of decisions.

    Args:
        inputs: a log.
        index: (B,) int64, positions of decisions.
        history_length: L, last rows of the history.
    """
    rows, decisions = inputs.rows, inputs.decisions
    user, ts = decisions.user[index], decisions.ts_ms[index]
    back = torch.arange(history_length, 0, -1, device=index.device)
    at = decisions.row[index].unsqueeze(1) - back
    is_row = at >= rows.first[user].unsqueeze(1)
    at = at.clamp_min(0)
    candidates = decisions.candidates[index]
    return FeedBatch(
        user_codes=inputs.users.codes[user],
        scenario=decisions.scenario[index],
        hour=local_hour(ts),
        history=rows.item[at].masked_fill(~is_row, PAD),
        feedback=rows.response[at].masked_fill(~is_row.unsqueeze(-1), 0.0),
        candidates=candidates,
        item_codes=candidate_codes(inputs.items, candidates),
    )


def candidate_codes(items: ItemFeatures, candidates: Tensor) -> Tensor:
    """Attributes (B, C, G) of candidates (B, C), 0 at a pad."""
    return items.codes[candidates.clamp_min(0)].masked_fill((candidates == PAD).unsqueeze(-1), 0)


def _rows(log: pl.DataFrame, n_users: int) -> FeedRows:
    counts = np.bincount(log["user_id"].to_numpy(), minlength=n_users)
    return FeedRows(
        item=_integers(log["item_id"]),
        ts_ms=_integers(log["ts_ms"]),
        response=torch.from_numpy(_responses(log)),
        first=torch.from_numpy(np.append(0, np.cumsum(counts)).astype(np.int64)),
    )


def _requests(log: pl.DataFrame, candidate_sets: pl.DataFrame) -> Decisions:
    """K2: requests, their candidate sets in the order of item ids, sessions as episodes."""
    key = ["user_id", "request_id"]
    requests = log.group_by(key, maintain_order=True).agg(
        pl.col("row", "ts_ms", "scenario", "session_id", "split").first(),
        pl.col("is_rand").max(),
        parts=pl.col("split").n_unique(),
    )
    mixed = requests.filter(pl.col("parts") > 1)
    if len(mixed):
        raise ValueError(
            f"{len(mixed)} requests lie in two splits, the first {mixed['request_id'][0]} of user {mixed['user_id'][0]}: use a split by time"
        )
    requests = _linked(requests, ["user_id", "session_id", "split"])
    # in the order of items: a shown item must not be known by its place
    sets = (
        candidate_sets.select(*key, "item_id", "shown")
        .join(requests.select(*key, "decision"), on=key)
        .sort("decision", "item_id")
        .with_columns(column=pl.int_range(pl.len()).over("decision"))
    )
    without = requests.join(sets, on="decision", how="anti")
    if len(without):
        raise ValueError(
            f"{len(without)} requests have no candidate set, the first {without['request_id'][0]} of user {without['user_id'][0]}: "
            "draw candidate_sets from the same interactions"
        )
    # an item that stands twice in one request counts once, with the larger of its responses
    answers = (
        log.join(requests.select(*key, "decision"), on=key)
        .group_by("decision", "item_id")
        .agg(pl.col(RESPONSES).max())
    )
    cells = sets.join(answers.with_columns(logged=1), on=["decision", "item_id"], how="left")
    if int(cells["logged"].count()) != len(answers) or int(cells["shown"].sum()) != len(answers):
        raise ValueError(
            "candidate_sets.shown is not what interactions show: draw it from the same interactions"
        )
    width = int(sets["column"].max()) + 1  # type: ignore[arg-type]  # an integer column
    at = (cells["decision"].to_numpy(), cells["column"].to_numpy())
    candidates = np.full((len(requests), width), PAD, np.int64)
    candidates[at] = cells["item_id"].to_numpy()
    shown = np.zeros(candidates.shape, bool)
    shown[at] = cells["logged"].is_not_null().to_numpy()
    response = np.full((*candidates.shape, len(RESPONSES)), np.nan, np.float32)
    response[at] = _responses(cells)
    return _decisions(requests, torch.from_numpy(candidates), shown, response)


def _top_videos(log: pl.DataFrame, n: int) -> Decisions:
    """K1: rows of the videos most viewed in train, all of them candidates, a user's rows of a split as an episode.

    Every row has the same candidates, uploaded or not [A].
    """
    views = log.filter(pl.col("split") == 0, pl.col("is_rand") == 0).group_by("item_id").len()
    if len(views) < n:
        raise ValueError(f"train shows {len(views)} videos, fewer than top_videos = {n}: lower it")
    top = views.sort(["len", "item_id"], descending=[True, False])["item_id"].head(n).sort()
    chosen = _linked(log.filter(pl.col("item_id").is_in(top.implode())), ["user_id", "split"])
    column = np.searchsorted(top.to_numpy(), chosen["item_id"].to_numpy())
    at = (np.arange(len(chosen)), column)
    shown = np.zeros((len(chosen), n), bool)
    shown[at] = True
    response = np.full((*shown.shape, len(RESPONSES)), np.nan, np.float32)
    response[at] = _responses(chosen)
    return _decisions(chosen, _integers(top).expand(len(chosen), -1), shown, response)


def _linked(decisions: pl.DataFrame, episode: list[str]) -> pl.DataFrame:
    """Decisions that have a split, in order, numbered, each with the next of its episode."""
    number = pl.col("decision")
    return (
        decisions.filter(pl.col("split").is_not_null())
        .with_row_index("decision")
        .with_columns(number.cast(pl.Int64))
        .with_columns(next=number.shift(-1).over(episode).fill_null(-1))
    )


def _decisions(
    frame: pl.DataFrame, candidates: Tensor, shown: np.ndarray, response: np.ndarray
) -> Decisions:
    return Decisions(
        user=_integers(frame["user_id"]),
        ts_ms=_integers(frame["ts_ms"]),
        scenario=_integers(frame["scenario"]),
        row=_integers(frame["row"]),
        next=_integers(frame["next"]),
        candidates=candidates,
        shown=torch.from_numpy(shown),
        response=torch.from_numpy(response),
        split=torch.from_numpy(frame["split"].to_numpy().copy()),
        is_rand=torch.from_numpy(frame["is_rand"].to_numpy().astype(bool)),
    )


def _responses(frame: pl.DataFrame) -> np.ndarray:
    """(n, 7) float32, NaN = null."""
    columns = (pl.col(r).cast(pl.Float32).fill_null(float("nan")) for r in RESPONSES)
    return frame.select(columns).to_numpy().copy()


def _integers(values: pl.Series) -> Tensor:
    return torch.from_numpy(values.to_numpy().astype(np.int64))
