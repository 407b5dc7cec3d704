"""L5: what a row's outcome or its session will be is no input when the row is ranked."""

import polars as pl
import pytest
import torch
from support.toy_log import CONFIGS, toy_events, toy_inputs, toy_model

from reelrank.features.events import KEY_COLUMNS, LABEL_COLUMNS, STATE_COLUMNS
from reelrank.tables import Events

EVENTS = toy_events()
SCORED = EVENTS.with_row_index("position").filter(pl.col("split") == "test")["position"][5]


def scores(name, events, leak):
    """Every output of a model for the scored row."""
    inputs = toy_inputs(events)
    model = toy_model(name, inputs).eval()
    stream = inputs.stream
    row = torch.tensor([SCORED])
    out = model(inputs, stream.user[row], stream.item[row].unsqueeze(1), stream.ts_ms[row])
    return torch.cat([out.q, out.behaviour_logits[0], out.value, out.reward], dim=1) + leak(events)


def nothing(events):
    return 0.0


def session_length(events):
    session = events["session_id"][SCORED]
    return float(events.filter(pl.col("session_id") == session).height)


def played(events):
    return float(events["play_ms"][SCORED])


def changed_outcome(events):
    here = pl.int_range(pl.len()) == SCORED
    flipped = [
        pl.when(here).then(1 - pl.col(c)).otherwise(pl.col(c)).alias(c)
        for c in ("like", "long_view", "forward", "hate")
    ]
    played = [
        pl.when(here).then(pl.col(c) + 1).otherwise(pl.col(c)).alias(c)
        for c in ("play_ms", "watch_ratio")
    ]
    return events.with_columns(*flipped, *played)


def shorter_session(events):
    """The user leaves after the scored row."""
    return events.head(SCORED + 1).with_columns(next_pos=pl.lit(-1, pl.Int64))


def check(name, change, leak=nothing):
    before, after = (scores(name, events, leak) for events in (EVENTS, change(EVENTS)))
    assert torch.equal(before, after), "the score depends on what is not known yet"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("change", [changed_outcome, shorter_session])
def test_scores_do_not_know_outcome_or_session(name, change):
    check(name, change)


@pytest.mark.parametrize(
    ("change", "leak"), [(changed_outcome, played), (shorter_session, session_length)]
)
def test_the_check_finds_a_leak(change, leak):
    with pytest.raises(AssertionError, match="not known yet"):
        check("mt_dqn", change, leak)


def test_every_column_of_events_has_one_role():
    roles = [*STATE_COLUMNS, *LABEL_COLUMNS, *KEY_COLUMNS]
    assert sorted(roles) == sorted(Events.polars_schema())
