"""RU-03, RU-06 and RU-09: other rewards, Q against what followed, and other things for Q to learn."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from support.scenario_log import LENGTH, SMALL, build, event_frame, sequences

from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.pipelines.ruie.fitting import SequenceTables, train
from reelrank.pipelines.ruie.options import RewardOptions, RuieOptions
from reelrank.pipelines.ruie.protocol import last_batch
from reelrank.pipelines.ruie.q_calibration import q_frame, q_rows, realised_returns
from reelrank.pipelines.ruie.rewards import learned_reward, shuffled_feedback
from reelrank.pipelines.ruie.run_options import (
    Cell,
    EvaluationOptions,
    LearningOptions,
    RankingOptions,
    RuieModels,
    StudyOptions,
)
from reelrank.pipelines.ruie.studies import MONITORS, Study, monitor_rows
from reelrank.training.options import TrainOptions

FEEDBACK = ["click", "like", "follow", "forward"]
LEARNING = LearningOptions(length=LENGTH, validation_targets=None)
RANKING = RankingOptions(sampled=5)
TRAINING = TrainOptions(epochs=1, batch_size=4, lr=0.01, device="cpu")


def tables(events=None):
    frame = event_frame() if events is None else events
    items = pl.DataFrame({"item": range(20), "item_id": range(20), "available_ts": [0] * 20})
    codes = pl.DataFrame({"scenario": [0, 1], "raw_scenario": [0, 1]})
    return SequenceTables.of(frame, items, codes)


def trained(folder, **changes):
    options = RuieOptions.model_validate(SMALL["ruie"] | changes)
    return train("ruie", tables(), model=options, learning=LEARNING, training=TRAINING, ranking=RANKING, work_dir=folder)[0]  # fmt: skip


def test_shuffled_feedback_moves_train_rows_as_a_whole_and_no_other():
    events = event_frame(n_users=40).with_columns(forward=pl.lit(None, pl.Int64))
    shuffled = shuffled_feedback(events, 3)
    later, train_rows = pl.col("split") != "train", pl.col("split") == "train"
    assert shuffled.filter(later).equals(events.filter(later))
    assert shuffled.drop(FEEDBACK).equals(events.drop(FEEDBACK))
    own, other = (e.filter(train_rows) for e in (events, shuffled))
    assert sorted(own.select(FEEDBACK).rows(), key=str) == sorted(other.select(FEEDBACK).rows(), key=str)  # fmt: skip
    assert not own.equals(other)
    assert shuffled_feedback(events, 3).equals(shuffled)


def sessions(n, p_like, p_follow, seed=0):
    """Pairs of an event that is gone on from after a minute and a session's last one."""
    rng = np.random.default_rng(seed)
    goes_on = np.tile([True, False], n)
    chance = {"like": p_like, "follow": p_follow}
    flags = {k: (rng.random(2 * n) < np.where(goes_on, *p)).astype(int) for k, p in chance.items()}
    ts = np.cumsum(np.where(goes_on, 10**9, 60_000))
    return pl.DataFrame({"row_id": range(2 * n), "user_id": 0, "ts_ms": ts, "split": "train", "click": 1, "forward": 0, **flags})  # fmt: skip


def test_a_learned_reward_finds_what_sessions_go_on_from():
    base = RewardOptions()
    # likes before going on, follows at the end
    found = learned_reward(sessions(2000, (0.6, 0.1), (0.1, 0.6)), base)
    assert found.click == base.click and found.follow == 0 and found.forward == 0 and found.like > 0
    log = sessions(2000, (0.6, 0.1), (0.1, 0.6))
    mean = (found.like * log["like"] + found.follow * log["follow"]).mean()
    assert mean == pytest.approx((3 * log["like"] + 3 * log["follow"]).mean())  # the base's scale
    nothing = learned_reward(sessions(2000, (0.1, 0.6), (0.1, 0.6)), base)
    assert (nothing.like, nothing.follow) == (0, 0)
    with pytest.raises(ValueError, match="nothing to learn a reward from"):
        learned_reward(sessions(10, (1, 0), (1, 0)).with_columns(split=pl.lit("test")).with_columns(
            split=pl.when(pl.col("row_id") % 2 == 0).then(pl.lit("train")).otherwise(pl.lit("test"))), base)  # fmt: skip


def test_realised_returns_by_hand():
    log = sequences(event_frame(n_users=2, n_events=3))
    weights = RewardOptions().weights()
    r = 1 + 3 * (log.item % 3 == 0).double()
    expected = [r[0] + r[1] / 2 + r[2] / 4, r[1] + r[2] / 2, r[2]]
    expected += [r[3] + r[4] / 2 + r[5] / 4, r[4] + r[5] / 2, r[5]]
    torch.testing.assert_close(realised_returns(log, weights, 0.5), torch.stack(expected))
    assert realised_returns(log, weights, 0.0).equal(r)


def test_q_of_the_scenario_that_followed_and_p_of_every_one(tmp_path):
    checkpoint = trained(tmp_path)
    frame = q_frame(checkpoint, tables(), "cpu")
    assert frame.height == 8 * 8  # all but the first event of each user
    np.testing.assert_allclose(frame["p_0"] + frame["p_1"], 1, atol=1e-6)
    from reelrank.pipelines.ruie.fitting import restore

    log = sequences()
    model = restore(checkpoint, torch.device("cpu"))
    batch = last_batch(log, torch.tensor([5]), LENGTH)
    last = int(batch.history.length) - 1
    states = [model.network(k).state(batch.history) for k in (0, 1)]
    expected = np.mean([s.q[0, last, batch.scenario[0, 0]].item() for s in states])
    row = frame.filter(row_id=5).row(0, named=True)
    assert row["q"] == pytest.approx(expected, rel=1e-5)
    assert row["scenario"] == int(batch.scenario[0, 0])


