"""Linear maps in eight bits: weights once, by output channel; activations anew at each call (dynamic).

``torch.ao.quantization`` does the same, but is deprecated with its tensor types; the weights here are plain int8 tensors, which safetensors keeps.
Source: METHODS §9 MT-06.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST = 127
_ZERO = 128


class Int8Linear(nn.Module):
    """y = s_x s_w (x̂ Ŵᵀ) + b, x̂ = round(x / s_x), s_x = max|x| / 127, s_w by output channel.

    On the CPU oneDNN multiplies the integers; elsewhere the same integers are multiplied as floats.

    Args:
        in_features: inputs.
        out_features: outputs.
        biased: whether there is a bias.
    """

    def __init__(self, in_features: int, out_features: int, *, biased: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer(
            "weight_int8", torch.zeros(out_features, in_features, dtype=torch.int8)
        )
        self.register_buffer("scale", torch.ones(out_features))
        self.register_buffer("bias", torch.zeros(out_features) if biased else None)
        self.weight_int8: Tensor
        self.scale: Tensor
        self.bias: Tensor | None
        self._packed: tuple[tuple[int, int], Tensor, Tensor] | None = None

    @classmethod
    def of(cls, layer: nn.Linear) -> Self:
        """The linear map ``layer``, rounded."""
        out = cls(layer.in_features, layer.out_features, biased=layer.bias is not None)
        weight = layer.weight.detach()
        scale = weight.abs().amax(1).clamp_min(torch.finfo(weight.dtype).tiny) / _LARGEST
        out.weight_int8 = (weight / scale.unsqueeze(1)).round().to(torch.int8)
        out.scale = scale
        out.bias = None if layer.bias is None else layer.bias.detach().clone()
        return out

    @property
    def weight(self) -> Tensor:
        """The rounded weights as floats, (out, in)."""
        return self.weight_int8 * self.scale.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) to (…, out)."""
        flat = x.flatten(0, -2)
        if not flat.numel():
            return x.new_zeros(*x.shape[:-1], self.out_features)
        scale = flat.abs().max().clamp_min(torch.finfo(x.dtype).tiny) / _LARGEST
        rounded = (flat / scale).round()
        if x.is_cuda:
            out = F.linear(rounded * scale, self.weight, self.bias)
        else:
            weight, zero_points = self._pack(len(flat))
            # unsigned, the zero moved to 128: for signed ones oneDNN has no fast kernel on many CPUs
            out = torch.ops.onednn.qlinear_pointwise(
                (rounded + _ZERO).to(torch.uint8), float(scale), _ZERO, weight, self.scale, zero_points, self.bias,
                1.0, 0, torch.float32, "none", [], "",
            )  # fmt: skip
        result: Tensor = out.view(*x.shape[:-1], self.out_features)
        return result

    def _pack(self, rows: int) -> tuple[Tensor, Tensor]:
        """The weights as oneDNN wants them; made once for these weights."""
        version = (self.weight_int8.data_ptr(), self.weight_int8._version)
        if self._packed is None or self._packed[0] != version:
            weight = torch.ops.onednn.qlinear_prepack(self.weight_int8, [rows, self.in_features])
            self._packed = version, weight, torch.zeros(self.out_features, dtype=torch.int32)
        return self._packed[1], self._packed[2]
