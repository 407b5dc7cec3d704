"""Static user attributes as small integer codes, with vocabularies of train users.

Layer-0 state of a user in the temporal graph [D: METHODS §3.6 leaves it open; a user without events still has these]. L2: §1.5.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelrank.models.tensor_record import TensorRecord

MAX_NUMERIC_VALUES = 32
MAX_VOCABULARY = 2048


@dataclass(frozen=True)
class UserFeatures(TensorRecord):
    """One code per user and attribute.

    Attributes:
        codes: (n_users, F) int64; 0 = null or not seen among train users.
        cardinalities: number of codes of each attribute, the 0 included.
        fields: names of the attributes.
    """

    codes: Tensor
    cardinalities: tuple[int, ...]
    fields: tuple[str, ...]

    @classmethod
    def from_frame(
        cls,
        users: pl.DataFrame,
        train_user_ids: NDArray[np.integer] | pl.Series,
        device: torch.device | str = "cpu",
        *,
        categorical: Collection[str] = (),
    ) -> Self:
        """Codes of every attribute, fitted on train users only (L2).

        A numeric column with more than ``MAX_NUMERIC_VALUES`` distinct train values is cut at train deciles, so that
        an unbounded one cannot grow the table; every other column keeps its ``MAX_VOCABULARY`` commonest train values.

        Args:
            users: ``tables.Users``: user_id = row number, then attributes.
            train_user_ids: users with a train row.
            device: where the tensors go.
            categorical: numeric columns that hold codes and must not be cut, however many values they have.

        Raises:
            ValueError: user_id is not 0 … n−1 in order, or a ``categorical`` column does not exist.
        """
        if not np.array_equal(users["user_id"].to_numpy(), np.arange(len(users))):
            raise ValueError("users.user_id must be 0 … n−1 in order: sort the table by user_id")
        if unknown := set(categorical) - set(users.columns):
            raise ValueError(f"categorical names columns that users lacks: {sorted(unknown)}")
        fields = tuple(c for c in users.columns if c != "user_id")
        train = np.unique(np.asarray(train_user_ids))
        pairs = [attribute_codes(users[c], train, cut=c not in categorical) for c in fields]
        codes = np.stack([c for c, _ in pairs], axis=1) if pairs else np.zeros((len(users), 0))
        return cls(
            codes=torch.from_numpy(codes.astype(np.int64)),
            cardinalities=tuple(n for _, n in pairs),
            fields=fields,
        ).to(device)


def attribute_codes(
    values: pl.Series, train: NDArray[np.integer], *, cut: bool
) -> tuple[NDArray[np.int64], int]:
    """Codes of one column and their number, the 0 (null or not seen in train) included.

    Args:
        values: one value per user or item.
        train: rows of ``values`` that the codes are fitted on (L2).
        cut: a numeric column with more than ``MAX_NUMERIC_VALUES`` train values is cut at train deciles.
    """
    if values.dtype.is_float():
        values = values.fill_nan(None)
    seen = values.gather(train).drop_nulls()
    if cut and values.dtype.is_numeric() and seen.n_unique() > MAX_NUMERIC_VALUES:
        edges = np.unique(np.quantile(seen.to_numpy().astype(np.float64), np.arange(1, 10) / 10))
        bins = np.searchsorted(edges, values.cast(pl.Float64).to_numpy(), side="right") + 1
        return np.where(values.is_null().to_numpy(), 0, bins), len(edges) + 2
    counts = (
        seen.cast(pl.String).value_counts().sort(["count", values.name], descending=[True, False])
    )
    vocabulary = counts[values.name].head(MAX_VOCABULARY).sort()
    codes = values.cast(pl.String).replace_strict(
        vocabulary, np.arange(1, len(vocabulary) + 1), default=0, return_dtype=pl.Int64
    )
    return codes.fill_null(0).to_numpy(), len(vocabulary) + 1
