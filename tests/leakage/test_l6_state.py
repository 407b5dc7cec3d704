"""L1, L6: the state of a row knows neither that row's feedback nor anything at or after its time."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from support.leaks import honest, leaky
from support.model_inputs import TINY, model_inputs, with_feedback_changed_from

import reelrank.pipelines.mt_dqn.baselines
import reelrank.pipelines.mt_dqn.model  # noqa: F401 (registers)
from reelrank.features.histories import (
    ITEM_COLUMNS,
    USER_COLUMNS,
    HistoryOptions,
    ItemCodes,
    histories,
)
from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import InputSpec
from reelrank.models.policy import RankingModel
from reelrank.models.registry import build

ROWS = range(60, 160, 9)


def model_for(name, inputs):
    torch.manual_seed(0)
    model = build(name, TINY[name], InputSpec.of(inputs), RankingModel).eval()
    model.refresh(inputs)
    return model


def states(model, inputs, row):
    user, item, ts = (
        t[row : row + 1] for t in (inputs.stream.user, inputs.stream.item, inputs.stream.ts_ms)
    )
    return torch.cat(
        [model.user_state(inputs, user, ts).flatten(), model.item_state(inputs, item, ts).flatten()]
    )


class WindowWithThePresent(EventStream):
    def last_k(self, nodes, ts, k):
        return super().last_k(nodes, ts + 1, k)


def its_inputs(name):
    return name, model_inputs()


def a_window_with_the_present(name):
    inputs = model_inputs()
    return name, replace(inputs, stream=WindowWithThePresent(**vars(inputs.stream)))


def check_feedback(subject):
    name, inputs = subject
    model = model_for(name, inputs)
    for row in ROWS:
        changed = with_feedback_changed_from(inputs, inputs.stream.ts_ms[row])
        same = torch.equal(states(model, inputs, row), states(model, changed, row))
        assert same, "the state knows the row's feedback"


@pytest.mark.parametrize(
    "variant",
    [
        *honest(*(its_inputs(name) for name in sorted(TINY))),
        *leaky("knows the row's feedback", a_window_with_the_present("mt_dqn")),
    ],
)
def test_the_state_of_a_row_does_not_know_its_feedback(variant, judge):
    judge(check_feedback, variant)


@pytest.mark.parametrize("name", ["mt_dqn", "vanilla_dqn"])
def test_the_state_of_a_user_does_not_know_which_items_follow(name):
    inputs = model_inputs()
    model = model_for(name, inputs)
    for row in ROWS:
        stream = inputs.stream
        late = stream.ts_ms >= stream.ts_ms[row]
        other = replace(
            stream, item=torch.where(late, (stream.item + 5) % stream.n_items, stream.item)
        )
        user, ts = stream.user[row : row + 1], stream.ts_ms[row : row + 1]
        expected = model.user_state(inputs, user, ts)
        assert torch.equal(expected, model.user_state(replace(inputs, stream=other), user, ts))


def check_action(subject, world):
    """What stands for the user is the same whichever item the row is about to show, on every row of a world."""
    _, columns = subject
    codes, n_items = ItemCodes.of(world.items), world.items.height
    # KuaiRec has no long_view
    log = world.interactions.with_columns(long_view=(pl.col("play_ms") > 7000).cast(pl.Int8))

    def state(interactions):
        found = histories(interactions, codes, HistoryOptions(), world.bursts)
        return found.select("row_id", *columns)

    expected = state(log)
    for place in range(0, log.height, 40):
        row = log[place]
        later = (pl.col("user_id") == row["user_id"][0]) & (pl.int_range(pl.len()) > place)
        other = pl.when(pl.int_range(pl.len()) == place).then((pl.col("item_id") + 7) % n_items)
        changed = log.with_columns(item_id=other.otherwise("item_id").cast(pl.Int32)).filter(~later)
        here = pl.col("row_id") == row["row_id"][0]
        assert state(changed).filter(here).equals(expected.filter(here)), (
            "the state knows the action"
        )


@pytest.mark.parametrize(
    "variant",
    [
        *honest(("user", USER_COLUMNS)),
        *leaky("knows the action", *((name, [name]) for name in ITEM_COLUMNS)),
    ],
)
def test_the_user_columns_of_histories_do_not_know_the_action(variant, judge, world):
    judge(check_action, variant, world)
