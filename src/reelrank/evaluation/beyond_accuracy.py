"""What recommended lists are like, whoever likes them: coverage, concentration, variety, novelty.

Lists come in long form: one row per shown place, already cut at K.
Source: METHODS §2 [S].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from reelrank.evaluation.columns import finite, require, same_length
from reelrank.evaluation.grouped import group_slots

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def coverage(items: npt.ArrayLike, n_items: int) -> float:
    """Share of the catalogue that is in at least one list.

    Args:
        items: (n,) item ids 0 … n_items − 1, of all lists.
        n_items: size of the catalogue.

    Raises:
        ValueError: an id lies outside the catalogue, or the catalogue is empty.
    """
    return float(np.count_nonzero(exposure(items, n_items)) / n_items)


def exposure(items: npt.ArrayLike, n_items: int) -> IntArray:
    """How often each item of the catalogue is shown, (n_items,). Arguments and errors as :func:`coverage`."""
    if n_items < 1:
        raise ValueError("the catalogue is empty: n_items must be ≥ 1")
    return np.bincount(_item_ids(items, n_items), minlength=n_items).astype(np.int64)


def gini(amounts: npt.ArrayLike) -> float:
    """Gini index of amounts such as :func:`exposure`: 0 = all equal, 1 − 1/n = one has everything; NaN if nothing is there to share.

    Args:
        amounts: (n,) ≥ 0; items that were never shown belong to it as zeros.

    Raises:
        ValueError: an amount is negative or not finite.
    """
    amount = finite("amount", amounts)
    require("amount", amount, amount >= 0, "≥ 0")
    if amount.sum() == 0:
        return math.nan
    place = 2 * np.arange(1, amount.size + 1) - amount.size - 1
    return float((place * np.sort(amount)).sum() / (amount.size * amount.sum()))


def category_entropy(
    categories: npt.ArrayLike, list_ids: npt.ArrayLike
) -> tuple[npt.NDArray[Any], FloatArray]:
    """−Σ q ln q of the categories in each list, in nats.

    Args:
        categories: (n,) category code of each place; −1 = the item has none, and does not count.
        list_ids: (n,) list of each place.

    Returns:
        list ids (L,) ascending and entropy (L,); NaN for a list without any category: exclude and count those.

    Raises:
        ValueError: lengths differ, or a code is not a whole number ≥ −1.
    """
    code = np.asarray(categories)
    ids, of_list = np.unique(np.asarray(list_ids), return_inverse=True)
    same_length(categories=code, list_ids=of_list)
    whole = np.issubdtype(code.dtype, np.integer)
    require("category", code, (code >= -1) & whole, "a whole number, −1 where there is none")
    known = code >= 0
    pairs = np.stack([of_list[known], code[known].astype(np.int64)])
    cells, n_cell = np.unique(pairs, axis=1, return_counts=True)
    n_list = np.bincount(cells[0], weights=n_cell, minlength=ids.size)
    share = n_cell / n_list[cells[0]]
    entropy = np.bincount(cells[0], weights=-share * np.log(share), minlength=ids.size)
    return ids, np.where(n_list > 0, entropy, np.nan)


def novelty(
    items: npt.ArrayLike, list_ids: npt.ArrayLike, popularity: npt.ArrayLike
) -> tuple[npt.NDArray[Any], FloatArray]:
    """Mean of −log₂ pop over the places of each list.

    Args:
        items: (n,) item ids 0 … n_items − 1.
        list_ids: (n,) list of each place.
        popularity: (n_items,) train exposures (L2); pop = (exposures + 1) / (Σ exposures + n_items), so that an
            item without any has a finite novelty [D].

    Returns:
        list ids (L,) ascending and novelty (L,) in bits.

    Raises:
        ValueError: lengths differ, an id lies outside the catalogue, or an amount is negative or not finite.
    """
    exposures = finite("popularity", popularity)
    require("popularity", exposures, exposures >= 0, "≥ 0")
    item = _item_ids(items, exposures.size)
    ids, of_list = group_slots(list_ids)
    same_length(items=item, list_ids=of_list)
    bits = np.log2(exposures.sum() + exposures.size) - np.log2(exposures + 1)
    n = np.bincount(of_list, minlength=ids.size)
    total = np.bincount(of_list, weights=bits[item], minlength=ids.size)
    return ids[n > 0], total[n > 0] / n[n > 0]


def _item_ids(items: npt.ArrayLike, n_items: int) -> npt.NDArray[Any]:
    item = np.asarray(items)
    item = item.astype(np.int64) if item.size == 0 else item
    inside = (item >= 0) & (item < n_items) & np.issubdtype(item.dtype, np.integer)
    require("item", item, inside, f"an id of the catalogue, 0 … {n_items - 1}")
    return item
