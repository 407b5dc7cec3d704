"""How claims are judged over seeds, and what a page of them leaves behind."""

import importlib.util
import sys
from pathlib import Path

import polars as pl
import pytest
from scipy.stats import ttest_rel

CLAIMS = Path(__file__).parents[2] / "claims"


@pytest.fixture(scope="module")
def over_seeds():
    spec = importlib.util.spec_from_file_location("over_seeds", CLAIMS / "over_seeds.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def claim(over_seeds, rule):
    return over_seeds.Claim("blank", ("ours", "theirs"), "ours is above", rule)


def test_interval_is_that_of_a_paired_t_test(over_seeds):
    own, other = [0.31, 0.28, 0.35, 0.30], [0.25, 0.27, 0.26, 0.29]
    row = over_seeds.judge(claim(over_seeds, None), own, other, metric="ndcg", n=40).row
    expected = ttest_rel(own, other).confidence_interval(0.95)
    assert (row.ci_low, row.ci_high) == pytest.approx((expected.low, expected.high))
    assert row.value == pytest.approx(0.0425)


def test_rules_read_the_interval_and_not_the_mean(over_seeds):
    """Differences 0, .1: mean .05, interval .05 ± 12.706 · .05."""
    for rule, holds in ((over_seeds.ABOVE, False), (over_seeds.no_loss(0.6), True), (over_seeds.no_loss(0.5), False), (over_seeds.same(0.69), True), (over_seeds.same(0.6), False), (over_seeds.BELOW, False)):  # fmt: skip
        judged = over_seeds.judge(claim(over_seeds, rule), [0.1, 0.3], [0.1, 0.2], metric="m", n=2)
        assert judged.holds is holds, rule.says
    shown = over_seeds.judge(claim(over_seeds, None), [0.1, 0.3], [0.1, 0.2], metric="m", n=2)
    assert shown.holds is None and shown.verdict == "shown"


def test_one_seed_and_unequal_seeds_are_refused(over_seeds):
    for own, other in (([0.1], [0.2]), ([0.1, 0.2], [0.1])):
        with pytest.raises(ValueError, match="ours is above"):
            over_seeds.judge(claim(over_seeds, None), own, other, metric="m", n=1)


@pytest.mark.parametrize(("own", "status"), [([0.4, 0.41, 0.42], 0), ([0.1, 0.3, 0.2], 1)])
def test_a_claim_that_fails_is_stored_as_such_and_sets_the_exit_status(over_seeds, tmp_path, own, status):  # fmt: skip
    judged = over_seeds.judge(claim(over_seeds, over_seeds.ABOVE), own, [0.2, 0.2, 0.2], metric="ndcg@10", n=9, group="small")  # fmt: skip
    page = over_seeds.Page("claims_x", "Claims on x", "", ("Claims", "differences"), [], "python claims/x.py")  # fmt: skip
    found = over_seeds.publish(
        [judged], page, tmp_path, system="ruie", seed=0, config_hash="c", source="planted", split="items/test"
    )  # fmt: skip
    assert found == status
    rows = pl.concat(pl.read_parquet(path) for path in tmp_path.rglob("*.parquet"))
    assert rows["cell"].to_list() == [f"blank | ours is above: {'fails' if status else 'holds'}"]
    pages = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")]
    assert pages and all(f"{1 - status} of 1 hold." in page for page in pages)
