"""RUIE on real rows of KuaiRand-Pure: every sixteenth user's, over its tabs, to the report."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.real


@pytest.mark.long
def test_real_tabs_run_to_a_report(run, catalog_of, fewer_real_rows, tmp_path):
    """The real files through the whole pipeline, with the tiny models of the test environment."""
    tiny = yaml.safe_load((ROOT / "conf/test/parameters/ruie.yml").read_text(encoding="utf-8"))
    tiny["ruie"]["studies"] = {"run": []}
    tiny["ruie"]["training"]["epochs"] = 1
    own = {"ruie_kuairand": {"sequences": {"k_core": 2}}}
    run(tmp_path, pipeline="ruie_kuairand", env="real", params={**tiny, **own, "raw_root": str(fewer_real_rows)})  # fmt: skip
    opened = catalog_of(tmp_path, "real")
    results = opened["ruie_kuairand.results"].load()
    assert set(results["data_kind"]) == {"real"} and set(results["source"]) == {"kuairand"}
    assert {"tab 1", "tab 0"} <= set(results["group"])
    page = (tmp_path / "08_reporting/report/real/ruie_kuairand.html").read_text(encoding="utf-8")
    assert "synthetic data" not in page
