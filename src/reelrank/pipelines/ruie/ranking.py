"""Ranks of the events that users really chose, among all items and among a sample of them.

Source: METHODS §5.7, §1.5 L7.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from reelrank.evaluation.full_ranking import (
    Competitors,
    full_ranks,
    sampled_items,
    sampled_ranks,
)
from reelrank.models.sequence_data import Sequences
from reelrank.models.sequence_options import BEHAVIOURS
from reelrank.pipelines.ruie.baselines import DinModel
from reelrank.pipelines.ruie.protocol import SequenceModel, last_batch
from reelrank.pipelines.ruie.run_options import RankingOptions
from reelrank.tables import SPLITS
from reelrank.threads import side_by_side

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_DIN_TARGETS = 256  # whose scores of all items are held at once
_ENCODED = 256  # histories encoded at once: what is between the layers fits a CPU's cache


@dataclass(frozen=True)
class Ranked:
    """Places of n targets; NaN where a target was not ranked.

    Attributes:
        rank: (n,) among all items available at the target's time, ties ½.
        sampled: (n,) among itself and ``n_sampled`` random ones of them.
        n_sampled: items drawn; fewer than asked for where fewer exist.
        in_place: (n,) as ``sampled``, among more, where ``rank`` would have been too much to score.
        n_in_place: items drawn for it.
    """

    rank: FloatArray
    sampled: FloatArray
    n_sampled: int
    in_place: FloatArray
    n_in_place: int


def target_positions(log: Sequences, split: str) -> Tensor:
    """Positions (n,) of the events of a part."""
    return torch.nonzero(log.split == SPLITS.index(split)).squeeze(1)


@torch.no_grad()
def rank_targets(
    model: SequenceModel,
    log: Sequences,
    positions: Tensor,
    available: IntArray,
    options: RankingOptions,
    *,
    sample: bool = True,
) -> Ranked:
    """Rank the event at each position after the events before it.

    A target whose item counts as uploaded only later (a date that contradicts the log) is not ranked.

    Args:
        model: in evaluation mode, on the log's device.
        log: events.
        positions: (n,) of the targets.
        available: (I,) time from which each item competes, UTC epoch ms (L7).
        options: blocks and sample.
        sample: rank among sampled items, too.
    """
    item = log.item[positions].cpu().numpy()
    ts = log.ts_ms[positions].cpu().numpy()
    key = positions.cpu().numpy()
    rank, sampled, in_place = (np.full(len(item), np.nan) for _ in range(3))
    chosen = np.flatnonzero(available[item] <= ts)
    if not chosen.size:
        return Ranked(rank, sampled, 0, in_place, 0)
    fewest = int((available <= ts[chosen].min()).sum()) - 1
    n_sampled = min(options.sampled, fewest) if sample else 0
    if isinstance(model, DinModel) and chosen.size * log.n_items > options.pair_limit:
        n_in_place = min(options.in_place, fewest)
        n_drawn = max(n_sampled, n_in_place)
        for start in range(0, len(chosen) if n_drawn else 0, options.block_rows):
            rows = chosen[start : start + options.block_rows]
            drawn = sampled_items(
                log.n_items, np.arange(len(rows)), item[rows], Competitors(available_from=available, ts=ts[rows]),
                n=n_drawn, seed=options.seed, key=key[rows],
            )  # fmt: skip
            scores = _pair_scores(
                model, log, positions[_index(rows, positions)],
                _index(np.column_stack([item[rows], drawn]), positions), options.block_pairs,
            )  # fmt: skip
            # the first items of a longer draw are those of a shorter one
            in_place[rows] = _places(scores[:, : n_in_place + 1])
            if n_sampled > 0:
                sampled[rows] = _places(scores[:, : n_sampled + 1])
        return Ranked(rank, sampled, n_sampled, in_place, n_in_place)
    for rows, queries, items in _blocks(model, log, positions, chosen, options):
        each = np.arange(len(rows))
        rules = Competitors(available_from=available, ts=ts[rows])
        rank[rows] = full_ranks(queries, items, each, item[rows], rules).rank
        if n_sampled > 0:
            sampled[rows] = sampled_ranks(
                queries, items, each, item[rows], rules, n=n_sampled, seed=options.seed, key=key[rows]
            ).rank  # fmt: skip
    return Ranked(rank, sampled, n_sampled, in_place, 0)


def _pair_scores(
    model: DinModel, log: Sequences, positions: Tensor, items: Tensor, block_pairs: int
) -> Tensor:
    """Scores of each position's own items (n, C) after its history, about ``block_pairs`` at a time."""
    found = []
    n_rows = max(1, block_pairs // items.shape[1])
    for rows in torch.split(torch.arange(len(positions)), n_rows):
        history = last_batch(log, positions[rows], model.spec.length).history
        found.append(model.scores(history, items[rows]))
    return torch.cat(found)


def _places(scores: Tensor) -> FloatArray:
    """Rank (n,) of the first of each row's scores (n, 1 + competitors), ties ½."""
    own, others = scores[:, :1], scores[:, 1:]
    rank: FloatArray = (1 + (others > own).sum(1) + 0.5 * (others == own).sum(1)).double().cpu().numpy()  # fmt: skip
    return rank


def _blocks(
    model: SequenceModel,
    log: Sequences,
    positions: Tensor,
    chosen: IntArray,
    options: RankingOptions,
) -> Iterator[tuple[IntArray, npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Rows of ``positions``, and queries and items whose inner products are the model's scores."""
    if isinstance(model, DinModel):
        for start in range(0, len(chosen), _DIN_TARGETS):
            rows = chosen[start : start + _DIN_TARGETS]
            scores = din_scores(model, log, positions[_index(rows, positions)], options.block_pairs)
            # row q of the identity times column q: every item's score for target q
            yield rows, np.eye(len(rows), dtype=np.float32), scores.T.cpu().numpy()
        return
    items = model.item_vectors().cpu().numpy()
    before = (positions - log.first[log.user[positions]]).cpu().numpy()
    length = np.minimum(before, model.spec.length)
    chosen = chosen[np.argsort(length[chosen], kind="stable")]
    for start in range(0, len(chosen), options.block_rows):
        rows = chosen[start : start + options.block_rows]
        # histories of one length together: nothing is padded
        alike = np.split(rows, np.flatnonzero(np.diff(length[rows])) + 1)
        pieces = [
            p for own in alike for p in torch.split(positions[_index(own, positions)], _ENCODED)
        ]
        yield rows, torch.cat(_encoded(model, log, pieces)).cpu().numpy(), items


def _encoded(model: SequenceModel, log: Sequences, pieces: list[Tensor]) -> list[Tensor]:
    """Queries after the histories of each piece; on a CPU side by side, since threads that share such small products wait for each other."""

    @torch.no_grad()
    def queries(own: Tensor) -> Tensor:
        return model.last_queries(last_batch(log, own, model.spec.length))

    if log.user.is_cuda:
        return [queries(own) for own in pieces]
    return side_by_side(queries, pieces)


def _index(rows: IntArray, like: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(like.device)


def din_scores(model: DinModel, log: Sequences, positions: Tensor, block_pairs: int) -> Tensor:
    """Scores of all items after the history of each position, (n, I), ``block_pairs`` at a time."""
    n_items = log.n_items
    scores = torch.empty(len(positions), n_items, device=positions.device)
    n_rows = max(1, block_pairs // n_items)
    for first in range(0, len(positions), n_rows):
        rows = slice(first, first + n_rows)
        history = last_batch(log, positions[rows], model.spec.length).history
        for start in range(0, n_items, block_pairs):
            chunk = torch.arange(start, min(start + block_pairs, n_items), device=positions.device)
            scores[rows, start : start + block_pairs] = model.scores_of_all(history, chunk)
    return scores


def ranked_frame(
    events: pl.DataFrame,
    model: SequenceModel,
    log: Sequences,
    available: IntArray,
    options: RankingOptions,
) -> pl.DataFrame:
    """Every val and test event with its places.

    Args:
        events: what ``log`` was made of, in the log's order.
        model: in evaluation mode.
        log: events as tensors.
        available: see :func:`rank_targets`.
        options: blocks and sample.

    Returns:
        row_id, user_id, scenario (code), split, click, like, follow, forward, history (events before), rank, rank_sampled (null =
        not ranked), sampled (items drawn), rank_in_place and in_place (likewise, for DIN beyond its limit of pairs).
    """
    parts = []
    for split in SPLITS[1:]:
        positions = target_positions(log, split)
        found = rank_targets(model, log, positions, available, options)
        before = (positions - log.first[log.user[positions]]).cpu().numpy()
        own = events[positions.cpu().numpy()]
        parts.append(
            own.select("row_id", "user_id", "scenario", "split", *BEHAVIOURS).with_columns(
                history=pl.Series(before, dtype=pl.Int32),
                rank=pl.Series(found.rank).fill_nan(None),
                rank_sampled=pl.Series(found.sampled).fill_nan(None),
                sampled=pl.lit(found.n_sampled, pl.Int32),
                rank_in_place=pl.Series(found.in_place).fill_nan(None),
                in_place=pl.lit(found.n_in_place, pl.Int32),
            )
        )
    return pl.concat(parts)
