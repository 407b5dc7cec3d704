"""Causal encoders of item sequences: NextItNet, SASRec and GRU4Rec answer at every place, Caser at the last.

Inputs are left-aligned embeddings (B, L, d), zero at pads; an output at place t depends on the places up to t only. Sizes are those of
the RecBole defaults where METHODS names no others.

Source: METHODS §5.3, §5.6, Appendix B [R].
"""

from __future__ import annotations

import math
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

_BRANCH_SCALE = 0.1


class NextItNet(nn.Module):
    """X ← X + ReLU(LN(conv_2d(ReLU(LN(conv_d(X)))))) per block. Source: METHODS §5.3 [A].

    What a block adds starts small [D]: six normalised branches at full scale are several times as large as the items' own vectors,
    and the encoder learns small logs by heart (benchmarks/README.md).
    """

    def __init__(self, options: NextItNetOptions) -> None:
        super().__init__()
        self.steps = [step for d in options.dilations for step in (d, 2 * d)]
        self.kernel, width = options.kernel, options.dim
        self.convolutions = nn.ModuleList(nn.Linear(self.kernel * width, width) for _ in self.steps)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.steps)
        for norm in self.norms[1::2]:
            assert isinstance(norm, nn.LayerNorm)
            nn.init.constant_(norm.weight, _BRANCH_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d) to (B, L, d)."""
        x = x.transpose(0, 1).contiguous()  # (L, B, d): a place's past is one piece of memory
        for first in range(0, len(self.steps), 2):
            x = x + self._layer(first + 1, self._layer(first, x))
        return x.transpose(0, 1)

    def last(self, x: Tensor) -> Tensor:
        """Output (B, d) at the last place of (B, L, d), without gradients.

        A layer is computed at those places alone that the last one sees through the layers after it: the first ``span`` places
        back from the end, ``apart`` from one another.
        """
        x = x.transpose(0, 1).contiguous()
        wanted, span, apart = [], 1, 0
        for step in reversed(self.steps):
            wanted.append((span, apart or step))
            span, apart = span + step * (self.kernel - 1), math.gcd(apart, step)
        unit = apart  # how far the places of x lie apart
        x = _every(x, unit)
        for layer in range(0, len(self.steps), 2):
            (inner_span, between), (span, apart) = wanted[-1 - layer], wanted[-2 - layer]
            inner = self._layer(layer, x, inner_span, between, unit)
            inner = self._layer(layer + 1, inner, span, apart, between)
            x = _every(x, apart // unit)[-len(inner) :] + inner
            unit = apart
        return x[-1]

    def _layer(
        self, layer: int, x: Tensor, span: int | None = None, apart: int = 1, unit: int = 1
    ) -> Tensor:
        """ReLU(LN(conv(x))) of (L, B, d), or of some of its last places, where those of x lie ``unit`` apart."""
        dense = self.convolutions[layer]
        assert isinstance(dense, nn.Linear)
        if span is None:
            x = causal_convolution(x, dense.weight, dense.bias, self.steps[layer])
        else:
            places = (min(span, 1 + (len(x) - 1) * unit) - 1) // apart + 1
            step = self.steps[layer] // unit
            x = _convolved(x, dense.weight, dense.bias, step, places, apart // unit)
        return F.relu(self.norms[layer](x), inplace=True)


def _every(x: Tensor, apart: int) -> Tensor:
    """Places ``apart`` from one another, the last among them."""
    return x[(len(x) - 1) % apart :: apart]


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
        return _convolved(x, weight, bias, step, len(x))

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


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor, step: int, places: int, apart: int = 1
) -> Tensor:
    """Of :func:`causal_convolution` the last place, and others before it at this distance."""
    first = len(x) - 1 - (places - 1) * apart
    out = F.linear(x[first::apart], _part(weight, 0, x.shape[2]), bias)
    for shift, w in _shifts(x, weight, step):
        skipped = max(0, -((first - shift) // apart))  # places without a past so far back
        past = x[first + skipped * apart - shift : len(x) - shift : apart]
        out[skipped:].flatten(0, 1).addmm_(past.flatten(0, 1), w.T)
    return out


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
        x = self._placed(x)
        for layer in self.layers:
            x = layer(x)
        return x

    def last(self, x: Tensor) -> Tensor:
        """Output (B, d) at the last place of (B, L, d): the last layer asks from there alone."""
        x = self._placed(x)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, _Attention)
            x = layer(x) if number < len(self.layers) - 1 else layer.last(x)
        return x[:, -1]

    def _placed(self, x: Tensor) -> Tensor:
        if x.shape[1] > self.places.num_embeddings:
            raise ValueError(f"a sequence of {x.shape[1]} places: raise max_length of sasrec")
        out: Tensor = self.dropout(self.norm(x + self.places.weight[: x.shape[1]]))
        return out


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
        q, k, v = map(self._split, self.qkv(x).chunk(3, -1))
        return self._mixed(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def last(self, x: Tensor) -> Tensor:
        """(B, 1, d) at the last place."""
        own, dim = x[:, -1:], x.shape[2]
        q = F.linear(own, self.qkv.weight[:dim], self.qkv.bias[:dim])
        k, v = F.linear(x, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, -1)
        q, k, v = map(self._split, (q, k, v))
        return self._mixed(own, F.scaled_dot_product_attention(q, k, v))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _mixed(self, x: Tensor, mixed: Tensor) -> Tensor:
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
        out: Tensor = self.dense(self._states(x).transpose(0, 1))
        return out

    def last(self, x: Tensor) -> Tensor:
        """Output (B, d) at the last place of (B, L, d), without gradients."""
        if x.is_cuda:
            out: Tensor = self.dense(self._states(x)[-1])
            return out
        x = self.dropout(x).transpose(0, 1)
        *below, top = self.gru.all_weights
        for weights in below:
            x = gated_recurrence(x, *weights)
        out = self.dense(last_state(x, *top))
        return out

    def _states(self, x: Tensor) -> Tensor:
        """(L, B, hidden) of the last layer."""
        x = self.dropout(x)
        if x.is_cuda:  # cuDNN's
            states: Tensor = self.gru(x)[0]
            return states.transpose(0, 1)
        x = x.transpose(0, 1).contiguous()
        for weights in self.gru.all_weights:
            x = gated_recurrence(x, *weights)
        return x


def gated_recurrence(x: Tensor, for_input: Tensor, for_state: Tensor) -> Tensor:
    """States of one layer of ``nn.GRU`` without biases, from a state of zeros.

    Args:
        x: (L, B, d).
        for_input: (3·hidden, d), as r, z, n.
        for_state: (3·hidden, hidden), likewise.

    Returns:
        (L, B, hidden).
    """
    out: Tensor = _GatedRecurrence.apply(x, for_input, for_state)  # type: ignore[no-untyped-call]
    return out


class _GatedRecurrence(torch.autograd.Function):
    """What does not wait for the state before is one product for all places, the weights' gradients too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, for_input: Tensor, for_state: Tensor) -> Tensor:  # noqa: ANN401
        length, n, _ = x.shape
        width = for_state.shape[1]
        gates = F.linear(x, for_input)  # becomes r, z, n
        of_state = x.new_empty(length, n, width)  # W_n h, which r multiplies
        states = x.new_zeros(length + 1, n, width)
        for t in range(length):
            before = states[t]
            gate, new = gates[t, :, : 2 * width], gates[t, :, 2 * width :]
            gate.addmm_(before, for_state[: 2 * width].T).sigmoid_()
            torch.mm(before, for_state[2 * width :].T, out=of_state[t])
            new.addcmul_(gate[:, :width], of_state[t]).tanh_()
            torch.lerp(new, before, gate[:, width:], out=states[t + 1])
        ctx.save_for_backward(x, for_input, for_state, gates, of_state, states)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        x, for_input, for_state, gates, of_state, states = ctx.saved_tensors
        width = for_state.shape[1]
        r, z, new = gates.split(width, 2)
        # factors that do not wait for the gradient of the state after
        for_new = (1 - z) * (1 - new * new)
        for_z = (states[:-1] - new) * z * (1 - z)
        for_r = of_state * r * (1 - r)
        to_input, to_state = torch.empty_like(gates), torch.empty_like(gates)
        carried = torch.zeros_like(states[0])
        for t in reversed(range(len(x))):
            total = carried + grad[t]
            own = to_state[t]
            d_new = torch.mul(total, for_new[t], out=to_input[t, :, 2 * width :])
            torch.mul(d_new, for_r[t], out=own[:, :width])
            torch.mul(total, for_z[t], out=own[:, width : 2 * width])
            torch.mul(d_new, r[t], out=own[:, 2 * width :])
            carried = total.mul_(z[t]).addmm_(own, for_state)
        to_input[:, :, : 2 * width] = to_state[:, :, : 2 * width]
        flat, flat_state = to_input.flatten(0, 1), to_state.flatten(0, 1)
        for_weight = flat.T @ x.flatten(0, 1), flat_state.T @ states[:-1].flatten(0, 1)
        return to_input @ for_input, *for_weight


