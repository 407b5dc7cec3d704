"""What every entrance of the modal embeddings shares: rows of the table, the texts of an item, one pooled vector.

Source: METHODS §8.2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from reelrank.tables import MODALITIES, ItemModal

Matrix = npt.NDArray[np.float32]


def pooled_vectors(item_modal: pl.DataFrame, train_item_ids: npt.NDArray[np.int32]) -> Matrix:
    """One frozen vector per item: the mean token of each modality, standardised, side by side.

    Moments come from the train items that have the modality (L2); an absent modality is zeros.

    Args:
        item_modal: ``ItemModal`` with one row per item and modality.
        train_item_ids: ids of the items in train rows.

    Returns:
        (n_items, Σ dim) float32.
    """
    n_items = int(item_modal["item_id"].n_unique())
    train = np.zeros(n_items, np.bool_)
    train[train_item_ids] = True
    pooled = []
    for modality in MODALITIES:
        rows = item_modal.filter(pl.col("modality") == modality)
        means = np.full((n_items, int(rows["dim"][0])), np.nan, np.float32)
        rows = rows.filter(pl.col("present"))
        if rows.height:
            tokens = rows["array"].explode().to_numpy().reshape(-1, means.shape[1])
            counts = rows["n_tokens"].to_numpy().astype(np.int64)
            starts = np.cumsum(counts) - counts
            means[rows["item_id"].to_numpy()] = np.add.reduceat(tokens, starts) / counts[:, None]
        pooled.append(standardise(means, train))
    return np.hstack(pooled)


def standardise(values: npt.NDArray[np.floating], train: npt.NDArray[np.bool_]) -> Matrix:
    """Columns to mean 0 and sd 1 over the train rows that are not NaN; NaN becomes 0."""
    known = ~np.isnan(values)
    fitted = known & train[:, None]
    n = np.maximum(fitted.sum(0), 1)
    mean = np.where(fitted, values, 0).sum(0, dtype=np.float64) / n
    sd = np.sqrt(np.square(np.where(fitted, values - mean, 0)).sum(0) / n)
    sd[sd < 1e-6] = 1.0
    return np.where(known, (values - mean) / sd, 0).astype(np.float32)


def item_texts(items: pl.DataFrame) -> pl.Series:
    """Caption and cover text of each item in one string, empty where it has neither."""
    joined = pl.concat_str("caption", "cover_text", separator=" ", ignore_nulls=True)
    return items.select(text=joined.fill_null("").str.strip_chars()).to_series()


def sequence_rows(
    n_items: int, modality: str, sequences: Mapping[int, Matrix], dim: int, source: str
) -> pl.DataFrame:
    """Rows of ``ItemModal`` for items 0 … n_items − 1; one without a sequence lacks the modality.

    Args:
        n_items: number of items.
        modality: visual, audio or text.
        sequences: (T, dim) float32 by item id; T = 0 is an absent modality too.
        dim: width of a vector.
        source: where the vectors come from.
    """
    n_tokens = np.zeros(n_items, np.int64)
    for item_id, tokens in sequences.items():
        n_tokens[item_id] = len(tokens)
    ordered = [sequences[item_id].ravel() for item_id in np.flatnonzero(n_tokens).tolist()]
    values = np.concatenate(ordered) if ordered else np.empty(0, np.float32)
    offsets = np.append(0, np.cumsum(n_tokens * dim))
    arrays = pa.LargeListArray.from_arrays(offsets, values)
    return ItemModal.conform(
        pl.select(
            item_id=pl.int_range(n_items),
            modality=pl.lit(modality),
            n_tokens=pl.Series(n_tokens),
            dim=pl.lit(dim),
            array=pl.Series(values=arrays),
            present=pl.Series(n_tokens > 0),
            source=pl.lit(source),
        )
    )
