"""`kedro run --pipelines reporting` over stored rows, as a user runs it."""

import polars as pl
import pytest

from reelrank.evaluation.results import ResultRow, results_frame

pytestmark = pytest.mark.long

RUN = "2026-03-01T00.00.00.000Z"


@pytest.fixture(scope="module")
def site(run, tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    folder = root / "08_reporting/results/test/mmrf"
    folder.mkdir(parents=True)
    rows = [
        ResultRow(
            "mmrf", "gauc_final", 0.61, 500, 0.6, 0.62, group="click", weighting="impressions"
        )
    ]
    frame = results_frame(
        rows, system="mmrf", source="kuairand", split="t/test", seed=0, data_kind="world", config_hash="c", experiment="MM-01", cell="main",
    )  # fmt: skip
    frame.with_columns(run_id=pl.lit(RUN)).write_parquet(folder / f"{RUN}.parquet")
    run(root, pipeline="reporting")
    return root / "08_reporting/site/test"


def test_the_site_lies_in_its_folder_and_nothing_else_does(site):
    assert {"index.html", "system-mmrf.html", "experiment-mm-01.html", "plotly.min.js"} <= {p.name for p in site.iterdir()}  # fmt: skip
    assert not [p for p in site.parent.iterdir() if p.name.startswith(".")]


def test_the_shipped_table_of_the_paper_stands_beside_the_row(site):
    html = (site / "system-mmrf.html").read_text(encoding="utf-8")
    assert "GAUC of each response, KuaiRand-1K (Table 1): paper against ours" in html
    stored = next(f for f in (site / "tables").glob("system-mmrf-*.csv") if "MMRF,click,0.6668,,0.61," in f.read_text(encoding="utf-8"))  # fmt: skip
    assert "lost" in stored.read_text(encoding="utf-8")


def test_the_registry_is_listed_and_every_published_system_is_described(site, catalog_of):
    catalog = catalog_of(site.parents[2])
    text = (site / "experiments.html").read_text(encoding="utf-8")
    assert not [n for n in catalog["params:experiments"].load().registry if n not in text]
    options = catalog["params:reporting"].load()
    named = {n for table in (*options.published, *options.remarks) for n in table.systems}
    assert named <= set(options.systems)
