"""The three modalities of every item as padded token tensors, standardised with train moments.

Source: METHODS §3.2, §1.5 L2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelrank.models.tensor_record import TensorRecord
from reelrank.tables import MODALITIES


@dataclass(frozen=True)
class ModalTokens(TensorRecord):
    """One modality of all items.

    Attributes:
        x: (n_items, T_m, D_m) float32, zero where ``mask`` is false.
        mask: (n_items, T_m) bool, true for real tokens of present items.
        present: (n_items,) bool, false = the item lacks this modality.
    """

    x: Tensor
    mask: Tensor
    present: Tensor

    def select(self, items: Tensor) -> Self:
        """The rows of items (M,)."""
        return type(self)(self.x[items], self.mask[items], self.present[items])


@dataclass(frozen=True)
class ItemTokens(TensorRecord):
    """All modalities, in the order of ``tables.MODALITIES``."""

    modalities: tuple[ModalTokens, ...]

    def select(self, items: Tensor) -> Self:
        """The rows of items (M,)."""
        return type(self)(tuple(m.select(items) for m in self.modalities))

    @classmethod
    def from_frame(
        cls,
        item_modal: pl.DataFrame,
        n_items: int,
        train_item_ids: NDArray[np.integer] | pl.Series,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Tensors of the ``item_modal`` table; every dimension has mean 0 and sd 1 over train items' present tokens.

        Args:
            item_modal: one row per (item, modality), see ``tables.ItemModal``; a missing row is an absent modality.
            n_items: number of items.
            train_item_ids: items with a train row; the moments are fitted on them only (L2).
            device: where the tensors go.

        Raises:
            ValueError: an item id out of range, two rows for one (item, modality), widths that differ inside a
                modality, or an array whose length is not n_tokens · dim.
        """
        _check(item_modal, n_items)
        is_train = np.zeros(n_items, dtype=bool)
        is_train[np.asarray(train_item_ids)] = True
        modalities = tuple(
            _modality(item_modal.filter(pl.col("modality") == m, "present"), n_items, is_train)
            for m in MODALITIES
        )
        return cls(modalities).to(device)


def _modality(rows: pl.DataFrame, n_items: int, is_train: NDArray[np.bool_]) -> ModalTokens:
    rows = rows.filter(pl.col("n_tokens") > 0)
    # a modality that no item has keeps one empty token, so that shapes exist
    length, dim = (int(rows[c].max() or 1) for c in ("n_tokens", "dim"))  # type: ignore[arg-type]  # integer columns
    item = rows["item_id"].to_numpy()
    tokens = rows["n_tokens"].to_numpy()
    mask = np.zeros((n_items, length), dtype=bool)
    mask[item] = np.arange(length) < tokens[:, None]
    x = np.zeros((n_items, length, dim), dtype=np.float32)
    # rows of the frame in item order fill the true cells of the mask in order
    flat = rows.sort("item_id")["array"].explode(empty_as_null=False).to_numpy().reshape(-1, dim)
    fitted = flat[is_train[np.repeat(np.sort(item), rows.sort("item_id")["n_tokens"].to_numpy())]]
    if len(fitted):
        sd = fitted.std(axis=0)
        flat = (flat - fitted.mean(axis=0)) / np.where(sd > 1e-6, sd, 1.0)
    x[mask] = flat
    present = mask.any(axis=1)
    return ModalTokens(torch.from_numpy(x), torch.from_numpy(mask), torch.from_numpy(present))


def _check(item_modal: pl.DataFrame, n_items: int) -> None:
    bad = item_modal.filter(~pl.col("item_id").is_between(0, n_items - 1))
    if len(bad):
        raise ValueError(f"item_modal.item_id {bad['item_id'][0]} is outside 0 … {n_items - 1}")
    if item_modal.select("item_id", "modality").is_duplicated().any():
        raise ValueError("item_modal has two rows for one (item_id, modality): keep one of them")
    present = item_modal.filter("present")
    widths = present.group_by("modality").agg(pl.col("dim").n_unique()).filter(pl.col("dim") > 1)
    if len(widths):
        raise ValueError(
            f"item_modal.dim differs inside modality {widths['modality'][0]!r}: one width per modality"
        )
    size = pl.col("n_tokens").cast(pl.Int64) * pl.col("dim")
    wrong = present.filter(pl.col("array").list.len() != size)
    if len(wrong):
        row = wrong.row(0, named=True)
        raise ValueError(
            f"item_modal.array of item {row['item_id']}, {row['modality']} has {len(row['array'])} values, "
            f"not n_tokens · dim = {row['n_tokens']} · {row['dim']}"
        )
