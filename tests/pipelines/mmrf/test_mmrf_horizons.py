"""MM-06: days, blocks that are trained anew, and their differences from the fixed model."""

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from support.feed_log import (
    ENCODER,
    random_feed_log,
    toy_items,
    toy_sets,
    toy_users,
    with_split,
)

from reelrank.models.feed_options import FeedDataOptions
from reelrank.pipelines.mmrf.feed_tables import FeedTables
from reelrank.pipelines.mmrf.horizons import (
    DAY_MS,
    day_values,
    decision_days,
    later_blocks,
    retrained_rows,
)
from reelrank.pipelines.mmrf.judging import judge_of
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.run_options import (
    Cell,
    EvaluationOptions,
    MMRFOptions,
    PredictionOptions,
    StudyOptions,
)
from reelrank.pipelines.mmrf.scoring import TEST, judged_decisions
from reelrank.pipelines.mmrf.studies import Study

DATA = FeedDataOptions(track="request", k=3)
OPTIONS = EvaluationOptions(replicates=40, caps=(1.0,), temperatures=())
WIDTHS = {"encoder": ENCODER.model_dump()}
MODEL = MMRFOptions.model_validate(
    {
        "actor": {"hidden": 8, "heads": 2, "head_hidden": 8, **WIDTHS},
        "critic": {"hidden": (8, 6), "value_hidden": 5, **WIDTHS},
    }
)


@pytest.fixture(scope="module")
def tables():
    """Two train days, one val day, three test days."""
    log = with_split(random_feed_log(n_requests=500).drop("split"), train_days=2)
    items = toy_items()
    return FeedTables(log, items, toy_users(), toy_sets(log, items))


@pytest.fixture(scope="module")
def inputs(tables):
    return tables.inputs(DATA, "cpu")


def frame_of(inputs, column="scores", by_item=None):
    """Scores that are a number of the item, or equal chances."""
    index = judged_decisions(inputs)
    candidates = inputs.decisions.candidates[index].numpy()
    number = np.ones(31) if by_item is None else np.append(by_item, 0.0)
    values = number[candidates]
    if column == "probabilities":
        values = (candidates >= 0) / (candidates >= 0).sum(1, keepdims=True)
    values = np.where(candidates < 0, 0.0 if column == "probabilities" else -np.inf, values)
    kind = pl.Float64 if column == "probabilities" else pl.Float32
    known = pl.Series(values, dtype=pl.Array(kind, values.shape[1]))
    frame = pl.DataFrame({"decision": index.numpy().astype(np.uint32), column: known})
    return frame.with_columns(heads=pl.lit(None, pl.List(pl.Float32)))


@pytest.fixture(scope="module")
def judge(inputs):
    """The item's number is its true watch time."""
    truth = lambda part: np.repeat(part.candidates[:, :, None], 7, axis=2).astype(np.float32)  # noqa: E731
    return judge_of(inputs, frame_of(inputs, "probabilities"), truth, 3, OPTIONS)


def test_a_block_learns_from_all_days_before_it_with_the_same_gap(tables, inputs):
    blocks = list(later_blocks(inputs, 1))
    day, start_ms = decision_days(inputs)
    first = day[(inputs.decisions.split == TEST).numpy()].min()
    assert [b.first for b in blocks] == [first + 1, first + 2]
    block = blocks[0].tables(tables)
    of_split = {name: block.log.filter(split=name)["ts_ms"] for name in ("train", "val", "test")}
    assert of_split["train"].max() < start_ms + 2 * DAY_MS
    assert of_split["train"].max() < of_split["val"].min() and of_split["val"].max() < of_split["test"].min()  # fmt: skip
    # its first day is the first that it has not seen
    assert of_split["test"].min() >= start_ms + (first + 1) * DAY_MS > of_split["val"].max()
    assert len(of_split["train"]) > tables.log.filter(split="train").height
    later = block.inputs(DATA, "cpu").decisions
    assert later.candidates.equal(inputs.decisions.candidates)  # the same decisions, numbered alike
    assert not list(later_blocks(inputs, 99))


