"""Training runs of MMRF from tables, and what is refused before and while they run."""

import polars as pl
import pytest
import torch
from pydantic import ValidationError
from support.feature_logs import log_of
from support.feed_baselines import OPTIONS as BASELINES
from support.feed_log import (
    ENCODER,
    random_feed_log,
    toy_items,
    toy_sets,
    toy_users,
    with_requests,
)

from reelrank.models.feed_data import batch
from reelrank.models.feed_options import FeedDataOptions
from reelrank.models.feed_policies import history_length, load_policy
from reelrank.pipelines.mmrf.attention import attention_map
from reelrank.pipelines.mmrf.feed_tables import FeedTables, feed_log, feed_report
from reelrank.pipelines.mmrf.learning import CriticDiverged
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.run_options import (
    MMRF_VARIANTS,
    Cell,
    MMRFOptions,
    PredictionOptions,
    PublishedTable,
    StudyOptions,
    cell_options,
    variant_options,
)
from reelrank.pipelines.mmrf.scoring import judged_decisions, predictions, validation
from reelrank.pipelines.mmrf.training_run import of_responses, train
from reelrank.training.checkpoint import CONFIG_FILE, load_checkpoint

WIDTHS = {"encoder": ENCODER.model_dump()}
MODEL = MMRFOptions.model_validate(
    {
        "actor": {"hidden": 8, "heads": 2, "head_hidden": 8, **WIDTHS},
        "critic": {"hidden": (8, 6), "value_hidden": 5, **WIDTHS},
        "simulator": {"d_state": 8, "d_id": 4, "d_attributes": 3, "d_context": 2, "hidden": 8, "window": 16, "warm_up": 4},
    }
)  # fmt: skip
LEARNING = LearningOptions(epochs=1, steps=3, check_every=1, conflict_every=2, device="cpu")
REPLAY = ReplayOptions(batch_size=8)
PREDICTION = PredictionOptions(block=50, validation_decisions=1000)
DATA = FeedDataOptions(track="request", k=3)


@pytest.fixture(scope="module")
def tables():
    log, items = random_feed_log(), toy_items()
    sets = toy_sets(log, items)
    return FeedTables(log, items, toy_users(), sets)


def run(tables, folder, name="mmrf", model=MODEL, learning=LEARNING, data=DATA):
    options, replay = variant_options(name, model, REPLAY)
    return train(
        name, tables, options=options, data=data, learning=learning, replay=replay, prediction=PREDICTION, work_dir=folder,
    )  # fmt: skip


@pytest.mark.parametrize("name", MMRF_VARIANTS)
def test_a_variant_comes_back_from_its_checkpoint(tables, tmp_path, name):
    checkpoint, history, conflicts = run(tables, tmp_path, name)
    policy = load_policy(checkpoint)
    assert checkpoint.config["name"] == name and history_length(checkpoint) == ENCODER.history
    exchange = policy.options.exchange
    assert exchange == ("concat" if name == "mmrf_co" else "attention")
    assert ("simulator_loss" in history.columns) == (name != "mmrf_da")
    assert conflicts.height == 49 and conflicts["cosine"].is_between(-1.001, 1.001).all()
    inputs = tables.inputs(DATA, "cpu")
    frame = predictions(policy, inputs, history_length(checkpoint), PREDICTION)
    index = judged_decisions(inputs)
    with torch.no_grad():
        scores = policy.scores(batch(inputs, index, ENCODER.history))
    torch.testing.assert_close(torch.from_numpy(frame["scores"].to_numpy().copy()), scores)
    n = inputs.decisions.shown[index].sum(1).numpy() * 7
    assert frame["heads"].list.len().to_list() == n.tolist()


def test_attention_sums_to_one_and_nobody_hears_itself(tables, tmp_path):
    checkpoint, _, _ = run(tables, tmp_path)
    inputs = tables.inputs(DATA, "cpu")
    found = attention_map(checkpoint, inputs, PREDICTION)
    sums = found.group_by("head", "agent").agg(pl.col("weight").sum())["weight"]
    assert sums.to_list() == pytest.approx([1.0] * 14)
    assert (found.filter(pl.col("agent") == pl.col("heard"))["weight"] == 0).all()
    concatenated, _, _ = run(tables, tmp_path, "mmrf_co")
    assert attention_map(concatenated, inputs, PREDICTION).is_empty()


def test_a_user_without_history_is_scored(tables, tmp_path):
    """The first decision of every user has nothing before it."""
    inputs = tables.inputs(DATA, "cpu")
    checkpoint, _, _ = run(tables, tmp_path)
    decisions = inputs.decisions
    first = torch.nonzero(decisions.row == inputs.rows.first[decisions.user]).squeeze(1)
    states = batch(inputs, first, ENCODER.history)
    assert len(first) and (states.history == -1).all()
    scores = load_policy(checkpoint).scores(states)
    assert scores[states.mask].isfinite().all()


def test_a_diverging_critic_is_named_and_its_last_good_state_kept(tables, tmp_path):
    wild = MODEL.model_copy(update={"update": MODEL.update.model_copy(update={"critic_lr": 1e6, "grad_clip": 1e9})})  # fmt: skip
    learning = LEARNING.model_copy(update={"steps": 60})
    with pytest.raises(CriticDiverged, match=r"critic of \w+ diverged .* lower critic_lr") as caught:  # fmt: skip
        run(tables, tmp_path, model=wild, learning=learning)
    assert (caught.value.checkpoint / CONFIG_FILE).exists()
    tensors, _ = load_checkpoint(caught.value.checkpoint)
    assert all(t.isfinite().all() for n, t in tensors.items() if n.startswith("learner.networks"))


