"""The whole of `kedro run --pipeline mt_dqn` at tiny sizes, as a user runs it."""

import json
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser

import nbformat
import polars as pl
import pytest
from kedro.io.core import Version
from nbclient import NotebookClient

from reelrank.datasets import CheckpointDataset, ReportDataset, ResultsDataset

KEDRO = [sys.executable, "-m", "kedro"]
VARIANTS = {"mt_dqn", "concat_modal", "vanilla_dqn", "popularity"}


@pytest.fixture(scope="module")
def command_line(project, tmp_path_factory):
    """What one run wrote and printed, started in another folder than the project's."""
    folder = tmp_path_factory.mktemp("data")
    command = [*KEDRO, "run", "--pipeline", "mt_dqn", "--env", "test", "--params", f"data_root={folder}"]  # fmt: skip
    done = subprocess.run(
        command,
        check=True,
        cwd=project / "tests",
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "200"},
    )
    return folder, done


@pytest.fixture(scope="module")
def data_root(command_line):
    """The outputs of the run."""
    return command_line[0]


@pytest.fixture(scope="module")
def catalog(data_root, catalog_of):
    return catalog_of(data_root)


def test_every_variant_has_every_metric(catalog):
    results = catalog["mt_dqn.results"].load().filter(experiment="MT-01")
    values = results.filter(pl.col("paired_with").is_null())
    assert set(values["variant"]) == VARIANTS | {"random"}
    per_variant = values.filter(pl.col("variant") != "random").group_by("variant").agg(
        pl.struct("metric", "group", "weighting").n_unique()
    )  # fmt: skip
    counts = dict(per_variant.iter_rows())
    # Q's own error exists only where the score is a Q
    assert counts["mt_dqn"] == counts["vanilla_dqn"] == counts["popularity"] + 2
    assert (values["data_kind"] == "world").all()
    assert (values["run_id"] != "").all()
    judged = values.filter(pl.col("ci_low").is_not_null())
    assert judged.select((pl.col("ci_low") <= pl.col("ci_high")).all()).item()


def test_paired_differences_agree_with_the_values(catalog):
    results = catalog["mt_dqn.results"].load().filter(experiment="MT-01")
    key = ["metric", "group", "weighting"]
    values = results.filter(pl.col("paired_with").is_null())
    value = {(r["variant"], *(r[k] for k in key)): r["value"] for r in values.iter_rows(named=True)}
    for row in results.filter(pl.col("paired_with").is_not_null()).iter_rows(named=True):
        metric = tuple(row[k] for k in key)
        expected = value[(row["variant"], *metric)] - value[(row["paired_with"], *metric)]
        assert row["value"] == pytest.approx(expected)


def test_cells_stand_beside_the_run_s_own_model(catalog):
    results = catalog["mt_dqn.results"].load()
    key = ["metric", "group", "weighting"]
    main = results.filter(pl.col("paired_with").is_null(), experiment="MT-01", variant="mt_dqn")
    value = {tuple(r[k] for k in key): r["value"] for r in main.iter_rows(named=True)}
    cells = results.filter(pl.col("experiment") != "MT-01")
    assert set(cells.select("experiment", "cell").iter_rows()) == {
        ("MT-02", "no_gate"), ("MT-11", "shuffled_50"),
    }  # fmt: skip
    for (_, _), rows in cells.group_by("experiment", "cell"):
        own = {tuple(r[k] for k in key): r["value"] for r in rows.filter(pl.col("paired_with").is_null()).iter_rows(named=True)}  # fmt: skip
        pairs = rows.filter(paired_with="mt_dqn").iter_rows(named=True)
        met = {k: r["value"] for r in pairs if (k := tuple(r[k] for k in key)) in value}
        assert ("true_ndcg@5", "catalogue", "") in met and ("f1", "all", "macro") in met
        for metric, difference in met.items():
            assert difference == pytest.approx(own[metric] - value[metric])
    even = cells.filter(pl.col("paired_with").is_null(), metric="gate_weight", cell="no_gate")
    # nearly every item has all three
    assert even["value"].to_list() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_the_row_counts_add_up_from_raw_to_events(catalog):
    report = catalog["kuairand.ingestion_report"].load()
    read, _, canonical = (step["rows"] for step in report["steps"])
    dropped = sum(f["duplicates"] + f["bad"] for f in report["files"])
    assert read - dropped == canonical == catalog["mt_dqn.events"].load().height
    assert catalog["kuairand.quarantine"].load().height == sum(f["bad"] for f in report["files"])


