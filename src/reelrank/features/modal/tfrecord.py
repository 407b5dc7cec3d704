"""Reads YouTube-8M's TFRecord files without TensorFlow: the framing, and the two protocol-buffer messages in it.

Source: METHODS §8.2; the wire formats are documented by TensorFlow (``tf.train.Example``, ``SequenceExample``) and Protocol Buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

Wire = int | memoryview
FEATURES = {"visual": ("rgb", "mean_rgb"), "audio": ("audio", "mean_audio")}
CASTAGNOLI = 0x82F63B78


def read_tfrecords(file: Path) -> Iterator[memoryview]:
    """The records of a file, each with its checksums verified.

    Raises:
        ValueError: the file is cut off or damaged; names the file and the byte.
    """
    data = memoryview(file.read_bytes())
    at = 0
    while at < len(data):
        if at + 12 > len(data):
            raise ValueError(f"{file}: cut off at byte {at}; download it again")
        length, length_check = struct.unpack("<QI", data[at : at + 12])
        end = at + 12 + length
        if masked_crc32c(data[at : at + 8]) != length_check:
            raise ValueError(
                f"{file}: wrong checksum of the length at byte {at}; is it a TFRecord?"
            )
        if end + 4 > len(data):
            raise ValueError(f"{file}: cut off inside the record at byte {at}; download it again")
        record = data[at + 12 : end]
        if masked_crc32c(record) != struct.unpack("<I", data[end : end + 4])[0]:
            raise ValueError(
                f"{file}: wrong checksum of the record at byte {at}; download it again"
            )
        yield record
        at = end + 4


def youtube8m_vectors(file: Path, modality: str) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
    """Id and vectors of each video: [T, D] uint8 at frame level, [D] float32 at video level.

    Raises:
        ValueError: the modality is not visual or audio, or a record holds no id or no such feature.
    """
    if modality not in FEATURES:
        raise ValueError(f"{file}: YouTube-8M has no {modality} features")
    frame_name, video_name = FEATURES[modality]
    for number, record in enumerate(read_tfrecords(file)):
        # field 1 = Features (of an Example) or context; field 2 = FeatureLists of a SequenceExample
        top = dict(_fields(record))
        context = _map(top.get(1, memoryview(b"")))
        frames = _map(top.get(2, memoryview(b"")))
        video_id = context.get("id", context.get("video_id"))
        if video_id is None or not (frame_name in frames or video_name in context):
            raise ValueError(
                f"{file}: record {number} has no id or no {frame_name} or {video_name}; it holds {sorted([*context, *frames])}"
            )
        key = _values(video_id).decode()
        if frame_name in frames:
            rows = [np.frombuffer(_values(m), np.uint8) for _, m in _nested(frames[frame_name])]
            yield key, np.stack(rows)
        else:
            yield key, np.frombuffer(_values(context[video_name]), "<f4")


def masked_crc32c(data: memoryview) -> int:
    """TFRecord's checksum: CRC-32C, turned right by 15 bits, plus a constant."""
    crc = int(_crc32c(np.frombuffer(data, np.uint8), _TABLE))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _fields(message: memoryview) -> Iterator[tuple[int, Wire]]:
    """Number and value of each field of a message: an integer, or the bytes of a nested value."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _map(message: Wire) -> dict[str, memoryview]:
    """A message whose only field is a map from text to messages."""
    entries = [dict(_nested(entry)) for _, entry in _nested(message)]
    return {bytes(entry[1]).decode(): entry[2] for entry in entries if 2 in entry}


def _values(feature: memoryview) -> bytes:
    """The values of a ``Feature``, one after the other: its only field is a list whose field 1 holds them, packed or not."""
    return b"".join(value for _, kind in _nested(feature) for _, value in _nested(kind))


def _nested(message: Wire) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that are no integers."""
    if isinstance(message, int):
        raise ValueError("expected a nested message, found an integer")
    return ((number, value) for number, value in _fields(message) if not isinstance(value, int))


def _crc_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(CASTAGNOLI), table >> 1)
    return table.astype(np.uint32)


_TABLE = _crc_table()


@njit(cache=True, nogil=True)
def _crc32c(data: npt.NDArray[np.uint8], table: npt.NDArray[np.uint32]) -> np.uint32:
    crc = np.uint32(0xFFFFFFFF)
    for byte in data:
        crc = table[(crc ^ byte) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)
