"""Frozen encoders of pictures and sounds, with weights from a local folder.

Source: METHODS §3.1 [S], §8.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

ModelT = TypeVar("ModelT", bound=nn.Module)
RESNET_FILE, AUDIO_FILE = "resnet50.safetensors", "audio_lstm.safetensors"
PICTURE_DIM, SOUND_DIM = 2048, 256
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions beside a shortcut; the 3×3 one carries the stride."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        width_out = 4 * width
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width_out)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out)
            )
            if stride != 1 or width_in != width_out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, H, W) to (B, 4·width, H/stride, W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        out: Tensor = self.bn3(self.conv3(x)) + shortcut
        return out.relu()


class ResNet50(nn.Module):
    """ResNet-50 with the parameter names of torchvision's, so that its weights fit.

    Paper: https://arxiv.org/abs/1512.03385. Differs: the stride of a block lies in its 3×3 convolution, as in torchvision.

    Args:
        n_classes: width of the last layer ``fc``, which ``features`` does without.
    """

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(64, 64, 3, 1)
        self.layer2 = _stage(256, 128, 4, 2)
        self.layer3 = _stage(512, 256, 6, 2)
        self.layer4 = _stage(1024, 512, 3, 2)
        self.fc = nn.Linear(PICTURE_DIM, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pictures to (B, 2048), the mean over places of the last stage."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pictures to (B, n_classes) logits."""
        logits: Tensor = self.fc(self.features(x))
        return logits


class AudioLSTM(nn.Module):
    """Two LSTM layers of 256; a sequence is its last state.

    Args:
        width: of a step: 64 log-mels, or 128 of VGGish.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, SOUND_DIM, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to (B, 256)."""
        _, (last, _) = self.lstm(x)
        state: Tensor = last[-1]
        return state


def normalise_pictures(pictures: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 with ImageNet's mean 0 and sd 1."""
    mean, sd = (torch.tensor(v, device=pictures.device) for v in (IMAGENET_MEAN, IMAGENET_SD))
    return ((pictures / 255 - mean) / sd).permute(0, 3, 1, 2)


def load_resnet50(folder: Path) -> ResNet50:
    """ResNet-50 with the weights ``resnet50.safetensors`` of a folder, names as in torchvision; ``fc`` may be missing."""
    return _loaded(ResNet50(), folder / RESNET_FILE, optional=("fc.", "num_batches_tracked"))


def load_audio_lstm(folder: Path) -> AudioLSTM:
    """The LSTM with the weights ``audio_lstm.safetensors`` of a folder: ``lstm.weight_ih_l0`` … as in ``torch.nn.LSTM``."""
    return _loaded(AudioLSTM(), folder / AUDIO_FILE, optional=())


def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(width_in, width, stride)
    return nn.Sequential(first, *(Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)))


def _loaded(model: ModelT, file: Path, optional: tuple[str, ...]) -> ModelT:
    """The model in evaluation mode with the weights of a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it lacks weights, holds others, or their shapes differ.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} not found: weights are never made up. Put them there (a .pth file once through safetensors.torch.save_file), or "
            "choose the entrance pre_extracted or proxy"
        )
    try:
        found = model.load_state_dict(load_file(file), strict=False)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{file}: {error}") from error
    missing = [name for name in found.missing_keys if not any(part in name for part in optional)]
    if missing or found.unexpected_keys:
        raise ValueError(
            f"{file} does not fit {type(model).__name__}: missing {missing[:3]}, unexpected {found.unexpected_keys[:3]}"
        )
    return model.eval()
