"""Networks with weights set to zero, or with whole hidden units and attention heads taken out.

Zeros alone make no dense kernel faster; taken-out units do. Source: METHODS §9 MT-06.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from reelrank.pipelines.compress import compressed
from reelrank.training.artifact import ModelCheckpoint

_ELEMENTWISE = (nn.ReLU, nn.GELU, nn.Dropout)


@dataclass(frozen=True)
class Units:
    """Units that one linear map makes and only another one reads.

    Attributes:
        producer: name of the first.
        consumer: name of the second.
        rows: (U, r) int64, rows of the producer that belong to each unit.
        columns: (U, c) int64, columns of the consumer.
        attention: name of the attention whose heads these are; empty for hidden units.
    """

    producer: str
    consumer: str
    rows: Tensor
    columns: Tensor
    attention: str = ""


def unit_groups(model: nn.Module) -> Iterator[Units]:
    """Hidden units of every perceptron, and heads of every attention with one ``qkv`` and ``out``."""
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Sequential):
            maps = [
                (int(child), layer)
                for child, layer in module.named_children()
                if isinstance(layer, nn.Linear)
            ]
            for (i, first), (j, _) in pairwise(maps):
                if all(isinstance(module[k], _ELEMENTWISE) for k in range(i + 1, j)):
                    units = torch.arange(first.out_features).unsqueeze(1)
                    yield Units(f"{prefix}{i}", f"{prefix}{j}", units, units)
        elif isinstance(getattr(module, "qkv", None), nn.Linear):
            heads = int(getattr(module, "heads"))  # noqa: B009 (mypy takes a module's attribute for a module)
            width = compressed.linear(module, "out").in_features
            columns = torch.arange(width).view(heads, -1)
            rows = torch.cat([columns + part * width for part in range(3)], dim=1)
            yield Units(f"{prefix}qkv", f"{prefix}out", rows, columns, name)


def importance(model: nn.Module, units: Units) -> Tensor:
    """‖weights that make a unit‖ · ‖weights that read it‖, (U,)."""
    made = compressed.linear(model, units.producer).weight.detach()[units.rows]
    read = compressed.linear(model, units.consumer).weight.detach()[:, units.columns]
    size = made.flatten(1).square().sum(1) * read.square().sum((0, 2))
    return size.sqrt()


def without_units(source: ModelCheckpoint, share: float) -> ModelCheckpoint:
    """The checkpoint without a share of the hidden units of each perceptron and of the heads of each attention.

    Args:
        source: of a plain network.
        share: of the units to take out, the least important ones; at least one unit of each group stays.
    """
    model = compressed.built(source)
    rows: dict[str, Tensor] = {}
    columns: dict[str, Tensor] = {}
    heads = {}
    for units in unit_groups(model):
        n = max(1, round((1 - share) * len(units.rows)))
        kept = importance(model, units).topk(n).indices
        rows[units.producer] = units.rows[kept].flatten().sort().values
        columns[units.consumer] = units.columns[kept].flatten().sort().values
        if units.attention:
            heads[units.attention] = n
    tensors = dict(model.state_dict())
    widths = {}
    for name in sorted(rows.keys() | columns.keys()):
        weight = tensors[f"{name}.weight"]
        if name in rows:
            weight = weight[rows[name]]
            if f"{name}.bias" in tensors:
                tensors[f"{name}.bias"] = tensors[f"{name}.bias"][rows[name]]
        if name in columns:
            weight = weight[:, columns[name]]
        tensors[f"{name}.weight"] = weight
        widths[name] = (weight.shape[1], weight.shape[0])
    own = {"refreshed": model.refreshed, **{f"inner.{n}": t for n, t in tensors.items()}}
    return compressed.checkpoint(source, {"widths": widths, "heads": heads}, own)


def without_weights(source: ModelCheckpoint, share: float) -> ModelCheckpoint:
    """The checkpoint with a share of each linear map's weights set to zero, the smallest ones."""
    model = compressed.built(source)
    tensors = dict(source.best)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            tensors[f"{name}.weight"] = _thinned(tensors[f"{name}.weight"], share)
    return ModelCheckpoint(source.config, tensors, tensors)


def _thinned(weight: Tensor, share: float) -> Tensor:
    n = round(share * weight.numel())
    smallest = weight.abs().flatten().topk(n, largest=False).indices
    return weight.flatten().index_fill(0, smallest, 0.0).view_as(weight)


class ZeroKeeper:
    """Keeps weights that are zero at zero while a network learns; a companion of ``training.loop.fit``.

    Args:
        model: as it was pruned.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kept = {
            f"{name}.weight": module.weight.detach() != 0
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
        }

    def state_dict(self) -> dict[str, Any]:
        """Which weights are kept."""
        return dict(self.kept)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.kept = {name: kept.bool() for name, kept in state_dict.items()}

    @torch.no_grad()
    def after_step(self, model: nn.Module, step: int) -> None:
        """Set to zero what the step has moved."""
        for name, kept in self.kept.items():
            model.get_parameter(name).mul_(kept.to(model.get_parameter(name).device))
