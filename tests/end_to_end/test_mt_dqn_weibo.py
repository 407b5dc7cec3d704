"""`kedro run --pipelines mt_dqn_weibo` at tiny sizes: a log of likes, comments and forwards, without watch time."""

import polars as pl
import pytest

from reelrank.features.rewards import reward_terms
from reelrank.pipelines.mt_dqn.evaluate import logged_behaviours
from reelrank.worlds.weibo_truth import WeiboTruth

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def catalog(run, catalog_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline="mt_dqn_weibo")
    return catalog_of(folder)


def test_only_logged_signals_are_rewarded_and_judged(catalog):
    events = catalog["mt_dqn_weibo.events"].load()
    assert reward_terms(events.lazy()) == ["like", "forward", "comment"]
    assert list(logged_behaviours(events)) == ["like", "share"]
    results = catalog["mt_dqn_weibo.results"].load()
    assert set(results["source"]) == {"weibo"} and set(results["data_kind"]) == {"world"}
    judged = results.filter(metric="f1", weighting="")["group"]
    assert set(judged) == {"like", "share"}


def test_the_page_says_what_is_missing_and_what_is_a_proxy(catalog):
    page = catalog["mt_dqn_weibo.report"].load()
    assert "MT-DQN on Weibo" in page and "not logged: left out" in page
    assert "weibo.quarantine" in page and "metadata_proxy" in page


def test_catalogue_rankings_are_judged_by_the_planted_probabilities(catalog):
    ranked = catalog["mt_dqn_weibo.mt_dqn_catalogue"].load()
    manifest = catalog["weibo.raw_manifest"].load()
    truth = WeiboTruth.load(manifest["root"])
    # the value of a post is Σ weight · P(action), by hand for one context
    context = ranked.filter(pl.col("context_id") == ranked["context_id"][0]).sort("rank")
    names = {kind: catalog[f"weibo.{kind}_map"].load()["raw_text"] for kind in ("user", "item")}
    user = int(names["user"][context["user_id"][0]].removeprefix("u"))
    posts = [int(names["item"][i].removeprefix("p")) for i in context["item_id"]]
    p = truth.expected([user] * len(posts), posts, context["ts_ms"])
    by_hand = 0.5 * p["like"] + 0.3 * p["comment"] + 0.5 * p["forward"]
    got = truth.expected_immediate_reward(user, posts, context["ts_ms"], 0, {"like": 0.5, "comment": 0.3, "forward": 0.5})  # fmt: skip
    assert got == pytest.approx(by_hand)
    values = catalog["mt_dqn_weibo.true_ndcg"].load()
    assert values["value"].is_between(0, 1).all() and values.height > 0
