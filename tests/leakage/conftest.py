"""The judge of the leakage rules, and a world on which they are judged."""

from dataclasses import dataclass

import polars as pl
import pytest

from reelrank.buckets import EngineOptions
from reelrank.features.bursts import BurstOptions, day_rows, find_bursts
from reelrank.sources import kuairec
from reelrank.worlds.kuairec import write_world
from reelrank.worlds.kuairec_options import WorldOptions


@pytest.fixture
def judge():
    """Run a check on a variant of ``support.leaks``: an honest one must pass, a leaky one must be caught."""

    def run(check, variant, *rest):
        if variant.caught_by is None:
            check(variant.subject, *rest)
            return
        with pytest.raises(AssertionError, match=variant.caught_by):
            check(variant.subject, *rest)

    return run


@dataclass(frozen=True)
class WorldLog:
    interactions: pl.DataFrame
    items: pl.DataFrame
    item_daily: pl.DataFrame
    bursts: pl.DataFrame


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """KuaiRec's world, in which four videos in ten are uploaded while the log runs."""
    folder = tmp_path_factory.mktemp("leakage")
    sizes = {"users": 60, "videos": 150, "rows_per_user": 30, "small_users": 12, "small_videos": 30}
    write_world(WorldOptions(**sizes), folder / "raw")
    tables = kuairec.ingest(
        kuairec.find_files(folder / "raw", kind="world"),
        kuairec.KuaiRecLogOptions(session_gap_s=3600),
        EngineOptions(n_buckets=1, staging=folder / "staging"),
    )
    log = tables.interactions.read(0)
    bursts = find_bursts(day_rows(log.lazy()), BurstOptions(rule="kuairec"))
    return WorldLog(log, tables.items, tables.extras["item_daily"], bursts)
