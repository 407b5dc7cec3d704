"""The whole of `kedro run --pipelines mmrf` at tiny sizes, as a user runs it."""

import json

import nbformat
import numpy as np
import polars as pl
import pytest
import torch
from kedro.framework.project import pipelines
from nbclient import NotebookClient

from reelrank.models.feed_data import batch
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feed_policies import history_length, load_policy
from reelrank.pipelines.mmrf.feed_tables import FeedTables
from reelrank.pipelines.mmrf.learning import CriticDiverged
from reelrank.pipelines.mmrf.options import AGENTS
from reelrank.pipelines.mmrf.report import FIGURES
from reelrank.pipelines.mmrf.run_options import METHODS, MMRF_VARIANTS
from reelrank.tables import Results
from reelrank.training.checkpoint import load_checkpoint

STEPS = ("ncis", "ncis-trajectory", "piece-ncis", "snipw")


@pytest.fixture(scope="module")
def data_root(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="mmrf")
    return folder


@pytest.fixture(scope="module")
def catalog(data_root, catalog_of):
    return catalog_of(data_root)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog["mmrf.results"].load()


@pytest.fixture(scope="module")
def main(results):
    return results.filter(experiment="MM-01", cell="main")


def test_every_method_has_every_number_of_every_response(results, main):
    Results.validate(results)
    assert (results["system"] == "mmrf").all() and (results["data_kind"] == "world").all()
    key = ["experiment", "cell", "variant", "metric", "group", "weighting", "paired_with"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()
    wanted = {(metric, a) for metric in ("gauc_final", "bandit_value", *STEPS) for a in AGENTS}
    wanted |= {(m, a) for m in ("ess", "mean_weight", "clip_rate", "max_share") for a in AGENTS}
    values = main.filter(pl.col("paired_with").is_null())
    for method in METHODS:
        assert wanted <= set(values.filter(variant=method).select("metric", "group").iter_rows()), method  # fmt: skip
    heads = set(values.filter(metric="gauc_head")["variant"])
    assert set(MMRF_VARIANTS) <= heads and not heads & {"bc", "wide_deep", "deepfm", "ltr"}


def test_mmrf_is_compared_with_each_method_on_the_same_rows(main):
    rows = main.filter(metric="gauc_final", group="watch_time")
    value = dict(rows.filter(pl.col("paired_with").is_null()).select("variant", "value").iter_rows())  # fmt: skip
    pairs = rows.filter(pl.col("paired_with").is_not_null())
    assert set(pairs["paired_with"]) == set(METHODS) - {"mmrf"}
    for row in pairs.iter_rows(named=True):
        assert row["variant"] == "mmrf" and 0 < row["p_value"] <= 1
        assert row["value"] == pytest.approx(value["mmrf"] - value[row["paired_with"]])


def test_values_that_rest_on_little_are_flagged(main, catalog):
    """METHODS §7.3, from what is stored beside each value."""
    for method in METHODS:
        own = main.filter(variant=method, group="watch_time", weighting="ncis")
        stored = dict(own.select("metric", "value").iter_rows())
        value = main.filter(pl.col("paired_with").is_null(), variant=method, group="watch_time", metric="ncis", weighting="")  # fmt: skip
        n, ess = value["n"][0], stored["ess"]
        weak = ess < 200 or ess / n < 0.01 or stored["max_share"] > 0.05 or abs(stored["mean_weight"] - 1) > 0.2  # fmt: skip
        assert value["reliable"][0] is not weak or not weak


@pytest.fixture(scope="module")
def inputs(catalog):
    tables = FeedTables(*(catalog[n].load() for n in ("mmrf.feed_log", "kuairand.items", "kuairand.users", "mmrf.feed_candidates")))  # fmt: skip
    return tables.inputs(FeedDataOptions(track="request"), "cpu")


def test_a_stored_policy_says_what_was_predicted(catalog, inputs):
    """Every checkpoint is rebuilt without its pipeline's help."""
    for method in METHODS:
        checkpoint = catalog[f"mmrf.{method}_model"].load()
        stored = catalog[f"mmrf.{method}_scores"].load().head(7)
        index = torch.from_numpy(stored["decision"].to_numpy().astype(np.int64))
        with torch.no_grad():
            scores = load_policy(checkpoint).scores(batch(inputs, index, history_length(checkpoint)))  # fmt: skip
        np.testing.assert_allclose(scores.numpy(), stored["scores"].to_numpy(), rtol=1e-4, atol=1e-5)  # fmt: skip
    judged = int((inputs.decisions.split >= 1).sum())
    assert catalog["mmrf.bc_scores"].load().height == judged


def test_users_without_history_are_scored_by_every_method(catalog, inputs):
    d = inputs.decisions
    new = torch.nonzero((d.split >= 1) & (d.row == inputs.rows.first[d.user])).squeeze(1).numpy()
    assert len(new)
    for method in METHODS:
        stored = catalog[f"mmrf.{method}_scores"].load()
        scores = stored.filter(pl.col("decision").is_in(new.tolist()))["scores"].to_numpy()
        assert len(scores) == len(new) and np.isfinite(scores[d.candidates[new].numpy() >= 0]).all()


def test_the_world_tells_what_each_policy_is_worth(results):
    rolled = results.filter(pl.col("paired_with").is_null(), metric="true_value")
    value = {(v, g): x for v, g, x in rolled.select("variant", "group", "value").iter_rows()}
    assert {v for v, _ in value} == {*METHODS, "oracle", "logged", "uniform"}
    assert value["oracle", "all"] > value["uniform", "all"]
    assert {g for _, g in value} == {"all", *AGENTS}


def test_propensities_were_fitted_and_reported(catalog):
    report = catalog["mmrf.behaviour_report"].load()
    assert report["part"].to_list() == ["train", "val"]
    assert {"log_loss", "top1", "ece", "temperature"} <= set(report.columns)
    stored = catalog["mmrf.propensities"].load()["probabilities"].to_numpy()
    np.testing.assert_allclose(stored.sum(1), 1.0)


def test_studies_have_their_cells(results):
    cells = results.filter(experiment="MM-02")
    assert set(cells["cell"]) == {"only_watch_time"}
    pairs = cells.filter(pl.col("paired_with").is_not_null(), metric="gauc_final")
    assert set(pairs["paired_with"]) == {"mmrf"}
    horizons = results.filter(experiment="MM-06")
    assert set(horizons["cell"]) == {"fixed", "weekly"}
    assert set(horizons.filter(cell="fixed")["variant"]) == set(METHODS)
    again = horizons.filter(pl.col("paired_with").is_not_null(), cell="weekly", metric="true_value@6")  # fmt: skip
    assert set(again["paired_with"]) == {"mmrf, fixed"}
    gain = dict(again.select("weighting", "value").iter_rows())
    # the first week is the fixed model's own: 22 to 28 April, days 4 to 10 after the 18th
    assert all(gain[f"day {d}"] == 0 for d in range(4, 11)) and gain["day 11"] != 0
    only = cells.filter(metric="gauc_head")
    assert set(only["group"]) == {"watch_time"}


def test_a_requests_cost_is_stored_for_every_method(results):
    rows = results.filter(experiment="MM-13")
    assert set(rows["cell"]) == {"C = 400"} and set(rows["variant"]) == set(METHODS)
    assert set(rows["metric"]) == {"weights_mb", "activations_mb", *(f"latency_{q}_ms" for q in ("p50", "p95", "p99"))}  # fmt: skip
    assert not rows.filter(metric="latency_p99_ms")["reliable"].any()  # three requests


def test_conflicts_and_attention_of_all_agents(catalog):
    conflicts = catalog["mmrf.mmrf_conflicts"].load()
    assert set(conflicts["agent"]) == set(AGENTS) and conflicts.height == len(AGENTS) ** 2
    assert catalog["mmrf.bc_conflicts"].load().is_empty()
    attention = catalog["mmrf.attention"].load()
    assert attention.height == 2 * len(AGENTS) ** 2


def test_the_report_marks_lost_cells_constructed_candidates_and_synthetic_data(data_root, catalog):
    page = (data_root / "08_reporting/report/test/mmrf.html").read_text(encoding="utf-8")
    for words in (
        "MMRF on kuairand", "synthetic data", "lost [0.7302, 0.7534]", "nothing here reproduces them", "constructed candidate sets", "0.6833", "MM-05",
    ):  # fmt: skip
        assert words in page, words
    for name in FIGURES:
        json.dumps(catalog.get(f"mmrf.figure_{name}").preview())


@pytest.mark.long
def test_the_notebook_runs_on_the_catalog(data_root, project, monkeypatch):
    monkeypatch.setenv("REELRANK_ENV", "test")
    monkeypatch.setenv("REELRANK_DATA_ROOT", str(data_root))
    notebook = nbformat.read(project / "notebooks/mmrf.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks carry no output"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}})
    client.execute()
    shown = {c["id"]: str(c.get("outputs")) for c in notebook.cells}
    assert all(method in shown["truth-table"] for method in METHODS)
    assert "0.5127" in shown["published-table"] and "cosine" in shown["conflict-table"]


