import ast
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[3]


def shown(cell):
    return cell["outputs"][0]["data"]["text/plain"]


def interval(text):
    return ast.literal_eval(text[text.index("[") : text.index("]") + 1])


def test_ten_lines_lead_from_a_log_to_a_value_near_the_truth():
    notebook = nbformat.read(ROOT / "notebooks/off_policy.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks carry no output"
    cells = {cell["id"]: cell for cell in notebook.cells}
    assert len([line for line in cells["c4"]["source"].splitlines() if line]) <= 10
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    table, truth = shown(cells["c4"]), float(shown(cells["c6"]))
    assert "20,000 logged actions of 800 users" in table
    for name in ("snipw", "dr"):
        line = next(line for line in table.splitlines() if line.startswith(f"{name} "))
        low, high = interval(line)
        # four standard errors: coverage is judged over many logs, elsewhere
        assert abs((low + high) / 2 - truth) <= high - low and line.endswith("yes")
    assert interval(shown(cells["c10"]))[0] > 0
    assert "is not reliable" in shown(cells["c11"])
