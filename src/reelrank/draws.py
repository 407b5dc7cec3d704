"""Random numbers for compiled loops that depend on seed, stream and counter alone, not on what was drawn elsewhere."""

from __future__ import annotations

import numpy as np
from numba import njit

_STEP, _MIX_1, _MIX_2 = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@njit(cache=True, nogil=True)
def stream_key(seed: int, stream: int) -> np.uint64:
    """Where the numbers of a stream (a group, a row) start."""
    return _mixed(_mixed(np.uint64(seed) + _STEP) ^ np.uint64(stream))


@njit(cache=True, nogil=True)
def uniform(key: np.uint64, counter: int) -> float:
    """The stream's number at ``counter``, in [0, 1)."""
    return (_mixed(key + np.uint64(counter) * _STEP) >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True)
def _mixed(x: np.uint64) -> np.uint64:
    """SplitMix64's output function [R: Steele, Lea and Flood 2014]."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
