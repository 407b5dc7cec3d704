"""Which entrance each modality takes; torch is not needed to validate them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options
from reelrank.training.options import DeviceName

Entrance = Literal["auto", "raw", "pre_extracted", "proxy"]


class EntranceOptions(Options):
    """Where the vectors of one modality come from."""

    entrance: Entrance = Field(
        "auto",
        description="raw: encode media or texts; pre_extracted: stored vectors; proxy: made of metadata; "
        "auto: a world's own files, else proxy",
    )
    path: Path | None = Field(
        None,
        description="raw: folder of media files named <raw item id>.<suffix>; pre_extracted: a Parquet or npz file, or a folder "
        "of <raw item id>.npy or of YouTube-8M *.tfrecord files",
    )
    weights: Path | None = Field(None, description="raw: folder that holds the encoder's weights")
    max_stored_tokens: int = Field(
        300, ge=1, le=32_767, description="pre_extracted: first vectors kept [S: YouTube-8M]"
    )

    def _require(self, *names: str) -> None:
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ValueError(f"entrance {self.entrance} needs {' and '.join(missing)}")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.entrance == "pre_extracted":
            self._require("path")
        elif self.entrance == "raw":
            self._require(*self._raw_needs())
        return self

    def _raw_needs(self) -> tuple[str, ...]:
        return ("path", "weights")


class VisualOptions(EntranceOptions):
    """Frames through ResNet-50: weights are ``resnet50.safetensors`` with torchvision's names."""

    fps: float = Field(1.0, gt=0, le=60, description="raw: frames taken per second")
    max_frames: int = Field(16, ge=1, le=1000, description="raw: first frames kept")


class AudioOptions(EntranceOptions):
    """Log-mel patches through an LSTM: weights are ``audio_lstm.safetensors``."""

    max_patches: int = Field(
        16, ge=1, le=1000, description="raw: first patches of 0.96 s kept [D: T_a of METHODS §3.2]"
    )


class TextOptions(EntranceOptions):
    """Captions and cover texts through a BERT."""

    encoder: Literal["folder", "minilm"] = Field(
        "folder",
        description="raw: a BERT from the folder weights, or all-MiniLM-L6-v2 of the extra [minilm], which knows English only",
    )
    batch_size: int = Field(32, ge=1, le=4096, description="raw: texts encoded at once")
    max_tokens: int = Field(64, ge=2, le=512, description="raw: first word pieces kept")
    pooling: Literal["tokens", "mean"] = Field(
        "tokens",
        description="raw: the last hidden states, or their mean of unit length as one vector",
    )

    def _raw_needs(self) -> tuple[str, ...]:
        return ("weights",) if self.encoder == "folder" else ()


class ModalOptions(Options):
    """The entrances of the three modalities."""

    visual: VisualOptions = Field(VisualOptions(), description="what a video looks like")
    audio: AudioOptions = Field(AudioOptions(), description="what it sounds like")
    text: TextOptions = Field(TextOptions(), description="what is written about it")
    device: DeviceName = Field("auto", description="where encoders run. auto: CUDA, else CPU")
