"""A pipeline run for a claim, and the catalog it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DataCatalog

ROOT = Path(__file__).parents[1]


def run(pipeline: str, to_nodes: Sequence[str], params: Mapping[str, Any], data_root: str | Path) -> DataCatalog:  # fmt: skip
    """Run a pipeline in ``base`` up to nodes, its data below ``data_root``; the catalog, to read while that folder stands."""
    bootstrap_project(ROOT)
    runtime = {**params, "data_root": str(data_root)}
    with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
        session.run(pipeline_names=[pipeline], to_nodes=[*to_nodes])
    # a session runs once: versions just saved are read by another
    with KedroSession.create(ROOT, env="base", runtime_params=runtime) as session:
        return session.load_context().catalog
