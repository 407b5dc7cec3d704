"""MMRF on real rows of KuaiRand-Pure: every sixteenth user's, both tracks, to the report."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.real, pytest.mark.long]


@pytest.mark.parametrize(
    ("system", "said"),
    [("mmrf", "single-item requests (K2)"), ("mmrf_top_videos", "most viewed videos (K1)")],
)
def test_real_rows_run_to_a_report(run, catalog_of, fewer_real_rows, tmp_path, system, said):
    """The real files through the whole pipeline, with the tiny models of the test environment."""
    tiny = yaml.safe_load((ROOT / "conf/test/parameters/mmrf.yml").read_text(encoding="utf-8"))
    tiny["mmrf"]["studies"] = {"run": []}
    tiny["mmrf"]["data"] = {
        "k": 3
    }  # so few users show fewer than six videos before the first request
    own = {"mmrf_top_videos": {"data": {"top_videos": 40}}}
    run(tmp_path, pipeline=system, env="real", params={**tiny, **own, "raw_root": str(fewer_real_rows)})  # fmt: skip
    results = catalog_of(tmp_path, "real")[f"{system}.results"].load()
    assert set(results["data_kind"]) == {"real"} and "bandit_value" not in set(results["metric"])
    page = (tmp_path / f"08_reporting/report/real/{system}.html").read_text(encoding="utf-8")
    assert said in page and "synthetic data" not in page