def test_lists_and_their_exclusions_cover_every_evaluated_row(catalog):
    events = catalog["mt_dqn.events"].load()
    counts = catalog["mt_dqn.list_counts"].load()
    assert counts["rows"].sum() == events.filter(pl.col("split") != "train").height


class _Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.headings, self.urls, self._tag = [], [], ""

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        self.urls += [v for k, v in attrs if k in {"src", "href"} and v and v.startswith("http")]

    def handle_data(self, data):
        if self._tag in {"h1", "h2"} and data.strip():
            self.headings.append(data.strip())


def test_the_report_is_one_page_that_says_it_is_synthetic(data_root):
    page = (data_root / "08_reporting/report/test/mt_dqn.html").read_text(encoding="utf-8")
    parser = _Text()
    parser.feed(page)
    assert "MT-DQN on KuaiRand" in parser.headings[0]
    assert "synthetic data" in page
    assert parser.urls == []


def test_figures_and_tables_have_previews(catalog):
    for name in ("mt_dqn.figure_metrics", "mt_dqn.results", "mt_dqn.mt_dqn_model", "kuairand.interactions"):  # fmt: skip
        json.dumps(catalog.get(name).preview())


def test_a_second_run_keeps_the_first_version(run, data_root, catalog_of, project):
    first = catalog_of(data_root)["mt_dqn.results"].list_versions(full_path=False)
    run(data_root, from_nodes=["mt_dqn.evaluate"], to_nodes=["mt_dqn.collect"])
    results = data_root / "08_reporting/results/test/mt_dqn"
    versions = ResultsDataset(filepath=str(results), version=Version(None, None)).list_versions(
        full_path=False
    )
    assert len(versions) == 2 and set(first) < set(versions)
    earlier = ResultsDataset(filepath=str(results), version=Version(first[0], None)).load()
    later = ResultsDataset(filepath=str(results), version=Version(None, None)).load()
    assert earlier.drop("run_id").equals(later.drop("run_id"))
    assert earlier["run_id"][0] != later["run_id"][0]
    page = ReportDataset(
        filepath=str(data_root / "08_reporting/report/test/mt_dqn.html"),
        version=Version(first[0], None),
    )
    assert first[0] in page.load()
    model = CheckpointDataset(
        filepath=str(data_root / "06_models/test/mt_dqn/mt_dqn"), version=Version(None, None)
    )
    assert model.load().config["name"] == "mt_dqn"


@pytest.mark.long
@pytest.mark.parametrize(("name", "shows"), [("mt_dqn", "true_ndcg@5"), ("start", "rank correlation")])  # fmt: skip
def test_notebooks_run_on_the_catalog_after_two_runs(data_root, project, monkeypatch, name, shows):
    monkeypatch.setenv("REELRANK_ENV", "test")
    monkeypatch.setenv("REELRANK_DATA_ROOT", str(data_root))
    notebook = nbformat.read(project / f"notebooks/{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks carry no output"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(project)}})
    client.execute()
    text = "\n".join(
        output.get("text", "") or str(output.get("data", ""))
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert shows in text


def test_the_command_line_runs_from_any_folder_and_names_the_report(project, command_line):
    """Relative parameters are the project's, not the folder's that the command is given in."""
    data_root, done = command_line
    assert f"open {data_root / '08_reporting/report/test/mt_dqn.html'}" in done.stdout
    assert not (project / "tests" / "data").exists()
    assert re.search(r"rows read.*duplicate.*quarantine", done.stdout + done.stderr, re.DOTALL)
    assert "split kuairand_time: train" in done.stdout


@pytest.mark.long
def test_a_run_killed_in_training_goes_on_and_ends_like_one_that_was_not(
    catalog_of, catalog, project, tmp_path
):
    command = [*KEDRO, "run", "--pipelines", "mt_dqn", "--env", "test", "--params", f"data_root={tmp_path}"]  # fmt: skip
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob("06_models/test/.training/*/last/checkpoint.json")):
            assert process.poll() is None and time.monotonic() < deadline, (
                "no checkpoint was written"
            )
            time.sleep(0.02)
        process.kill()
    command[-1] += ",freshness.stale=rebuild"  # what was finished before the kill is not made again
    subprocess.run(command, check=True, cwd=project, capture_output=True, timeout=300)
    again, once = (
        c["mt_dqn.results"].load().drop("run_id") for c in (catalog_of(tmp_path), catalog)
    )
    assert again.equals(once)
    assert list(tmp_path.glob("06_models/test/.training/*")) == []
