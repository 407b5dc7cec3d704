import struct

import numpy as np
import polars as pl
import pytest

from reelrank.features.modal.stored import dequantise, pre_extracted, raw_keys
from reelrank.features.modal.tfrecord import masked_crc32c, read_tfrecords, youtube8m_vectors
from reelrank.tables import ItemModal

ITEM_MAP = pl.DataFrame({"dense_id": [0, 1, 2], "raw_id": [70, 50, 90]})


def arrays(frame):
    return dict(frame.select("item_id", "array").iter_rows())


def test_dequantisation_by_hand():
    found = dequantise(np.array([0, 51, 255], np.uint8))
    # 4/512 − 2, then 51 · 4/255 = 0.8 more, then 4 more
    assert found == pytest.approx([-1.9921875, -1.1921875, 2.0078125])
    assert found.dtype == np.float32


def test_an_npz_of_sequences_and_single_vectors(tmp_path):
    file = tmp_path / "visual.npz"
    np.savez(
        file,
        **{
            "50": np.array([[0, 255], [51, 0], [1, 1]], np.uint8),
            "70": np.array([1.5, -2.0]),  # video level
            "11": np.zeros((1, 2)),  # no item of the log
        },
    )
    found = pre_extracted(file, ITEM_MAP, "visual", max_tokens=2)
    ItemModal.validate(found)
    assert found["item_id"].to_list() == [0, 1, 2]
    assert found["n_tokens"].to_list() == [1, 2, 0]
    assert found["present"].to_list() == [True, True, False]
    assert found["dim"].unique().to_list() == [2]
    assert found["source"].unique().to_list() == ["pre_extracted"]
    stored = arrays(found)
    assert stored[0] == [1.5, -2.0]
    assert stored[1] == pytest.approx([-1.9921875, 2.0078125, -1.1921875, -1.9921875])
    assert stored[2] == []


def test_a_folder_of_arrays(tmp_path):
    np.save(tmp_path / "90.npy", np.arange(6, dtype=np.float16).reshape(3, 2))
    found = pre_extracted(tmp_path, ITEM_MAP, "audio")
    assert found["present"].to_list() == [False, False, True]
    assert arrays(found)[2] == [0, 1, 2, 3, 4, 5]


def test_a_parquet_file_like_a_world_writes(tmp_path):
    file = tmp_path / "text.parquet"
    columns = {
        "video_id": [50, 70],
        "n_tokens": [3, 1],
        "dim": [2, 2],
        "array": [[1.0, 2, 3, 4, 5, 6], [7.0, 8]],
        "present": [True, True],
    }
    pl.DataFrame(columns).write_parquet(file)
    found = pre_extracted(file, ITEM_MAP, "text", max_tokens=2)
    ItemModal.validate(found)
    assert arrays(found) == {0: [7, 8], 1: [1, 2, 3, 4], 2: []}
    assert found["n_tokens"].to_list() == [1, 2, 0]
    with pytest.raises(ValueError, match=r"none of its 2 ids \(50, 70 …\) is an item"):
        pre_extracted(file, ITEM_MAP.with_columns(pl.col("raw_id") + 1000), "text")


def test_ids_that_are_text():
    mapped = ITEM_MAP.with_columns(raw_text=pl.Series([None, "abcd", None], dtype=pl.String))
    assert raw_keys(mapped) == ["70", "abcd", "90"]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"50": np.array([[1, 2]])}, "item 50 holds int64"),
        ({"50": np.array([[1.0, np.nan]])}, "item 50 holds values that are not finite"),
        ({"50": np.zeros((1, 2, 2))}, r"item 50 has the shape \(1, 2, 2\)"),
        ({"50": np.zeros((1, 2)), "70": np.zeros((1, 3))}, r"one width, found \[2, 3\]"),
        ({"1": np.zeros((1, 2)), "2": np.zeros((1, 2))}, r"none of its 2 ids \(1, 2 …\)"),
    ],
)
def test_wrong_vectors_are_refused(tmp_path, stored, message):
    np.savez(tmp_path / "a.npz", **stored)
    with pytest.raises(ValueError, match=message):
        pre_extracted(tmp_path / "a.npz", ITEM_MAP, "visual")


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "50.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        pre_extracted(tmp_path, ITEM_MAP, "visual")


