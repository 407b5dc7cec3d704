"""The base of every configuration object: frozen, typed, and closed to unknown keys."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Parameters of one step, validated by Kedro before the first node runs.

    Subclasses give each field a description and bounds; an unknown key is an error that names its path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def hash(self) -> str:
        """Sixteen hex digits that change when any value changes."""
        return digest(self.model_dump(mode="json"))


def digest(*parts: object) -> str:
    """Sixteen hex digits of the JSON form of ``parts``; order of dictionary keys does not matter."""
    text = json.dumps(parts, sort_keys=True, default=_plain, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
