"""`kedro run --pipelines ope_validity` at tiny sizes, as a user runs it."""

import polars as pl
import pytest

from reelrank.datasets import ReportDataset

EXPERIMENTS = {f"OP-{k:02d}" for k in range(1, 12)}


@pytest.fixture(scope="module")
def catalog(run, catalog_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="ope_validity")
    return catalog_of(folder)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog["ope_validity.results"].load()


def test_every_experiment_has_rows(results):
    assert set(results["experiment"]) == EXPERIMENTS
    assert (results["system"] == "ope_validity").all()
    assert (results["data_kind"] == "world").all()
    assert results["cell"].null_count() == 0
    key = ["experiment", "cell", "variant", "metric", "group", "weighting"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()


def test_the_logging_policy_returns_the_mean_of_its_log(results):
    rows = results.filter(experiment="OP-01", metric="deviation")
    exact = rows.filter(pl.col("weighting").is_in(["ipw", "snipw", "sg-ipw", "ncis"]))
    assert set(exact["cell"]) == {"true propensity", "estimated propensity"}
    assert exact.height == 8
    assert exact["value"].abs().max() < 1e-12


def test_better_policies_have_higher_planted_values(results):
    rows = results.filter(experiment="OP-02", metric="bandit_value")
    value = dict(rows.select("variant", "value").iter_rows())
    assert value["uniform"] < value["noisy_reward"] < value["reward"] < value["near_greedy"]
    assert value["near_greedy"] < value["greedy"]


def test_a_leaking_state_finds_the_action(results):
    rows = results.filter(experiment="OP-05", metric="log_loss")
    loss = dict(rows.select("cell", "value").iter_rows())
    assert loss["state holds the action"] < loss["state before the action"]


def test_the_page_shows_every_experiment_and_says_synthetic(catalog):
    dataset = catalog["ope_validity.report"]
    assert isinstance(dataset, ReportDataset)
    page = dataset.load()
    for experiment in EXPERIMENTS:
        assert experiment in page, experiment
    assert "synthetic data" in page
    assert page.count('<figure class="chart">') == 6
    for figure in ("coverage", "bias", "rmse", "estimated", "reliability", "matrix"):
        assert catalog[f"ope_validity.figure_{figure}"].exists()
