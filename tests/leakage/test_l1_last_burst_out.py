"""L1 on KuaiRec as MT-DQN reads it: the last burst is held out, and interests know what was watched before alone."""

import polars as pl
import pytest
from support.leaks import honest, leaky

from reelrank.features.rewards import RewardOptions, rewards
from reelrank.features.splits import LogSummary, SplitOptions, assign_split, fit_split
from reelrank.models.behaviours import watched

HOUR = 3_600_000


def split_by(rule, world):
    options = SplitOptions(rule=rule)
    return fit_split(options, LogSummary.of(world.interactions.lazy(), world.bursts, options))


def check_order(rule, world):
    parts = assign_split(world.interactions, split_by(rule, world))
    times = parts.join(world.interactions.select("row_id", "ts_ms"), on="row_id")
    train, val, test = (times.filter(split=part)["ts_ms"] for part in ("train", "val", "test"))
    assert min(len(train), len(val), len(test)) > 0
    assert train.max() < val.min(), "train rows follow val rows"
    assert val.max() < test.min(), "val rows follow test rows"
    # all of the last burst, and nothing else, is held out
    assert train.max() < world.bursts["start_ms"][-1] <= val.min()


@pytest.mark.parametrize(
    "variant",
    [*honest("last_burst_out"), *leaky("train rows follow val rows", "burst_day", "tiny_random")],
)
def test_no_train_row_follows_a_held_out_one(variant, judge, world):
    judge(check_order, variant, world)


def labelled(log, world, cuts):
    taste = world.items.select(
        *((pl.col("item_id") * k % 7 - 3).cast(pl.Float32).alias(str(k)) for k in (1, 2, 3))
    )
    return rewards(
        log,
        assign_split(log, cuts),
        taste.to_numpy(),
        terms=["watch"],
        cuts=cuts,
        options=RewardOptions(),
        watch="watch_ratio",
    )


def interests(log, world):
    return labelled(log, world, split_by("last_burst_out", world))["r_interest"]


def interests_with_the_row_itself(log, world):
    return interests(log, world) + log["watch_ratio"].fill_null(0) / 100


def check_interest(interest, world):
    log = world.interactions
    before = interest(log, world)
    for row in range(50, log.height, 400):
        here = pl.int_range(pl.len()) >= row
        ratio = pl.when(here).then(3 - pl.col("watch_ratio").clip(0, 3)).otherwise("watch_ratio")
        after = interest(log.with_columns(watch_ratio=ratio), world)
        assert after[: row + 1].equals(before[: row + 1]), "it knows the row's own outcome"


@pytest.mark.parametrize(
    "variant",
    [*honest(interests), *leaky("the row's own outcome", interests_with_the_row_itself)],
)
def test_interest_knows_what_was_watched_before_alone(variant, judge, world):
    assert world.interactions.select(watched("watch_ratio").sum()).item() > 100
    judge(check_interest, variant, world)


def returns(world):
    """Whether returns are known, and until when the log goes on after a row: to the end of its burst."""
    return labelled(world.interactions, world, split_by("last_burst_out", world))["r_retention"]


def returns_as_if_the_log_were_one_piece(world):
    cuts = split_by("last_burst_out", world).model_copy(update={"burst_edges_ms": ()})
    return labelled(world.interactions, world, cuts)["r_retention"]


def check_returns(retention, world):
    log = world.interactions.with_columns(known=retention(world).is_not_null())
    last = (pl.col("session_id") != pl.col("session_id").shift(-1)).fill_null(True)
    for start, end in world.bursts.select("start_ms", "end_ms").iter_rows():
        burst = log.filter(last, pl.col("ts_ms").is_between(start, end - 1))
        late = burst.filter(pl.col("ts_ms") >= end - 24 * HOUR)
        assert late.height and not late["known"].any(), "a day after the burst is taken for absence"


@pytest.mark.parametrize(
    "variant",
    [*honest(returns), *leaky("taken for absence", returns_as_if_the_log_were_one_piece)],
)
def test_who_was_last_seen_as_a_burst_ended_is_not_called_gone(variant, judge, world):
    judge(check_returns, variant, world)
