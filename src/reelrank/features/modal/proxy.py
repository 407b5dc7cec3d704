"""Stand-ins for media that a release does not hold, made of an item's metadata.

Source: METHODS §8.2 (metadata_proxy).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field

from reelrank.features.modal.rows import Matrix, item_texts, standardise
from reelrank.options import Options
from reelrank.tables import MODALITIES, ItemModal


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


def _numbers(columns: list[pl.Series], train: npt.NDArray[np.bool_]) -> Matrix:
    """Standardised numbers, and for each a 1 where it is known."""
    values = np.column_stack([column.cast(pl.Float64).to_numpy() for column in columns])
    return np.hstack([standardise(values, train), ~np.isnan(values)]).astype(np.float32)


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
    # where it is used: scikit-learn costs every command of Kedro a second
    from sklearn.decomposition import TruncatedSVD  # noqa: PLC0415
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    texts = item_texts(items)
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
