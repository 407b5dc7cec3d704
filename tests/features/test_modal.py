import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from support.feature_logs import items_of

from reelrank.features.modal import (
    ProxyOptions,
    metadata_proxy,
    pooled_vectors,
    synthetic_item_modal,
)
from reelrank.tables import MODALITIES, ItemModal

ITEM_MAP = pl.DataFrame({"dense_id": [0, 1, 2], "raw_id": [70, 50, 90]})
OPTIONS = ProxyOptions(text_dim=3, min_count=1)


def modal_file(**changes):
    """Videos 50 (two tokens), 70 (absent) and 11 (not in the log); 90 has no row."""
    columns = {
        "video_id": [50, 70, 11],
        "n_tokens": [2, 0, 1],
        "dim": [2, 2, 2],
        "array": [[1.0, 2.0, 3.0, 6.0], [], [9.0, 9.0]],
        "present": [True, False, True],
    }
    types = {"n_tokens": pl.Int16, "dim": pl.Int16, "array": pl.List(pl.Float32)}
    return pl.DataFrame(columns | changes, schema_overrides=types)


def write_world(folder, **files):
    for modality in MODALITIES:
        files.get(modality, modal_file()).write_parquet(folder / f"{modality}.parquet")


def test_synthetic_by_hand(tmp_path):
    write_world(tmp_path)
    found = synthetic_item_modal(tmp_path, ITEM_MAP)
    ItemModal.validate(found)
    visual = found.filter(pl.col("modality") == "visual")
    assert visual["item_id"].to_list() == [0, 1, 2]
    assert visual["present"].to_list() == [False, True, False]
    assert visual["n_tokens"].to_list() == [0, 2, 0]
    assert visual["array"].to_list() == [[], [1, 2, 3, 6], []]
    assert found["source"].unique().to_list() == ["synthetic"]
    assert found.height == 9


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (modal_file().drop("present"), r"audio\.parquet: columns \['present'\] are missing"),
        (modal_file(dim=[2, 2, 3]), "must hold one width"),
        (modal_file(video_id=[50, 50, 11]), "video_id 50 has more than one row"),
        (modal_file(n_tokens=[1, 0, 1]), "1 rows do not hold .* first: video_id 50"),
        (modal_file(present=[True, True, True]), "first: video_id 70"),
    ],
)
def test_wrong_modality_files_are_refused(tmp_path, audio, message):
    write_world(tmp_path, audio=audio)
    with pytest.raises(ValueError, match=message):
        synthetic_item_modal(tmp_path, ITEM_MAP)


def test_missing_modality_files_are_named(tmp_path):
    modal_file().write_parquet(tmp_path / "audio.parquet")
    with pytest.raises(FileNotFoundError, match=r"visual\.parquet.*text\.parquet"):
        synthetic_item_modal(tmp_path, ITEM_MAP)


def test_pooled_vectors_by_hand():
    def row(item_id, modality, values):
        present = bool(values)
        return (item_id, modality, len(values) // 2, 2, values, present, "synthetic")

    rows = [
        row(0, "visual", [1.0, 5.0]),
        row(1, "visual", [2.0, 5.0, 4.0, 5.0]),  # mean (3, 5)
        row(2, "visual", [6.0, 7.0]),  # not a train item
        row(3, "visual", []),
    ]
    rows += [row(item, modality, []) for modality in ("audio", "text") for item in range(4)]
    frame = pl.DataFrame(rows, schema=ItemModal.polars_schema(), orient="row", strict=False)
    found = pooled_vectors(frame, np.array([0, 1, 3], np.int32))
    # moments of items 0 and 1: mean (2, 5), sd (1, 0 → 1)
    assert found[:, :2].tolist() == [[-1, 0], [1, 0], [4, 2], [0, 0]]
    assert found.shape == (4, 6)
    assert not found[:, 2:].any()


CATALOGUE = items_of(
    4,
    width=[720, 720, 1280, None],
    height=[1280, 1280, 720, None],
    duration_ms=[10_000, 20_000, 40_000, None],
    video_type=["NORMAL", "AD", "NORMAL", None],
    upload_type=["Web", "Web", "Kmovie", None],
    tags=[[12, 65], [12], [99], None],
    music_id=[5, 5, 6, None],
    music_type=[9, 4, 9, None],
)
TRAIN = np.array([0, 1], np.int32)


def matrix(frame, modality):
    rows = frame.filter(pl.col("modality") == modality)
    return {row["item_id"]: row["array"] for row in rows.iter_rows(named=True)}


def test_proxies_by_hand():
    found = metadata_proxy(CATALOGUE, TRAIN, OPTIONS)
    ItemModal.validate(found)
    assert found["source"].unique().to_list() == ["metadata_proxy"]
    visual, audio = matrix(found, "visual"), matrix(found, "audio")
    # aspect, size, both known; AD, NORMAL; Web; tags 12, 65. Train items have one shape (sd 0 → 1).
    assert visual[0] == pytest.approx([0, 0, 1, 1, 0, 1, 1, 1, 1])
    assert visual[1] == pytest.approx([0, 0, 1, 1, 1, 0, 1, 1, 0])
    assert visual[2] == pytest.approx([2 * np.log(1280 / 720), 0, 1, 1, 0, 1, 0, 0, 0])
    assert visual[3] == []
    # log duration, music frequency, both known; music types 4, 9
    assert audio[0] == pytest.approx([-1, 0, 1, 1, 0, 1])
    assert audio[2] == pytest.approx([3, -np.log(3), 1, 1, 0, 1])
    assert audio[3] == []


def test_without_captions_the_text_is_absent():
    text = metadata_proxy(CATALOGUE, TRAIN, OPTIONS).filter(pl.col("modality") == "text")
    assert not text["present"].any()
    assert text["dim"].to_list() == [3] * 4


def test_similar_captions_lie_close():
    captions = ["做一道红烧肉", "红烧肉的做法", "足球比赛集锦", None]
    catalogue = CATALOGUE.with_columns(
        caption=pl.Series(captions), cover_text=pl.Series([None, None, "精彩足球", None])
    )
    found = metadata_proxy(catalogue, np.array([0, 1, 2], np.int32), OPTIONS)
    text = matrix(found, "text")
    assert text[3] == []
    unit = [np.array(text[i]) / np.linalg.norm(text[i]) for i in range(3)]
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.3
    assert_frame_equal(found, metadata_proxy(catalogue, np.array([0, 1, 2], np.int32), OPTIONS))


def test_vocabularies_are_bounded():
    catalogue = items_of(40, tags=[[i % 10, 100 + i] for i in range(40)])
    found = metadata_proxy(
        catalogue, np.arange(40, dtype=np.int32), ProxyOptions(max_vocabulary=3, min_count=2)
    )
    visual = matrix(found, "visual")
    assert visual[0][4:] == [1, 0, 0]  # tags 0, 1, 2 are kept; 100 … are too rare
    assert visual[3][4:] == [0, 0, 0]
