"""Everything that evaluation needs of a trained model, as tables.

Source: METHODS §3.9, §2 (full ranking), §1.5 L7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from reelrank.models.behaviours import BEHAVIOURS
from reelrank.models.inputs import ModelInputs
from reelrank.models.policy import Outputs, RankingModel
from reelrank.pipelines.mt_dqn.lists import LOCAL_OFFSET_MS, ListBatch, score_lists
from reelrank.pipelines.mt_dqn.model import MTDQN
from reelrank.pipelines.mt_dqn.options import PredictOptions
from reelrank.tables import MODALITIES, SPLITS

MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class Predictions:
    """Tables of one model's predictions.

    Attributes:
        impressions: every standard val and test row at its own time: position, user_id, item_id, split, p_watch, p_like,
            p_share, reward_hat, q, value (of the logging behaviour).
        lists: list_id, split, user_id, item_id, position, score, relevance, graded; scored from the list's start.
        catalogue: context_id (= list_id), user_id, ts_ms, scenario, rank, item_id, score: the best items of all available.
        targets: context_id, user_id, item_id, rank, n_available: place of each relevant logged item of the list among
            all available, ties at their mean; items not available at the list's start are left out.
    """

    impressions: pl.DataFrame
    lists: pl.DataFrame
    catalogue: pl.DataFrame
    targets: pl.DataFrame


@torch.no_grad()
def predict(
    model: RankingModel,
    inputs: ModelInputs,
    lists: pl.DataFrame,
    availability: npt.NDArray[np.int64],
    options: PredictOptions,
) -> Predictions:
    """Predict impressions, lists and catalogue, with everything before each moment seen and the weights frozen.

    Args:
        model: trained; what it keeps about the inputs is recomputed.
        inputs: events, items, users.
        lists: ``Lists.rows``.
        availability: (n_items,) ms from which each item is a candidate (``features.availability_ts``).
        options: sizes of blocks and samples.

    Raises:
        ValueError: no test list.
    """
    test = lists.filter(pl.col("split") == "test")
    if test.is_empty():
        raise ValueError("no test list has two items and both relevance levels: nothing to rank")
    model.eval()
    model.refresh(inputs)
    batch = ListBatch.from_rows(lists, inputs.device)
    scores = score_lists(model, inputs, batch, options.block_rows).q
    catalogue, targets = rank_catalogue(
        model, inputs, test, torch.tensor(availability, device=inputs.device), options
    )
    return Predictions(
        impressions=predict_impressions(model, inputs, options.block_rows),
        lists=lists.drop("start_ts", "scenario").with_columns(score=_numpy(scores)),
        catalogue=catalogue,
        targets=targets,
    )


@torch.no_grad()
def predict_impressions(model: RankingModel, inputs: ModelInputs, block_rows: int) -> pl.DataFrame:
    """Outputs for every val and test row that was no random exposure, at its own time."""
    stream = inputs.stream
    rows = torch.nonzero((stream.split > 0) & ~stream.is_rand).squeeze(1)
    blocks: list[Outputs] = [
        model(inputs, stream.user[r], stream.item[r].unsqueeze(1), stream.ts_ms[r])
        for r in torch.split(rows, block_rows)
    ]
    logits = torch.cat([b.behaviour_logits for b in blocks]).squeeze(1)
    probability = _numpy(torch.sigmoid(logits))
    split = pl.Series(_numpy(stream.split[rows])).replace_strict(
        dict(enumerate(SPLITS)), return_dtype=pl.Enum(SPLITS)
    )
    return pl.DataFrame(
        {
            "position": _numpy(rows),
            "user_id": _numpy(stream.user[rows]).astype(np.int32),
            "item_id": _numpy(stream.item[rows]).astype(np.int32),
            "split": split,
            **{f"p_{name}": probability[:, i] for i, name in enumerate(BEHAVIOURS)},
            "reward_hat": _numpy(torch.cat([b.reward for b in blocks]).squeeze(1)),
            "q": _numpy(torch.cat([b.q for b in blocks]).squeeze(1)),
            "value": _numpy(torch.cat([b.value for b in blocks]).squeeze(1)),
        }
    )


@torch.no_grad()
def rank_catalogue(
    model: RankingModel,
    inputs: ModelInputs,
    test_lists: pl.DataFrame,
    availability: Tensor,
    options: PredictOptions,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rank all items available at the start of sampled test lists.

    Users are seen as they are at the list's start; item states are those of the last local midnight (every
    ``item_state_hours``), made once for all contexts that share it.

    Returns:
        ``catalogue`` and ``targets`` of ``Predictions``.
    """
    contexts = test_lists.unique("list_id", keep="first", maintain_order=True)
    size = min(options.contexts, contexts.height)
    rng = np.random.default_rng(options.seed)
    contexts = contexts[rng.choice(contexts.height, size, replace=False)].sort(
        "start_ts", "list_id"
    )
    relevant = test_lists.filter(pl.col("relevance") == 1)
    period = options.item_state_hours * MS_PER_HOUR
    contexts = contexts.with_columns(
        made_at=(pl.col("start_ts") + LOCAL_OFFSET_MS) // period * period - LOCAL_OFFSET_MS
    )
    tops, targets = [], []
    for sharing in contexts.partition_by("made_at", maintain_order=True):
        made_at = sharing["made_at"][0]
        ts = torch.from_numpy(sharing["start_ts"].to_numpy().copy()).to(inputs.device)
        items = torch.nonzero(availability <= ts.max()).squeeze(1)
        if not len(items):
            raise ValueError(f"no item is available at {int(ts.max())} ms: check upload times")
        states = torch.cat(
            [
                model.item_state(inputs, block, torch.full_like(block, made_at))
                for block in torch.split(items, options.block_rows)
            ]
        )
        for chosen in _slices(sharing.height, max(1, options.block_scores // len(items))):
            block = sharing[chosen]
            scores = _score_catalogue(model, inputs, block, states, options.block_scores)
            open_ = availability[items] <= ts[chosen].unsqueeze(1)
            scores = scores.masked_fill(~open_, -torch.inf)
            # stable: equal scores stand in the order of item ids
            ranked = scores.sort(dim=1, descending=True, stable=True)
            best = ranked.indices[:, : options.top]
            tops.append(_top(block, items[best], ranked.values[:, : options.top]))
            targets.append(_targets(block, relevant, items, scores, ranked.values))
    return pl.concat(tops), pl.concat(targets)


def fusion_tables(
    model: RankingModel, inputs: ModelInputs, block_rows: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables of ``gates`` and ``attention``.

    Raises:
        TypeError: the model has no fusion.
    """
    if not isinstance(model, MTDQN):
        raise TypeError(f"{type(model).__name__} has no fusion to look into")
    return gates(model, inputs, block_rows), attention(model, inputs, block_rows)


@torch.no_grad()
def gates(model: MTDQN, inputs: ModelInputs, block_rows: int) -> pl.DataFrame:
    """The gate of every item: one weight per modality (a vector gate is averaged over its channels)."""
    blocks = [
        model.fuse(inputs, items).gate
        for items in torch.split(
            torch.arange(inputs.stream.n_items, device=inputs.device), block_rows
        )
    ]
    gate = torch.cat(blocks)
    weights = _numpy(gate if gate.dim() == 2 else gate.mean(2))
    columns = {f"gate_{name}": weights[:, i] for i, name in enumerate(MODALITIES)}
    return pl.DataFrame({"item_id": np.arange(len(weights), dtype=np.int32), **columns})


@torch.no_grad()
def attention(model: MTDQN, inputs: ModelInputs, n_items: int) -> pl.DataFrame:
    """Mean attention from one modality's tokens to another's, by layer and head, over evenly spaced items."""
    stride = max(1, inputs.stream.n_items // n_items)
    items = torch.arange(0, inputs.stream.n_items, stride, device=inputs.device)[:n_items]
    mass = _numpy(model.fusion.attention_mass(inputs.items.select(items)))
    layer, head, query, key = np.indices(mass.shape).reshape(4, -1)
    names = np.array(MODALITIES)
    return pl.DataFrame(
        {
            "layer": layer + 1, "head": head + 1, "query": names[query], "key": names[key],
            "mass": mass.ravel(),
        }
    )  # fmt: skip


def _score_catalogue(
    model: RankingModel,
    inputs: ModelInputs,
    contexts: pl.DataFrame,
    item_states: Tensor,
    block_scores: int,
) -> Tensor:
    """Scores (B, C) of all items for every context."""
    users, ts = (
        torch.from_numpy(contexts[c].to_numpy().astype(np.int64)).to(inputs.device)
        for c in ("user_id", "start_ts")
    )
    state = model.user_state(inputs, users, ts)
    blocks = torch.split(item_states, max(1, block_scores // len(users)))
    return torch.cat([model.head(state, block.unsqueeze(0)).q for block in blocks], dim=1)


def _top(contexts: pl.DataFrame, ranked_items: Tensor, ranked_scores: Tensor) -> pl.DataFrame:
    """A row per context and place, best first (B, top); places without an available item are left out."""
    b, n = ranked_items.shape
    per_context = contexts.select(
        pl.col("list_id").alias("context_id"),
        "user_id",
        pl.col("start_ts").alias("ts_ms"),
        "scenario",
    )
    return (
        per_context[np.repeat(np.arange(b), n)]
        .with_columns(
            rank=np.tile(np.arange(1, n + 1, dtype=np.int32), b),
            item_id=_numpy(ranked_items).ravel().astype(np.int32),
            score=_numpy(ranked_scores).ravel(),
        )
        .filter(pl.col("score") > -np.inf)
    )


def _targets(
    contexts: pl.DataFrame, relevant: pl.DataFrame, items: Tensor, scores: Tensor, ranked: Tensor
) -> pl.DataFrame:
    """Mean rank of each relevant item among the available ones, from the scores in descending order."""
    wanted = (
        contexts.select(context_id="list_id")
        .with_row_index("context")
        .join(relevant, left_on="context_id", right_on="list_id", maintain_order="left")
        .with_columns(place=pl.int_range(pl.len()).over("context"))
    )
    context, place, item = (
        torch.from_numpy(wanted[c].to_numpy().astype(np.int64)).to(items.device)
        for c in ("context", "place", "item_id")
    )
    # `items` is ascending; an id that is not among them is not available in any of these contexts
    column = torch.searchsorted(items, item).clamp_max(len(items) - 1)
    own = scores[context, column].masked_fill(items[column] != item, -torch.inf)
    padded = own.new_zeros(len(contexts), int(place.max()) + 1)
    padded[context, place] = own
    # searchsorted wants an ascending order
    ahead, not_behind = (
        torch.searchsorted(-ranked, -padded, right=right)[context, place] for right in (False, True)
    )
    rank = (
        ahead + 1 + not_behind
    ).double() / 2  # ties share the mean of places ahead+1 … not_behind
    n_available = (ranked > -torch.inf).sum(1)[context]
    return wanted.select(
        "context_id", "user_id", "item_id",
        rank=pl.Series(_numpy(rank)), n_available=pl.Series(_numpy(n_available)),
    ).filter(pl.Series(_numpy(own > -torch.inf)))  # fmt: skip


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, start + size)


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = tensor.cpu().numpy()
    return array
