"""The registry: every id of METHODS §9, families, near matches, and which run answers what."""

import pytest
import yaml
from kedro.framework.project import pipelines, settings
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from pydantic import ValidationError

from reelrank.pipelines.experiments import plan
from reelrank.pipelines.experiments.options import ExperimentOptions, ExperimentsParameters

SIZES = {"MT": 16, "MM": 13, "RU": 13, "GV": 11, "OP": 11}
IDS = [f"{family}-{k:02d}" for family, n in SIZES.items() for k in range(1, n + 1)]
READING = {"question": "q", "asked_by": "p", "reading": {"rule": "r"}}


@pytest.fixture(scope="module")
def parameters(project):
    loader = settings.CONFIG_LOADER_CLASS(
        conf_source=str(project / settings.CONF_SOURCE), env="base", **settings.CONFIG_LOADER_ARGS
    )
    return loader["parameters"]


@pytest.fixture(scope="module")
def registry(parameters):
    return ExperimentsParameters.model_validate(parameters["experiments"]).registry


def test_the_registry_holds_every_id_of_methods_and_no_other(registry):
    assert list(registry) == IDS


def test_every_experiment_can_be_planned_and_no_job_stands_twice(registry, parameters):
    jobs = plan.make_jobs(registry, registry, parameters, pipelines)
    assert len({job.name for job in jobs}) == len(jobs)
    answered = {cell.experiment for job in jobs for cell in job.cells}
    stuck = {name for name, e in registry.items() if e.status}
    assert answered | stuck == set(IDS)
    for job in jobs:
        assert job.outputs, f"{job.name} makes no table of result rows"
        assert job.inputs


def test_no_cell_loads_what_its_own_folder_would_have_to_hold(registry, parameters, project):
    """A cell writes result rows below ``tables_root``; a stored table that lies there too would not be found."""
    loader = settings.CONFIG_LOADER_CLASS(
        conf_source=str(project / settings.CONF_SOURCE), env="base", runtime_params={"tables_root": "/cells/own"},
        **settings.CONFIG_LOADER_ARGS,
    )  # fmt: skip
    catalog = DataCatalog.from_config(loader["catalog"])

    def is_own(name):
        return str(getattr(catalog.get(name), "_filepath", "")).startswith("/cells/own")

    jobs = plan.make_jobs(registry, registry, parameters, pipelines)
    assert all(is_own(name) for job in jobs for name in job.outputs)
    assert not [(job.name, name) for job in jobs for name in job.inputs if is_own(name)]


def test_every_cell_that_ruie_describes_is_run_once(registry, parameters):
    described = parameters["ruie"]["studies"]["cells"]
    jobs = plan.make_jobs(registry, list(described), parameters, pipelines)
    found = [(c.experiment, c.only) for job in jobs for c in job.cells if c.only]
    assert sorted(found) == sorted((e, c) for e, cells in described.items() for c in cells)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("RU-03", ["RU-03"]), ("ru-03 GV-02", ["RU-03", "GV-02"]), ("RU-03+RU-05", ["RU-03", "RU-05"]),
     (["GV-02", "RU-03"], ["RU-03", "GV-02"]), ("OP-*", IDS[-11:]), ("OP", IDS[-11:]), ("all", IDS),
     ("RU-0?", IDS[29:38]), ("RU-03,RU-03", ["RU-03"])],
)  # fmt: skip
def test_ids_and_families(asked, found):
    assert plan.chosen_ids(asked, IDS) == found


@pytest.mark.parametrize(("wrong", "named"), [("RU-3", "RU-03"), ("GV_02", "GV-02"), ("XX-99", "families: GV, MM, MT, OP, RU")])  # fmt: skip
def test_an_unknown_id_names_those_near_it(wrong, named):
    with pytest.raises(ValueError, match=r"no experiment is called so") as error:
        plan.chosen_ids(f"RU-01 {wrong}", IDS)
    assert named in str(error.value)


def test_no_id_is_said_to_be_none():
    with pytest.raises(ValueError, match="names no experiment"):
        plan.chosen_ids(" ", IDS)


def rows(source, studies):
    return source


def make(raw):
    return raw


SYSTEM = Pipeline(
    [
        Node(make, ["params:depth"], "table", name="make"),
        Node(rows, ["table", "params:studies"], "study_cells", name="study"),
        Node(rows, ["table", "params:depth"], "study_main", name="evaluate"),
    ],
    namespace="toy",
)
TREE = {
    "toy": {
        "depth": 1,
        "studies": {
            "run": ["TY-01"],
            "cells": {
                "TY-01": {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3, "against": "a"}},
                "TY-02": {"z": {"x": 9}},
            },
        },
    }
}
STUDY = ExperimentOptions(**READING, studies=[{"pipeline": "toy"}])
MAIN = ExperimentOptions(**READING, cells={"main": {"pipeline": "toy", "node": "evaluate"}})


