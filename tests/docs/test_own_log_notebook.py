"""The notebook on one's own log, run as it stands; notebooks name nodes that exist and carry no output."""

import re
from pathlib import Path

import nbformat
import pytest
from kedro.framework.project import pipelines
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_csv_becomes_tables_and_sequences():
    notebook = nbformat.read(ROOT / "notebooks/own_log.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks carry no output"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    shown = {
        cell["id"]: "\n".join(str(o.get("data", "")) + o.get("text", "") for o in cell["outputs"])
        for cell in notebook.cells
        if cell["cell_type"] == "code"
    }
    assert "3003" in shown["counts-table"] and "3000" in shown["counts-table"]
    for line in ("3002", "3003", "3004"):  # the header is line 1
        assert line in shown["quarantine-table"]
    assert "home" in shown["tables-scenarios"]
    assert "user" in shown["sequences-events"]


def test_notebooks_run_nodes_that_exist(project):
    asked = {
        (pipeline, node)
        for path in (ROOT / "notebooks").glob("*.ipynb")
        for cell in nbformat.read(path, as_version=4).cells
        if "session.run(" in cell.source
        for pipeline in re.findall(r'pipeline_names=\["(\w+)"\]', cell.source)
        for node in re.findall(r'"(\w+\.\w+)"', cell.source)
    }
    assert asked
    for pipeline, node in asked:
        assert node in {n.name for n in pipelines[pipeline].nodes}, (pipeline, node)


def test_every_notebook_is_stripped_of_output():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and not cell.get("execution_count"), path.name
