"""L9: epochs are chosen on validation data; what happened in the test part changes nothing that was learnt."""

import polars as pl
import pytest
from support.leaks import honest, leaky
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
    """What is learnt from a log, with the epoch chosen on one part."""
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


def check(subject, work_dir):
    """``subject``: a model, the part that chooses its epoch, and the part whose outcomes are turned round."""
    name, chosen_on, part = subject
    events = toy_events()
    first = outcome(name, events, work_dir, chosen_on)
    second = outcome(name, turned(events, part), work_dir, chosen_on)
    assert same(first.last, second.last), f"what is learnt depends on {part}"
    histories = (run.history.drop("seconds") for run in (first, second))
    assert next(histories).equals(next(histories), null_equal=True), f"the choice depends on {part}"
    assert same(first.best, second.best), f"the chosen epoch depends on {part}"


@pytest.mark.parametrize(
    "variant",
    [
        *honest(*((name, "val", "test") for name in ("mt_dqn", "concat_modal", "vanilla_dqn"))),
        *leaky("what is learnt depends on train", ("mt_dqn", "val", "train")),
        *leaky("the choice depends on val", ("mt_dqn", "val", "val")),
        *leaky("the choice depends on test", ("mt_dqn", "test", "test")),
    ],
)
def test_test_outcomes_change_nothing_that_is_learnt(variant, judge, tmp_path):
    judge(check, variant, tmp_path)