@torch.no_grad()
def last_state(x: Tensor, for_input: Tensor, for_state: Tensor) -> Tensor:
    """The last of the states of :func:`gated_recurrence`, (B, hidden): no other is kept, a place's gates do not leave the cache."""
    _, n, dim = x.shape
    width = for_state.shape[1]
    both = x.new_zeros(n, dim + width)  # place, state: one product for r and z
    state = both[:, dim:]
    gates = torch.cat([for_input[: 2 * width], for_state[: 2 * width]], 1).T.contiguous()
    input_new, state_new = for_input[2 * width :].T.contiguous(), for_state[2 * width :].T.contiguous()  # fmt: skip
    gate, (new, of_state) = x.new_empty(n, 2 * width), x.new_empty(2, n, width)
    for place in x:
        both[:, :dim] = place
        torch.mm(both, gates, out=gate).sigmoid_()
        torch.mm(place, input_new, out=new)
        torch.mm(state, state_new, out=of_state)
        new.addcmul_(gate[:, :width], of_state).tanh_()
        torch.lerp(new, state, gate[:, width:], out=state)
    return state.contiguous()


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
        assert self.vertical.bias is not None
        over_time = self.vertical.weight.flatten(1) @ x + self.vertical.bias[:, None]
        best = [_best_place(x, filters) for filters in self.horizontal]
        seen = F.relu(self.dense(self.dropout(torch.cat([over_time.flatten(1), *best], 1))))
        return F.relu(self.out(torch.cat([seen, self.users(users)], 1)))


def _best_place(x: Tensor, filters: nn.Module) -> Tensor:
    """Largest response of filters of some height over the places of x (B, L, d), (B, filters).

    All places in one product with the filters' rows shifted from place to place: a convolution of one channel is several times slower.
    """
    assert isinstance(filters, nn.Conv2d)
    n, length, dim = x.shape
    rows = filters.weight.flatten(1)
    places = length - filters.kernel_size[0] + 1
    # repeats that are a place longer than the window, cut at its length: each starts a place later than the one before
    wide = F.pad(rows, (0, (length + 1) * dim - rows.shape[1])).repeat(1, places)
    shifted = wide[:, : places * length * dim].reshape(-1, length * dim)
    best = F.linear(x.flatten(1), shifted).view(n, -1, places).amax(2)
    return F.relu(best if filters.bias is None else best + filters.bias)


def make_encoder(options: EncoderOptions) -> NextItNet | SASRec | GRU4Rec:
    """The encoder that the options name: (B, L, d) to (B, L, d), causal; ``last`` gives the last place's output alone."""
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