def test_candidate_sets_smaller_than_what_is_shown_are_refused(tables):
    with pytest.raises(ValueError, match=r"hold fewer than k = 9 items.*enlarge candidates.size"):
        tables.inputs(FeedDataOptions(track="request", k=9), "cpu")


def test_an_unknown_response_is_refused_by_name():
    with pytest.raises(ValidationError, match=r"unknown responses \['clik'\]: choose from click"):
        MMRFOptions.model_validate({"actor": {"agents": ["clik", "watch_time"]}})


@pytest.mark.parametrize("name", ["mmrf", "mmrf_co", "pareto", "tscac", "massa"])
def test_a_log_with_few_responses_trains_agents_of_those_alone(tables, tmp_path, name):
    """KuaiRec knows watch time, and by rule long view."""
    unknown = ("click", "like", "follow", "comment", "hate")
    log = tables.log.with_columns(pl.lit(None, pl.Int8).alias(n) for n in unknown)
    few = FeedTables(log, tables.items, tables.users, tables.candidates)
    data = DATA.model_copy(update={"responses": ("long_view", "watch_time")})
    if name.startswith("mmrf"):
        checkpoint, _, _ = run(few, tmp_path, name, data=data)
    else:
        checkpoint, _, _ = train(
            name, few, options=BASELINES[name], data=data, learning=LEARNING, replay=REPLAY, prediction=PREDICTION, work_dir=tmp_path,
        )  # fmt: skip
    policy = load_policy(checkpoint)
    assert tuple(policy.options.agents) == data.responses
    inputs = few.inputs(data, "cpu")
    states = batch(inputs, judged_decisions(inputs), ENCODER.history)
    assert policy.scores(states)[states.mask].isfinite().all()


def test_what_needs_other_responses_says_so():
    with pytest.raises(ValidationError, match="TSCAC needs an auxiliary response"):
        of_responses(BASELINES["tscac"], ("watch_time",))
    assert of_responses(BASELINES["bc"], ("watch_time",)) is BASELINES["bc"]
    for wrong in (("click",), ("watch_time", "click")):
        with pytest.raises(ValidationError, match="in this order"):
            FeedDataOptions(responses=wrong)


def test_long_view_by_kuairands_rule():
    """18 s, or the whole of a shorter video; what is logged stays, what has no length stays unknown."""
    rows = log_of(
        user_id=[0] * 6, item_id=[0] * 6, ts_ms=list(range(6)), play_ms=[18_000, 17_999, 9_000, 8_999, 99_000, 0],
        duration_ms=[60_000, 60_000, 9_000, 9_000, None, 5_000],
    )  # fmt: skip
    rows = with_requests(rows).with_columns(long_view=pl.Series([None] * 5 + [1], dtype=pl.Int8))
    splits = rows.select("row_id", split=pl.lit("train"))
    found = feed_log(rows.lazy(), splits.lazy(), FeedDataOptions(long_view="rule"))
    assert found["long_view"].to_list() == [1, 0, 1, 0, None, 1]
    logged = feed_log(rows.lazy(), splits.lazy(), DATA)
    assert logged["long_view"].to_list() == [None] * 5 + [1]


def test_actors_and_critics_read_one_history():
    with pytest.raises(ValidationError, match=r"actor.encoder.history 3 .* must be equal"):
        MMRFOptions.model_validate({"actor": {"encoder": {"history": 3}}})


def test_a_log_without_val_rows_is_refused(tables):
    log = tables.log.filter(pl.col("split") != "val")
    inputs = FeedTables(log, tables.items, tables.users, toy_sets(log, tables.items)).inputs(DATA, "cpu")  # fmt: skip
    with pytest.raises(ValueError, match="the val split shows no rows"):
        validation(inputs, 4, PREDICTION, 0)


def test_the_report_counts_every_row_of_the_log(tables):
    inputs = tables.inputs(DATA, "cpu")
    report = feed_report(inputs, DATA)
    shown = sum(part["rows"] + part["random_rows"] for part in report["splits"])
    assert shown + report["rows_without_decision"] == report["log_rows"] == tables.log.height
    assert report["candidates_most"] <= 8


def test_cells_change_what_they_name_and_nothing_else():
    model, replay = cell_options(
        Cell.model_validate({"base": "mmrf_ns", "model": {"update": {"beta": 0.0}}, "replay": {"rate": 0.5}}), MODEL, REPLAY,
    )  # fmt: skip
    assert model == MODEL.model_copy(update={"update": MODEL.update.model_copy(update={"beta": 0.0})})  # fmt: skip
    assert replay == REPLAY.model_copy(update={"rate": 0.5, "non_impressions": "negative"})
    with pytest.raises(ValidationError, match="betta"):
        cell_options(Cell(model={"update": {"betta": 0.0}}), MODEL, REPLAY)


def test_studies_may_run_single_cells():
    cells = {"MM-08": {"a": {}, "b": {"against": "a"}}, "MM-02": {"c": {}}}
    assert StudyOptions.model_validate({"run": ["MM-02", "MM-08.a"], "cells": cells}).chosen() == [
        ("MM-08", "a"),
        ("MM-02", "c"),
    ]
    for wrong, message in (
        (["MM-03"], "MM-03"),
        (["MM-08.z"], "MM-08.z"),
        (["MM-08.b"], "run MM-08.a too"),
    ):
        with pytest.raises(ValidationError, match=message):
            StudyOptions.model_validate({"run": wrong, "cells": cells})


def test_a_lost_cell_must_be_lost():
    row = {"gauc": [0.5] * 7, "ncis": [0.5] * 7}
    lost = [{"method": "bc", "response": "click", "metric": "gauc", "low": 0.4, "high": 0.6}]
    with pytest.raises(ValidationError, match="bc/click/gauc is not lost"):
        PublishedTable.model_validate({"rows": {"bc": row}, "lost": lost})
