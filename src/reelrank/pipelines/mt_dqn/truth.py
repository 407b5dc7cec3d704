"""Rankings of the whole catalogue against a world's planted expected reward: ``true_ndcg``.

Source: METHODS §3.9; ARCHITECTURE choice 7.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.worlds.truth import Truth
from reelrank.worlds.weibo_truth import WeiboTruth

RANDOM = "random"  # the expected value of a random order, for scale
_BLOCK_CELLS = 2_000_000
SCHEMA = {"context_id": pl.UInt32, "user_id": pl.Int32, "variant": pl.String, "value": pl.Float64}


def true_ndcg(
    catalogues: Mapping[str, pl.DataFrame],
    truth: Truth | WeiboTruth,
    raw_user_ids: npt.NDArray[np.int64],
    raw_item_ids: npt.NDArray[np.int64],
    availability: npt.NDArray[np.int64],
    k: int,
    weights: Mapping[str, float],
) -> pl.DataFrame:
    """NDCG@k of each variant's top items, gain = expected immediate reward, scaled to 0 … 1 in each context.

    The scaling takes out that every video is worth something [D]: without it any ranking would score near 1.

    Args:
        catalogues: variant to context_id, user_id, ts_ms, scenario, rank, item_id, the same contexts in each.
        truth: of the world that the log came from.
        raw_user_ids: (n_users,) official id of each dense one.
        raw_item_ids: (n_items,) official id of each dense one.
        availability: (n_items,) ms from which each item is a candidate.
        k: places that count.
        weights: of the immediate reward's terms, by signal, as the models were trained with.

    Returns:
        context_id, user_id, variant, value; ``random`` is the expectation of a random order.
    """
    first = next(iter(catalogues.values()))
    contexts = first.unique("context_id", keep="first").sort("context_id")
    tops = {name: _top(frame, contexts["context_id"], k) for name, frame in catalogues.items()}
    discount = 1 / np.log2(np.arange(2, k + 2))
    values: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in [*catalogues, RANDOM]}
    block = max(1, _BLOCK_CELLS // len(raw_item_ids))
    for start in range(0, contexts.height, block):
        part = contexts[start : start + block]
        ts = part["ts_ms"].to_numpy()[:, None]
        reward = truth.expected_immediate_reward(
            raw_user_ids[part["user_id"].to_numpy()][:, None],
            raw_item_ids[None],
            ts,
            part["scenario"].to_numpy()[:, None],
            weights,
        )
        reward = np.where(availability[None] <= ts, reward, np.nan)
        low, high = (f(reward, axis=1, keepdims=True) for f in (np.nanmin, np.nanmax))
        gain = (reward - low) / (high - low)
        best = -np.sort(-np.nan_to_num(gain, nan=-1.0), axis=1)[:, :k]
        ideal = best @ discount
        for name, items in tops.items():
            shown = np.take_along_axis(gain, items[start : start + block], axis=1)
            values[name].append(shown @ discount / ideal)
        values[RANDOM].append(np.nanmean(gain, axis=1) * discount.sum() / ideal)
    return pl.concat(
        contexts.select(
            pl.col("context_id").cast(pl.UInt32),
            pl.col("user_id").cast(pl.Int32),
            variant=pl.lit(name),
            value=pl.Series(np.concatenate(blocks)),
        )
        for name, blocks in values.items()
    )


def raw_numbers(ids: pl.DataFrame) -> npt.NDArray[np.int64]:
    """The world's number of each dense id, (n,): the official id, or what follows the letter of an id in text.

    Args:
        ids: as ``IdMap``.
    """
    if ids["raw_text"].null_count() == ids.height:
        return ids["raw_id"].to_numpy()
    return ids["raw_text"].str.slice(1).cast(pl.Int64).to_numpy()


def _top(catalogue: pl.DataFrame, context_ids: pl.Series, k: int) -> npt.NDArray[np.int64]:
    """(contexts, k) item ids in order of rank.

    Raises:
        ValueError: a context has fewer than k items, or the contexts differ.
    """
    top = catalogue.filter(pl.col("rank") <= k).sort("context_id", "rank")
    if top.height != k * len(context_ids) or not top["context_id"].gather_every(k).equals(
        context_ids, check_names=False
    ):
        raise ValueError(f"every variant needs the same contexts with {k} ranked items each")
    return top["item_id"].to_numpy().astype(np.int64).reshape(-1, k)
