"""Raw files to canonical tables: one provider per source, one reader for all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from reelrank.buckets import EngineOptions
from reelrank.pipelines.ingestion.options import (
    EventsRaw,
    KuaiRandRaw,
    KuaiRecRaw,
    KuaiSARRaw,
    RawOptions,
    WeiboRaw,
)
from reelrank.sources import events, kuairand, kuairec, kuaisar, weibo
from reelrank.sources.download import DownloadOptions, fetch_release
from reelrank.sources.ingest import LogOptions
from reelrank.sources.manifest import Manifest
from reelrank.sources.releases import find_release
from reelrank.worlds import events as events_world
from reelrank.worlds import kuairand as kuairand_world
from reelrank.worlds import kuairec as kuairec_world
from reelrank.worlds import kuaisar as kuaisar_world
from reelrank.worlds import weibo as weibo_world
from reelrank.worlds.events_options import EventsWorldOptions
from reelrank.worlds.kuairand_options import WorldOptions as KuaiRandWorldOptions
from reelrank.worlds.kuairec_options import WorldOptions as KuaiRecWorldOptions
from reelrank.worlds.kuaisar_options import WorldOptions as KuaiSARWorldOptions
from reelrank.worlds.weibo_options import WeiboWorldOptions

SOURCES: dict[str, ModuleType] = {
    "kuairand": kuairand, "kuairec": kuairec, "kuaisar": kuaisar, "weibo": weibo, "events": events,
}  # fmt: skip


def provide_kuairand(
    raw: KuaiRandRaw, world: KuaiRandWorldOptions, download: DownloadOptions
) -> dict[str, Any]:
    """Write the sample world or fetch the release if asked and not yet there; find and check the files."""
    write = partial(kuairand_world.write_world, world)
    find = partial(kuairand.find_files, partial=raw.partial)
    return _provide("kuairand", raw, raw.variant, write, find, download)


def provide_kuairec(
    raw: KuaiRecRaw, world: KuaiRecWorldOptions, download: DownloadOptions
) -> dict[str, Any]:
    """The same for KuaiRec."""
    write = partial(kuairec_world.write_world, world)
    return _provide("kuairec", raw, raw.variant, write, kuairec.find_files, download)


def provide_kuaisar(
    raw: KuaiSARRaw, world: KuaiSARWorldOptions, download: DownloadOptions
) -> dict[str, Any]:
    """The same for KuaiSAR."""
    write = partial(kuaisar_world.write_world, world)
    return _provide("kuaisar", raw, raw.variant, write, kuaisar.find_files, download)


def provide_weibo(raw: WeiboRaw, world: WeiboWorldOptions) -> dict[str, Any]:
    """The same for Weibo."""
    write = partial(weibo_world.write_world, world)
    return _provide("weibo", raw, raw.variant, write, weibo.find_files)


def provide_events(raw: EventsRaw, world: EventsWorldOptions) -> dict[str, Any]:
    """The same for a store's own log."""
    write = partial(events_world.write_world, world)
    find = lambda root, _variant, kind: events.find_files(root, kind)  # noqa: E731
    return _provide("events", raw, "own", write, find)


def _provide(
    source: str,
    raw: RawOptions,
    variant: str,
    write: Callable[[Path], Path],
    find: Callable[..., Manifest],
    download: DownloadOptions | None = None,
) -> dict[str, Any]:
    if raw.kind == "world":
        write(raw.root)
    elif raw.kind == "download" and download is not None:
        changes = {"source": source, "variant": variant, "root": raw.root}
        fetch_release(find_release(source, variant), download.model_copy(update=changes))
    return find(raw.root, variant, "world" if raw.kind == "world" else "files").to_dict()


def ingest_source(
    raw_manifest: dict[str, Any], options: LogOptions, engine: EngineOptions
) -> dict[str, Any]:
    """Read, check, re-index and sort; bad rows go to quarantine. Answers the canonical tables by name."""
    manifest = Manifest.from_dict(raw_manifest)
    done = SOURCES[manifest.source].ingest(manifest, options, engine)
    return {
        "interactions": done.interactions,
        "items": done.items,
        "users": done.users,
        "user_map": done.user_map,
        "item_map": done.item_map,
        "quarantine": done.quarantine,
        "ingestion_report": done.report,
        **(done.extras or {}),
    }


def ingest_posts(raw_manifest: dict[str, Any], options: LogOptions) -> dict[str, Any]:
    """Read Tianchi's posts, which name no viewers: there are no interactions."""
    done = weibo.ingest_posts(Manifest.from_dict(raw_manifest), options)
    return {
        "author_posts": done.author_posts,
        "items": done.items,
        "users": done.authors.rename({"author_id": "user_id"}),
        "user_map": done.author_map,
        "item_map": done.item_map,
        "quarantine": done.quarantine,
        "ingestion_report": done.report,
    }
