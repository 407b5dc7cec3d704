"""The pipeline itself: with dry=true it plans and does nothing else."""

import pytest
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline

from reelrank.hooks import DryRunHooks


@pytest.mark.parametrize(("dry", "kept"), [(True, ["experiments.plan"]), (False, None)])
def test_a_dry_run_is_the_plan_alone(project, dry, kept):
    whole = pipelines["experiments"]
    own = Pipeline(whole.nodes)
    DryRunHooks().before_pipeline_run(
        pipeline=own, catalog=DataCatalog({"params:dry": MemoryDataset(dry)})
    )
    assert [n.name for n in own.nodes] == (kept or [n.name for n in whole.nodes])


def test_other_pipelines_are_left_alone(project):
    own = Pipeline(pipelines["ope_validity"].nodes)
    DryRunHooks().before_pipeline_run(pipeline=own, catalog=DataCatalog())
    assert len(own.nodes) == len(pipelines["ope_validity"].nodes)
