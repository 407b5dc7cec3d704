"""Log-mel spectrograms in patches, as an audio encoder reads them.

Source: METHODS §8.2 (16 kHz, 25/10 ms, 64 bands, 96 frames); the rest as in VGGish [R]: magnitudes of a Hann window, 125–7,500 Hz, ln(x + 0.01).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reelrank.features.modal.rows import Matrix

SAMPLE_RATE = 16_000
WINDOW, HOP, FFT = 400, 160, 512
N_MELS, PATCH = 64, 96
LOW_HZ, HIGH_HZ = 125.0, 7_500.0
LOG_OFFSET = 0.01


def samples_of(n_patches: int) -> int:
    """Samples that ``n_patches`` patches reach over."""
    return (n_patches * PATCH - 1) * HOP + WINDOW


def log_mel_patches(waveform: Matrix) -> npt.NDArray[np.float32]:
    """Non-overlapping patches of a log-mel spectrogram.

    Args:
        waveform: (n,) mono samples in [−1, 1] at 16 kHz.

    Returns:
        (n_patches, 96, 64) float32. What does not fill a patch is left out; a sound shorter than one is padded with silence, an
        empty one has no patches.
    """
    if not len(waveform):
        return np.empty((0, PATCH, N_MELS), np.float32)
    padded = np.pad(waveform, (0, max(samples_of(1) - len(waveform), 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    windows = windows[: len(windows) // PATCH * PATCH]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitude = np.abs(np.fft.rfft(windows * hann, FFT))
    mel = np.log(magnitude @ mel_filters(N_MELS, LOW_HZ, HIGH_HZ) + LOG_OFFSET)
    return mel.astype(np.float32).reshape(-1, PATCH, N_MELS)


def mel_filters(n_mels: int, low_hz: float, high_hz: float) -> npt.NDArray[np.float64]:
    """Triangular filters, equally wide and spaced on the mel scale, 1 at their centres.

    mel(f) = 1127 ln(1 + f/700); the slopes are straight lines in mel.

    Returns:
        (257, n_mels) weight of each frequency of the transform in each band.
    """
    edges = np.linspace(_mel(low_hz), _mel(high_hz), n_mels + 2)
    frequency = _mel(np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT)[:, None]
    step = edges[1] - edges[0]
    filters: npt.NDArray[np.float64] = np.maximum(1 - np.abs(frequency - edges[1:-1]) / step, 0)
    return filters


def _mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return 1127 * np.log1p(np.asarray(hz, np.float64) / 700)
