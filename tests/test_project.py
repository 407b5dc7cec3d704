"""Conventions of the Kedro project: what every pipeline, catalog entry and parameter keeps to."""

import subprocess
import sys

import pytest
import yaml
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession

from reelrank.parameters import check_parameters

ENVIRONMENTS = ("base", "test", "real", "paper")


@pytest.fixture(scope="module")
def contexts(project):
    opened = {}
    for env in ENVIRONMENTS:
        with KedroSession.create(project, env=env) as session:
            opened[env] = session.load_context()
    return opened


def test_every_dataset_is_in_the_catalog(project, contexts):
    wanted = {d: name for name, pipeline in pipelines.items() for d in pipeline.datasets()}
    for env, context in contexts.items():
        catalog = context.catalog  # a property that builds it anew
        missing = [f"{d} of {name}" for d, name in wanted.items() if d not in catalog]
        assert not missing, f"not in the catalog of {env}: {missing}"


def test_every_dataset_has_a_layer(project, contexts):
    catalog = contexts["base"].catalog
    for name in pipelines["__default__"].datasets():
        if not name.startswith("params:") and name != "parameters":
            assert catalog.get(name).metadata["kedro-viz"]["layer"], name


def test_nodes_are_named_tagged_and_namespaced(project):
    for node in pipelines["__default__"].nodes:
        assert node.namespace, node.name
        assert not node.short_name.endswith("_node"), node.name
        assert node.tags, node.name


def test_gpu_tag_finds_the_training_nodes(project):
    names = {node.name for node in pipelines["mt_dqn"].only_nodes_with_tags("gpu").nodes}
    assert names == {
        "mt_dqn.train_mt_dqn",
        "mt_dqn.train_concat_modal",
        "mt_dqn.train_vanilla_dqn",
        "mt_dqn.study",
    }


def test_other_environments_hold_deltas_only(project):
    base = {}
    for file in (project / "conf/base/parameters").glob("*.yml"):
        base |= _leaves(yaml.safe_load(file.read_text(encoding="utf-8")))
    for env in ("test", "real", "paper"):
        for file in (project / "conf" / env / "parameters").glob("*.yml"):
            own = _leaves(yaml.safe_load(file.read_text(encoding="utf-8")))
            # a larger environment may describe more cells of a study
            added = {key for key in own if ".studies.cells." not in key} - set(base)
            assert not added, f"{file} has keys that base lacks: {sorted(added)}"
            repeated = [key for key, value in own.items() if base.get(key, ...) == value]
            assert not repeated, f"{file} repeats what base says: {repeated}"


def _leaves(tree, path=()):
    if not isinstance(tree, dict):
        return {".".join(path): tree}
    return {k: v for key, sub in tree.items() for k, v in _leaves(sub, (*path, key)).items()}


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_every_environment_is_a_valid_tree_of_parameters(contexts, env):
    assert check_parameters(contexts[env].config_loader["parameters"]) == []


def test_listing_pipelines_does_not_pay_for_torch(project):
    code = (
        "import sys; from reelrank.pipeline_registry import register_pipelines; register_pipelines();"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project)
