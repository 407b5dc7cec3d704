"""`kedro run --pipelines head_weights` at tiny sizes, as a user runs it."""

import re

import nbformat
import numpy as np
import polars as pl
import pytest
from nbclient import NotebookClient

from reelrank.features.heads import HEADS
from reelrank.pipelines.head_weights.ranked import Ranked

EXPERIMENTS = {f"GV-{k:02d}" for k in (5, 6, 7, 8, 10, 11)}


@pytest.fixture(scope="module")
def data_root(run, tmp_path_factory):
    """One run for all tests; more rows a user than the test world's, so that val has sessions enough."""
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="head_weights", params={"worlds": {"kuairec": {"rows_per_user": 60}}})
    return folder


@pytest.fixture(scope="module")
def catalog(data_root, catalog_of):
    return catalog_of(data_root)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog["head_weights.results"].load()


@pytest.fixture(scope="module")
def ranked(catalog):
    return Ranked(*(catalog[f"head_weights.ranked_{name}"].load() for name in ("sessions", "candidates")))  # fmt: skip


def test_every_experiment_has_rows_of_its_own(results):
    assert set(results["experiment"]) >= EXPERIMENTS
    assert (results["data_kind"] == "world").all()
    key = ["experiment", "cell", "split", "variant", "metric", "group", "weighting", "paired_with"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()


def test_candidates_are_what_could_have_been_shown(catalog, ranked):
    """Shown items are among them once, in the order of the log; nothing seen before the session is."""
    log = pl.concat(catalog["kuairec.interactions"].load().iter_buckets())
    rows = ranked.candidates.join(ranked.sessions.select("position", "user_id", "session_id", "ts_start"), on="position")  # fmt: skip
    assert not rows.select(pl.struct("position", "item_id").is_duplicated().any()).item()
    first = log.group_by("user_id", "session_id", "item_id").agg(pl.min("ts_ms"))
    shown = rows.filter(pl.col("rank_shown") > 0).join(first, on=["user_id", "session_id", "item_id"], how="left")  # fmt: skip
    assert shown["ts_ms"].null_count() == 0
    assert (shown["ts_ms"] >= shown["ts_start"]).all()
    in_order = shown.sort("position", "rank_shown").select(
        (pl.col("ts_ms").diff() >= 0).all().over("position")
    )
    assert in_order.to_series().all()
    before = log.select("user_id", "item_id", "ts_ms")
    seen = rows.filter(pl.col("rank_shown") == 0).join(before, on=["user_id", "item_id"])
    assert not (seen["ts_ms"] < seen["ts_start"]).any()
    assert rows["y_neg"].is_not_null().sum() <= shown.height
    assert rows.filter(pl.col("rank_shown") == 0)["y_complete"].null_count() == rows.height - shown.height  # fmt: skip


def test_a_shown_item_has_the_prediction_of_its_own_row_at_the_start(catalog, ranked):
    p = ranked.candidates.select(f"p_{head}" for head in HEADS).to_numpy()
    assert ((p > 0) & (p < 1)).all()
    assert ranked.problem().heads.shape == p.shape
    assert sum(len(ranked.problem(part).user_id) for part in ("val", "test")) == ranked.sessions.height  # fmt: skip


def test_requests_carry_the_candidates_and_order_of_the_world(catalog):
    requests, candidates = (catalog[f"head_weights.{n}"].load() for n in ("requests", "request_candidates"))  # fmt: skip
    sizes = candidates.group_by("position").len()["len"]
    assert (sizes == 10).all()  # worlds.kuairec.candidates in test
    shown = candidates.filter(pl.col("rank_shown") > 0).group_by("position").agg(pl.max("rank_shown"), n=pl.len())  # fmt: skip
    assert (shown["rank_shown"] == shown["n"]).all()
    assert shown.height == requests.height
    assert candidates.select(pl.col("^true_.*$").is_between(0, 1).all()).row(0) == (True,) * 4


def test_weights_are_on_the_sphere_with_a_verdict(catalog):
    weights = catalog["head_weights.weights"].load()
    for loss in ("soft_topk", "hard_top_k"):
        assert np.abs(weights[loss]["weights"]).sum() == pytest.approx(1)
        assert weights[loss]["verdict"].startswith(("identified", "not identified: "))
    assert weights["planted"] == pytest.approx([0.22, 0.10, -0.02, -0.66])
    folds = catalog["head_weights.fold_weights"].load()
    assert np.abs(folds["weights"]).sum(axis=1) == pytest.approx(1)
    assert min(folds["temperature"]) > 0


def test_residuals_are_of_the_ranked_sessions_by_the_weights_of_their_fold(catalog, ranked):
    sessions = catalog["head_weights.session_residuals"].load()
    assert sessions["session_id"].equals(ranked.sessions["session_id"])
    candidates = catalog["head_weights.candidate_residuals"].load()
    folds = np.array(catalog["head_weights.fold_weights"].load()["weights"])
    joined = candidates.join(sessions.select("user_id", "session_id", "fold"), on=["user_id", "session_id"]).join(
        ranked.candidates.join(ranked.sessions.select("position", "user_id", "session_id"), on="position"),
        on=["user_id", "session_id", "item_id"],
    )  # fmt: skip
    p = joined.select(f"p_{head}" for head in HEADS).to_numpy()
    expected = (p * folds[joined["fold"].to_numpy()]).sum(axis=1)
    assert joined["score"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_paired_rows_are_the_null_minus_the_estimate(results):
    rows = results.filter(experiment="GV-05", cell="held out", metric="matching_loss")
    value = dict(rows.filter(pl.col("paired_with").is_null()).select("variant", "value").iter_rows())  # fmt: skip
    for row in rows.filter(pl.col("paired_with").is_not_null()).iter_rows(named=True):
        assert row["value"] == pytest.approx(value[row["variant"]] - value["soft_topk"])
    assert {"random", "popularity", "user_categories", "poster_w_star", "equal_signed"} <= set(value)  # fmt: skip


def test_the_page_shows_verdicts_and_where_things_went_missing(catalog):
    page = catalog["head_weights.report"].load()
    weights = catalog["head_weights.weights"].load()
    assert "synthetic data" in page
    assert weights["soft_topk"]["verdict"].split(";")[0] in page
    assert catalog["head_weights.diagnosis"].load()["verdict"]["word"] in page
    for experiment in EXPERIMENTS:
        assert experiment in page
    assert page.count('<figure class="chart">') == 10


def test_weights_that_are_not_identified_are_not_printed(catalog):
    """The table says so in place of numbers."""
    from reelrank.pipelines.head_weights.report import _weight_table
    from reelrank.pipelines.head_weights.run_options import PublishedOptions

    weights = catalog["head_weights.weights"].load()
    flat = {k: {**v, "identified": False} if k in {"soft_topk", "hard_top_k"} else v for k, v in weights.items()}  # fmt: skip
    published = PublishedOptions(
        weights=(1, 0, 0, 0), category_weights=(1, 0, 0, 0), loss_start=2, loss_end=1, category_loss=1
    )  # fmt: skip
    table = _weight_table(flat, published)
    assert all(
        [cell.text for cell in row[1:5]] == ["not identified", "–"] * 2 for row in table.rows
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"head_weights": {"search": {"method": "bfgs"}}}, "method"),
        ({"head_weights": {"embedding": "text"}}, "embedding"),
        ({"head_weights": {"ranking": {"min_lenght": 3}}}, "min_lenght"),
        ({"head_weights": {"candidates": {"share": 0}}}, "share"),
    ],
)
def test_a_wrong_parameter_is_refused(wrong_parameters, params, message):
    assert any(re.search(message, said) for said in wrong_parameters(params))


@pytest.mark.long
@pytest.mark.parametrize(("name", "shows"), [("head_weights", "identified"), ("residual", "columns")])  # fmt: skip
def test_notebooks_run_on_the_catalog(data_root, project, monkeypatch, name, shows):
    monkeypatch.setenv("REELRANK_ENV", "test")
    monkeypatch.setenv("REELRANK_DATA_ROOT", str(data_root))
    notebook = nbformat.read(project / f"notebooks/{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks carry no output"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}})
    client.execute()
    text = "\n".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
    assert shows in text
