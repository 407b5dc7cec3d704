"""Vectors that somebody made before: by a generated world, or by an encoder elsewhere.

Source: METHODS §8.2 (pre_extracted, synthetic).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.features.modal.rows import Matrix, sequence_rows
from reelrank.features.modal.tfrecord import youtube8m_vectors
from reelrank.tables import MODALITIES, ItemModal

MODAL_FILE_COLUMNS = ("video_id", "n_tokens", "dim", "array", "present")
log = logging.getLogger(__name__)


def synthetic_item_modal(folder: Path, item_map: pl.DataFrame) -> pl.DataFrame:
    """Read the modality files that a generated world keeps beside its logs.

    Args:
        folder: holds ``visual.parquet``, ``audio.parquet`` and ``text.parquet``.
        item_map: ``IdMap`` of the items; videos that are not in it are left out.

    Returns:
        ``ItemModal`` with ``source = synthetic``; an item without a row in a file lacks that modality.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file lacks columns, repeats a video, or holds arrays that do not fit their declared shape.
    """
    files = {modality: folder / f"{modality}.parquet" for modality in MODALITIES}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"modality files not found: {', '.join(missing)}; generate the world again"
        )
    return pl.concat(
        _parquet_rows(file, item_map, modality, "synthetic") for modality, file in files.items()
    )


def pre_extracted(
    path: Path, item_map: pl.DataFrame, modality: str, max_tokens: int = 300
) -> pl.DataFrame:
    """Read vectors that were extracted elsewhere.

    A Parquet file has the columns of a world's modality files. In an npz file each key, and in a folder each
    ``<id>.npy``, is a raw item id with a [T, D] or [D] array. A folder of ``*.tfrecord`` files is read as YouTube-8M: frame level (``rgb``, ``audio``) or
    video level (``mean_rgb``, ``mean_audio``). uint8 values are YouTube-8M's quantisation and are undone.
    Source: METHODS §8.2.

    Args:
        path: the file or folder.
        item_map: ``IdMap`` of the items; vectors of other items are counted and left out.
        modality: visual, audio or text.
        max_tokens: first vectors of a sequence that are kept.

    Returns:
        One row of ``ItemModal`` per item with ``source = pre_extracted``; an item without vectors lacks the modality.

    Raises:
        FileNotFoundError: nothing lies at ``path``, or a folder holds neither kind of file.
        ValueError: widths differ, a value is not a number, an id occurs twice, or no vector belongs to an item.
    """
    if path.suffix == ".parquet":
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: {modality}.path names no file")
        rows = _parquet_rows(path, item_map, modality, "pre_extracted", max_tokens)
        if not rows["present"].any():
            raise _no_match(path, pl.read_parquet(path, columns=["video_id"])["video_id"].to_list())
        return rows
    items = dict(zip(raw_keys(item_map), item_map["dense_id"].to_list(), strict=True))
    sequences: dict[int, Matrix] = {}
    unknown: list[str] = []
    for key, values in _vectors(path, modality):
        if key not in items:
            unknown.append(key)
        elif items[key] in sequences:
            raise ValueError(f"{path}: item {key} has more than one sequence; keep one of them")
        else:
            sequences[items[key]] = _sequence(values, f"{path}: item {key}")[:max_tokens]
    if not sequences:
        raise _no_match(path, unknown)
    widths = sorted({tokens.shape[1] for tokens in sequences.values()})
    if len(widths) > 1:
        raise ValueError(f"{path}: vectors of one modality have one width, found {widths}")
    log.info("%s: vectors of %s items, %s of no item", path, len(sequences), len(unknown))
    return sequence_rows(item_map.height, modality, sequences, widths[0], "pre_extracted")


def raw_keys(item_map: pl.DataFrame) -> list[str]:
    """The items' ids in the official files as text, in the order of ``item_map``."""
    raw = pl.col("raw_id").cast(pl.String)
    if "raw_text" in item_map.columns:
        raw = pl.coalesce("raw_text", raw)
    return item_map.select(raw.alias("key")).to_series().to_list()


