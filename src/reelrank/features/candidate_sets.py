"""Candidate sets of requests: what was shown, and a sample of what could have been, with the probabilities of the draw.

No release logs what was considered and not shown: the non-shown candidates are constructed, and must be reported as such.
Source: METHODS §4.2 (K2), §1.5 L2, L7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from numba import njit
from pydantic import Field

from reelrank.draws import stream_key, uniform
from reelrank.options import Options
from reelrank.tables import CandidateSets

POPULARITY_POWER = 0.75  # METHODS §3.7 [D]


class CandidateSetOptions(Options):
    """How large a candidate set is, and how its non-shown items are drawn."""

    size: int = Field(
        40, ge=1, le=10_000, description="items of a set, shown ones included [D: METHODS §4.2]"
    )
    sampling: Literal["uniform", "popularity"] = Field(
        "uniform",
        description="non-shown items with equal weights, or with weights (train popularity)^0.75",
    )
    seed: int = Field(0, ge=0, description="seed of the draws")


@dataclass(frozen=True)
class CandidatePool:
    """The items that may be drawn, in order of availability: at any time the available ones are a prefix.

    Attributes:
        items: (n,) item ids.
        availability: (n,) of ``items``, ascending, UTC epoch ms.
        cumulative_weight: (n + 1,) float64, starts with 0.
        slot: (n_items,) place of each item in ``items``, −1 = never drawn.
    """

    items: npt.NDArray[np.int32]
    availability: npt.NDArray[np.int64]
    cumulative_weight: npt.NDArray[np.float64]
    slot: npt.NDArray[np.int64]

    @classmethod
    def fit(
        cls,
        availability: npt.NDArray[np.int64],
        popularity: npt.NDArray[np.int64],
        sampling: Literal["uniform", "popularity"],
    ) -> Self:
        """Prepare draws.

        Args:
            availability: (n_items,) from ``features.candidates.availability_ts``.
            popularity: (n_items,) train exposures (L2); with ``popularity`` an item without any is never drawn.
            sampling: the weights.
        """
        weight = popularity**POPULARITY_POWER if sampling == "popularity" else popularity**0.0
        order = np.argsort(availability, kind="stable")
        order = order[weight[order] > 0]
        slot = np.full(len(availability), -1, np.int64)
        slot[order] = np.arange(len(order))
        cumulative = np.append(0.0, np.cumsum(weight[order]))
        return cls(order.astype(np.int32), availability[order], cumulative, slot)


def candidate_sets(
    interactions: pl.DataFrame, pool: CandidatePool, options: CandidateSetOptions
) -> pl.DataFrame:
    """The candidate set of each request (bucket function).

    The available non-shown items lie side by side on a line, each as long as its weight; the line is cut into m equal pieces, m = size − shown
    items, and one point falls into each piece: Pr(item drawn) = 1 − Π_j (1 − share of piece j that the item covers), exactly. An
    item hit twice counts once, so a set may be smaller than ``size``. A draw depends on the seed and the request
    alone, not on buckets or engines.
    Source: METHODS §4.2, §1.5 L7; stratified draws [D].

    Args:
        interactions: every row of some users, as ``Interactions``.
        pool: what may be drawn.
        options: size and seed.

    Returns:
        ``CandidateSets``, in order of (user, time), a request's shown items first; items available only after the request are never drawn.
    """
    requests = (
        interactions.group_by("user_id", "request_id")
        .agg(pl.col("ts_ms").min(), pl.col("item_id").unique())
        .sort("user_id", "ts_ms", "request_id")
        .with_row_index("request")
    )
    shown = requests.select("request", "item_id").explode("item_id")
    shown = shown.with_columns(slot=pool.slot[shown["item_id"].to_numpy()]).sort("request", "slot")
    n_shown = requests["item_id"].list.len().to_numpy().astype(np.int64)
    n_drawn = np.maximum(options.size - n_shown, 0)
    request = np.empty(int(n_drawn.sum()), np.uint32)
    slot = np.empty(len(request), np.int64)
    probability = np.empty(len(request), np.float64)
    n_sampled = _draw(
        requests["request_id"].to_numpy(),
        n_drawn,
        np.searchsorted(pool.availability, requests["ts_ms"].to_numpy(), side="right"),
        np.append(0, np.cumsum(n_shown)),
        shown["slot"].to_numpy(),
        pool.cumulative_weight,
        options.seed,
        (request, slot, probability),
    )
    sampled = pl.DataFrame(
        {
            "request": request[:n_sampled],
            "item_id": pool.items[slot[:n_sampled]],
            "shown": 0,
            "probability": probability[:n_sampled],
        }
    )
    certain = shown.sort("request", "item_id").select(
        "request", "item_id", shown=pl.lit(1, pl.Int32), probability=pl.lit(1.0)
    )
    sets = pl.concat([certain, sampled.cast({"shown": pl.Int32})])
    return CandidateSets.conform(
        sets.sort("request", maintain_order=True).join(
            requests.select("request", "user_id", "request_id"),
            on="request",
            maintain_order="left",
        )
    )


@njit(cache=True, nogil=True)
def _draw(
    request_id: npt.NDArray[np.int64],
    n_drawn: npt.NDArray[np.int64],
    n_available: npt.NDArray[np.int64],
    first_shown: npt.NDArray[np.int64],
    shown_slot: npt.NDArray[np.int64],
    cumulative: npt.NDArray[np.float64],
    seed: int,
    out: tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.float64]],
) -> int:
    """Fill ``out`` = (request, slot, probability) of the draws; answer how many there are.

    Slots are walked in order, so the shown ones are passed, and repeated hits met, one after the other.
    """
    n = 0
    for r in range(len(request_id)):
        available, m = n_available[r], n_drawn[r]
        shown = shown_slot[first_shown[r] : first_shown[r + 1]]
        shown = shown[(shown >= 0) & (shown < available)]
        n_others = available - len(shown)
        if m == 0:
            continue
        if n_others <= m:  # all of them
            p = 0
            for slot in range(available):
                if p < len(shown) and shown[p] == slot:
                    p += 1
                else:
                    out[0][n], out[1][n], out[2][n] = r, slot, 1.0
                    n += 1
            continue
        total = cumulative[available]
        for s in shown:
            total -= cumulative[s + 1] - cumulative[s]
        width = total / m
        key = stream_key(seed, request_id[r])
        p, removed, last = 0, 0.0, -1
        for j in range(m):
            point = (j + uniform(key, j)) * width
            while p < len(shown) and point >= cumulative[shown[p]] - removed:
                removed += cumulative[shown[p] + 1] - cumulative[shown[p]]
                p += 1
            slot = np.searchsorted(cumulative, point + removed, side="right") - 1
            # rounding may lift a point over the end, or leave it on a shown item's edge
            if slot >= available or slot == last or (p > 0 and slot == shown[p - 1]):
                continue
            last = slot
            low = (cumulative[slot] - removed) / width
            high = (cumulative[slot + 1] - removed) / width
            out[0][n], out[1][n], out[2][n] = r, slot, _hit(low, high)
            n += 1
    return n


@njit(cache=True, nogil=True)
def _hit(low: float, high: float) -> float:
    """Probability that one uniform point in each of the pieces [0, 1), [1, 2) … falls into [low, high) at least once."""
    first: float = np.floor(low)
    last: float = max(np.ceil(high) - 1, first)
    if last == first:
        return high - low
    if last > first + 1:  # covers a whole piece
        return 1.0
    return 1 - (low - first) * max(last + 1 - high, 0.0)
