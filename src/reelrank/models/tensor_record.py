"""A frozen record of tensors that moves between devices as one thing."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


def _moved(value: Any, device: torch.device | str) -> Any:  # noqa: ANN401 (any field of a record)
    if isinstance(value, Tensor | TensorRecord):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(element, device) for element in value)
    return value


@dataclass(frozen=True)
class TensorRecord:
    """Base of the dataclasses that hold model inputs and outputs."""

    def to(self, device: torch.device | str) -> Self:
        """The same record with every tensor on ``device``; other fields are kept."""
        return replace(
            self, **{f.name: _moved(getattr(self, f.name), device) for f in fields(self)}
        )
