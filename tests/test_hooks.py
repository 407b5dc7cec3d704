"""Around a run: stale staging is swept, fresh staging of another run is left alone."""

import os
import time

from kedro.io import DataCatalog, MemoryDataset

from reelrank.hooks import STALE_STAGING_S, FinishHooks


def test_only_what_a_run_left_a_day_ago_is_swept(tmp_path):
    old, fresh = tmp_path / "rewards-old", tmp_path / "rewards-fresh"
    for folder in (old, fresh):
        folder.mkdir()
    then = time.time() - STALE_STAGING_S - 60
    os.utime(old, (then, then))
    catalog = DataCatalog({"params:engine": MemoryDataset({"staging": str(tmp_path)})})
    FinishHooks().before_pipeline_run(run_params={}, catalog=catalog)
    assert [p.name for p in tmp_path.iterdir()] == ["rewards-fresh"]


def test_a_catalog_without_an_engine_is_left_alone():
    FinishHooks().before_pipeline_run(run_params={}, catalog=DataCatalog())
