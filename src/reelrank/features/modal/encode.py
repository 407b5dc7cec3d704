"""Encodes media files with frozen networks (extra ``[media]``).

Source: METHODS §3.1 [S], §8.2.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import torch

from reelrank.features.modal.media import UnreadableMediaError, read_frames, read_waveform
from reelrank.features.modal.mel import log_mel_patches, samples_of
from reelrank.features.modal.options import AudioOptions, VisualOptions
from reelrank.features.modal.rows import Matrix, sequence_rows
from reelrank.models.media_encoders import (
    PICTURE_DIM,
    SOUND_DIM,
    load_audio_lstm,
    load_resnet50,
    normalise_pictures,
)

log = logging.getLogger(__name__)


def encode_visual(
    files: Mapping[int, Path],
    n_items: int,
    options: VisualOptions,
    weights: Path,
    device: torch.device,
) -> pl.DataFrame:
    """Frames of each video through ResNet-50 without its last layer.

    Args:
        files: video of each item that has one.
        n_items: number of items.
        options: frames per second, and how many.
        weights: folder with ``resnet50.safetensors``.
        device: where the network runs.

    Returns:
        One row of ``ItemModal`` per item, D = 2048, ``source = raw``; absent where there is no file, no picture, or the file is damaged (logged).

    Raises:
        ValueError: not one file can be decoded.
    """
    network = load_resnet50(weights).to(device)

    def encode(file: Path) -> Matrix:
        frames = read_frames(file, options.fps, options.max_frames)
        pictures = normalise_pictures(torch.from_numpy(frames).to(device))
        encoded: Matrix = network.features(pictures).cpu().numpy()
        return encoded

    return _encode(files, n_items, "visual", PICTURE_DIM, encode)


def encode_audio(
    files: Mapping[int, Path],
    n_items: int,
    options: AudioOptions,
    weights: Path,
    device: torch.device,
) -> pl.DataFrame:
    """Log-mel patches of each sound track through the LSTM, one vector per patch.

    Args:
        files: video or sound file of each item that has one.
        n_items: number of items.
        options: how many patches.
        weights: folder with ``audio_lstm.safetensors``.
        device: where the network runs.

    Returns:
        One row of ``ItemModal`` per item, D = 256, ``source = raw``; absent where there is no file, no sound, or the file is damaged (logged).

    Raises:
        ValueError: not one file can be decoded.
    """
    network = load_audio_lstm(weights).to(device)

    def encode(file: Path) -> Matrix:
        patches = log_mel_patches(read_waveform(file, samples_of(options.max_patches)))
        encoded: Matrix = network(torch.from_numpy(patches).to(device)).cpu().numpy()
        return encoded

    return _encode(files, n_items, "audio", SOUND_DIM, encode)


@torch.inference_mode()
def _encode(
    files: Mapping[int, Path],
    n_items: int,
    modality: str,
    dim: int,
    encode: Callable[[Path], Matrix],
) -> pl.DataFrame:
    sequences: dict[int, Matrix] = {}
    damaged: list[str] = []
    for item_id, file in files.items():
        try:
            sequences[item_id] = encode(file)
        except UnreadableMediaError as error:
            damaged.append(str(error))
    if damaged:
        first = "; ".join(damaged[:10])
        if not sequences:
            raise ValueError(f"{modality}: none of {len(files)} files can be decoded: {first}")
        log.warning(
            "%s: %s of %s files cannot be decoded, their items lack it: %s",
            modality, len(damaged), len(files), first,
        )  # fmt: skip
    return sequence_rows(n_items, modality, sequences, dim, "raw")
