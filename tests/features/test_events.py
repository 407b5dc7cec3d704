import polars as pl
import pytest
from polars.testing import assert_frame_equal
from support.feature_logs import cuts_after, random_log, random_vectors

from reelrank.buckets import EngineOptions, bucket_path, finish_table
from reelrank.features.events import (
    KEY_COLUMNS,
    LABEL_COLUMNS,
    STATE_COLUMNS,
    Events,
    assemble_events,
    shuffle_labels,
)
from reelrank.features.rewards import SIGNALS, RewardOptions, rewards
from reelrank.features.splits import assign_split

CUTS = cuts_after(4, 1, 6)


def tables(seed=0):
    log = random_log(seed)
    splits = assign_split(log, CUTS)
    reward = rewards(
        log, splits, random_vectors(0), terms=list(SIGNALS), cuts=CUTS, options=RewardOptions()
    )
    return log, splits, reward


def test_events_are_chronological_and_linked():
    log, splits, reward = tables()
    events = assemble_events(log.lazy(), splits.lazy(), reward.lazy())
    Events.validate(events)
    assert events.columns == list(Events.polars_schema())
    assert events.select("ts_ms", "row_id").equals(log.select("ts_ms", "row_id").sort(pl.all()))
    linked = events.with_row_index("pos").filter(pl.col("next_pos") >= 0)
    following = events[linked["next_pos"].to_numpy()]
    expected = linked.select("row_id").join(reward, on="row_id", maintain_order="left")
    assert following["row_id"].to_list() == expected["next_row_id"].to_list()
    assert linked.height == reward["next_row_id"].count() > 50
    assert (linked["next_pos"] > linked["pos"]).all()
    assert_frame_equal(
        events.select("row_id", "return").sort("row_id"),
        reward.select("row_id", "return").sort("row_id"),
    )


def test_events_from_bucketed_tables(tmp_path):
    frames = tables()
    stored = []
    for name, frame in zip(("interactions", "splits", "rewards"), frames, strict=True):
        folder = EngineOptions(staging=tmp_path).stage(name)
        for bucket in (0, 1):
            frame.filter(pl.col("user_id") % 2 == bucket).write_parquet(bucket_path(folder, bucket))
        stored.append(finish_table(folder, 2, frame.height))
    assert_frame_equal(assemble_events(*stored), assemble_events(*(f.lazy() for f in frames)))


def test_missing_rows_are_named():
    log, splits, reward = tables()
    with pytest.raises(ValueError, match="splits: 1 rows of interactions are missing"):
        assemble_events(log.lazy(), splits[1:].lazy(), reward.lazy())


def test_shuffled_labels_stay_together_and_in_train():
    events = assemble_events(*(frame.lazy() for frame in tables()))
    shuffled = shuffle_labels(events, seed=1)
    assert_frame_equal(shuffled, shuffle_labels(events, seed=1))
    untouched = [*STATE_COLUMNS, *KEY_COLUMNS]
    assert_frame_equal(shuffled.select(untouched), events.select(untouched))
    train = pl.col("split") == "train"
    assert_frame_equal(shuffled.filter(~train), events.filter(~train))
    labels = events.filter(train).select(LABEL_COLUMNS)
    permuted = shuffled.filter(train).select(LABEL_COLUMNS)
    assert not permuted.equals(labels)
    assert_frame_equal(permuted.sort(LABEL_COLUMNS), labels.sort(LABEL_COLUMNS))
