"""The answer to "where are the raw files?": one manifest per source, whoever made the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from reelrank.options import digest

Checksum = Literal["official", "differs", ""]


@dataclass(frozen=True)
class RawFile:
    """One raw file: what it holds (``role``), where it lies, how large it is.

    ``checksum`` says whether it is the published file; empty where no checksum is known or none was looked up.
    """

    role: str
    path: Path
    bytes: int
    checksum: Checksum = ""


@dataclass(frozen=True)
class Manifest:
    """The raw files of one source and variant, in reading order."""

    source: str
    variant: str
    kind: Literal["world", "files"]
    root: Path
    files: tuple[RawFile, ...]
    licence: str

    def files_of(self, *roles: str) -> tuple[RawFile, ...]:
        """The files of these roles, in reading order; empty where the source has none."""
        return tuple(file for file in self.files if file.role in roles)

    @property
    def fingerprint(self) -> str:
        """Digest of every file's role, name, size and modification time, looked up now.

        Contents are not read (a release is tens of GB), so an edit that keeps size and time goes unseen.
        """
        return digest(
            self.source,
            self.variant,
            *((f.role, f.path.name, f.bytes, f.path.stat().st_mtime_ns) for f in self.files),
        )

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        return {
            "source": self.source,
            "variant": self.variant,
            "kind": self.kind,
            "root": str(self.root),
            "files": [
                {"role": f.role, "path": str(f.path), "bytes": f.bytes, "checksum": f.checksum}
                for f in self.files
            ],
            "licence": self.licence,
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Manifest:
        """The inverse of :meth:`to_dict`."""
        return cls(
            source=stored["source"],
            variant=stored["variant"],
            kind=cast("Literal['world', 'files']", stored["kind"]),
            root=Path(stored["root"]),
            files=tuple(RawFile(**f | {"path": Path(f["path"])}) for f in stored["files"]),
            licence=stored["licence"],
        )
