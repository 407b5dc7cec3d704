"""`kedro run --pipelines mt_dqn_kuairec`: a log of watch time in three bursts, the last of which is held out."""

import polars as pl
import pytest
from kedro.framework.project import pipelines

from reelrank.features.rewards import reward_terms
from reelrank.pipelines.mt_dqn.evaluate import logged_behaviours
from reelrank.worlds.truth import Truth

SYSTEM = "mt_dqn_kuairec"
OWN = ("splits", "split_cuts", "split_report", "item_modal")


def test_what_depends_on_the_split_is_its_own(project):
    """Nothing of KuaiRec's headline split, in which train days follow test days, is read or made anew."""
    found = pipelines[SYSTEM]
    assert {f"{SYSTEM}.{name}" for name in OWN} <= found.all_outputs()
    assert not {f"kuairec.{name}" for name in OWN} & found.datasets()
    assert "kuairec.social_edges" in found.datasets()
    params = {name for name in found.inputs() if name.startswith("params:")}
    assert f"params:{SYSTEM}.split" in params and "params:kuairec.split" not in params
    # the same nodes as on KuaiRand, and those of the split
    nodes = {n.name.removeprefix(f"{SYSTEM}.") for n in found.nodes if n.namespace == SYSTEM}
    elsewhere = {n.name.removeprefix("mt_dqn.") for n in pipelines["mt_dqn"].nodes if n.namespace == "mt_dqn"}  # fmt: skip
    assert nodes - elsewhere == {"fit_parts", "split_interactions", "build_item_modal"}
    assert elsewhere <= nodes


@pytest.fixture(scope="module")
def catalog(run, catalog_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline=SYSTEM)
    return catalog_of(folder)


@pytest.mark.long
def test_train_ends_before_the_last_burst(catalog):
    events = catalog[f"{SYSTEM}.events"].load()
    last = catalog["kuairec.bursts"].load().row(-1, named=True)
    times = {part: events.filter(split=part)["ts_ms"] for part in ("train", "val", "test")}
    assert times["train"].max() < last["start_ms"] <= times["val"].min()
    assert times["val"].max() < times["test"].min() and times["test"].max() < last["end_ms"]
    modal = catalog[f"{SYSTEM}.item_modal"].load()
    assert set(modal["source"]) == {"metadata_proxy"}


@pytest.mark.long
def test_watch_time_alone_is_rewarded_and_judged(catalog):
    events = catalog[f"{SYSTEM}.events"].load()
    assert reward_terms(events.lazy()) == ["watch"]
    # 0.5 per unit of the ratio reaches 1 at most, so all is doubled
    assert events["r_immediate"].to_list() == pytest.approx(events["watch_ratio"].fill_null(0).clip(0, 2).to_list())  # fmt: skip
    assert list(logged_behaviours(events)) == ["watch"]
    assert events.select((pl.col("r_interest") != 0).sum()).item() > 0
    results = catalog[f"{SYSTEM}.results"].load()
    assert set(results["source"]) == {"kuairec"} and set(results["split"]) == {"last_burst_out/test"}  # fmt: skip
    assert set(results.filter(metric="f1", weighting="")["group"]) == {"watch"}
    assert set(results["experiment"]) == {"MT-01", "MT-02", "MT-11"}


@pytest.mark.long
def test_the_page_says_what_is_missing_and_what_is_a_proxy(catalog):
    page = catalog[f"{SYSTEM}.report"].load()
    assert "MT-DQN on KuaiRec" in page and "not logged: left out" in page
    assert "last_burst_out" in page and "metadata_proxy" in page and "watch_ratio ≥ 1" in page
    assert "× 2, so that these terms reach as far as all six" in page


@pytest.mark.long
def test_catalogue_rankings_are_judged_by_the_planted_watch_ratio(catalog):
    ranked = catalog[f"{SYSTEM}.mt_dqn_catalogue"].load()
    truth = Truth.behind(catalog["kuairec.raw_manifest"].load())
    user, item = (catalog[f"kuairec.{kind}_map"].load()["raw_id"] for kind in ("user", "item"))
    context = ranked.filter(pl.col("context_id") == ranked["context_id"][0]).sort("rank")
    at = (user[context["user_id"][0]], item.gather(context["item_id"]).to_numpy(), context["ts_ms"].to_numpy(), 0)  # fmt: skip
    by_hand = 0.5 * truth.expected(*at)["watch_ratio"]
    assert truth.expected_immediate_reward(*at, {"watch_ratio": 0.5}) == pytest.approx(by_hand)
    values = catalog[f"{SYSTEM}.true_ndcg"].load()
    assert values["value"].is_between(0, 1).all() and values.height > 0


@pytest.mark.real
@pytest.mark.long
def test_real_rows_run_to_a_report_or_say_which_part_is_empty(run, catalog_of, real_data, tmp_path):
    """Fifteen rows of the big matrix are at hand, five of each of three days: the 1st, and the 8th and 10th of the last burst."""
    params = {"raw_root": str(real_data), SYSTEM: {"split": {"last_burst_val_days": 4}}}
    with pytest.raises(
        ValueError, match=r"last_burst_out leaves val empty.*2020-07-05 to 2020-09-05"
    ):
        run(tmp_path, pipeline=SYSTEM, env="real", params=params, to_nodes=[f"{SYSTEM}.fit_parts", f"{SYSTEM}.split_interactions"])  # fmt: skip
    run(tmp_path, pipeline=SYSTEM, env="real", params={"raw_root": str(real_data)})
    opened = catalog_of(tmp_path, "real")
    assert opened[f"{SYSTEM}.split_report"].load()["rows"] == {"train": 5, "val": 5, "test": 5}  # fmt: skip
    results = opened[f"{SYSTEM}.results"].load()
    assert set(results["data_kind"]) == {"real"}
    assert not results.filter(pl.col("metric").str.starts_with("value_"))["reliable"].any()
    page = opened[f"{SYSTEM}.report"].load()
    assert "metadata proxies" in page and "synthetic data" not in page
    assert "Every return of the test part is censored" in page
