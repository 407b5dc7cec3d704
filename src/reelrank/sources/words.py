"""Eight bytes at a time: what compiled scanners of text need and Numba does not offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray


def _load_word(typing: Any, array: Any, at: Any) -> Any:  # noqa: ANN401 (Numba's compile-time types)
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(view.data, [arguments[1]])
        word = builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(array, at), generate


def _trailing_zeros(typing: Any, word: Any) -> Any:  # noqa: ANN401
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


# The eight bytes of a uint8 array from a place on as one little-endian number, wherever they lie.
load_word = cast("Callable[[NDArray[np.uint8], int], np.uint64]", intrinsic(_load_word))
# Zero bits below the lowest set bit of a number that is not 0.
trailing_zeros = cast("Callable[[np.uint64], np.uint64]", intrinsic(_trailing_zeros))
