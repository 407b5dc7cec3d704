"""Attention of nodes to their last events: as tensors for any device, and as one pass over what is there on a CPU.

Source: MT-DQN (arXiv 2509.12269) Eq. 11, METHODS §3.6. Shape suffixes: R roots, K neighbours, H heads, C = D/H, E unique neighbours,
T time encoding, P pairs of a root and a neighbour that is there, root by root.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]
_PLAIN = (torch.float32, torch.bfloat16)


class Neighbourhood(NamedTuple):
    """Whom roots attend to.

    Attributes:
        index_RK: int64, rows of keys and values, newest first.
        mask_RK: bool, which are there: the first ones of each root.
    """

    index_RK: Tensor
    mask_RK: Tensor


def attend(
    q_RHC: Tensor, q_RHT: Tensor, key_ED: Tensor, value_ED: Tensor, time_PT: Tensor, near: Neighbourhood
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """α = softmax_j((q·k_j + q_T·Φ_j)/√C) over the neighbours that are there; Σ α v and Σ α Φ.

    Args:
        q_RHC: queries.
        q_RHT: queries, mapped to where times are.
        key_ED: keys, all heads side by side.
        value_ED: values.
        time_PT: time encodings Φ.
        near: neighbours.

    Returns:
        (R, H, C) and (R, H, T); 0 where a root has no neighbour.
    """
    tensors = (q_RHC, q_RHT, key_ED, value_ED, time_PT)
    # autocast may hand over bfloat16; double precision is for those who check gradients
    plain = all(t.device.type == "cpu" and t.dtype in _PLAIN for t in tensors)
    if plain and not torch.compiler.is_compiling():
        context: tuple[Tensor, Tensor] = _Attend.apply(*(t.float() for t in tensors), *near)  # type: ignore[no-untyped-call]
        return context
    return composed(*tensors, near)


def composed(
    q_RHC: Tensor, q_RHT: Tensor, key_ED: Tensor, value_ED: Tensor, time_PT: Tensor, near: Neighbourhood
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """:func:`attend` of torch's own operations, padded to K neighbours a root."""
    r, heads, width = q_RHC.shape
    time_RKT = time_PT.new_zeros(*near.mask_RK.shape, time_PT.shape[1])
    time_RKT = time_RKT.masked_scatter(near.mask_RK.unsqueeze(2), time_PT)
    # one product for all heads: a head's query is zero outside its own columns
    own_HH = torch.eye(heads, dtype=torch.bool, device=q_RHC.device)
    q_RHD = (q_RHC.unsqueeze(2) * own_HH.unsqueeze(2)).flatten(2)
    logits_RHK = q_RHD @ F.embedding(near.index_RK, key_ED).mT + q_RHT @ time_RKT.mT
    logits_RHK = logits_RHK / width**0.5
    seen_RHK = near.mask_RK.unsqueeze(1)
    logits_RHK = logits_RHK.masked_fill(~seen_RHK, torch.finfo(logits_RHK.dtype).min)
    alpha_RHK = torch.softmax(logits_RHK, dim=-1) * seen_RHK
    # of a head's row only its own columns are its context
    value_RHHC = (alpha_RHK @ F.embedding(near.index_RK, value_ED)).view(r, heads, heads, -1)
    return value_RHHC.diagonal(dim1=1, dim2=2).mT, alpha_RHK @ time_RKT


