"""L1, L6: the state of a row knows neither that row's feedback nor anything at or after its time."""

from dataclasses import replace

import pytest
import torch
from support.model_inputs import TINY, model_inputs, with_feedback_changed_from

import reelrank.pipelines.mt_dqn.baselines
import reelrank.pipelines.mt_dqn.model  # noqa: F401 (registers)
from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import InputSpec
from reelrank.models.registry import build

ROWS = range(60, 160, 9)


def model_for(name, inputs):
    torch.manual_seed(0)
    model = build(name, TINY[name], InputSpec.of(inputs)).eval()
    model.refresh(inputs)
    return model


def states(model, inputs, row):
    user, item, ts = (
        t[row : row + 1] for t in (inputs.stream.user, inputs.stream.item, inputs.stream.ts_ms)
    )
    return torch.cat(
        [model.user_state(inputs, user, ts).flatten(), model.item_state(inputs, item, ts).flatten()]
    )


def leaks(model, inputs):
    """Whether the state of some row moves when feedback at or after that row's time changes."""
    return any(
        not torch.equal(
            states(model, inputs, row),
            states(model, with_feedback_changed_from(inputs, inputs.stream.ts_ms[row]), row),
        )
        for row in ROWS
    )


@pytest.mark.parametrize("name", sorted(TINY))
def test_the_state_of_a_row_does_not_know_its_feedback(name):
    inputs = model_inputs()
    assert not leaks(model_for(name, inputs), inputs)


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


def test_this_test_fails_for_a_window_that_includes_the_present():
    class LeakyStream(EventStream):
        def last_k(self, nodes, ts, k):
            return super().last_k(nodes, ts + 1, k)

    inputs = model_inputs()
    leaky = replace(inputs, stream=LeakyStream(**vars(inputs.stream)))
    assert leaks(model_for("mt_dqn", inputs), leaky)
