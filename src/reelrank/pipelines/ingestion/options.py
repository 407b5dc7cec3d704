"""Where a source's raw files come from (ARCHITECTURE choice 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options


class RawOptions(Options):
    """Block ``<source>.raw``."""

    kind: Literal["world", "files", "download"] = Field(
        description="world: write the sample world; files: official files; download: fetch them first"
    )
    root: Path = Field(description="folder that holds the official folders")


class KuaiRandRaw(RawOptions):
    """KuaiRand's releases."""

    variant: Literal["pure", "1k", "27k"] = Field("pure", description="release")
    partial: bool = Field(
        False, description="take what files there are: any one log, attributes or none"
    )

    @model_validator(mode="after")
    def _world_is_pure(self) -> Self:
        if self.kind == "world" and self.variant != "pure":
            raise ValueError(
                f"the sample world is written as pure, not {self.variant}; use kind: files"
            )
        return self


class KuaiRecRaw(RawOptions):
    """KuaiRec's release."""

    variant: Literal["v2"] = Field("v2", description="release")


class KuaiSARRaw(RawOptions):
    """KuaiSAR's releases."""

    variant: Literal["small", "full"] = Field("small", description="release")


class WeiboRaw(RawOptions):
    """Weibo releases."""

    kind: Literal["world", "files"] = Field(
        description="world: write the sample world; files: official files; no publisher offers a download"
    )
    variant: Literal["viewers", "tianchi"] = Field(
        "viewers",
        description="viewers: any release that names who acted; tianchi: posts and counts",
    )


class EventsRaw(RawOptions):
    """A store's own log."""

    kind: Literal["world", "files"] = Field(
        description="world: write a sample log; files: a log with its mapping.yml"
    )
