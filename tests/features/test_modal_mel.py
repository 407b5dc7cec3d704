import numpy as np
import pytest
from scipy.signal import stft

from reelrank.features.modal.mel import log_mel_patches, mel_filters, samples_of


def test_filters_by_hand():
    # 2 bands between 0 and 8 kHz: mel(8000) = 1127 ln(1 + 8000/700) = 2840.04, edges at 0, 946.68, 1893.36, 2840.04
    filters = mel_filters(2, 0.0, 8_000.0)
    assert filters.shape == (257, 2)
    # bin 32 is 1,000 Hz: mel 1127 ln(1 + 10/7) = 999.99, which is 53.31 past the first centre
    assert filters[32] == pytest.approx([1 - 53.31 / 946.68, 53.31 / 946.68], abs=1e-4)
    assert filters[0].tolist() == [0, 0]
    assert filters[256] == pytest.approx([0, 0], abs=1e-12)
    # between the two centres the slopes add up to 1
    inside = (filters > 0).all(1)
    assert filters[inside].sum(1) == pytest.approx(1)
    assert filters.max() <= 1


def test_bands_outside_the_range_hear_nothing():
    filters = mel_filters(64, 125.0, 7_500.0)
    frequency = np.arange(257) * 16_000 / 512
    assert filters[(frequency <= 125) | (frequency >= 7_500)].max() < 1e-12  # rounding at the edge
    assert (filters.sum(0) > 0).all()


def test_the_spectrum_is_that_of_scipy():
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, samples_of(1)).astype(np.float32)
    _, _, spectrum = stft(
        sound, nperseg=400, noverlap=240, nfft=512, boundary=None, padded=False, scaling="spectrum"
    )
    hann_sum = 200  # scipy divides by the sum of its window
    expected = np.log(hann_sum * np.abs(spectrum).T @ mel_filters(64, 125.0, 7_500.0) + 0.01)
    found = log_mel_patches(sound)
    assert found.shape == (1, 96, 64)
    assert found[0] == pytest.approx(expected, abs=1e-4)


def test_a_tone_is_loudest_in_its_band():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(samples_of(2)) / 16_000).astype(np.float32)
    patches = log_mel_patches(tone)
    # mel(1,000 Hz) = 1000
    centres = np.linspace(1127 * np.log1p(125 / 700), 1127 * np.log1p(7_500 / 700), 66)[1:-1]
    assert (patches.argmax(2) == np.abs(centres - 1_000).argmin()).all()


@pytest.mark.parametrize(
    ("n", "patches"), [(0, 0), (1, 1), (15_600, 1), (15_600 + 15_359, 1), (15_600 + 15_360, 2)]
)
def test_number_of_patches(n, patches):
    # one patch is 95 · 160 + 400 samples, each further one 96 · 160
    assert log_mel_patches(np.zeros(n, np.float32)).shape == (patches, 96, 64)


def test_silence_is_the_floor():
    assert log_mel_patches(np.zeros(400, np.float32)) == pytest.approx(np.log(0.01))
