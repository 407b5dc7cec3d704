"""One loop for all models: what they learn from, that they learn it, and that a checkpoint is the model."""

import numpy as np
import polars as pl
import pytest
import torch
from support.scenario_log import LENGTH, SMALL, build, event_frame, sequences

from reelrank.features.sequences import SequenceOptions, sequence_events
from reelrank.pipelines.ruie.fitting import SequenceTables, popularity, predict, restore, train
from reelrank.pipelines.ruie.learning import examples, learn, validate, validation_targets
from reelrank.pipelines.ruie.options import (
    DinOptions,
    NextItNetOptions,
    PopularityOptions,
    RuieOptions,
)
from reelrank.pipelines.ruie.ranking import rank_targets, target_positions
from reelrank.pipelines.ruie.run_options import LearningOptions, RankingOptions
from reelrank.training.options import TrainOptions

ALWAYS = np.zeros(20, np.int64)
RANKING = RankingOptions(sampled=5)
LEARNING = LearningOptions(length=LENGTH, last_place_batch=16, validation_targets=None)
TRAINING = TrainOptions(
    epochs=3, batch_size=4, lr=0.01, lr_min=0.001, patience=3, checkpoint_every_steps=1, device="cpu"
)  # fmt: skip


def tables(events=None, n_items=20):
    frame = event_frame() if events is None else events
    items = pl.DataFrame({"item": range(n_items), "item_id": range(n_items), "available_ts": [0] * n_items})  # fmt: skip
    codes = sorted(set(frame["scenario"]))
    return SequenceTables.of(frame, items, pl.DataFrame({"scenario": codes, "raw_scenario": codes}))


def fitted(name, options, folder, events=None, **training):
    return train(
        name,
        tables(events),
        model=options.model_validate(SMALL[name]),
        learning=LEARNING,
        training=TRAINING.model_copy(update=training),
        ranking=RANKING,
        work_dir=folder,
    )


@pytest.mark.parametrize("name", ["ruie", "sasrec", "caser", "din"])
def test_each_train_event_but_a_users_first_is_asked_for_once(name):
    log = sequences()
    rows, step = examples(build(name, log), log, seed=0)
    asked = step.batch(rows).asked
    asked = sorted(asked[asked >= 0].tolist())
    expected = [i for i in range(len(log)) if log.split[i] == 0 and i != log.first[log.user[i]]]
    assert asked == expected


def test_the_order_is_shuffled_and_the_same_for_one_seed():
    log = sequences()
    model = build("din", log)
    one, again, other = (examples(model, log, seed)[0].tolist() for seed in (1, 1, 2))
    assert one == again != other
    assert one != sorted(one) and sorted(one) == sorted(other)


def test_the_validation_metric_is_the_mean_over_scenarios():
    log = sequences()
    model = build("nextitnet", log).eval()
    positions = validation_targets(log, None, 0)
    metrics = validate(model, log, positions, ALWAYS, RANKING)
    rank = rank_targets(model, log, positions, ALWAYS, RANKING).rank
    ndcg = np.where(rank <= 10, 1 / np.log2(rank + 1), 0)
    scenario = log.scenario[positions].numpy()
    own = [ndcg[scenario == c].mean() for c in (0, 1)]
    assert next(iter(metrics)) == "ndcg@10"  # the first decides
    assert metrics == pytest.approx(
        {"ndcg@10": np.mean(own), "ndcg@10_scenario_0": own[0], "ndcg@10_scenario_1": own[1]}
    )


def test_validation_never_sees_a_test_event():
    """L9."""
    log = sequences()
    assert (log.split[validation_targets(log, None, 0)] == 1).all()
    few = validation_targets(log, 3, 0)
    assert len(few) == 3 and (log.split[few] == 1).all() and (few.diff() > 0).all()


def test_few_validation_targets_are_of_all_scenarios_alike():
    rare = pl.when(pl.col("user_id") < 3).then(1).otherwise(0)
    log = sequences(event_frame(n_users=40).with_columns(scenario=rare))
    for seed in range(3):
        chosen = validation_targets(log, 12, seed)
        assert torch.bincount(log.scenario[chosen]).tolist() == [9, 3]  # all 3 of the rare one
        assert torch.bincount(log.scenario[validation_targets(log, 4, seed)]).tolist() == [2, 2]


