"""The whole of `kedro run --pipelines feedback_simulator` at tiny sizes, as a user runs it."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from kedro.validation.exceptions import ParameterValidationError

from reelrank.models.feed import RESPONSES
from reelrank.models.feed_data import batch, feed_inputs, shown_sets
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.models.session_model import fit_sessions
from reelrank.models.simulator_environment import SimulatorEnvironment, SimulatorRolloutOptions
from reelrank.pipelines.feedback_simulator.report import FIGURES
from reelrank.tables import Results

pytestmark = pytest.mark.long

MAIN = "feedback_simulator"
OF_RESPONSE = {
    "gauc",
    "auc",
    "mse",
    "bias",
    "ece",
    "kl_error_spearman",
    "true_mse",
    "true_spearman",
}


@pytest.fixture(scope="module")
def data_root(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run(folder, pipeline=MAIN)
    return folder


@pytest.fixture(scope="module")
def catalog(data_root, catalog_of):
    return catalog_of(data_root)


@pytest.fixture(scope="module")
def results(catalog):
    return catalog[f"{MAIN}.results"].load()


def test_every_response_is_judged_on_standard_and_on_random_rows(results):
    Results.validate(results)
    key = ["experiment", "cell", "split", "variant", "metric", "group", "paired_with"]
    assert not results.select(pl.struct(key).is_duplicated().any()).item()
    values = results.filter(pl.col("paired_with").is_null(), cell="main", variant=MAIN)
    assert set(values["split"]) == {"kuairand_time/test", "kuairand_time/test_random"}
    for (_, response), rows in values.group_by("split", "group"):
        binary = response != "watch_time"
        wanted = OF_RESPONSE if binary else (OF_RESPONSE - {"auc", "gauc", "ece"}) | {"xauc", "gxauc"}  # fmt: skip
        assert wanted <= set(rows["metric"]), response
    assert set(values["group"]) == set(RESPONSES)


def test_metrics_follow_from_the_stored_predictions(results, catalog):
    responses = catalog[f"{MAIN}.responses"].load()
    own = responses.filter(exposure="random", response="click")
    own = own.with_columns(pl.col(pl.Float32).cast(pl.Float64))
    mse = ((own["predicted"] - own["logged"]) ** 2).mean()
    row = results.filter(cell="main", metric="mse", group="click", variant=MAIN, split="kuairand_time/test_random")  # fmt: skip
    alone, pair = row.sort("paired_with", nulls_last=False).iter_rows(named=True)
    assert alone["value"] == pytest.approx(mse) and alone["n"] == own.height
    constant = ((own["constant"] - own["logged"]) ** 2).mean()
    assert pair["paired_with"] == "train_mean"
    assert pair["value"] == pytest.approx(mse - constant)


def test_the_planted_truth_stands_beside_its_own_rows(catalog):
    """Means over rows of one response: what was answered scatters around what was to be expected."""
    responses = catalog[f"{MAIN}.responses"].load()
    for name in ("click", "long_view"):
        own = responses.filter(response=name)
        expected, logged = own["expected"].to_numpy(), own["logged"].to_numpy()
        sd = np.sqrt((expected * (1 - expected)).sum()) / len(expected)
        assert abs(logged.mean() - expected.mean()) < 4 * sd
        assert np.corrcoef(expected, logged)[0, 1] > 0.2


def test_rows_are_the_test_rows_of_the_log(catalog):
    impressions = catalog[f"{MAIN}.impressions"].load()
    responses = catalog[f"{MAIN}.responses"].load().filter(response="click")
    test = impressions.filter(split="test")
    report = catalog[f"{MAIN}.impression_report"].load()
    # an item that stands twice in a request counts once
    assert test.height - report["repeated_rows"] <= responses.height <= test.height
    log = impressions.sort("user_id", "ts_ms", "row_id").with_row_index("row")
    joined = responses.join(log.cast({"row": pl.Int64}), on="row")
    assert (joined["user_id"] == joined["user_id_right"]).all()
    assert (joined["logged"] == joined["click"]).all()
    assert set(joined["split"]) == {"test"}


def test_cells_are_compared_with_the_runs_own_simulator(results):
    cells = results.filter(pl.col("paired_with") == MAIN, experiment="MM-03")
    assert set(cells["cell"]) == {"rnd", "half_of_users"}
    rewards = results.filter(experiment="MM-07", metric="reward_bias", group="like")
    forms = {"no bonus", "additive, κ = 0.1", "multiplicative, κ = 0.1", "exp, κ = 0.1"}
    assert set(rewards["cell"]) == forms
    standard = dict(rewards.filter(~pl.col("split").str.ends_with("random")).select("cell", "value").iter_rows())  # fmt: skip
    assert standard["additive, κ = 0.1"] > standard["no bonus"]


def test_errors_are_told_by_how_often_train_shows_the_video(results):
    rows = results.filter(experiment="MM-04")
    assert set(rows["cell"]) == {"main", *(f"decile {d}" for d in range(1, 11))}
    shown = rows.filter(pl.col("split").str.ends_with("random"), metric="train_exposures")
    assert shown["value"].is_sorted() and shown["value"].to_list()[-1] > shown["value"][0]
    random = rows.filter(pl.col("split").str.ends_with("random"), variant=MAIN, metric="true_mse", group="click")  # fmt: skip
    whole = results.filter(pl.col("split").str.ends_with("random"), pl.col("paired_with").is_null(), cell="main", variant=MAIN, metric="true_mse", group="click")  # fmt: skip
    known = random.filter(pl.col("value").is_not_null())
    assert known["n"].sum() == whole["n"].item()
    assert (known["value"] * known["n"]).sum() == pytest.approx(whole["value"].item() * whole["n"].item())  # fmt: skip


def test_the_checkpoint_is_an_environment(catalog):
    impressions, items, users = (catalog[name].load() for name in (f"{MAIN}.impressions", "kuairand.items", "kuairand.users"))  # fmt: skip
    inputs = feed_inputs(impressions, items, users, FeedDataOptions(k=1), shown_sets(impressions))
    stored = catalog[f"{MAIN}.{MAIN}_model"].load()
    assert stored.config["fold"]["share"] == 1.0
    simulator = FeedbackSimulator.from_checkpoint(stored.config, stored.best, inputs.items)
    standard = simulator.standardised(inputs.rows.response)
    sessions = fit_sessions(inputs, standard, torch.ones(len(standard), dtype=torch.bool))
    first = torch.arange(6)
    environment = SimulatorEnvironment(
        simulator,
        sessions,
        batch(inputs, first, 8),
        inputs.decisions.user[first].numpy(),
        inputs.items,
        pool=np.arange(30),
        popularity=np.ones(30),
        start_ms=int(inputs.rows.ts_ms.max()),
        options=SimulatorRolloutOptions(days=1, candidates=10),
    )
    observation, _ = environment.reset(seed=1)
    actions = np.where(environment.reset(seed=1)[1]["active"][:, None], [[0, 1, 2]], -1)
    _, _, _, _, info = environment.step(actions)
    assert observation.candidates.shape == (6, 10)
    known = info["response"][info["shown"]]
    assert np.isfinite(known).all() and (known >= 0).all()


def test_the_report_says_it_is_synthetic(data_root, catalog):
    page = (data_root / f"08_reporting/report/test/{MAIN}.html").read_text(encoding="utf-8")
    for words in ("Feedback simulator on kuairand", "synthetic data", "Does it know where it errs", "no_context"):  # fmt: skip
        assert words in page, words
    for name in FIGURES:
        json.dumps(catalog.get(f"{MAIN}.figure_{name}").preview())
    history = catalog[f"{MAIN}.{MAIN}_history"].load()
    assert {"train_loss", "train_kl", "val_negative_loss", "epoch"} <= set(history.columns)


def test_an_unknown_response_is_refused_before_the_first_node(run, tmp_path):
    params = {MAIN: {"evaluation": {"responses": ["click", "wow"]}}}
    with pytest.raises(ParameterValidationError, match=r"responses\.1.*wow"):
        run(tmp_path, pipeline=MAIN, params=params)
    assert list(tmp_path.iterdir()) == []