def test_rows_of_a_perfect_q_and_a_perfect_p():
    n = 60
    realised = np.arange(n, dtype=float)
    scenario = np.arange(n) % 2
    frame = pl.DataFrame({
        "user_id": np.arange(n) % 6, "scenario": scenario, "q": realised**3, "realised": realised,
        "p_0": 1.0 - scenario, "p_1": scenario.astype(float),
    })  # fmt: skip
    rows = q_rows("ruie", frame, ["a", "b"], UserBootstrap(frame["user_id"], 50, 0))
    value = {(r.metric, r.group): r.value for r in rows}
    assert value["spearman_q_return", "all"] == pytest.approx(1)
    assert value["spearman_q_return", "b"] == pytest.approx(1)
    assert value["ece_p", "a"] == value["brier_p", "b"] == 0
    bins = {r.group: (r.n, r.value, value["rate_of_scenario", r.group]) for r in rows if r.metric == "mean_p"}  # fmt: skip
    assert bins == {
        "a, bin 1": (30, 0, 0), "a, bin 2": (30, 1, 1), "b, bin 1": (30, 0, 0), "b, bin 2": (30, 1, 1),
    }  # fmt: skip
    constant = q_rows("ruie", frame.with_columns(q=pl.lit(1.0)), ["a", "b"], UserBootstrap(frame["user_id"], 50, 0))  # fmt: skip
    assert {r.metric for r in constant} == {"ece_p", "brier_p", "mean_p", "rate_of_scenario"}


@pytest.mark.parametrize(("target", "lengths"), [("history_length", (1, 2)), ("future_length", (1, 0))])  # fmt: skip
def test_lengths_in_place_of_the_double_q_target_by_hand(target, lengths):
    """RU-09. Three train events: place 0 is asked for event 1, place 1 for event 2, which is the last."""
    from reelrank.models.sequence_data import Windows
    from reelrank.pipelines.ruie.protocol import window_batch

    log = sequences(event_frame(n_users=1, n_events=5))
    model = build("ruie", log, q={"target": target}).eval()
    batch = window_batch(log, Windows.of(log, LENGTH), torch.tensor([0]))
    coin = int(torch.randint(2, (1,), generator=torch.Generator().manual_seed(3)))
    q = model.network(coin).state(batch.history).q[0, [0, 1], log.scenario[1:3]]
    expected = (q - torch.tensor([math.log1p(n) for n in lengths])).pow(2).mean()
    found = model.losses(batch, log, torch.Generator().manual_seed(3))["q"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_cells_of_rewards_and_of_q_make_rows(tmp_path):
    events = event_frame().with_columns(ts_ms=pl.col("ts_ms") ** 3 * 100_000)  # later gaps are long
    study = Study(
        tables(events), ["a", "b"], RuieModels.model_validate({"ruie": SMALL["ruie"]}), LEARNING, TRAINING,
        RANKING, EvaluationOptions(replicates=20), tmp_path,
    )  # fmt: skip
    cells = {"RU-03": {"random": Cell(reward="shuffled"), "learned": Cell(reward="learned")}, "RU-06": {"linear": Cell(measure="q")}}  # fmt: skip
    from reelrank.pipelines.ruie.fitting import predict

    main = predict(trained(tmp_path), tables(events), RANKING, "cpu")
    found = study.run(StudyOptions(run=("RU-03", "RU-06"), cells=cells), {"ruie": main})
    own = {(r.metric, r.group): r for r in found["RU-03", "learned"]}
    assert {"ndcg@10", "triplet_variance", "td_abs"} <= {metric for metric, _ in own}
    assert own["gate_share", "a"].value + own["gate_share", "b"].value == pytest.approx(1)
    assert {r.metric for r in found["RU-06", "linear"]} >= {"ece_p", "brier_p"}


def test_monitors_of_the_last_epoch_by_hand():
    names = [*(f"train_{m}" for m in MONITORS), "train_q_scenario_0", "train_gate_share_0"]
    history = pl.DataFrame(
        {
            "step": [4, 8], **{name: [9.0, 0.25] for name in names},
            "train_triplet": [9.0, 2.0], "train_triplet_square": [9.0, 4.5],
        }
    )  # fmt: skip
    rows = {(r.metric, r.group): (r.value, r.n) for r in monitor_rows("ruie", history, ["only"])}
    assert rows["triplet_variance", "all"] == (0.5, 4)
    assert rows["td_abs", "all"] == rows["q_scenario", "only"] == (0.25, 4)
    assert monitor_rows("nextitnet", history, ["only"]) == []


def test_rewards_and_q_are_ruies():
    with pytest.raises(ValidationError, match="need base ruie, not sasrec"):
        Cell(base="sasrec", measure="q")
    with pytest.raises(ValidationError, match="measure q is not compared"):
        StudyOptions(cells={"RU-06": {"a": Cell(), "b": Cell(measure="q", against="a")}})