def test_windows_of_a_batch_are_of_like_length_and_none_is_lost():
    events = event_frame(n_users=200, n_events=12).filter(pl.col("ts_ms") > pl.col("user_id") % 8)
    log = sequences(events)
    model = build("nextitnet", log)
    rows, step = examples(model, log, 0, batch_size=8)
    windows = step.windows
    assert sorted(rows.tolist()) == list(range(len(windows)))
    width = (windows.stop - windows.start)[rows]
    spread = torch.stack([b.float().std() for b in width.split(8) if len(b) == 8]).mean()
    assert spread < 0.3 * width.float().std()
    batch = step.batch(rows[:8])
    assert batch.history.item.shape[1] == int(batch.history.length.max())


@pytest.mark.parametrize(
    ("name", "options"),
    [("ruie", RuieOptions), pytest.param("nextitnet", NextItNetOptions, marks=pytest.mark.long)],
)
def test_models_learn_the_rule(name, options, tmp_path):
    """The next item follows from the last one: after training it stands well above the middle, 10.5."""
    events = event_frame(n_users=80, n_events=12)
    checkpoint, history = fitted(name, options, tmp_path, events, epochs=20, batch_size=16, lr=0.02, patience=20)  # fmt: skip
    assert history["train_loss"][-1] < history["train_loss"][0]
    frame = predict(checkpoint, tables(events), RANKING, "cpu")
    assert frame.filter(split="test")["rank"].mean() < 4


def test_the_history_holds_ruies_monitors_of_every_scenario(tmp_path):
    _, history = fitted("ruie", RuieOptions, tmp_path)
    monitors = {"gate_at_low", "gate_at_high", "p_sd", "td_abs"} | {
        f"{name}_{c}" for name in ("q_scenario", "gate_share", "loss_share") for c in (0, 1)
    }
    assert {f"train_{m}" for m in monitors} <= set(history.columns)
    shares = history.select("train_gate_share_0", "train_gate_share_1").sum_horizontal()
    assert shares.to_list() == pytest.approx([1.0] * history.height, abs=1e-5)


def test_a_checkpoint_is_the_model(tmp_path):
    checkpoint, _ = fitted("din", DinOptions, tmp_path)
    checkpoint.write(tmp_path / "model")
    read = type(checkpoint).read(tmp_path / "model")
    both = [predict(c, tables(), RANKING, "cpu") for c in (checkpoint, read)]
    assert both[0].equals(both[1])
    assert read.config["name"] == "din" and read.config["spec"]["n_items"] == 20


def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(tmp_path, monkeypatch):
    whole, _ = fitted("ruie", RuieOptions, tmp_path / "whole")
    calls = 0
    from reelrank.pipelines.ruie import learning

    def failing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return validate(*args, **kwargs)

    monkeypatch.setattr(learning, "validate", failing)
    with pytest.raises(KeyboardInterrupt):
        fitted("ruie", RuieOptions, tmp_path / "killed")
    monkeypatch.undo()
    resumed, _ = fitted("ruie", RuieOptions, tmp_path / "killed")
    for name, tensor in whole.best.items():
        assert torch.equal(tensor, resumed.best[name]), name
    assert list((tmp_path / "killed").iterdir()) == []


@pytest.mark.parametrize("by_scenario", [False, True])
def test_popularity_ranks_by_train_events(by_scenario):
    made = tables()
    log = made.sequences("cpu")
    checkpoint = popularity(made, PopularityOptions(by_scenario=by_scenario), LENGTH)
    assert restore(checkpoint, log.user.device).count.sum() == int((log.split == 0).sum())
    frame = predict(checkpoint, made, RANKING, "cpu").filter(split="test").join(made.events.select("row_id", "item"), on="row_id")  # fmt: skip
    train_events = made.events.filter(split="train")
    for row in frame.iter_rows(named=True):
        own = train_events.filter(scenario=row["scenario"]) if by_scenario else train_events
        counts = np.bincount(own["item"].to_numpy(), minlength=20)
        mine = counts[row["item"]]
        expected = 1 + (counts > mine).sum() + 0.5 * ((counts == mine).sum() - 1)
        assert row["rank"] == pytest.approx(expected)