def test_differences_are_those_of_the_days_their_mean_and_their_slope(inputs, judge):
    bootstrap = judge.bootstrap()
    right, wrong = (
        day_values(frame_of(inputs, by_item=sign * np.arange(30.0)), judge, inputs, bootstrap)
        for sign in (1, -1)
    )
    rows = retrained_rows("mmrf", right, wrong)
    metric = "true_value@3"
    pairs = {(r.metric, r.weighting): r for r in rows if r.paired_with and r.group == "watch_time"}
    days = [(d, a.value - b.value) for (d, a), (_, b) in zip(right[metric, "watch_time"], wrong[metric, "watch_time"], strict=True)]  # fmt: skip
    assert len(days) == 3 and all(gain > 0 for _, gain in days)
    for d, gain in days:
        assert pairs[metric, f"day {d}"].value == pytest.approx(gain)
    assert pairs[f"{metric} mean", ""].value == pytest.approx(np.mean([g for _, g in days]))
    assert pairs[f"{metric} mean", ""].ci_low > 0
    slope = np.polyfit(*zip(*days, strict=True), 1)[0]
    assert pairs[f"{metric} slope", ""].value == pytest.approx(slope)
    # the order is reversed: GXAUC of one is 1 minus that of the other
    for (metric, _), by_day in right.items():
        if metric == "gauc_final":
            other = wrong[metric, "watch_time"]
            both = [a.value + b.value for (_, a), (_, b) in zip(right[metric, "watch_time"], other, strict=True)]  # fmt: skip
            assert by_day and both == pytest.approx([1.0] * len(both))


def test_a_model_is_trained_for_each_block_and_serves_its_days_alone(
    tables, inputs, judge, tmp_path, monkeypatch
):
    asked = []
    study = Study(tables, DATA, MODEL, LearningOptions(epochs=1, steps=2), ReplayOptions(batch_size=8), PredictionOptions(), tmp_path)  # fmt: skip

    def predicted(_, cell, moved):
        asked.append(moved.log.filter(split="train").height)
        return frame_of(moved.inputs(DATA, "cpu"), by_item=np.arange(30.0) * (-1) ** len(asked))

    monkeypatch.setattr(Study, "_predicted", predicted)
    cells = StudyOptions.model_validate({"run": ["MM-06"], "cells": {"MM-06": {"daily": {"retrain_days": 1}}}})  # fmt: skip
    own = {"mmrf": frame_of(inputs, by_item=np.arange(30.0))}
    found = study.run(cells, own, judge, judge.bootstrap())
    (rows,) = found.values()
    assert len(asked) == 2 and asked == sorted(asked)
    pairs = [r for r in rows if r.paired_with == "mmrf, fixed" and r.metric == "true_value@3"]
    # first day: the fixed model; second: reversed; third: the fixed one's order again
    assert [np.sign(r.value) for r in pairs] == [0, -1, 0]


def test_the_track_of_most_viewed_videos_is_left_out_aloud(tables, judge, tmp_path, caplog):
    data = FeedDataOptions(track="top_videos", top_videos=8, k=3)
    study = Study(tables, data, MODEL, LearningOptions(), ReplayOptions(), PredictionOptions(), tmp_path)  # fmt: skip
    cells = StudyOptions.model_validate({"run": ["MM-06"], "cells": {"MM-06": {"daily": {"retrain_days": 1}}}})  # fmt: skip
    assert study.run(cells, {"mmrf": pl.DataFrame()}, judge, judge.bootstrap()) == {("MM-06", "daily"): []}  # fmt: skip
    assert "do not compare; not run" in caplog.text


def test_a_retrained_cell_has_no_other_rival():
    with pytest.raises(ValidationError, match="leave against out"):
        Cell(retrain_days=1, against="weekly")
