"""The whole of `kedro run --pipelines value_model` at tiny sizes, as a user runs it."""

import json
import re

import nbformat
import numpy as np
import polars as pl
import pytest
from nbclient import NotebookClient

from reelrank.datasets import ReportDataset
from reelrank.features.heads import HEADS
from reelrank.features.value_encoder import ValueEncoder
from reelrank.features.value_features import FEATURE_BLOCKS, NodeFeatures
from reelrank.pipelines.value_model.report import FIGURES
from reelrank.tables import Results

VARIANTS = {"logistic", "edge_mlp", "gnn_64", "gnn_128"}
PROTOCOLS = ["burst_day", "last_burst_out", "burst_day literal", "tiny_random literal"]
LEAKS = {"all-edges graph", "directed graph", "random split", "numeric ids", "UTC hour", "all together"}  # fmt: skip


@pytest.fixture(scope="module")
def data_root(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="value_model")
    return folder


@pytest.fixture(scope="module")
def catalog(data_root, catalog_of):
    return catalog_of(data_root)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog["value_model.results"].load()


def test_every_model_is_judged_under_every_protocol(results):
    assert (results["system"] == "value_model").all() and (results["data_kind"] == "world").all()
    key = ["experiment", "cell", "variant", "metric", "group", "weighting", "paired_with"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()
    values = results.filter(pl.col("paired_with").is_null(), experiment="GV-01")
    assert values["cell"].unique(maintain_order=True).to_list() == PROTOCOLS
    per_head = {(m, g) for m in ("auc", "ap", "log_loss", "ece", "gauc") for g in (*HEADS, "mean")}
    for cell, part in values.group_by("cell"):
        assert set(part["variant"]) == VARIANTS, cell
        for variant, rows in part.group_by("variant"):
            assert per_head <= set(rows.select("metric", "group").iter_rows()), (cell, variant)
    track = dict(values.select("cell", "track").unique().iter_rows())
    assert [track[c] for c in PROTOCOLS] == ["honest"] * 2 + ["paper_literal"] * 2
    split = dict(values.select("cell", "split").unique().iter_rows())
    assert [split[c] for c in PROTOCOLS] == [f"{s}/test" for s in ("burst_day", "last_burst_out", "burst_day", "tiny_random")]  # fmt: skip


def test_the_mean_is_that_of_the_heads(results):
    auc = results.filter(metric="auc", cell="burst_day", variant="gnn_64").filter(pl.col("paired_with").is_null())  # fmt: skip
    value = dict(auc.select("group", "value").iter_rows())
    assert value["mean"] == pytest.approx(np.mean([value[head] for head in HEADS]))


def test_differences_are_from_the_best_model_without_a_graph(results, catalog):
    pairs = results.filter(pl.col("paired_with").is_not_null(), experiment="GV-01")
    (baseline,) = set(pairs["paired_with"])
    assert set(pairs["variant"]) == VARIANTS - {baseline}
    auc = results.filter(experiment="GV-01", cell="burst_day", metric="auc", group="mean")
    value = dict(auc.filter(pl.col("paired_with").is_null()).select("variant", "value").iter_rows())
    for row in auc.filter(pl.col("paired_with").is_not_null()).iter_rows(named=True):
        expected = value[row["variant"]] - value[baseline]
        assert row["value"] == pytest.approx(expected) and 0 < row["p_value"] <= 1


def test_studies_have_their_cells_and_leaks_are_not_called_honest(results):
    leaks = results.filter(experiment="GV-02", metric="auc", group="mean")
    track = dict(leaks.select("cell", "track").unique().iter_rows())
    assert track == {"honest": "honest", **dict.fromkeys(LEAKS, "paper_literal")}
    difference = leaks.filter(pl.col("paired_with").is_not_null())
    assert set(difference["cell"]) == LEAKS and set(difference["paired_with"]) == {"gnn_64, honest"}  # fmt: skip
    # the same rows, features and steps as the poster's protocol, so the same number
    literal = results.filter(cell="tiny_random literal", metric="auc", group="mean", variant="gnn_64")  # fmt: skip
    assert leaks.filter(cell="all together")["value"][0] == literal["value"][0]
    sweeps = results.filter(experiment="GV-03")
    assert set(sweeps["split"]) == {"burst_day/val"}
    assert set(sweeps["cell"]) == {"learning rate 0.001", "learning rate 0.003", "batch 64", "batch 256"}  # fmt: skip
    groups = results.filter(experiment="GV-04")
    assert set(groups["cell"]) == {"all features", "without user", "without history"}


def test_edges_are_the_rows_of_the_split_with_their_labels(catalog):
    edges = catalog["value_model.edges"].load().scan().collect()
    splits = catalog["kuairec.splits"].load().scan().collect()
    assert edges.select("row_id", "split").sort("row_id").equals(splits.select("row_id", "split").sort("row_id"))  # fmt: skip
    rows = catalog["kuairec.interactions"].load().scan().collect()
    judged = edges.join(rows, on="row_id")
    complete = judged.drop_nulls("watch_ratio")
    assert complete["complete"].equals((complete["watch_ratio"] >= 1).cast(pl.Int8).alias("complete"))  # fmt: skip
    assert judged["neg"].equals((judged["play_ms"] <= 2000).cast(pl.Int8).alias("neg"))
    assert set(FEATURE_BLOCKS["edge"]) <= set(edges.columns)


def test_others_can_score_with_what_the_catalog_holds(catalog):
    """What head weights need: checkpoint, encoder, node features, edges."""
    from reelrank.pipelines.value_model.fitting import restore

    nodes = NodeFeatures(*(catalog[f"value_model.{n}_features"].load() for n in ("user", "item")))
    encoder = ValueEncoder.model_validate(catalog["value_model.encoder"].load())
    table = catalog["value_model.gnn_128_predictions"].load().filter(split="test")
    edges = catalog["value_model.edges"].load().scan().collect()
    same = table.select("row_id").join(edges, on="row_id", maintain_order="left")
    model = restore(catalog["value_model.gnn_128_model"].load())
    p = model.predict(encoder.encode(nodes, same), 1000)
    assert p == pytest.approx(table.select([f"p_{h}" for h in HEADS]).to_numpy(), abs=1e-6)
    assert model.item_vectors().shape == (nodes.items.height, 16)


def test_missing_features_are_named_with_their_reason(catalog):
    report = catalog["value_model.feature_report"].load()
    assert report["features"] == 64
    for name in report["left_out"]:
        assert report["missing"][name]["share"] == 1 and report["missing"][name]["reason"]
    assert "visible_status" in report["left_out"]
    assert sum(part["rows"] for part in report["heads"]) == report["edges"]


def test_the_report_is_one_page_that_says_it_is_synthetic(catalog):
    dataset = catalog["value_model.report"]
    assert isinstance(dataset, ReportDataset)
    page = dataset.load()
    for text in ("synthetic data", "0.8482", "0.8225", "GV-02", "GV-03", "GV-04", "visible_status"):
        assert text in page, text
    assert page.count('<figure class="chart">') == len(FIGURES)
    for name in ("figure_auc", "figure_reliability", "results", "gnn_64_model", "edges", "encoder"):
        json.dumps(catalog.get(f"value_model.{name}").preview())


@pytest.mark.long
def test_the_notebook_runs_on_the_catalog(data_root, project, monkeypatch):
    monkeypatch.setenv("REELRANK_ENV", "test")
    monkeypatch.setenv("REELRANK_DATA_ROOT", str(data_root))
    notebook = nbformat.read(project / "notebooks/value_model.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks carry no output"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}})
    client.execute()
    shown = [str(o.get("data", "")) + o.get("text", "") for c in notebook.cells for o in c.get("outputs", ())]  # fmt: skip
    assert any("gnn_128" in text for text in shown)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"fitting": {"learning_rate": 1}}, "learning_rate"),
        ({"edges": {"share": 0}}, "share"),
        ({"studies": {"leaks": "edge_mlp"}}, "leaks"),
        ({"models": {"gnn_64": {"graph": "poster_literal"}}}, "graph must be honest"),
        ({"features": {"clock": "utc"}}, "clock local"),
        ({"targets": {"published": {"gnn_64": [0.5]}}}, "gnn_64"),
    ],
)
def test_a_wrong_parameter_is_refused(wrong_parameters, params, message):
    assert any(re.search(message, said) for said in wrong_parameters({"value_model": params}))


def test_results_keep_to_their_schema(results):
    Results.validate(results)
