"""Media files are written and read with PyAV; without the extra [media] these tests are skipped."""

import logging

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from support.feature_logs import items_of

from reelrank.features.modal import (
    AudioOptions,
    ModalOptions,
    ProxyOptions,
    VisualOptions,
    item_modal,
)
from reelrank.models.media_encoders import AudioLSTM, ResNet50
from reelrank.tables import ItemModal

av = pytest.importorskip("av")
media = pytest.importorskip("reelrank.features.modal.media")

ITEM_MAP = pl.DataFrame({"dense_id": [0, 1, 2, 3], "raw_id": [70, 50, 90, 10]})


def write_media(file, *, seconds, size=(64, 48), fps=4, tone_hz=None):
    """A video whose second s is grey of value 40·s, and a tone if asked for."""
    with av.open(str(file), "w") as container:
        if size:
            video = container.add_stream("mpeg4", rate=fps)
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            video.bit_rate = 2_000_000
        if tone_hz:
            audio = container.add_stream("aac", rate=44_100, layout="mono")
        for i in range(int(seconds * fps) if size else 0):
            grey = np.full((size[1], size[0], 3), 40 * (i // fps), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        if size:
            container.mux(video.encode())
        if tone_hz:
            t = np.arange(int(seconds * 44_100)) / 44_100
            wave = (0.5 * np.sin(2 * np.pi * tone_hz * t)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate = 44_100
            container.mux(audio.encode(frame))
            container.mux(audio.encode())


@pytest.mark.parametrize(
    ("times", "fps", "most", "taken"),
    [
        (np.arange(50) / 10, 1.0, 16, [0, 10, 20, 30, 40]),
        (np.arange(50) / 10 + 7.3, 1.0, 16, [0, 10, 20, 30, 40]),  # seconds since the first frame
        (np.arange(50) / 10, 2.0, 3, [0, 5, 10]),
        (np.arange(3) * 2.5, 1.0, 16, [0, 1, 2]),  # slower than fps: every frame once
        (np.array([0, 0.9999999, 1.4, 2.2, 2.9]), 1.0, 16, [0, 1, 3]),
        (np.array([]), 1.0, 16, []),
    ],
)
def test_frames_taken(times, fps, most, taken):
    assert list(media.sampled(zip(times, range(len(times)), strict=True), fps, most)) == taken


def test_one_frame_per_second_is_read(tmp_path):
    write_media(tmp_path / "a.mp4", seconds=5)
    frames = media.read_frames(tmp_path / "a.mp4", fps=1.0, max_frames=16)
    assert frames.shape == (5, 224, 224, 3)
    assert frames.mean((1, 2, 3)) == pytest.approx([0, 40, 80, 120, 160], abs=3)
    assert len(media.read_frames(tmp_path / "a.mp4", fps=1.0, max_frames=2)) == 2
    assert len(media.read_frames(tmp_path / "a.mp4", fps=2.0, max_frames=16)) == 10


def test_the_middle_of_a_picture_is_kept():
    # 480 × 240: scaled to 512 × 256, columns 144 … 367 are kept: all red, the sides are blue
    picture = np.zeros((240, 480, 3), np.uint8)
    picture[:, :, 2] = 255
    picture[:, 130:350] = (255, 0, 0)
    found = media._cropped(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    assert found.shape == (224, 224, 3)
    assert found[..., 0].min() > 250 and found[..., 2].max() < 5


def test_sound_is_mono_at_16_khz(tmp_path):
    write_media(tmp_path / "a.mp4", seconds=2, tone_hz=1_000)
    sound = media.read_waveform(tmp_path / "a.mp4", 100_000)
    assert sound.dtype == np.float32
    assert len(sound) == pytest.approx(32_000, abs=1_200)  # the codec pads
    spectrum = np.abs(np.fft.rfft(sound[8_000:24_000]))
    assert spectrum.argmax() == 1_000
    assert np.abs(sound[8_000:24_000]).max() == pytest.approx(0.5, abs=0.05)
    assert len(media.read_waveform(tmp_path / "a.mp4", 777)) == 777


def test_a_track_that_is_not_there(tmp_path):
    write_media(tmp_path / "silent.mp4", seconds=1)
    write_media(tmp_path / "sound.m4a", seconds=1, size=None, tone_hz=500)
    assert media.read_waveform(tmp_path / "silent.mp4", 1_000).shape == (0,)
    assert media.read_frames(tmp_path / "sound.m4a", 1.0, 16).shape == (0, 224, 224, 3)


def test_files_are_found_by_raw_id(tmp_path):
    for name in ("50.mp4", "10.WAV", "notes.txt", "70.txt", "999.mp4"):
        (tmp_path / name).touch()
    keys = ["70", "50", "90", "10"]
    found = media.media_files(tmp_path, keys)
    assert {item: file.name for item, file in found.items()} == {1: "50.mp4", 3: "10.WAV"}
    with pytest.raises(FileNotFoundError, match="none of its 3 media files"):
        media.media_files(tmp_path, ["1", "2"])
    (tmp_path / "50.webm").touch()
    with pytest.raises(ValueError, match=r"50\.mp4 and 50\.webm"):
        media.media_files(tmp_path, keys)
    with pytest.raises(FileNotFoundError, match="not a folder"):
        media.media_files(tmp_path / "none", keys)


def test_media_to_rows_of_the_table(tmp_path, caplog):
    torch.manual_seed(0)
    weights, folder = tmp_path / "weights", tmp_path / "media"
    weights.mkdir()
    folder.mkdir()
    save_file(ResNet50().state_dict(), weights / "resnet50.safetensors")
    save_file(AudioLSTM().state_dict(), weights / "audio_lstm.safetensors")
    write_media(folder / "50.mp4", seconds=2, tone_hz=800)
    write_media(folder / "90.mp4", seconds=1)  # no sound
    (folder / "10.mp4").write_bytes(b"this is no video")
    place = {"entrance": "raw", "path": folder, "weights": weights}
    options = ModalOptions(visual=VisualOptions(**place), audio=AudioOptions(**place), device="cpu")
    with caplog.at_level(logging.WARNING):
        found = item_modal(
            items_of(4, duration_ms=[1000] * 4),
            ITEM_MAP,
            np.arange(4, dtype=np.int32),
            options,
            ProxyOptions(text_dim=2),
        )
    assert "1 of 3 files cannot be decoded, their items lack it: 10.mp4" in caplog.text
    ItemModal.validate(found)
    rows = {key: part for (key,), part in found.group_by("modality", maintain_order=True)}
    assert rows["visual"]["n_tokens"].to_list() == [0, 2, 1, 0]
    assert rows["visual"]["dim"].unique().to_list() == [2048]
    assert rows["audio"]["n_tokens"].to_list() == [0, 2, 0, 0]
    assert rows["audio"]["dim"].unique().to_list() == [256]
    for modality in ("visual", "audio"):
        lengths = rows[modality].select(
            pl.col("array").list.len() == pl.col("n_tokens").cast(int) * pl.col("dim")
        )
        assert lengths.to_series().all()
        assert rows[modality]["source"].unique().to_list() == ["raw"]
        assert rows[modality]["present"].to_list() == [n > 0 for n in rows[modality]["n_tokens"]]
    assert rows["text"]["source"].unique().to_list() == ["metadata_proxy"]


def test_nothing_but_damaged_files_is_an_error(tmp_path):
    save_file(AudioLSTM().state_dict(), tmp_path / "audio_lstm.safetensors")
    (tmp_path / "50.mp3").write_bytes(b"this is no sound" * 100)
    options = ModalOptions(
        audio=AudioOptions(entrance="raw", path=tmp_path, weights=tmp_path), device="cpu"
    )
    with pytest.raises(ValueError, match=r"audio: none of 1 files can be decoded: 50\.mp3"):
        item_modal(items_of(4), ITEM_MAP, np.arange(4, dtype=np.int32), options, ProxyOptions())
