"""MT-DQN on real rows of KuaiRand-Pure: every sixteenth user's, to the report."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.real


@pytest.mark.slow
def test_real_rows_run_to_a_report(run, catalog_of, fewer_real_rows, tmp_path):
    """The real files through the whole pipeline, with the tiny models of the test environment."""
    tiny = yaml.safe_load((ROOT / "conf/test/parameters/mt_dqn.yml").read_text(encoding="utf-8"))
    params = {**tiny, "raw_root": str(fewer_real_rows)}
    params["mt_dqn"]["training"]["epochs"] = 1
    run(tmp_path, env="real", params=params)
    opened = catalog_of(tmp_path, "real")
    report = opened["kuairand.ingestion_report"].load()
    assert report["kind"] == "files"
    results = opened["mt_dqn.results"].load()
    assert set(results["data_kind"]) == {"real"}
    assert set(results["split"]) == {"kuairand_time_fraction/test"}
    assert results.filter(metric="true_ndcg@5").is_empty()
    page = (tmp_path / "08_reporting/report/real/mt_dqn.html").read_text(encoding="utf-8")
    assert "metadata proxies" in page and "synthetic data" not in page
    assert "Most sessions here hold one row" in page
