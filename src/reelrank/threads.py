"""Many small products at once: a thread each, in place of threads that share each product and wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Piece = TypeVar("Piece")
Made = TypeVar("Made")


def side_by_side(work: Callable[[Piece], Made], pieces: Sequence[Piece]) -> list[Made]:
    """``work`` of every piece in the order of the pieces, as many at a time as torch has threads; each then counts on one.

    The number of torch's threads is what it was afterwards, also if ``work`` raises.
    """
    import torch  # noqa: PLC0415 (listing pipelines imports this module)

    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, pieces))
    finally:
        torch.set_num_threads(threads)