def dequantise(quantised: npt.NDArray[np.uint8]) -> Matrix:
    """YouTube-8M's bytes as numbers in [−2, 2]: x = q · 4/255 + 4/512 − 2.

    Source: METHODS §8.2 [R].
    """
    return quantised.astype(np.float32) * np.float32(4 / 255) + np.float32(4 / 512 - 2)


def _vectors(path: Path, modality: str) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
    if path.suffix == ".npz" and path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            yield from stored.items()
        return
    arrays, records = sorted(path.glob("*.npy")), sorted(path.glob("*.tfrecord"))
    if not arrays and not records:
        raise FileNotFoundError(
            f"{path} is no Parquet or npz file, and no folder of .npy or .tfrecord files"
        )
    for file in arrays:
        yield file.stem, np.load(file, allow_pickle=False)
    for file in records:
        yield from youtube8m_vectors(file, modality)


def _sequence(values: npt.NDArray[np.generic], where: str) -> Matrix:
    """A checked [T, D] sequence; one vector is a sequence of length 1."""
    if values.ndim not in (1, 2) or not values.shape[-1]:
        raise ValueError(f"{where} has the shape {values.shape}, expected [T, D] or [D]")
    if values.dtype == np.uint8:
        tokens = dequantise(values.astype(np.uint8, copy=False))
    elif np.issubdtype(values.dtype, np.floating):
        tokens = values.astype(np.float32)
    else:
        raise ValueError(f"{where} holds {values.dtype}, expected floats or YouTube-8M's uint8")
    if not np.isfinite(tokens).all():
        raise ValueError(f"{where} holds values that are not finite numbers")
    return np.atleast_2d(tokens)


def _no_match(path: Path, keys: list[object] | list[str]) -> ValueError:
    return ValueError(
        f"{path}: none of its {len(keys)} ids ({', '.join(map(str, keys[:3]))} …) is an item of the log; "
        "ids must be those of the official files"
    )


def _parquet_rows(
    file: Path, item_map: pl.DataFrame, modality: str, source: str, max_tokens: int | None = None
) -> pl.DataFrame:
    stored, dim = _read_modality(file)
    if max_tokens is not None:
        stored = stored.with_columns(
            pl.col("n_tokens").clip(upper_bound=max_tokens),
            pl.col("array").list.head(max_tokens * dim),
        )
    video_id = "raw_text" if stored["video_id"].dtype == pl.String else "raw_id"
    ids = item_map.select(pl.col("dense_id").alias("item_id"), pl.col(video_id).alias("video_id"))
    return ItemModal.conform(
        ids.sort("item_id")
        .join(stored, on="video_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("n_tokens").fill_null(0),
            pl.col("array").fill_null([]),
            pl.col("present").fill_null(False),
            dim=pl.lit(dim),
            modality=pl.lit(modality),
            source=pl.lit(source),
        )
    )


def _read_modality(file: Path) -> tuple[pl.DataFrame, int]:
    """The checked rows of one modality file (without ``dim``) and their common width."""
    missing = set(MODAL_FILE_COLUMNS) - set(pl.read_parquet_schema(file))
    if missing:
        raise ValueError(
            f"{file}: columns {sorted(missing)} are missing; expected {list(MODAL_FILE_COLUMNS)}"
        )
    frame = pl.read_parquet(file, columns=list(MODAL_FILE_COLUMNS))
    dims = frame["dim"].unique().to_list()
    if len(dims) != 1:
        raise ValueError(f"{file}: column dim must hold one width, found {dims}")
    repeated = frame.filter(pl.col("video_id").is_duplicated())
    if repeated.height:
        raise ValueError(f"{file}: video_id {repeated['video_id'][0]} has more than one row")
    tokens = pl.col("n_tokens").cast(pl.Int64)
    wrong = frame.filter(
        (pl.col("array").list.len() != tokens * dims[0]) | (pl.col("present") != (tokens > 0))
    )
    if wrong.height:
        raise ValueError(
            f"{file}: {wrong.height} rows do not hold n_tokens · dim values in column array, with present = (n_tokens > 0); "
            f"first: video_id {wrong['video_id'][0]}"
        )
    return frame.drop("dim"), dims[0]
