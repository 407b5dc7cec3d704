"""Every pipeline that ``kedro run --pipelines NAME`` knows; each runs alone, from raw files to a report."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from reelrank.pipelines import download, features, graphs, ingestion, mt_dqn, ope_validity

SOURCES = ("kuairand", "kuairec", "kuaisar", "weibo", "events")


def register_pipelines() -> dict[str, Pipeline]:
    """Name to pipeline; ``ingestion`` and ``features`` take every source, ``__default__`` is everything but the download."""
    tables = {source: ingestion.create_pipeline(source) for source in SOURCES}
    shared = {source: tables[source] + features.create_pipeline(source) for source in SOURCES}
    full = {source: shared[source] + graphs.create_pipeline(source) for source in SOURCES}
    posts = ingestion.create_posts_pipeline()
    systems = {
        "mt_dqn": shared["kuairand"] + mt_dqn.create_pipeline(system="mt_dqn", source="kuairand"),
        "ope_validity": shared["kuairand"] + tables["kuairec"] + ope_validity.create_pipeline(),
    }
    return {
        "download": download.create_pipeline(),
        "ingestion": sum(tables.values(), posts),
        "features": sum(full.values(), posts),
        **{f"ingestion_{source}": pipeline for source, pipeline in tables.items()},
        "ingestion_weibo_posts": posts,
        **{f"features_{source}": pipeline for source, pipeline in full.items()},
        **systems,
        "__default__": sum([*full.values(), *systems.values()], posts),
    }
