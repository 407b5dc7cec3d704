"""The whole of `kedro run --pipelines compress` at tiny sizes, as a user runs it."""

import polars as pl
import pytest

from reelrank.pipelines.compress import VARIANTS
from reelrank.pipelines.compress.options import (
    CACHED,
    EXPORTED,
    INT8,
    MAGNITUDE,
    MODULES,
    STRUCTURED,
    TEACHER,
    WHOLE,
)
from reelrank.pipelines.compress.report import FIGURES
from reelrank.pipelines.compress.rows import (
    TRAINED,
    UNTRAINED,
    UNTRAINED_STUDENT,
    UNTRAINED_TEACHER,
)
from reelrank.tables import Results

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def catalog(run, catalog_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="compress")
    return catalog_of(folder)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog["compress.results"].load()


def test_every_network_is_judged_as_its_teacher_is(results):
    Results.validate(results)
    assert (results["system"] == "compress").all()
    key = ["experiment", "cell", "variant", "metric", "group", "weighting", "paired_with"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()
    judged = results.filter(pl.col("paired_with").is_null(), experiment="MT-06")
    for metric in ("true_ndcg@5", "ndcg@5", "f1"):
        assert set(judged.filter(metric=metric)["variant"]) >= {TEACHER, *VARIANTS}
    assert set(judged.filter(metric="retained_true_ndcg@5")["variant"]) == set(VARIANTS)


def test_kept_shares_agree_with_the_values(results):
    own = results.filter(pl.col("paired_with").is_null(), experiment="MT-06")
    value = dict(own.filter(metric="true_ndcg@5").select("variant", "value").iter_rows())
    for row in own.filter(metric="retained_true_ndcg@5").iter_rows(named=True):
        assert row["value"] == pytest.approx(value[row["variant"]] / value[TEACHER])
        assert row["ci_low"] <= row["value"] <= row["ci_high"]


def test_every_network_is_timed_with_the_fusion_done_and_cached(results):
    timed = results.filter(experiment="MT-05", cell=TRAINED, metric="latency_p50_ms")
    assert set(timed["variant"]) == {TEACHER, "student", *STRUCTURED, *INT8, *EXPORTED}
    assert set(timed["group"]) == {WHOLE, CACHED, *MODULES}
    assert set(timed.filter(group=WHOLE)["weighting"]) == {
        "batch 1, 1 thread", "batch 1, 2 threads", "batch 8, 1 thread", "batch 8, 2 threads",
    }  # fmt: skip
    published = results.filter(experiment="MT-05", cell=UNTRAINED)
    assert set(published["variant"]) == {UNTRAINED_TEACHER, UNTRAINED_STUDENT}


def test_cutting_and_rounding_make_networks_smaller_and_zeros_do_not(results):
    sized = results.filter(experiment="MT-05", cell=TRAINED, group=WHOLE)
    size = {m: dict(sized.filter(metric=m).select("variant", "value").iter_rows()) for m in ("parameters", "zeros", "megabytes", "mflops")}  # fmt: skip
    for less, more in zip((*STRUCTURED[1:],), STRUCTURED, strict=False):
        assert size["parameters"][less] < size["parameters"][more] < size["parameters"][TEACHER]
        assert size["mflops"][less] < size["mflops"][more] < size["mflops"][TEACHER]
    for less, more in zip((*MAGNITUDE[1:],), MAGNITUDE, strict=False):
        assert size["zeros"][less] > size["zeros"][more] > size["zeros"][TEACHER]
        assert size["parameters"][less] == size["parameters"][TEACHER]
    assert size["megabytes"]["int8"] < size["megabytes"][TEACHER]


def test_report_and_figures_are_there(catalog):
    for name in FIGURES:
        assert catalog[f"compress.figure_{name}"].load().data
    page = catalog["compress.report"].load()
    assert "video seen for the first time" in page and "synthetic data" in page
