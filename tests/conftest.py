"""Fixtures shared by the tests that run Kedro."""

import os
from copy import deepcopy
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from reelrank.parameters import check_parameters
from reelrank.settings import CONFIG_LOADER_ARGS

ROOT = Path(__file__).parents[1]


@cache
def _tree(env):
    """All parameters of an environment; reading them takes seconds."""
    return OmegaConfigLoader(str(ROOT / "conf"), env=env, **CONFIG_LOADER_ARGS)["parameters"]


def _put(tree, changed):
    for key, value in changed.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _put(tree[key], value)
        else:
            tree[key] = value


@pytest.fixture(scope="session")
def wrong_parameters():
    """What is wrong with the parameters of an environment after changes on the command line."""

    def wrong(changed, env="test"):
        tree = deepcopy(_tree(env))
        _put(tree, changed)
        return check_parameters(tree)

    return wrong


@pytest.fixture(scope="session")
def project():
    """The bootstrapped project's folder."""
    bootstrap_project(ROOT)
    return ROOT


@pytest.fixture(scope="session")
def run(project):
    """Run a pipeline in an environment with its data in a folder of its own."""

    def run_pipeline(data_root, *, pipeline="mt_dqn", env="test", params=None, **kwargs):
        runtime = {"data_root": str(data_root), **(params or {})}
        with KedroSession.create(project, env=env, runtime_params=runtime) as session:
            return session.run(pipeline_names=[pipeline], **kwargs)

    return run_pipeline


@pytest.fixture(scope="session")
def catalog_of(project):
    """The catalog of an environment, as a notebook sees it."""

    def open_catalog(data_root, env="test"):
        with KedroSession.create(
            project, env=env, runtime_params={"data_root": str(data_root)}
        ) as session:
            return session.load_context().catalog

    return open_catalog


@pytest.fixture(scope="session")
def real_data():
    """The folder with real rows, or a skip that says why."""
    folder = os.environ.get("REELRANK_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("REELRANK_REAL_DATA names no folder with real rows")
    return Path(folder)


@pytest.fixture(scope="session")
def fewer_real_rows(real_data, tmp_path_factory):
    """The official folder of KuaiRand-Pure with the logs of every sixteenth user."""
    source = real_data / "KuaiRand-Pure/data"
    folder = tmp_path_factory.mktemp("raw") / "KuaiRand-Pure/data"
    folder.mkdir(parents=True)
    for file in source.glob("*.csv"):
        if file.name.startswith("log_"):
            rows = pl.read_csv(file, infer_schema=False)
            rows.filter(pl.col("user_id").cast(pl.Int64) % 16 == 0).write_csv(folder / file.name)
        else:
            (folder / file.name).symlink_to(file)
    return folder.parents[1]