@pytest.mark.parametrize("name", ["", "none.npz", "none.parquet"])
def test_a_place_without_vectors_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        pre_extracted(tmp_path / name, ITEM_MAP, "visual")


# What TensorFlow writes, spelled out: length-delimited fields of number and content


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(kind, *values):
    return field(kind, b"".join(values))


def entry(name, message):
    return field(1, field(1, name.encode()) + field(2, message))


def bytes_feature(value):
    return feature(1, field(1, value))


def framed(record):
    length = struct.pack("<Q", len(record))
    checks = (struct.pack("<I", masked_crc32c(memoryview(part))) for part in (length, record))
    first, second = checks
    return length + first + record + second


LABELS = entry("labels", feature(3, field(1, varint(3) + varint(300))))
FRAMES = np.array([[0, 255], [51, 7]], np.uint8)


def frame_level(video_id):
    features = b"".join(field(1, bytes_feature(row.tobytes())) for row in FRAMES)
    return field(1, entry("id", bytes_feature(video_id)) + LABELS) + field(
        2, entry("rgb", features)
    )


def video_level(video_id, *, packed=True):
    floats = [struct.pack("<f", x) for x in (0.5, -1.25)]
    values = [field(1, b"".join(floats))] if packed else [b"\x0d" + x for x in floats]
    return field(1, entry("id", bytes_feature(video_id)) + entry("mean_audio", feature(2, *values)))


def test_the_checksum_is_crc_32c():
    # CRC-32C of "123456789" is E3069283
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(memoryview(b"123456789")) == masked


def test_youtube_8m_frames(tmp_path):
    file = tmp_path / "train00.tfrecord"
    file.write_bytes(framed(frame_level(b"50")) + framed(frame_level(b"x" * 200)))
    found = dict(youtube8m_vectors(file, "visual"))
    assert list(found) == ["50", "x" * 200]
    assert np.array_equal(found["50"], FRAMES)
    rows = pre_extracted(tmp_path, ITEM_MAP, "visual")
    assert rows["present"].to_list() == [False, True, False]
    assert arrays(rows)[1] == pytest.approx(
        [-1.9921875, 2.0078125, -1.1921875, 7 * 4 / 255 - 1.9921875]
    )


@pytest.mark.parametrize("packed", [True, False])
def test_youtube_8m_videos(tmp_path, packed):
    file = tmp_path / "a.tfrecord"
    file.write_bytes(framed(video_level(b"90", packed=packed)))
    rows = pre_extracted(tmp_path, ITEM_MAP, "audio")
    assert rows["n_tokens"].to_list() == [0, 0, 1]
    assert arrays(rows)[2] == [0.5, -1.25]
    with pytest.raises(ValueError, match=r"no rgb or mean_rgb; it holds \['id', 'mean_audio'\]"):
        pre_extracted(tmp_path, ITEM_MAP, "visual")
    with pytest.raises(ValueError, match="no text features"):
        pre_extracted(tmp_path, ITEM_MAP, "text")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:5], "cut off at byte 0"),
        (lambda data: data[:-1], "cut off inside the record at byte 0"),
        (lambda data: b"\x01" + data[1:], "wrong checksum of the length at byte 0"),
        (lambda data: data[:20] + b"~" + data[21:], "wrong checksum of the record at byte 0"),
    ],
)
def test_damaged_records_are_refused(tmp_path, damage, message):
    file = tmp_path / "a.tfrecord"
    file.write_bytes(damage(framed(frame_level(b"50"))))
    with pytest.raises(ValueError, match=message):
        list(read_tfrecords(file))
