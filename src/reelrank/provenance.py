"""Where a number or a table comes from: code, parameters, inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import reelrank
from reelrank.options import digest

PLACES = frozenset({"root", "work_dir", "staging", "command"})  # where, not what


@cache
def code_version() -> str:
    """Package version + first 8 hex digits of the SHA-256 of its Python sources: rows of two versions never share a table."""
    root = Path(reelrank.__file__).parent
    sources = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        sources.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return f"{reelrank.__version__}+{sources.hexdigest()[:8]}"


def config_hash(*blocks: object) -> str:
    """Digest of parameters that is the same in every folder: paths are left out."""
    return digest([_without_places(block) for block in blocks])


def result_columns(
    system: str, raw_manifest: Mapping[str, Any], seed: int, blocks: Iterable[object], **more: str
) -> dict[str, str | int | None]:
    """What all result rows of a run have in common.

    Args:
        system: the pipeline.
        raw_manifest: of the rows' source, as JSON values.
        seed: of the run.
        blocks: parameters that the numbers depend on.
        more: other columns, such as ``split``.
    """
    return {
        "system": system,
        "source": raw_manifest["source"],
        "seed": seed,
        "data_kind": "world" if raw_manifest["kind"] == "world" else "real",
        "config_hash": config_hash(*blocks),
        **more,
    }


def fingerprint(*parts: object) -> dict[str, str]:
    """What a derived table depends on: its inputs' fingerprints, options and the code (ARCHITECTURE choice 12)."""
    return {"fingerprint": config_hash(*parts, code_version()), "code_version": code_version()}


def _without_places(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {k: _without_places(v) for k, v in value.items() if k not in PLACES}
    if isinstance(value, list | tuple):
        return [_without_places(v) for v in value]
    return value
