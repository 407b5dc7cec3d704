"""A world's folder: written once, whole or not at all, and again only when its parameters or code change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from reelrank import sources
from reelrank.options import Options, digest

TRUTH_FOLDER = "_truth"
# in it; Arrow IPC files
EXPOSURES_FILE, REQUESTS_FILE = "exposures.arrow", "requests.arrow"


def write_once(root: Path, options: Options, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a new folder and put it at ``root``, unless the same world stands there already.

    A world with the same options, written by the same code, is left untouched; an interrupted write leaves what was there.

    Args:
        root: folder of the world.
        options: all that its content depends on.
        write: makes the folder it is given and everything in it, ``_truth`` included.

    Returns:
        ``root``.

    Raises:
        FileExistsError: ``root`` holds files that no world wrote.
    """
    root = Path(root)
    fingerprint = {"options": options.model_dump(mode="json"), "code": _code_digest()}
    marker = root / TRUTH_FOLDER / "fingerprint.json"
    if marker.is_file():
        if json.loads(marker.read_text(encoding="utf-8")) == fingerprint:
            return root
    elif root.is_dir() and any(p.name != ".gitkeep" for p in root.iterdir()):
        raise FileExistsError(f"{root} holds files that are not a generated world; name an empty folder")  # fmt: skip
    fresh, stale = (root.with_name(f".{root.name}.{state}") for state in ("partial", "stale"))
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    write(fresh)
    (fresh / TRUTH_FOLDER).mkdir(exist_ok=True)
    text = json.dumps(fingerprint, indent=1, sort_keys=True)
    (fresh / TRUTH_FOLDER / "fingerprint.json").write_text(text + "\n", encoding="utf-8")
    if root.exists():
        root.rename(stale)
    fresh.rename(root)
    shutil.rmtree(stale, ignore_errors=True)
    return root


def _code_digest() -> str:
    """Of every module that a world is made with: the worlds and the sources' column lists."""
    schemas = Path(sources.__file__).parent.glob("*_schema.py")
    files = [*sorted(Path(__file__).parent.glob("*.py")), *sorted(schemas)]
    return digest([path.read_text(encoding="utf-8") for path in files])