def toy_jobs(tree=TREE, **registry):
    registry = {name.replace("_", "-"): e for name, e in registry.items()}
    return plan.make_jobs(registry, registry, tree, {"toy": SYSTEM})


def test_cells_are_jobs_and_those_that_are_compared_share_one():
    jobs = toy_jobs(TY_01=STUDY)
    assert [[c.title for c in job.cells] for job in jobs] == [["TY-01.a", "TY-01.c"], ["TY-01.b"]]
    run = [job.parameters["toy"]["studies"]["run"] for job in jobs]
    assert run == [["TY-01.a", "TY-01.c"], ["TY-01.b"]]
    assert jobs[0].node == "toy.study"
    assert jobs[0].outputs == ("toy.study_cells",) and jobs[0].inputs == ("toy.table",)
    assert TREE["toy"]["studies"]["run"] == ["TY-01"]  # the tree that was given is not touched


def test_a_study_may_run_some_cells_under_names_of_their_own():
    some = {"pipeline": "toy", "only": ["a", "c"], "named": "west"}
    (job,) = toy_jobs(TY_01=ExperimentOptions(**READING, studies=[some]))
    assert [(c.title, c.only, c.named) for c in job.cells] == [
        ("TY-01.west, a", "a", "west"), ("TY-01.west, c", "c", "west"),
    ]  # fmt: skip
    assert job.parameters["toy"]["studies"]["run"] == ["TY-01.a", "TY-01.c"]
    with pytest.raises(ValueError, match=r"TY-01: only names \['d'\], which toy\.studies\.cells"):
        toy_jobs(TY_01=ExperimentOptions(**READING, studies=[{**some, "only": ["d"]}]))


def test_the_graph_is_taken_away_on_weibo_too(registry, parameters):
    jobs = plan.make_jobs(registry, ["MT-02"], parameters, pipelines)
    named = {c.title: job.node for job in jobs for c in job.cells}
    assert named["MT-02.no_graph"] == "mt_dqn.study"
    assert {title for title, node in named.items() if node == "mt_dqn_weibo.study"} == {"MT-02.weibo, no_graph"}  # fmt: skip


def test_experiments_that_one_node_answers_share_its_run():
    (job,) = toy_jobs(TY_01=MAIN, TY_03=MAIN)
    assert [cell.title for cell in job.cells] == ["TY-01.main", "TY-03.main"]


def changed(path, value):
    return plan._with(TREE, path, value)


def test_the_key_changes_with_what_the_rows_depend_on_and_with_nothing_else():
    key = {job.name: job.key for job in toy_jobs(TY_01=STUDY, TY_03=MAIN)}
    other_cell = changed("toy.studies.cells.TY-02.z.x", 10)
    sibling = changed("toy.studies.cells.TY-01.b.x", 5)
    depth = changed("toy.depth", 2)
    run = changed("toy.studies.run", [])

    def keys(tree):
        return {job.name: job.key for job in toy_jobs(tree, TY_01=STUDY, TY_03=MAIN)}

    assert keys(other_cell) == keys(run) == key
    assert {n for n, k in keys(sibling).items() if k != key[n]} == {"toy.study/TY-01.b"}
    assert all(k != key[n] for n, k in keys(depth).items())


def test_another_version_of_the_code_is_another_key(monkeypatch):
    (before,) = toy_jobs(TY_03=MAIN)
    monkeypatch.setattr(plan, "code_version", lambda: "2+other")
    (after,) = toy_jobs(TY_03=MAIN)
    assert before.key != after.key


def test_a_registry_that_names_nothing_is_refused():
    gone = ExperimentOptions(**READING, cells={"main": {"pipeline": "toy", "node": "gone"}})
    with pytest.raises(ValueError, match=r"TY-01: there is no node toy\.gone"):
        toy_jobs(TY_01=gone)
    with pytest.raises(ValueError, match=r"TY-09: toy\.studies\.cells describes no cell"):
        toy_jobs(TY_09=STUDY)
    with pytest.raises(ValidationError, match="needs cells or studies"):
        ExperimentOptions(**READING)


def test_an_id_of_another_form_is_refused(project):
    file = project / "conf/base/parameters/experiments.yml"
    block = yaml.safe_load(file.read_text(encoding="utf-8"))["experiments"]
    block["registry"]["RU-1"] = block["registry"]["RU-01"]
    with pytest.raises(ValidationError, match="an id is like RU-03"):
        ExperimentsParameters.model_validate(block)
