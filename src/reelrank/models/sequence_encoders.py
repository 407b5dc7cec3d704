"""Causal encoders of item sequences: NextItNet, SASRec and GRU4Rec answer at every place, Caser at the last.

Inputs are left-aligned embeddings (B, L, d), zero at pads; an output at place t depends on the places up to t only. Sizes are those of
the RecBole defaults where METHODS names no others.

Source: METHODS §5.3, §5.6, Appendix B [R].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.sequence_options import (
    CaserOptions,
    EncoderOptions,
    GRU4RecOptions,
    NextItNetOptions,
    SASRecOptions,
)


class NextItNet(nn.Module):
    """X ← X + ReLU(LN(conv_2d(ReLU(LN(conv_d(X)))))) per block. Source: METHODS §5.3 [A]."""

    def __init__(self, options: NextItNetOptions) -> None:
        super().__init__()
        self.steps = [step for d in options.dilations for step in (d, 2 * d)]
        width, kernel = options.dim, options.kernel
        self.convolutions = nn.ModuleList(nn.Linear(kernel * width, width) for _ in self.steps)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.steps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) to (B, L, d)."""
        x = x.transpose(0, 1).contiguous()  # (L, B, d): a place's past is one piece of memory
        for first in range(0, len(self.steps), 2):
            inner = x
            for layer in (first, first + 1):
                dense = self.convolutions[layer]
                assert isinstance(dense, nn.Linear)
                inner = causal_convolution(inner, dense.weight, dense.bias, self.steps[layer])
                inner = F.relu(self.norms[layer](inner))
            x = x + inner
        return x.transpose(0, 1)


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor, step: int) -> Tensor:
    """Σ_i W_i x_{t − i·step} + b, zeros before the start.

    Args:
        x: (L, B, d), contiguous.
        weight: (out, kernel·d), the furthest place first.
        bias: (out,).
        step: places between those that are seen.

    Returns:
        (L, B, out).
    """
    out: Tensor = _CausalConvolution.apply(x, weight, bias, step)  # type: ignore[no-untyped-call]
    return out


class _CausalConvolution(torch.autograd.Function):
    """Products of shifted pieces added in place: neither padding nor copies of the input, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, step: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        ctx.step = step
        out = F.linear(x, _part(weight, 0, x.shape[2]), bias)
        for shift, w in _shifts(x, weight, step):
            out[shift:].flatten(0, 1).addmm_(x[:-shift].flatten(0, 1), w.T)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        grad, width = grad.contiguous(), x.shape[2]
        flat_x, flat = x.flatten(0, 1), grad.flatten(0, 1)
        for_x = grad @ _part(weight, 0, width)
        for_weight = torch.zeros_like(weight)
        _part(for_weight, 0, width).copy_(flat.T @ flat_x)
        for number, (shift, w) in enumerate(_shifts(x, weight, ctx.step), 1):
            later = grad[shift:].flatten(0, 1)
            for_x[:-shift].flatten(0, 1).addmm_(later, w)
            _part(for_weight, number, width).copy_(later.T @ x[:-shift].flatten(0, 1))
        return for_x, for_weight, flat.sum(0), None


def _part(weight: Tensor, number: int, width: int) -> Tensor:
    """Columns of the place ``number`` steps back."""
    stop = weight.shape[1] - number * width
    return weight[:, stop - width : stop]


def _shifts(x: Tensor, weight: Tensor, step: int) -> list[tuple[int, Tensor]]:
    """Places back, and their columns, as far as the sequence reaches."""
    width = x.shape[2]
    numbers = range(1, weight.shape[1] // width)
    return [(n * step, _part(weight, n, width)) for n in numbers if n * step < len(x)]


class SASRec(nn.Module):
    """Self-attention over the past, place embeddings counted from the first event. Source: METHODS §5.6 [R]."""

    def __init__(self, options: SASRecOptions) -> None:
        super().__init__()
        self.places = nn.Embedding(options.max_length, options.dim)
        nn.init.normal_(self.places.weight, std=0.02)
        self.norm = nn.LayerNorm(options.dim)
        self.dropout = nn.Dropout(options.dropout)
        self.layers = nn.ModuleList(_Attention(options) for _ in range(options.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) to (B, L, d).

        Raises:
            ValueError: L exceeds ``max_length``.
        """
        if x.shape[1] > self.places.num_embeddings:
            raise ValueError(f"a sequence of {x.shape[1]} places: raise max_length of sasrec")
        x = self.dropout(self.norm(x + self.places.weight[: x.shape[1]]))
        for layer in self.layers:
            x = layer(x)
        return x


