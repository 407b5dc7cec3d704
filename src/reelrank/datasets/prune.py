"""Drop all but the newest versions of versioned outputs: ``make prune KEEP=5``."""

from __future__ import annotations

import argparse
import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from reelrank.freshness import SUFFIX

logger = logging.getLogger(__name__)
VERSION = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2}\.\d{3}Z")


def versions_to_drop(paths: Iterable[Path], keep: int) -> list[Path]:
    """Every versioned path but the newest ``keep`` of its folder; Kedro's version strings sort by time."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        if VERSION.fullmatch(path.name.removesuffix(".parquet")):
            groups[path.parent].append(path)
    return [path for group in groups.values() for path in sorted(group, reverse=True)[keep:]]


def main() -> None:
    """Prune the data folder of this project."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=int, default=5, help="versions to keep of each output")
    parser.add_argument("--data", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    if arguments.keep < 1:
        parser.error("--keep must be at least 1: the newest version is what notebooks load")
    for path in versions_to_drop(arguments.data.rglob("*"), arguments.keep):
        logger.info("dropping %s", path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.with_name(path.name + SUFFIX).unlink(missing_ok=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
