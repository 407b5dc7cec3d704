"""The whole of `kedro run --pipelines ab_test` at tiny sizes, as a user runs it."""

import json

import polars as pl
import pytest
from kedro.framework.project import pipelines

from reelrank.pipelines.ab_test.effects import AA, OUTCOMES, PAIRED
from reelrank.pipelines.ab_test.evaluate import IN_CONTEXT, PER_DAY, PER_VIDEO
from reelrank.pipelines.ab_test.report import FIGURES
from reelrank.pipelines.ab_test.run_options import CONTROL, METHODS
from reelrank.tables import Results

pytestmark = pytest.mark.long
RIVALS = set(METHODS) - {CONTROL}
DAYS, CONTROL_DAYS = 4, 1


@pytest.fixture(scope="module")
def data_root(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    # how well the policies have learnt does not matter here
    run(folder, pipeline="ab_test", params={"mmrf": {"learning": {"epochs": 1, "steps": 3}}})
    return folder


@pytest.fixture(scope="module")
def catalog(data_root, catalog_of):
    return catalog_of(data_root)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog["ab_test.results"].load()


@pytest.fixture(scope="module")
def effects(results):
    return results.filter(metric="effect_percent", weighting=PAIRED)


def test_every_policy_is_judged_by_every_source(results, effects):
    Results.validate(results)
    assert (results["system"] == "ab_test").all() and (results["experiment"] == "MM-10").all()
    key = ["cell", "variant", "metric", "group", "weighting", "paired_with"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()
    for cell in ("world", "world, softened", "simulator"):
        own = effects.filter(cell=cell)
        assert set(own["variant"]) == RIVALS and set(own["group"]) >= set(OUTCOMES), cell
    for cell in ("ncis", "dr", "dm", "bandit_value"):
        own = effects.filter(cell=cell)
        assert set(own["variant"]) == RIVALS, cell
        assert set(own["group"]) == {"watch_time", "follow", "comment"}
    assert (effects["paired_with"] == CONTROL).all()


def test_kuairecs_matrix_knows_watch_time_and_depth(effects):
    own = effects.filter(cell="matrix")
    assert set(own["variant"]) == RIVALS
    assert set(own["group"]) & set(OUTCOMES) == {"watch_time", "depth_day"}
    assert set(own["source"]) == {"kuairec"}


def test_the_control_serves_all_in_the_first_days(catalog, results):
    days = catalog["ab_test.world_days"].load()
    assert set(days["arm"]) == set(METHODS) and set(days["serving"]) == {"greedy", "softened"}
    first = days.filter(pl.col("day") < CONTROL_DAYS).drop("arm").group_by("serving", "user_id", "day")  # fmt: skip
    assert (first.agg(pl.all().n_unique()).select(pl.max_horizontal(pl.exclude("serving", "user_id", "day"))).to_series() == 1).all()  # fmt: skip
    later = days.filter(pl.col("day") >= CONTROL_DAYS, serving="greedy")
    assert later.group_by("arm").agg(pl.col("watch_time").sum())["watch_time"].n_unique() > 1
    aa = results.filter(metric="effect_percent", weighting=AA, cell="world", group="watch_time")
    assert (
        aa["value"].n_unique() == 1
    )  # the same halves under the same control, whatever comes later


def test_there_is_a_curve_of_every_day(results):
    for cell in ("world", "simulator", "matrix"):
        own = results.filter(pl.col("weighting").str.starts_with(f"{PAIRED}, day"), cell=cell, group="watch_time")  # fmt: skip
        assert own.height == DAYS * len(RIVALS), cell
        first = own.filter(pl.col("weighting") == f"{PAIRED}, day 1")["value"].drop_nulls()
        assert (first == 0).all()


def test_estimates_are_compared_with_the_truth(results):
    rows = results.filter(cell="agreement")
    assert {tuple(r) for r in rows.filter(metric="kendall_tau", group="watch_time").select("variant", "weighting").iter_rows()} == {
        ("simulator", PER_DAY),
        *((e, t) for e in ("ncis", "dr", "dm") for t in (PER_DAY, PER_VIDEO, IN_CONTEXT)),
    }  # fmt: skip
    tau = rows.filter(metric="kendall_tau")["value"].drop_nulls()
    assert tau.is_between(-1, 1).all()


def test_users_of_the_simulator_are_not_those_it_learnt_from(catalog):
    from reelrank.models.feedback_options import UserFold
    from reelrank.training.feedback_simulator import fold_of_users

    config = catalog["ab_test.simulator_model"].load().config
    n = catalog["kuairand.users"].load().height
    inside = fold_of_users(n, UserFold(**config["fold"])).numpy()
    lived_in = catalog["ab_test.simulator_days"].load()["user_id"].unique().to_numpy()
    assert len(lived_in) and not inside[lived_in].any()


def test_the_report_says_what_it_is(data_root, catalog):
    page = (data_root / "08_reporting/report/test/ab_test.html").read_text(encoding="utf-8")
    for words in ("A/B test that has a truth", "synthetic data", "(a) the world", "(b) simulator", "NCIS", "disjoint", "KuaiRec"):  # fmt: skip
        assert words in page, words
    for name in FIGURES:
        json.dumps(catalog.get(f"ab_test.figure_{name}").preview())


def test_without_kuairec_only_the_matrix_is_left_out(project):
    whole, part = (
        {node.short_name for node in pipelines[name].nodes if node.namespace == name}
        for name in ("ab_test", "ab_test_kuairand")
    )
    assert whole - part == {"live_in_matrix", "evaluate_matrix"} and part < whole
    assert not any("kuairec" in name for name in pipelines["ab_test_kuairand"].datasets())
