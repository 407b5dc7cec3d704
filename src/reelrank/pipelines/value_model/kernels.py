"""Compiled loops of the value model, as operations that torch can differentiate: sparse product, and fused edge loss.

The loops hold no lock, so that threads share their rows. Shapes: N nodes, E edges, H width, R rows of a table, c columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from threadpoolctl import threadpool_limits
from torch import Tensor

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.int8]
T = TypeVar("T")

_ORDER_FREE = {"reassoc", "contract", "nsz", "arcp"}  # not NaN-free: a bad loss must stay visible
_CHUNKS = 8  # of a thread: evens out rows of unequal cost
_SMALL = 1 << 20  # multiplications that are done before a thread has started
_BLOCK = 256  # edges whose activations stay in the cache


class SparseProduct(torch.autograd.Function):
    """A x for a constant sparse A; the gradient is Aᵀ g, without a message per edge."""

    @staticmethod
    def forward(ctx: Any, matrix: Any, transposed: Any, x: Tensor) -> Tensor:  # noqa: ANN401 (torch's)
        """Matrices offer ``times``; x (N, H)."""
        ctx.transposed = transposed
        product: Tensor = matrix.times(x)
        return product

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:  # noqa: ANN401
        """Gradient of x alone."""
        return None, None, ctx.transposed.times(grad)


def csr_times(indptr: Ints, indices: Ints, values: Floats, x: Floats) -> Floats:
    """Product of a CSR matrix (N, M) and x (M, H); every row is summed in the order of its entries."""
    out = np.empty((len(indptr) - 1, x.shape[1]), np.float32)
    n_parts = _n_threads(len(values) * x.shape[1])
    if n_parts > 1:
        n_parts *= _CHUNKS
    bounds = np.searchsorted(indptr, np.linspace(0, len(values), n_parts + 1))
    bounds[0], bounds[-1] = 0, len(out)

    def share(part: tuple[int, int]) -> None:
        _csr_rows(part[0], part[1], indptr, indices, values, x, out)

    _spread(share, bounds)
    return out


class FusedEdgeLoss(torch.autograd.Function):
    """Cross-entropy of a perceptron with one hidden layer over edges, with all its gradients in one pass.

    z_e = Σ_t table[codes[e, t]] + x_e W, logits = ReLU(z_e) V + b; nothing of size E × H is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 (torch's)
        codes: Ints,
        x: Floats,
        labels: Bytes,
        table: Tensor,
        w: Tensor,
        v: Tensor,
        b: Tensor,
    ) -> Tensor:
        """Mean loss over the known labels.

        Args:
            ctx: torch's.
            codes: (E, T) rows of ``table``; sorted by the first column it is read in order.
            x: (E, c).
            labels: (E, 4) 0, 1, or -1 for unknown.
            table: (R, H) shares of the first layer, its bias in one of them.
            w: (c, H).
            v: (H, 4).
            b: (4,).
        """
        weights = [t.detach().contiguous().numpy() for t in (table, w, v, b)]
        scale = np.float32(1 / max(int((labels >= 0).sum()), 1))
        n_parts = _n_threads(x.size * w.shape[1])
        bounds = np.linspace(0, len(x), n_parts + 1).astype(np.int64)

        def share(part: tuple[int, int]) -> tuple[float, list[Floats]]:
            grads = [np.zeros_like(weight) for weight in weights]
            edges = (part[0], part[1], codes, x, labels)
            return _edge_pass(*edges, *weights, scale, *grads), grads  # type: ignore[arg-type, call-arg]

        # each thread is one of ours: BLAS's own would only wait for each other
        with threadpool_limits(1, user_api="blas"):
            parts = _spread(share, bounds)
        of_each_weight = zip(*(grads for _, grads in parts), strict=True)
        ctx.grads = [torch.from_numpy(np.sum(grads, axis=0)) for grads in of_each_weight]
        return torch.tensor(sum(loss for loss, _ in parts) * float(scale), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of ``table``, ``w``, ``v``, ``b``."""
        return None, None, None, *(g * grad for g in ctx.grads)


def _n_threads(multiplications: int) -> int:
    """Threads worth starting: torch's number, or one."""
    return torch.get_num_threads() if multiplications > _SMALL else 1


def _spread(share: Callable[[tuple[int, int]], T], bounds: npt.NDArray[np.int64]) -> list[T]:
    """``share`` of each stretch between bounds, in threads where there are several."""
    parts = list(pairwise(bounds))
    if len(parts) == 1:
        return [share(parts[0])]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(share, parts))


@njit(cache=True, nogil=True, fastmath=_ORDER_FREE)
def _csr_rows(
    first: int, last: int, indptr: Ints, indices: Ints, values: Floats, x: Floats, out: Floats
) -> None:
    """Rows ``first`` … ``last`` − 1 of the product."""
    for row in range(first, last):
        total = out[row]
        total[:] = 0
        for entry in range(indptr[row], indptr[row + 1]):
            value, source = values[entry], x[indices[entry]]
            for k in range(len(total)):
                total[k] += value * source[k]


@njit(cache=True, nogil=True, fastmath=_ORDER_FREE)
def _edge_pass(
    first: int,
    last: int,
    codes: Ints,
    x: Floats,
    labels: Bytes,
    table: Floats,
    w: Floats,
    v: Floats,
    b: Floats,
    scale: np.float32,
    d_table: Floats,
    d_w: Floats,
    d_v: Floats,
    d_b: Floats,
) -> float:
    """Summed loss of edges ``first`` … ``last`` − 1; the gradients of ``scale`` times it are added to d_…."""
    width, zero, one = table.shape[1], np.float32(0), np.float32(1)
    hidden = np.empty((_BLOCK, width), np.float32)
    d_hidden = np.empty_like(hidden)
    logits = np.empty((_BLOCK, len(b)), np.float32)
    w_share, v_share = np.empty_like(w), np.empty_like(v)
    vt = np.ascontiguousarray(v.T)
    loss = 0.0
    for start in range(first, last, _BLOCK):
        n = min(_BLOCK, last - start)
        h, d_h, g, x_block = hidden[:n], d_hidden[:n], logits[:n], x[start : start + n]
        np.dot(x_block, w, h)
        for i in range(n):
            for t in range(codes.shape[1]):
                source = table[codes[start + i, t]]
                for k in range(width):
                    h[i, k] += source[k]
            for k in range(width):
                h[i, k] = max(h[i, k], zero)
        np.dot(h, v, g)
        for i in range(n):
            product = 1.0  # Σ log(1 + e^−|z|) as one logarithm
            for j in range(len(b)):
                label, z = labels[start + i, j], g[i, j] + b[j]
                if label < 0:
                    g[i, j] = zero
                    continue
                small = math.exp(-abs(z))
                product *= 1.0 + small
                loss += max(z, zero) - z * label
                p = one / (one + small)
                g[i, j] = scale * ((p if z >= 0 else one - p) - np.float32(label))
                d_b[j] += g[i, j]
            loss += math.log(product)
        np.dot(g, vt, d_h)
        np.dot(h.T, g, v_share)
        d_v += v_share
        for i in range(n):
            for k in range(width):
                d_h[i, k] = d_h[i, k] if h[i, k] > zero else zero
            for t in range(codes.shape[1]):
                target = d_table[codes[start + i, t]]
                for k in range(width):
                    target[k] += d_h[i, k]
        np.dot(x_block.T, d_h, w_share)
        d_w += w_share
    return loss
