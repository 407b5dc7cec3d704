"""Every pipeline that ``kedro run --pipelines NAME`` knows; each runs alone, from raw files to a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kedro.pipeline import Pipeline

from reelrank.pipelines import (
    ab_test,
    compress,
    download,
    experiments,
    features,
    feedback_simulator,
    graphs,
    head_weights,
    ingestion,
    mmrf,
    mt_dqn,
    ope_validity,
    reporting,
    ruie,
    tuning,
    value_model,
)

SOURCES = ("kuairand", "kuairec", "kuaisar", "weibo", "events")


def _fed(source: Pipeline, system: Pipeline) -> Pipeline:
    """A system after those nodes of its source that it needs."""
    return source.to_outputs(*(system.inputs() & source.all_outputs())) + system


def _check(parameters: Mapping[str, Any]) -> list[str]:
    from reelrank.parameters import check_parameters  # noqa: PLC0415 (reads options of all packages)

    return check_parameters(parameters)


def register_pipelines() -> dict[str, Pipeline]:
    """Name to pipeline; ``ingestion`` and ``features`` take every source, ``__default__`` is everything but the download, the experiments and the tuning."""
    tables = {source: ingestion.create_pipeline(source) for source in SOURCES}
    shared = {source: tables[source] + features.create_pipeline(source) for source in SOURCES}
    full = {source: shared[source] + graphs.create_pipeline(source) for source in SOURCES}
    posts = ingestion.create_posts_pipeline()
    values = value_model.create_pipeline(source="kuairec")
    # training of the one model that ranks, and what it was fitted with
    predictor = values.to_outputs("value_model.gnn_128_model", "value_model.encoder")
    # what decisions of a feed are made of
    decided = full["kuairand"].to_outputs("kuairand.splits", "kuairand.candidate_sets")
    policies = mmrf.create_pipeline(system="mmrf")
    # trained once, and what their off-policy values rest on
    arms = policies.to_outputs(
        *(f"mmrf.{m}_{kind}" for m in ab_test.METHODS for kind in ("model", "scores")),
        "mmrf.propensities",
    )
    watched = full["kuairec"].to_outputs("kuairec.splits", "kuairec.candidate_sets")
    watchers = mmrf.create_pipeline(system="mmrf_kuairec", source="kuairec").to_outputs(
        *(f"mmrf_kuairec.{m}_model" for m in ab_test.METHODS)
    )
    multimodal = mt_dqn.create_pipeline(system="mt_dqn", source="kuairand")
    # trained and judged once, without its baselines
    teacher = multimodal.to_outputs(*(f"mt_dqn.{name}" for name in compress.FROM_TEACHER))
    systems = {
        "mt_dqn": _fed(shared["kuairand"], multimodal),
        "compress": _fed(
            shared["kuairand"],
            teacher
            + compress.create_pipeline()
            + mt_dqn.create_judging("compress", compress.VARIANTS),
        ),
        "mt_dqn_weibo": _fed(
            shared["weibo"], mt_dqn.create_pipeline(system="mt_dqn_weibo", source="weibo")
        ),
        # KuaiRec's own split has train days after test days, which labels and states that look ahead cannot have
        "mt_dqn_kuairec": _fed(
            shared["kuairec"],
            features.create_own_split("mt_dqn_kuairec", "kuairec")
            + mt_dqn.create_pipeline("mt_dqn_kuairec", "kuairec", split_of="mt_dqn_kuairec"),
        ),
        "value_model": _fed(shared["kuairec"], values),
        "head_weights": _fed(
            shared["kuairec"], predictor + head_weights.create_pipeline(model="gnn_128")
        ),
        "mmrf": decided + policies,
        "mmrf_top_videos": decided + mmrf.create_pipeline(system="mmrf_top_videos"),
        "ab_test": decided + arms + watched + watchers + ab_test.create_pipeline(),
        "ab_test_kuairand": decided
        + arms
        + ab_test.create_pipeline(system="ab_test_kuairand", matrix=None),
        "ruie": _fed(shared["kuaisar"], ruie.create_pipeline(system="ruie", source="kuaisar")),
        "ruie_kuairand": _fed(
            shared["kuairand"], ruie.create_pipeline(system="ruie_kuairand", source="kuairand")
        ),
        "ruie_events": _fed(
            shared["events"], ruie.create_pipeline(system="ruie_events", source="events")
        ),
        "feedback_simulator": _fed(shared["kuairand"], feedback_simulator.create_pipeline()),
        "ope_validity": _fed(
            shared["kuairand"] + tables["kuairec"], ope_validity.create_pipeline()
        ),
    }
    return {
        "download": download.create_pipeline(),
        "experiments": experiments.create_pipeline(),
        "reporting": reporting.create_pipeline(),
        "tuning": tuning.create_pipeline(_check),
        "ingestion": sum(tables.values(), posts),
        "features": sum(full.values(), posts),
        **{f"ingestion_{source}": pipeline for source, pipeline in tables.items()},
        "ingestion_weibo_posts": posts,
        **{f"features_{source}": pipeline for source, pipeline in full.items()},
        **systems,
        "__default__": sum([*full.values(), *systems.values()], posts),
    }
