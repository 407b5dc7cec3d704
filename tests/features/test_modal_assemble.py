import sys

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from support.feature_logs import items_of

from reelrank.features.modal import (
    AudioOptions,
    ModalOptions,
    ProxyOptions,
    TextOptions,
    VisualOptions,
    item_modal,
    metadata_proxy,
)
from reelrank.tables import MODALITIES, ItemModal

ITEM_MAP = pl.DataFrame({"dense_id": [0, 1], "raw_id": [70, 50]})
ITEMS = items_of(2, duration_ms=[1000, 2000], caption=["一只小猫", "一只小狗"])
TRAIN = np.array([0, 1], np.int32)
PROXY = ProxyOptions(text_dim=2)


def sources(frame):
    return dict(frame.select("modality", "source").unique().iter_rows())


def write_world(folder):
    folder.mkdir()
    rows = {"video_id": [70], "n_tokens": [1], "dim": [1], "array": [[5.0]], "present": [True]}
    for modality in MODALITIES:
        pl.DataFrame(rows).write_parquet(folder / f"{modality}.parquet")
    return folder


def test_each_modality_names_its_entrance(tmp_path):
    np.savez(tmp_path / "a.npz", **{"50": np.ones((2, 3))})
    options = ModalOptions(
        visual=VisualOptions(entrance="pre_extracted", path=tmp_path / "a.npz"),
        audio=AudioOptions(entrance="proxy"),
    )
    world = write_world(tmp_path / "modal")
    found = item_modal(ITEMS, ITEM_MAP, TRAIN, options, PROXY, world)
    ItemModal.validate(found)
    assert found.select("modality", "item_id").rows() == [
        (m, i) for m in MODALITIES for i in (0, 1)
    ]
    assert sources(found) == {
        "visual": "pre_extracted",
        "audio": "metadata_proxy",
        "text": "synthetic",
    }


def test_without_a_world_proxies_are_the_default():
    found = item_modal(ITEMS, ITEM_MAP, TRAIN, ModalOptions(), PROXY)
    assert found.equals(metadata_proxy(ITEMS, TRAIN, PROXY))


def test_stored_vectors_are_cut_to_the_option(tmp_path):
    np.savez(tmp_path / "a.npz", **{"50": np.ones((400, 3))})
    for kept, change in ((300, {}), (7, {"max_stored_tokens": 7})):
        audio = AudioOptions(entrance="pre_extracted", path=tmp_path / "a.npz", **change)
        found = item_modal(ITEMS, ITEM_MAP, TRAIN, ModalOptions(audio=audio), PROXY)
        assert found.filter(pl.col("modality") == "audio")["n_tokens"].to_list() == [0, kept]


@pytest.mark.parametrize(
    ("options", "values", "message"),
    [
        (VisualOptions, {"entrance": "raw"}, "entrance raw needs path and weights"),
        (AudioOptions, {"entrance": "raw", "path": "a"}, "entrance raw needs weights"),
        (TextOptions, {"entrance": "raw"}, "entrance raw needs weights"),
        (TextOptions, {"entrance": "pre_extracted"}, "entrance pre_extracted needs path"),
    ],
)
def test_incomplete_options_are_refused(options, values, message):
    with pytest.raises(ValidationError, match=message):
        options(**values)


def test_minilm_needs_no_folder():
    assert TextOptions(entrance="raw", encoder="minilm").weights is None


@pytest.mark.parametrize(
    ("options", "module"),
    [
        (ModalOptions(text=TextOptions(entrance="raw", weights="w")), "transformers"),
        (ModalOptions(visual=VisualOptions(entrance="raw", path="p", weights="w")), "av"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, options, module):
    for name in [n for n in sys.modules if n.startswith("reelrank.features.modal.")]:
        if name.rpartition(".")[2] in ("text", "media", "encode"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(ImportError, match=rf"needs {module}: pip install 'reelrank\[media\]'"):
        item_modal(ITEMS, ITEM_MAP, TRAIN, options, PROXY)
