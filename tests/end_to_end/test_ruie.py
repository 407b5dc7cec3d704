"""The whole of `kedro run --pipelines ruie` at tiny sizes, as a user runs it."""

import json

import nbformat
import numpy as np
import polars as pl
import pytest
from kedro.framework.project import pipelines
from nbclient import NotebookClient

from reelrank.pipelines.ruie.report import FIGURES
from reelrank.pipelines.ruie.run_options import TRAINED, VARIANTS
from reelrank.tables import Results

LABELS = {"search", "recommendation"}
SYSTEMS = {"ruie": "kuaisar", "ruie_kuairand": "kuairand", "ruie_events": "events"}


@pytest.fixture(scope="module")
def data_root(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="ruie")
    return folder


@pytest.fixture(scope="module")
def catalog(data_root, catalog_of):
    return catalog_of(data_root)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog["ruie.results"].load()


def test_every_model_has_every_metric_macro_micro_and_by_scenario(results):
    Results.validate(results)
    assert (results["system"] == "ruie").all() and (results["data_kind"] == "world").all()
    key = ["experiment", "cell", "variant", "metric", "group", "weighting", "paired_with"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()
    values = results.filter(pl.col("paired_with").is_null(), experiment="RU-01")
    assert set(values["variant"]) == set(VARIANTS)
    wanted = {
        (f"{metric}@{k}", *group)
        for metric in ("ndcg", "hr", "mrr")
        for k in (5, 10, 15, 20)
        for group in [("all", "macro"), ("all", "micro"), *((label, "") for label in LABELS)]
    }
    for variant, rows in values.group_by("variant"):
        assert wanted <= set(rows.select("metric", "group", "weighting").iter_rows()), variant


def test_the_headline_is_the_mean_over_scenarios(results):
    own = results.filter(pl.col("paired_with").is_null(), experiment="RU-01", variant="sasrec", metric="ndcg@10")  # fmt: skip
    value = {(g, w): v for g, w, v in own.select("group", "weighting", "value").iter_rows()}
    assert value["all", "macro"] == pytest.approx(np.mean([value[label, ""] for label in LABELS]))


def test_ruie_is_compared_with_each_baseline(results):
    rows = results.filter(experiment="RU-01", metric="ndcg@10", group="all", weighting="macro")
    value = dict(
        rows.filter(pl.col("paired_with").is_null()).select("variant", "value").iter_rows()
    )
    pairs = rows.filter(pl.col("paired_with").is_not_null())
    assert set(pairs["paired_with"]) == set(VARIANTS) - {"ruie"}
    for row in pairs.iter_rows(named=True):
        assert row["variant"] == "ruie" and 0 < row["p_value"] <= 1
        assert row["value"] == pytest.approx(value["ruie"] - value[row["paired_with"]])


def test_the_released_metric_is_marked_and_differs_from_the_right_one(results):
    rows = results.filter(experiment="RU-10")
    track = dict(rows.select("cell", "track").unique().iter_rows())
    assert track == {"correct": "honest", "tail slice": "paper_literal", "reversed rank": "paper_literal"}  # fmt: skip
    assert (results.filter(track="paper_literal")["experiment"] == "RU-10").all()
    right = results.filter(pl.col("paired_with").is_null(), experiment="RU-01", variant="ruie", weighting="micro")  # fmt: skip
    expected = dict(right.select("metric", "value").iter_rows())
    for metric, value in rows.filter(cell="correct").select("metric", "value").iter_rows():
        assert value == pytest.approx(expected[metric])
    # at the largest K the tail slice is the whole list
    tail = dict(rows.filter(cell="tail slice").select("metric", "value").iter_rows())
    assert tail["ndcg@20"] == pytest.approx(expected["ndcg@20"])


def test_studies_have_their_cells_on_common_events(results):
    cells = results.filter(~pl.col("experiment").is_in(["RU-01", "RU-10"]))
    assert {tuple(r) for r in cells.select("experiment", "cell").unique().iter_rows()} == {
        ("RU-04", "small_alone"), ("RU-04", "small_alone_nextitnet"), ("RU-12", "sasrec"), ("RU-12", "gru4rec"),
    }  # fmt: skip
    alone = cells.filter(experiment="RU-04", metric="ndcg@10")
    assert set(alone["group"]) & LABELS == {"search"}
    joint = results.filter(pl.col("paired_with").is_null(), experiment="RU-01", variant="ruie", metric="ndcg@10", group="search")["value"][0]  # fmt: skip
    own = alone.filter(cell="small_alone", group="search").sort("paired_with", nulls_last=False)
    value, difference = own["value"]
    assert difference == pytest.approx(value - joint)


def test_every_val_and_test_event_is_ranked_by_every_model(catalog):
    events = catalog["ruie.sequence_events"].load().filter(pl.col("split") != "train")
    for variant in VARIANTS:
        frame = catalog[f"ruie.{variant}_targets"].load()
        assert set(frame["row_id"]) == set(events["row_id"]), variant
        assert frame["rank"].null_count() == 0
    report = catalog["ruie.sequence_report"].load()
    assert report["rows"][-1] == catalog["ruie.sequence_events"].load().height
    assert report["rows"].is_sorted(descending=True)


def test_histories_and_checkpoints_of_every_trained_model(catalog):
    for variant in TRAINED:
        history = catalog[f"ruie.{variant}_history"].load()
        assert {"train_loss", "val_ndcg@10", "epoch"} <= set(history.columns), variant
        assert catalog[f"ruie.{variant}_model"].load().config["name"] == variant
    assert "train_gate_at_high" in catalog["ruie.ruie_history"].load().columns


def test_the_report_says_it_is_synthetic_and_calls_the_published_row_a_reference(
    data_root, catalog
):
    page = (data_root / "08_reporting/report/test/ruie.html").read_text(encoding="utf-8")
    for words in ("RUIE on kuaisar", "synthetic data", "a reference and not a target", "0.0749", "RU-05"):  # fmt: skip
        assert words in page, words
    for name in FIGURES:
        json.dumps(catalog.get(f"ruie.figure_{name}").preview())


@pytest.mark.long
def test_the_notebook_runs_on_the_catalog(data_root, project, monkeypatch):
    monkeypatch.setenv("REELRANK_ENV", "test")
    monkeypatch.setenv("REELRANK_DATA_ROOT", str(data_root))
    notebook = nbformat.read(project / "notebooks/ruie.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks carry no output"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}})
    client.execute()
    shown = {c.id: str([o.get("data", "") for o in c.outputs]) for c in notebook.cells if "outputs" in c}  # fmt: skip
    assert "popularity" in shown["paired-table"] and "realised" in shown["user-state"]
    assert "item_id" in shown["user-items"] and "tail slice" in shown["forensics-table"]


def test_the_other_sources_share_all_but_their_own_settings(project):
    for system, source in SYSTEMS.items():
        nodes = pipelines[system].nodes
        own = [n for n in nodes if n.namespace == system]
        assert len(own) == len([n for n in pipelines["ruie"].nodes if n.namespace == "ruie"])
        read = {name for n in own for name in n.inputs if name.startswith("params:")}
        blocks = {name.removeprefix("params:").split(".")[0] for name in read}
        assert blocks <= {system, "ruie", source, "worlds"}, system
        mine = {name for name in read if name.startswith(f"params:{system}.")}
        assert system == "ruie" or {n.rsplit(".", 1)[1] for n in mine} == {"command", "sequences", "scenario_names"}  # fmt: skip
