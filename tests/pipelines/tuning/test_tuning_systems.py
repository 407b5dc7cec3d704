"""The shipped spaces fit their systems, at small and at published sizes."""

import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.project import pipelines
from pydantic_core import to_jsonable_python

from reelrank.parameters import Parameters, check_parameters
from reelrank.pipelines.tuning.task import make_task
from reelrank.settings import CONFIG_LOADER_ARGS


@pytest.mark.parametrize("env", ["base", "paper"])
def test_every_space_can_be_searched(project, env):
    loader = OmegaConfigLoader(str(project / "conf"), env=env, **CONFIG_LOADER_ARGS)
    tree = to_jsonable_python(loader["parameters"])
    tuning = Parameters.model_validate(tree).tuning
    studies = set()
    for system, options in tuning.systems.items():
        task = make_task(system, tuning, tree, pipelines, check_parameters)
        assert set(task.defaults()) == set(options.space)
        studies.add(task.study)
    assert len(studies) == len(tuning.systems)
