"""A stable sort for compiled loops: Numba's own takes ten seconds to compile, which a first run would wait for."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def sort_by(order: NDArray[np.int64], key: NDArray[np.generic], spare: NDArray[np.int64]) -> None:
    """Sort ``order`` (n,), places in ``key``, by ``key[order]`` ascending; equal keys keep their order.

    Merges runs of 1, 2, 4 … to and fro between ``order`` and ``spare`` (n,).
    """
    n, width, in_spare = len(order), 1, False
    source, target = order, spare
    while width < n:
        for left in range(0, n, 2 * width):
            middle, right = min(left + width, n), min(left + 2 * width, n)
            i, j = left, middle
            for k in range(left, right):
                if i < middle and (j >= right or key[source[i]] <= key[source[j]]):
                    target[k] = source[i]
                    i += 1
                else:
                    target[k] = source[j]
                    j += 1
        source, target, in_spare = target, source, not in_spare
        width *= 2
    if in_spare:
        for k in range(n):
            order[k] = spare[k]
