"""Runs in processes of their own: what they inherit, how they wait for each other, and how their logs end."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import reelrank

TAIL_LINES = 12


def child_environment(threads: int) -> dict[str, str]:
    """Variables of a child: the code of its parent, a share of the cores, and a log that reads well in a file."""
    package = str(Path(reelrank.__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"COLUMNS": "160", "NO_COLOR": "1", "PYTHONPATH": path}
    for name in ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS"):
        environment.setdefault(name, str(threads))
    return environment


def own_blocks(tree: Mapping[str, Any], inputs: Iterable[str]) -> dict[str, Any]:
    """Of a tree of parameters what a child needs: Kedro takes seconds to merge the rest.

    Args:
        tree: all of them.
        inputs: of its pipeline, such as ``params:ruie.gate``; those that are no parameters count for nothing.

    Returns:
        The blocks of those names, that of freshness, and whatever is no block (such as ``raw_root``).
    """
    names = set(inputs)
    if "parameters" in names:
        return dict(tree)
    blocks = {n.removeprefix("params:").partition(".")[0] for n in names if n.startswith("params:")}
    needed = {*blocks, "freshness"}
    return {k: v for k, v in tree.items() if k in needed or not isinstance(v, Mapping)}


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock of a file; it is free again when the process ends, however it ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def tail(file: Path | None) -> str:
    """The last lines of a log."""
    if file is None or not file.exists():
        return ""
    lines = file.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    return "\n".join(lines[-TAIL_LINES:])
