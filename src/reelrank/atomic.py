"""An interrupted write never leaves half an output in place of a good one."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; it takes the target's place when the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(source: Path, target: Path) -> None:
    """Move a finished folder to ``target``; the old one goes only after the new one is in reach.

    A folder cannot be renamed over another, so the old one steps aside first: if the process dies in
    between, the old content is still there under ``.old``, and no reader sees a mixture of both.

    Raises:
        OSError: the new folder cannot be moved there, say from another file system; the old one is back in place.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    if target.exists():
        target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