def test_without_a_val_event_there_is_no_epoch_to_choose(tmp_path):
    log = sequences(event_frame().filter(pl.col("split") != "val"))
    with pytest.raises(ValueError, match="no val event"):
        learn(
            build("nextitnet", log), log, ALWAYS,
            learning=LEARNING, training=TRAINING, ranking=RANKING, work_dir=tmp_path, identity={},
        )  # fmt: skip


def raw_log():
    """Interactions: scenario 7 only in test, item 99 never in train, user 5 with one event."""
    events = event_frame(n_users=5).rename({"item": "item_id"}).with_columns(
        comment=pl.lit(0), is_rand=pl.lit(0, pl.Int8), forward=pl.lit(0)
    )  # fmt: skip
    last = pl.col("ts_ms") == pl.col("ts_ms").max()
    events = events.with_columns(
        scenario=pl.when(last & (pl.col("user_id") == 0)).then(7).otherwise("scenario"),
        item_id=pl.when(last & (pl.col("user_id") == 1)).then(99).otherwise("item_id"),
    )
    lonely = events.head(1).with_columns(user_id=pl.lit(5, pl.Int64), row_id=pl.lit(999, pl.Int64))
    return pl.concat([events, lonely])


def test_what_train_lacks_is_left_out_and_counted_and_the_rest_is_learnt(tmp_path):
    made = sequence_events(raw_log().lazy(), SequenceOptions(k_core=1))
    left = dict(made.report.iter_rows())
    assert left["events (click)"] == 46
    assert left["in a scenario that train has"] == 45  # scenario 7 went
    known = set(raw_log().filter(split="train")["item_id"])
    wanted = raw_log().filter(pl.col("item_id").is_in(known), pl.col("scenario") < 7)
    assert 99 not in known and sorted(made.events["row_id"]) == sorted(wanted["row_id"])
    assert 5 in made.events["user_id"]  # one event: nothing to predict, but an item of the softmax
    items = made.items.with_columns(available_ts=pl.lit(0, pl.Int64))
    built = SequenceTables.of(made.events, items, made.scenarios)
    checkpoint, _ = train(
        "ruie", built, model=RuieOptions.model_validate(SMALL["ruie"]),
        learning=LEARNING, training=TRAINING, ranking=RANKING, work_dir=tmp_path,
    )  # fmt: skip
    frame = predict(checkpoint, built, RANKING, "cpu")
    assert frame.height == wanted.filter(pl.col("split") != "train").height
    assert frame["rank"].null_count() == 0


def test_a_log_with_one_scenario_is_learnt(tmp_path):
    events = event_frame(n_scenarios=1)
    checkpoint, history = fitted("ruie", RuieOptions, tmp_path, events)
    # there is no doubt about the next scenario: every gate stands at the clip, and weighs alike
    assert history["train_gate_at_high"].to_list() == pytest.approx([1.0] * history.height)
    assert history["train_gate_share_0"].to_list() == pytest.approx([1.0] * history.height, abs=1e-5)  # fmt: skip
    assert predict(checkpoint, tables(events), RANKING, "cpu")["rank"].null_count() == 0


def test_absent_scenarios_are_refused_or_skipped_and_counted():
    log = raw_log().lazy()
    with pytest.raises(ValueError, match=r"\[3\]"):
        sequence_events(log, SequenceOptions(k_core=1, scenarios=(1, 3)))
    made = sequence_events(log, SequenceOptions(k_core=1, scenarios=(1, 3, 0), absent_scenarios="skip"))  # fmt: skip
    assert made.scenarios["raw_scenario"].to_list() == [1, 0]
    assert any("scenario 3 skipped" in step for step in made.report["step"])


def test_the_target_positions_of_a_part_are_its_events():
    log = sequences()
    assert (log.split[target_positions(log, "test")] == 2).all()