def test_an_unknown_response_is_refused(wrong_parameters):
    params = {"mmrf": {"models": {"mmrf": {"actor": {"agents": ["click", "wow", "watch_time"]}}}}}
    assert any("unknown responses ['wow']" in said for said in wrong_parameters(params))


def test_candidate_sets_smaller_than_a_list_are_refused(run, data_root):
    message = r"fewer than k = 50 items, the first that of user \d+ .* enlarge candidates.size or lower k"  # fmt: skip
    with pytest.raises(ValueError, match=message):
        run(data_root, pipeline="mmrf", node_names=["mmrf.make_feed"], params={"mmrf": {"data": {"k": 50}}})  # fmt: skip


def test_a_diverging_critic_stops_the_run_and_leaves_its_last_good_state(run, data_root):
    wild = {"learning": {"steps": 60, "check_every": 1}, "models": {"mmrf": {"update": {"critic_lr": 1e6, "grad_clip": 1e9}}}}  # fmt: skip
    with pytest.raises(CriticDiverged, match=r"critic of \w+ diverged .* lower critic_lr") as caught:  # fmt: skip
        run(data_root, pipeline="mmrf", node_names=["mmrf.train_mmrf"], params={"mmrf": wild})
    assert caught.value.checkpoint.is_relative_to(data_root)
    tensors, _ = load_checkpoint(caught.value.checkpoint)
    assert all(t.isfinite().all() for n, t in tensors.items() if n.startswith("learner.networks"))


