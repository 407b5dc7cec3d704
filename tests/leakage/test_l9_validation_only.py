"""L9: epochs are chosen on validation data; what happened in the test part changes nothing that was learnt."""

import polars as pl
import pytest
from support.toy_log import same, toy_events, toy_inputs, toy_model, toy_sampler, with_rewards

from reelrank.pipelines.mt_dqn.learning import learn
from reelrank.pipelines.mt_dqn.lists import build_lists
from reelrank.pipelines.mt_dqn.options import LearningOptions, ListOptions
from reelrank.training.options import TrainOptions

TRAIN = TrainOptions(epochs=3, batch_size=40, lr=0.03, device="cpu")


def turned(events, part):
    """The log with every outcome of one part turned round."""
    here = pl.col("split") == part
    return with_rewards(
        events.with_columns(
            *(pl.when(here).then(1 - pl.col(c)).otherwise(c).alias(c) for c in ("long_view", "like", "forward", "hate")),
            pl.when(here).then(2 - pl.col("watch_ratio")).otherwise("watch_ratio").alias("watch_ratio"),
        )
    )  # fmt: skip


def outcome(name, events, work_dir, chosen_on="val"):
    inputs = toy_inputs(events)
    lists = build_lists(events, ListOptions()).rows.filter(pl.col("split") == chosen_on)
    return learn(
        toy_model(name, inputs),
        inputs,
        lists,
        toy_sampler(events),
        train=TRAIN,
        learning=LearningOptions(negatives=3, target_every=3),
        work_dir=work_dir,
        identity={},
    )


@pytest.mark.parametrize("name", ["mt_dqn", "concat_modal", "vanilla_dqn"])
def test_test_labels_change_nothing_that_is_learnt(name, tmp_path):
    events = toy_events()
    first = outcome(name, events, tmp_path)
    second = outcome(name, turned(events, "test"), tmp_path)
    assert same(first.best, second.best)
    assert same(first.last, second.last)
    assert first.history.drop("seconds").equals(second.history.drop("seconds"), null_equal=True)


def test_the_test_sees_a_leak(tmp_path):
    events = toy_events()
    # train labels are learnt from
    honest = outcome("mt_dqn", events, tmp_path)
    assert not same(honest.last, outcome("mt_dqn", turned(events, "train"), tmp_path).last)
    # val labels choose the epoch
    turned_val = outcome("mt_dqn", turned(events, "val"), tmp_path)
    assert not honest.history["val_ndcg@5"].equals(turned_val.history["val_ndcg@5"])
    # a run that chose its epoch on the test part would be seen
    leaky = outcome("mt_dqn", events, tmp_path, chosen_on="test")
    moved = outcome("mt_dqn", turned(events, "test"), tmp_path, chosen_on="test")
    assert not leaky.history["val_ndcg@5"].equals(moved.history["val_ndcg@5"])
