"""Raw files to canonical tables, one provider and one reader per source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from reelrank.buckets import BucketedTable, EngineOptions
from reelrank.options import Options
from reelrank.sources.ingest import LogOptions
from reelrank.sources.kuairand import find_files, ingest
from reelrank.sources.manifest import Manifest
from reelrank.worlds.kuairand import WorldOptions, write_world


class RawOptions(Options):
    """Where a source's raw files come from (ARCHITECTURE choice 2)."""

    kind: Literal["world", "files"] = Field(
        description="world: write the sample world; files: official files"
    )
    root: Path = Field(description="folder that holds the official folders")
    variant: Literal["pure", "1k", "27k"] = Field("pure", description="release of KuaiRand")

    @model_validator(mode="after")
    def _world_is_pure(self) -> Self:
        if self.kind == "world" and self.variant != "pure":
            raise ValueError(
                f"the sample world is written as pure, not {self.variant}; use kind: files"
            )
        return self


def provide_kuairand(raw: RawOptions, world: WorldOptions) -> dict[str, Any]:
    """Write the sample world if asked and not yet there; find and check the official files."""
    if raw.kind == "world":
        write_world(world, raw.root)
    return find_files(raw.root, raw.variant, raw.kind).to_dict()


def ingest_kuairand(
    raw_manifest: dict[str, Any], options: LogOptions, engine: EngineOptions
) -> tuple[
    BucketedTable,
    pl.DataFrame,
    pl.DataFrame,
    pl.DataFrame,
    pl.DataFrame,
    pl.DataFrame,
    dict[str, Any],
]:
    """Read, check, re-index and sort; bad rows go to quarantine."""
    tables = ingest(Manifest.from_dict(raw_manifest), options, engine)
    return (
        tables.interactions,
        tables.items,
        tables.users,
        tables.user_map,
        tables.item_map,
        tables.quarantine,
        tables.report,
    )
