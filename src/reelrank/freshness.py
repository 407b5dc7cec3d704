"""Whether a stored table is still what its inputs, its parameters and the code would give.

Beside each stored output lies a record of what it was made of. A table is out of date if anything in its record, or in the
record of a table that it was made from, is different now; no table is read to find out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from reelrank.atomic import replace_file
from reelrank.options import Options, digest
from reelrank.provenance import PLACES

SUFFIX = ".fingerprint.json"
SHOWN_FILES = 3
# where and how, not what; a table of raw files does depend on where they are
_NAMES_LEFT_OUT = (PLACES - {"root"}) | {"chunk_mb"}
_BLOCKS_LEFT_OUT = ("engine.engine", "engine.workers", "engine.spark", "download")


class FreshnessOptions(Options):
    """What a run does about stored tables that are out of date."""

    stale: Literal["warn", "error", "rebuild", "ignore"] = Field(
        "warn",
        description="warn, error: about stored tables that the run loads without making them; rebuild: of the run's nodes, "
        "only those whose outputs are missing or out of date; ignore: do not look",
    )


class StaleTables(RuntimeError):
    """Stored tables that the run needs are out of date; the message names each and says why."""


@dataclass(frozen=True)
class Record:
    """What a stored output was made of."""

    dataset: str
    node: str
    code: str  # version
    parameters: dict[str, dict[str, Any]]  # block that the node takes → its leaves
    inputs: dict[str, str | None]  # dataset → its fingerprint
    files: dict[str, list[int]]  # raw files and their neighbours → bytes, ns of last change
    version: str | None  # of a versioned dataset
    content: str  # sizes and times of what was stored

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that are the same only for outputs made of the same things."""
        return digest(self.node, self.code, self.parameters, self.inputs, self.files, self.version)

    def write(self, path: Path) -> None:
        """Put the record beside the output at ``path``."""
        with replace_file(_beside(path)) as temporary:
            text = json.dumps({"fingerprint": self.fingerprint} | asdict(self), indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record of the output at ``path``; None if there is none that can be read."""
        try:
            stored = json.loads(_beside(path).read_text(encoding="utf-8"))
            stored.pop("fingerprint")
            return cls(**stored)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _beside(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def content_stamp(path: Path) -> str:
    """Digest of names, sizes and times of a file or of all files in a folder; their contents are not read."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return digest(*((f.relative_to(path).as_posix(), *_stat(f)) for f in files if f.is_file()))


def raw_files(manifest: Mapping[str, Any]) -> dict[str, list[int]]:
    """Every file in the folders of a manifest's files, its size and time: a new one may belong to the release."""
    folders = {Path(file["path"]).parent for file in manifest["files"]}
    return _listing(folders)


def _listing(folders: set[Path]) -> dict[str, list[int]]:
    files = (f for folder in sorted(folders) if folder.is_dir() for f in sorted(folder.iterdir()))
    return {str(file): _stat(file) for file in files if file.is_file()}


def _stat(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def leaves(parameters: Mapping[str, Any], block: str) -> dict[str, Any]:
    """The values of one block of the parameters by their full names; what never changes a result is left out."""
    value: Any = parameters
    for part in block.split(".") if block else ():
        if not isinstance(value, Mapping) or part not in value:
            return {}
        value = value[part]
    return dict(_flat(value, block))


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (any JSON value)
    if name.rpartition(".")[2] in _NAMES_LEFT_OUT or name in _BLOCKS_LEFT_OUT:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


@dataclass
class Freshness:
    """Judges stored tables by their records.

    Args:
        find: where a dataset is stored now (a versioned one: its latest version); None if it is not.
        parameters: the whole tree, as JSON values.
        code: version of the code.
    """

    find: Callable[[str], Path | None]
    parameters: Mapping[str, Any]
    code: str
    _known: dict[str, dict[str, str]] = field(default_factory=dict)

    def causes(self, dataset: str) -> dict[str, str]:
        """Why a table is out of date: each cause, and the table that it befell; empty if the table is fresh."""
        if dataset not in self._known:
            path = self.find(dataset)
            self._known[dataset] = (
                {"it is not stored": dataset} if path is None else self._judge(dataset, path)
            )
        return self._known[dataset]

    def say(self, dataset: str) -> str:
        """The causes in one line."""
        causes = (
            cause if where == dataset else f"{cause} (of {where}, from which it was made)"
            for cause, where in self.causes(dataset).items()
        )
        return f"{dataset}: {'; '.join(causes)}"

    def _judge(self, dataset: str, path: Path) -> dict[str, str]:
        record = Record.read(path)
        if record is None:
            return {"no fingerprint lies beside it": dataset}
        causes = dict.fromkeys(self._own_causes(record, path), dataset)
        for name, made_from in record.inputs.items():
            inherited = self.causes(name)
            for cause, where in inherited.items():
                causes.setdefault(cause, where)
            if not inherited and self._fingerprint(name) != made_from:
                causes[f"{name} was made anew"] = dataset
        return causes

    def _fingerprint(self, dataset: str) -> str | None:
        path = self.find(dataset)
        record = path and Record.read(path)
        return record.fingerprint if record else None

    def _own_causes(self, record: Record, path: Path) -> Iterator[str]:
        if content_stamp(path) != record.content:
            yield "it was changed by something other than a run that ended well"
        if record.code != self.code:
            yield f"code changed {record.code} → {self.code}"
        for block, then in record.parameters.items():
            now = leaves(self.parameters, block)
            for name in [*then, *(name for name in now if name not in then)]:
                old, new = then.get(name), now.get(name)
                if old != new:
                    yield f"parameter {name} changed {old} → {new}"
        yield from _changed_files(record.files)


def _changed_files(then: Mapping[str, list[int]]) -> list[str]:
    now = _listing({Path(name).parent for name in then})
    changed = [f"file {name} is gone" for name in then if name not in now]
    changed += [f"file {name} changed" for name in then if name in now and now[name] != then[name]]
    changed += [f"file {name} is new" for name in now if name not in then]
    more = len(changed) - SHOWN_FILES
    return changed[:SHOWN_FILES] + ([f"and {more} more files"] if more > 0 else [])