def test_the_other_track_shares_all_but_its_own_settings(project):
    nodes = {s: [n for n in pipelines[s].nodes if n.namespace == s] for s in ("mmrf", "mmrf_top_videos")}  # fmt: skip
    assert len(nodes["mmrf"]) == len(nodes["mmrf_top_videos"])
    read = {name for n in nodes["mmrf_top_videos"] for name in n.inputs}
    own = {n for n in read if n.startswith("params:mmrf_top_videos.")}
    assert {n.rsplit(".", 1)[1] for n in own} == {"command", "data"}


def test_training_nodes_draw_their_network_and_are_found_by_tag(project):
    training = pipelines["mmrf"].only_nodes_with_tags("gpu").nodes
    assert {f"mmrf.train_{m}" for m in METHODS} <= {n.name for n in training}
    for node in training:
        if node.name.startswith("mmrf.train_"):
            assert "flowchart" in node.preview().content


@pytest.mark.long
def test_the_track_of_most_viewed_videos_runs_to_a_report(run, catalog_of, tmp_path):
    run(tmp_path, pipeline="mmrf_top_videos", params={"mmrf": {"studies": {"run": []}}})
    opened = catalog_of(tmp_path)
    assert opened["mmrf_top_videos.feed_report"].load()["candidates_least"] == 40
    page = (tmp_path / "08_reporting/report/test/mmrf_top_videos.html").read_text(encoding="utf-8")
    assert "most viewed videos (K1)" in page
