"""Every pipeline that ``kedro run --pipelines NAME`` knows; each runs alone, from raw files to a report."""

from __future__ import annotations

from kedro.pipeline import Pipeline

from reelrank.pipelines import features, ingestion, mt_dqn


def register_pipelines() -> dict[str, Pipeline]:
    """Name to pipeline; ``__default__`` is everything."""
    tables = ingestion.create_pipeline("kuairand")
    shared = tables + features.create_pipeline("kuairand")
    systems = {"mt_dqn": shared + mt_dqn.create_pipeline(system="mt_dqn", source="kuairand")}
    return {
        "ingestion": tables,
        "features": shared,
        **systems,
        "__default__": sum(systems.values(), Pipeline([])),
    }