class _Attention(nn.Module):
    def __init__(self, o: SASRecOptions) -> None:
        super().__init__()
        self.heads = o.heads
        self.qkv = nn.Linear(o.dim, 3 * o.dim)
        self.out = nn.Linear(o.dim, o.dim)
        self.feed = nn.Sequential(
            nn.Linear(o.dim, o.feed_forward), nn.GELU(), nn.Linear(o.feed_forward, o.dim)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(o.dim) for _ in range(2))
        self.dropout = nn.Dropout(o.dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))  # fmt: skip
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norms[0](x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))
        out: Tensor = self.norms[1](x + self.dropout(self.feed(x)))
        return out


class GRU4Rec(nn.Module):
    """A GRU and a dense layer back to the items' width. Source: METHODS §5.6 [R]."""

    def __init__(self, options: GRU4RecOptions) -> None:
        super().__init__()
        self.dropout = nn.Dropout(options.dropout)
        self.gru = nn.GRU(options.dim, options.hidden, options.layers, batch_first=True, bias=False)
        self.dense = nn.Linear(options.hidden, options.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) to (B, L, d)."""
        out: Tensor = self.dense(self.gru(self.dropout(x))[0])
        return out


class Caser(nn.Module):
    """Filters over the last ``length`` places, right-aligned, and the user's own vector. Source: METHODS §5.6 [R]."""

    def __init__(self, options: CaserOptions, n_users: int) -> None:
        super().__init__()
        o = options
        self.users = nn.Embedding(n_users, o.dim)
        nn.init.normal_(self.users.weight, std=1 / o.dim)
        heights = range(1, o.length + 1)
        self.horizontal = nn.ModuleList(nn.Conv2d(1, o.horizontal, (h, o.dim)) for h in heights)
        self.vertical = nn.Conv2d(1, o.vertical, (o.length, 1))
        self.dense = nn.Linear(o.vertical * o.dim + o.horizontal * o.length, o.dim)
        self.out = nn.Linear(2 * o.dim, o.dim)
        self.dropout = nn.Dropout(o.dropout)
        self.length = o.length

    def forward(self, x: Tensor, users: Tensor) -> Tensor:
        """Right-aligned windows (B, length, d), zero at pads, and users (B,), to (B, d)."""
        image = x.unsqueeze(1)
        over_time = self.vertical(image).flatten(1)
        best = [_best_place(x, filters) for filters in self.horizontal]
        seen = F.relu(self.dense(self.dropout(torch.cat([over_time, *best], 1))))
        return F.relu(self.out(torch.cat([seen, self.users(users)], 1)))


def _best_place(x: Tensor, filters: nn.Module) -> Tensor:
    """Largest response of filters of some height over the places of x (B, L, d), (B, filters).

    All places in one product with the filters' rows shifted from place to place: a convolution of one channel is several times slower.
    """
    assert isinstance(filters, nn.Conv2d)
    n, length, dim = x.shape
    rows = filters.weight.flatten(1)
    last = length - filters.kernel_size[0]
    shifted = [F.pad(rows, (place * dim, (last - place) * dim)) for place in range(last + 1)]
    bias = filters.bias.repeat(last + 1) if filters.bias is not None else None
    return F.relu(F.linear(x.flatten(1), torch.cat(shifted), bias)).view(n, last + 1, -1).amax(1)


def make_encoder(options: EncoderOptions) -> nn.Module:
    """The encoder that the options name: (B, L, d) to (B, L, d), causal."""
    match options:
        case NextItNetOptions():
            return NextItNet(options)
        case SASRecOptions():
            return SASRec(options)
        case GRU4RecOptions():
            return GRU4Rec(options)


def last_valid(x: Tensor, length: Tensor) -> Tensor:
    """Outputs (B, L, d) at the last valid place of each sequence, (B, d); zeros where ``length`` is 0."""
    place = (length - 1).clamp_min(0)[:, None, None].expand(-1, 1, x.shape[2])
    return x.gather(1, place).squeeze(1) * (length > 0).unsqueeze(1)


def left_aligned(item: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Sequences (B, L) padded on either side, or anywhere, with the valid places first in their order; and lengths (B,)."""
    order = torch.argsort((item == pad).to(torch.int8), dim=1, stable=True)
    return item.gather(1, order), (item != pad).sum(1)
