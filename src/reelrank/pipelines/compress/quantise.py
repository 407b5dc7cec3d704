"""Networks whose large linear maps are in eight bits. Source: METHODS §9 MT-06."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from reelrank.pipelines.compress import compressed
from reelrank.pipelines.compress.int8 import Int8Linear
from reelrank.pipelines.compress.options import QuantisationOptions
from reelrank.training.artifact import ModelCheckpoint


def chosen(model: nn.Module, options: QuantisationOptions) -> list[str]:
    """Names of the linear maps that are worth it."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.numel() >= options.min_weights
        and name.startswith(tuple(f"{part}." for part in options.parts))
    ]


def quantise_(model: nn.Module, names: Sequence[str]) -> None:
    """Round these linear maps of ``model``, in place."""
    for name in names:
        compressed.replace(model, name, Int8Linear.of(compressed.linear(model, name)))


def quantised(source: ModelCheckpoint, options: QuantisationOptions) -> ModelCheckpoint:
    """The checkpoint of a plain network with its large linear maps in eight bits."""
    network = compressed.built(source)
    names = chosen(network, options)
    quantise_(network, names)
    tensors = {"refreshed": network.refreshed, **{f"inner.{n}": t for n, t in network.state_dict().items()}}  # fmt: skip
    return compressed.checkpoint(source, {"int8": names}, tensors)
