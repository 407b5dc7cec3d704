"""Vectors of an item's modalities: read from a world, or made from metadata as proxies.

Source: METHODS §8.2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from reelrank.options import Options
from reelrank.tables import MODALITIES, ItemModal

Matrix = npt.NDArray[np.float32]
MODAL_FILE_COLUMNS = ("video_id", "n_tokens", "dim", "array", "present")


class ProxyOptions(Options):
    """Sizes of the metadata proxies."""

    max_vocabulary: int = Field(
        64, ge=1, le=4096, description="values kept per categorical field, most frequent first [D]"
    )
    min_count: int = Field(
        2, ge=1, description="train items that must carry a value for it to be kept [D]"
    )
    text_dim: int = Field(256, ge=2, le=1024, description="dimensions of the text's SVD")
    text_features: int = Field(
        50_000, ge=2, description="character n-grams kept, most frequent first [D]"
    )
    seed: int = Field(0, ge=0, description="seed of the randomised SVD")


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
    ids = item_map.select(pl.col("dense_id").alias("item_id"), pl.col("raw_id").alias("video_id"))
    frames = []
    for modality, file in files.items():
        stored, dim = _read_modality(file)
        frames.append(
            ids.sort("item_id")
            .join(stored, on="video_id", how="left", maintain_order="left")
            .with_columns(
                pl.col("n_tokens").fill_null(0),
                pl.col("array").fill_null([]),
                pl.col("present").fill_null(False),
                dim=pl.lit(dim),
                modality=pl.lit(modality),
                source=pl.lit("synthetic"),
            )
        )
    return ItemModal.conform(pl.concat(frames))


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


def metadata_proxy(
    items: pl.DataFrame, train_item_ids: npt.NDArray[np.int32], options: ProxyOptions
) -> pl.DataFrame:
    """Stand-ins for media that a release does not hold, one vector per item and modality.

    *visual*: aspect ratio, picture size, video type, upload type, first-level category, tags. *audio*: music type, number of train
    items with the same music, duration. *text*: caption and cover text, character 2–4-gram TF-IDF + SVD; absent where a
    release has no texts, since the tags are in *visual* already. They are proxies and must be reported as such.
    Source: METHODS §8.2 (metadata_proxy).

    Args:
        items: ``Items``; ``item_id`` = row number.
        train_item_ids: ids of the items in train rows; vocabularies, moments and the SVD are fitted on these (L2).
        options: sizes.

    Returns:
        ``ItemModal`` with ``source = metadata_proxy`` and ``n_tokens`` 1 where the item has any of a modality's fields.
    """
    train = np.zeros(items.height, np.bool_)
    train[train_item_ids] = True
    width, height = items["width"].cast(pl.Float64), items["height"].cast(pl.Float64)
    aspect, size = (width / height).log(), (width * height).sqrt().log()
    duration = items["duration_ms"].cast(pl.Float64).log()
    visual_fields = ("video_type", "upload_type", "category_1", "tags")
    visual = np.hstack(
        [_numbers([aspect, size], train)]
        + [_multi_hot(items, field, train, options) for field in visual_fields]
    )
    audio = np.hstack(
        [
            _numbers([duration, _train_frequency(items["music_id"], train)], train),
            _multi_hot(items, "music_type", train, options),
        ]
    )
    text, has_text = _text(items, train, options)
    has_visual = _any_known(items, ("width", "height", *visual_fields))
    has_audio = _any_known(items, ("duration_ms", "music_id", "music_type"))
    parts = {
        "visual": (visual, has_visual),
        "audio": (audio, has_audio),
        "text": (text, has_text),
    }
    return ItemModal.conform(
        pl.concat(
            _one_token(items["item_id"], modality, *parts[modality]) for modality in MODALITIES
        )
    )


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
        pooled.append(_standardise(means, train))
    return np.hstack(pooled)


def _standardise(values: npt.NDArray[np.floating], train: npt.NDArray[np.bool_]) -> Matrix:
    """Columns to mean 0 and sd 1 over the train rows that are not NaN; NaN becomes 0."""
    known = ~np.isnan(values)
    fitted = known & train[:, None]
    n = np.maximum(fitted.sum(0), 1)
    mean = np.where(fitted, values, 0).sum(0, dtype=np.float64) / n
    sd = np.sqrt(np.square(np.where(fitted, values - mean, 0)).sum(0) / n)
    sd[sd < 1e-6] = 1.0
    return np.where(known, (values - mean) / sd, 0).astype(np.float32)


def _numbers(columns: list[pl.Series], train: npt.NDArray[np.bool_]) -> Matrix:
    """Standardised numbers, and for each a 1 where it is known."""
    values = np.column_stack([column.cast(pl.Float64).to_numpy() for column in columns])
    return np.hstack([_standardise(values, train), ~np.isnan(values)]).astype(np.float32)


def _multi_hot(
    items: pl.DataFrame, field: str, train: npt.NDArray[np.bool_], options: ProxyOptions
) -> Matrix:
    """Columns of 0/1, one per value that is frequent among train items."""
    long = items.select("item_id", pl.col(field).alias("value"))
    if items[field].dtype == pl.List:
        long = long.explode("value")
    long = long.drop_nulls().unique()
    vocabulary = (
        long.filter(pl.Series(train[long["item_id"].to_numpy()], dtype=pl.Boolean))
        .group_by("value")
        .len()
        .filter(pl.col("len") >= options.min_count)
        .sort("len", "value", descending=[True, False])
        .head(options.max_vocabulary)
        .with_row_index("slot")
    )
    hits = long.join(vocabulary, on="value").select("item_id", "slot")
    hot = np.zeros((items.height, vocabulary.height), np.float32)
    hot[hits["item_id"].to_numpy(), hits["slot"].to_numpy()] = 1
    return hot


def _train_frequency(values: pl.Series, train: npt.NDArray[np.bool_]) -> pl.Series:
    """log(1 + number of train items with the same value); null where the value is null."""
    counts = values.filter(pl.Series(train)).drop_nulls().value_counts(name="n")
    joined = values.to_frame().join(counts, on=values.name, how="left", maintain_order="left")
    frequency = joined["n"].fill_null(0).log1p()
    return pl.select(pl.when(values.is_not_null()).then(frequency)).to_series()


def _text(
    items: pl.DataFrame, train: npt.NDArray[np.bool_], options: ProxyOptions
) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """TF-IDF + SVD of caption and cover text, and which items have any; columns past the rank of the texts are 0."""
    texts = items.select(
        pl.concat_str("caption", "cover_text", separator=" ", ignore_nulls=True)
        .fill_null("")
        .str.strip_chars()
    ).to_series()
    has_text = (texts != "").to_numpy()
    vectors = np.zeros((items.height, options.text_dim), np.float32)
    fitted = texts.filter(pl.Series(train & has_text))
    rank = min(options.text_dim, fitted.n_unique() - 1)
    if rank < 1:  # no texts to learn from
        return vectors, np.zeros_like(has_text)
    tfidf = TfidfVectorizer(
        analyzer="char", ngram_range=(2, 4), max_features=options.text_features, dtype=np.float32
    )
    svd = TruncatedSVD(rank, random_state=options.seed)
    svd.fit(tfidf.fit_transform(fitted.to_list()))
    vectors[has_text, :rank] = svd.transform(
        tfidf.transform(texts.filter(pl.Series(has_text)).to_list())
    )
    return vectors, has_text


def _any_known(items: pl.DataFrame, fields: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    return items.select(pl.any_horizontal(pl.col(fields).is_not_null())).to_series().to_numpy()


def _one_token(
    item_id: pl.Series, modality: str, vectors: Matrix, present: npt.NDArray[np.bool_]
) -> pl.DataFrame:
    """Rows of ``ItemModal`` with one vector each, empty where the modality is absent."""
    array = pl.Series(vectors).arr.to_list()
    return pl.select(
        item_id=item_id,
        modality=pl.lit(modality),
        n_tokens=pl.Series(present).cast(pl.Int16),
        dim=pl.lit(vectors.shape[1]),
        array=pl.when(pl.Series(present)).then(array).otherwise(pl.lit([], pl.List(pl.Float32))),
        present=pl.Series(present),
        source=pl.lit("metadata_proxy"),
    )
