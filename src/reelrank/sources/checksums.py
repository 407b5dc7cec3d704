"""Whether a raw file is the published one."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from reelrank.sources.manifest import Checksum

logger = logging.getLogger(__name__)


def checksum(path: Path, official_md5: Mapping[str, str]) -> Checksum:
    """Compare a file with the published md5 of its name; a file that differs is logged as a warning.

    Returns:
        ``official`` or ``differs``; empty where no md5 of that name is known.
    """
    published = official_md5.get(path.name)
    if published is None:
        return ""
    with path.open("rb") as file:
        measured = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
    if measured.hexdigest() == published:
        return "official"
    logger.warning("%s is not the published file: md5 %s, not %s", path, measured.hexdigest(), published)  # fmt: skip
    return "differs"
