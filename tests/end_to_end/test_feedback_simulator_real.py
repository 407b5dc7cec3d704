"""The feedback simulator on real rows of KuaiRand-Pure: every sixteenth user's, to the report."""

from pathlib import Path

import polars as pl
import pytest
import yaml

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.real


@pytest.mark.long
def test_real_rows_run_to_a_report_without_a_truth(run, catalog_of, fewer_real_rows, tmp_path):
    """The real files through the whole pipeline, with the tiny model of the test environment."""
    file = ROOT / "conf/test/parameters/feedback_simulator.yml"
    tiny = yaml.safe_load(file.read_text(encoding="utf-8"))
    tiny["feedback_simulator"]["studies"] = {"run": []}
    params = {**tiny, "raw_root": str(fewer_real_rows)}
    run(tmp_path, pipeline="feedback_simulator", env="real", params=params)
    opened = catalog_of(tmp_path, "real")
    results = opened["feedback_simulator.results"].load()
    assert set(results["data_kind"]) == {"real"} and set(results["source"]) == {"kuairand"}
    assert not results["metric"].str.contains("true").any()
    own = results.filter(pl.col("paired_with").is_null(), metric="gauc", group="click", cell="main")
    assert own["n"].min() > 0
    page = (tmp_path / "08_reporting/report/real/feedback_simulator.html").read_text(
        encoding="utf-8"
    )
    assert "synthetic data" not in page and "planted truth" not in page
