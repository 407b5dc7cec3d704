"""Decodes video and audio files with PyAV (extra ``[media]``).

Source: METHODS §8.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import numpy.typing as npt

from reelrank.features.modal.mel import SAMPLE_RATE
from reelrank.features.modal.rows import Matrix

T = TypeVar("T")
RESIZE, CROP = 256, 224
SUFFIXES = frozenset(
    {
        ".mp4",
        ".mkv",
        ".webm",
        ".mov",
        ".avi",
        ".flv",
        ".m4a",
        ".mp3",
        ".wav",
        ".flac",
        ".ogg",
        ".aac",
    }
)
TIME_SLACK = 1e-6  # a frame's time is a fraction: 1 s may be read as 0.9999999


class UnreadableMediaError(ValueError):
    """A file that cannot be decoded."""


def media_files(folder: Path, item_keys: Iterable[str]) -> dict[int, Path]:
    """The media file of each item that has one.

    Args:
        folder: holds ``<raw item id>.<suffix>``.
        item_keys: raw id of items 0, 1, 2 …

    Returns:
        File by item id.

    Raises:
        FileNotFoundError: the folder does not exist, or holds no file of any item.
        ValueError: two files have one item's name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of media files")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in SUFFIXES:
            continue
        if file.stem in found:
            raise ValueError(
                f"{folder}: {found[file.stem].name} and {file.name} are one item's; keep one"
            )
        found[file.stem] = file
    files = {item: found[key] for item, key in enumerate(item_keys) if key in found}
    if not files:
        raise FileNotFoundError(
            f"{folder}: none of its {len(found)} media files is named after an item; expected <raw item id>.mp4 and the like"
        )
    return files


def read_frames(file: Path, fps: float, max_frames: int) -> npt.NDArray[np.uint8]:
    """The first frame of each 1/fps seconds: shorter side to 256 pixels, the central 224 × 224 kept.

    Args:
        file: a video.
        fps: frames taken per second.
        max_frames: first frames kept; decoding stops there.

    Returns:
        (n, 224, 224, 3) RGB; n = 0 where the file has no picture.

    Raises:
        UnreadableMediaError: the file cannot be decoded.
    """
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                return np.empty((0, CROP, CROP, 3), np.uint8)
            timed = _timed(container.decode(container.streams.video[0]), file)
            frames = [_cropped(frame) for frame in sampled(timed, fps, max_frames)]
    except (av.FFmpegError, OSError) as error:
        raise UnreadableMediaError(f"{file.name}: {error}") from error
    return np.stack(frames) if frames else np.empty((0, CROP, CROP, 3), np.uint8)


def sampled(timed: Iterable[tuple[float, T]], fps: float, most: int) -> Iterator[T]:
    """The first of the things in each 1/fps seconds since the first of all, at most ``most`` of them."""
    start, due = None, 0.0
    taken = 0
    for time, thing in timed:
        start = time if start is None else start
        if time - start + TIME_SLACK < due:
            continue
        yield thing
        taken += 1
        if taken == most:
            return
        due = (np.floor((time - start) * fps + TIME_SLACK) + 1) / fps


def read_waveform(file: Path, max_samples: int) -> Matrix:
    """The sound of a file, mono at 16 kHz.

    Args:
        file: a video or sound file.
        max_samples: first samples kept; decoding stops there.

    Returns:
        (n,) samples in [−1, 1]; n = 0 where the file has no sound.

    Raises:
        UnreadableMediaError: the file cannot be decoded.
    """
    pieces: list[Matrix] = []
    try:
        with av.open(str(file)) as container:
            if not container.streams.audio:
                return np.empty(0, np.float32)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            # None at the end empties the resampler
            for frame in chain(container.decode(container.streams.audio[0]), [None]):
                pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
                if sum(map(len, pieces)) >= max_samples:
                    break
    except (av.FFmpegError, OSError) as error:
        raise UnreadableMediaError(f"{file.name}: {error}") from error
    return np.concatenate(pieces)[:max_samples] if pieces else np.empty(0, np.float32)


def _timed(frames: Iterable[av.VideoFrame], file: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    for frame in frames:
        if frame.time is None:
            raise UnreadableMediaError(f"{file.name}: its frames carry no times")
        yield frame.time, frame


def _cropped(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    scale = RESIZE / min(frame.width, frame.height)
    width, height = round(frame.width * scale), round(frame.height * scale)
    picture = frame.reformat(width, height, format="rgb24", interpolation="BILINEAR").to_ndarray()
    top, left = (height - CROP) // 2, (width - CROP) // 2
    cropped: npt.NDArray[np.uint8] = picture[top : top + CROP, left : left + CROP]
    return cropped