class _Attend(torch.autograd.Function):
    """:func:`attend` in one pass over the pairs that are there: no padding, no gathered copies."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's)
        q_RHC: Tensor,
        q_RHT: Tensor,
        key_ED: Tensor,
        value_ED: Tensor,
        time_PT: Tensor,
        index_RK: Tensor,
        mask_RK: Tensor,
    ) -> tuple[Tensor, Tensor]:
        r, heads, _ = q_RHC.shape
        count_R = mask_RK.sum(1)
        alpha_PH = time_PT.new_empty(len(time_PT), heads)
        value_RHC, time_RHT = torch.zeros_like(q_RHC), torch.zeros_like(q_RHT)
        read = [t.contiguous() for t in (q_RHC, q_RHT, key_ED, value_ED, time_PT, index_RK)]
        arrays = [t.detach().numpy() for t in (*read, count_R, alpha_PH, value_RHC, time_RHT)]
        if r:
            _forward(*arrays)
        ctx.save_for_backward(*read, count_R, alpha_PH)
        return value_RHC, time_RHT

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 (torch's)
        saved = ctx.saved_tensors
        gradients = [torch.zeros_like(t) for t in saved[:5]]
        arrays = [t.detach().contiguous().numpy() for t in (*saved, *above, *gradients)]
        if len(saved[0]):
            _backward(*arrays)
        return (*gradients, None, None)


@njit(cache=True, nogil=True, fastmath=True)
def _forward(
    q: Floats,
    qt: Floats,
    key: Floats,
    value: Floats,
    time: Floats,
    index: Longs,
    count: Longs,
    alpha: Floats,
    out_value: Floats,
    out_time: Floats,
) -> None:
    """Fill ``alpha`` (P, H) and add to the contexts (R, H, C) and (R, H, T), which are 0."""
    n_roots, heads, width = q.shape
    times = time.shape[1]
    scale = np.float32(1 / np.sqrt(width))
    first = 0
    for r in range(n_roots):
        n = count[r]
        for h in range(heads):
            at = h * width
            largest = np.float32(-3e38)  # fast mathematics knows no infinity
            for j in range(n):
                e, p = index[r, j], first + j
                s = np.float32(0)
                for c in range(width):
                    s += q[r, h, c] * key[e, at + c]
                for t in range(times):
                    s += qt[r, h, t] * time[p, t]
                alpha[p, h] = s * scale
                largest = max(largest, alpha[p, h])
            total = np.float32(0)
            for p in range(first, first + n):
                alpha[p, h] = np.exp(alpha[p, h] - largest)
                total += alpha[p, h]
            for j in range(n):
                e, p = index[r, j], first + j
                alpha[p, h] /= total
                a = alpha[p, h]
                for c in range(width):
                    out_value[r, h, c] += a * value[e, at + c]
                for t in range(times):
                    out_time[r, h, t] += a * time[p, t]
        first += n


@njit(cache=True, nogil=True, fastmath=True)
def _backward(
    q: Floats,
    qt: Floats,
    key: Floats,
    value: Floats,
    time: Floats,
    index: Longs,
    count: Longs,
    alpha: Floats,
    above_value: Floats,
    above_time: Floats,
    d_q: Floats,
    d_qt: Floats,
    d_key: Floats,
    d_value: Floats,
    d_time: Floats,
) -> None:
    """Add to the gradients, which are 0, from those of the contexts."""
    n_roots, heads, width = q.shape
    times = time.shape[1]
    scale = np.float32(1 / np.sqrt(width))
    slope = np.empty(index.shape[1], np.float32)
    first = 0
    for r in range(n_roots):
        n = count[r]
        for h in range(heads):
            at = h * width
            mean = np.float32(0)
            for j in range(n):
                e, p = index[r, j], first + j
                s = np.float32(0)
                for c in range(width):
                    s += above_value[r, h, c] * value[e, at + c]
                for t in range(times):
                    s += above_time[r, h, t] * time[p, t]
                slope[j] = s
                mean += alpha[p, h] * s
            for j in range(n):
                e, p = index[r, j], first + j
                a = alpha[p, h]
                d = a * (slope[j] - mean) * scale
                for c in range(width):
                    d_value[e, at + c] += a * above_value[r, h, c]
                    d_key[e, at + c] += d * q[r, h, c]
                    d_q[r, h, c] += d * key[e, at + c]
                for t in range(times):
                    d_time[p, t] += a * above_time[r, h, t] + d * qt[r, h, t]
                    d_qt[r, h, t] += d * time[p, t]
        first += n
