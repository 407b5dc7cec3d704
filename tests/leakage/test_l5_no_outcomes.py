"""L5: what a row's outcome or its session will be is no input when the row is ranked."""

import polars as pl
import pytest
import torch
from support.feature_logs import N_ITEMS, items_of, random_log
from support.leaks import honest, leaky
from support.toy_log import CONFIGS, toy_events, toy_inputs, toy_model

from reelrank.features.events import KEY_COLUMNS, LABEL_COLUMNS, STATE_COLUMNS
from reelrank.features.histories import HistoryOptions, ItemCodes, histories
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


def check(subject):
    name, change, leak = subject
    before, after = (scores(name, events, leak) for events in (EVENTS, change(EVENTS)))
    assert torch.equal(before, after), "the score depends on what is not known yet"


@pytest.mark.parametrize(
    "variant",
    [
        *honest(*((name, change, nothing) for name in CONFIGS for change in (changed_outcome, shorter_session))),
        *leaky(
            "not known yet",
            ("mt_dqn", changed_outcome, played),
            ("mt_dqn", shorter_session, session_length),
        ),
    ],
)  # fmt: skip
def test_scores_do_not_know_outcome_or_session(variant, judge):
    judge(check, variant)


LOG = random_log(seed=4, n_rows=3000, n_users=20)
RANK = pl.int_range(pl.len()).over("session_id")
TOLD = {
    "the row's place in its session": RANK,
    "the length of the session": pl.len().over("session_id"),
    "the time watched": pl.col("play_ms"),
    "the watch ratio": pl.col("watch_ratio"),
}


def history(log):
    items = items_of(
        N_ITEMS,
        category_1=[i % 3 for i in range(N_ITEMS)],
        category_2=[i % 5 for i in range(N_ITEMS)],
        author_id=list(range(N_ITEMS)),
    )
    return histories(log, ItemCodes.of(items), HistoryOptions()).drop("user_id", "row_id")


def with_column(value):
    """History columns and one more of a harmless name."""

    def made(log):
        return history(log).with_columns(log.select(recent=value * 2.0 + 1).to_series())

    return made


def check_columns(feature):
    found = feature(LOG)
    for what, value in TOLD.items():
        told = LOG.select(value.cast(pl.Float64)).to_series()
        for column in found.iter_columns():
            pair = pl.DataFrame([told.alias("x"), column.cast(pl.Float64).alias("y")]).drop_nulls()
            correlation = pair.select(pl.corr("x", "y", method="spearman")).item()
            assert not abs(correlation) > 0.9, f"{column.name} tells {what}"  # a constant has none


@pytest.mark.parametrize(
    "variant",
    [*honest(history), *(v for what, value in TOLD.items() for v in leaky(f"recent tells {what}", with_column(value)))],
)  # fmt: skip
def test_no_history_column_tells_an_outcome_or_the_place_in_the_session(variant, judge):
    judge(check_columns, variant)


def test_every_column_of_events_has_one_role():
    roles = [*STATE_COLUMNS, *LABEL_COLUMNS, *KEY_COLUMNS]
    assert sorted(roles) == sorted(Events.polars_schema())
