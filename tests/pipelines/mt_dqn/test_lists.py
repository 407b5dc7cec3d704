import polars as pl
import pytest
import torch
from support.toy_log import HOUR, T0, toy_events, toy_inputs, toy_model, with_rewards

from reelrank.pipelines.mt_dqn.lists import (
    KEPT,
    ONE_LEVEL,
    RANDOM,
    REPEATED,
    TOO_SHORT,
    ListBatch,
    build_lists,
    score_lists,
)
from reelrank.pipelines.mt_dqn.options import ListOptions
from reelrank.tables import SplitName


def log(rows):
    """Events from (user, session, hour, item, r_immediate, split, is_rand)."""
    columns = ("user_id", "session_id", "hour", "item_id", "r_immediate", "split", "is_rand")
    frame = pl.DataFrame(rows, schema=columns, orient="row").sort("hour", maintain_order=True)
    return frame.with_columns(
        ts_ms=T0 + (pl.col("hour") * HOUR).cast(pl.Int64),
        scenario=pl.lit(1, pl.Int16),
        split=pl.col("split").cast(SplitName),
    )


ROWS = [
    (0, 0, 0.0, 1, 1.0, "train", 0),  # train: never in a list
    (0, 1, 1.0, 1, 0.0, "test", 1),  # random exposure
    (0, 1, 1.1, 2, 0.0, "test", 0),  # kept, with the three rows below
    (0, 1, 1.2, 3, 1.0, "test", 0),
    (0, 1, 1.3, 3, 0.0, "test", 0),  # item 3 again
    (0, 1, 1.4, 4, 0.5, "test", 0),
    (1, 2, 2.0, 1, 1.0, "test", 0),  # alone
    (1, 3, 3.0, 1, 0.3, "test", 0),  # one level: the median of {.3, .3} is not exceeded
    (1, 3, 3.1, 2, 0.3, "test", 0),
    (2, 4, 4.0, 5, 1.0, "val", 0),  # the same item twice: one distinct item
    (2, 4, 4.1, 5, 0.0, "val", 0),
]


def test_lists_hold_distinct_items_of_a_session_and_exclusions_are_counted():
    lists = build_lists(log(ROWS), ListOptions(list_by="session"))
    kept = lists.rows
    assert kept["item_id"].to_list() == [2, 3, 4]
    assert kept["position"].to_list() == [2, 3, 5]
    assert kept["graded"].to_list() == [0.0, 1.0, 0.5]
    assert kept["relevance"].to_list() == [0, 1, 0]  # median .5 is not above itself
    assert kept["start_ts"].unique().to_list() == [T0 + int(1.1 * HOUR)]  # not the random row's
    counts = {(s, r): (n, rows) for s, _, r, n, rows in lists.counts.rows()}
    assert counts == {
        ("test", KEPT): (1, 3),
        ("test", REPEATED): (0, 1),
        ("test", RANDOM): (0, 1),
        ("test", TOO_SHORT): (1, 1),
        ("test", ONE_LEVEL): (1, 2),
        ("val", TOO_SHORT): (1, 1),
        ("val", REPEATED): (0, 1),
    }
    assert lists.counts["rows"].sum() == len([r for r in ROWS if r[5] != "train"])


def test_auto_takes_user_days_where_most_sessions_hold_one_row():
    # T0 is 13:20 in Shanghai: hour 10.5 is 23:50, hour 11 the next day
    rows = [
        (0, 0, 9.0, 1, 0.0, "test", 0),
        (0, 1, 10.5, 2, 1.0, "test", 0),
        (0, 2, 11.0, 3, 0.0, "test", 0),
        (0, 3, 12.0, 4, 1.0, "test", 0),
        (1, 4, 9.0, 1, 1.0, "val", 0),
        (1, 4, 9.1, 2, 0.0, "val", 0),
    ]
    lists = build_lists(log(rows), ListOptions())
    items = lists.rows.group_by("list_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    assert sorted(items) == [[1, 2], [1, 2], [3, 4]]
    by = dict(lists.counts.select("split", "list_by").unique().rows())
    assert by == {"test": "user_day", "val": "session"}


def test_a_session_cut_by_the_split_gives_a_list_on_each_side():
    rows = [
        (0, 0, 1.0, 1, 0.0, "val", 0), (0, 0, 1.1, 2, 1.0, "val", 0),
        (0, 0, 1.2, 3, 0.0, "test", 0), (0, 0, 1.3, 4, 1.0, "test", 0),
    ]  # fmt: skip
    lists = build_lists(log(rows), ListOptions(list_by="session")).rows
    assert lists.group_by("list_id").agg(pl.col("split").n_unique())["split"].to_list() == [1, 1]


def test_blocks_cut_between_lists_only():
    events = toy_events()
    batch = ListBatch.from_rows(build_lists(events, ListOptions()).rows)
    for size in (1, 5, 10_000):
        blocks = list(batch.blocks(size))
        assert blocks[0][0].start == blocks[0][1].start == 0
        assert (blocks[-1][0].stop, blocks[-1][1].stop) == (len(batch.user), len(batch.item))
        for (of_list, of_row), following in zip(blocks, [*blocks[1:], None], strict=True):
            assert set(batch.list_of_row[of_row].tolist()) == set(
                range(of_list.start, of_list.stop)
            )
            assert following is None or following[1].start == of_row.stop


@pytest.mark.parametrize("name", ["mt_dqn", "concat_modal", "vanilla_dqn"])
def test_block_size_does_not_change_scores(name):
    events = toy_events()
    inputs = toy_inputs(events)
    model = toy_model(name, inputs).eval()
    batch = ListBatch.from_rows(build_lists(events, ListOptions()).rows)
    whole = score_lists(model, inputs, batch, 10_000)
    for field in ("q", "behaviour_logits", "value", "reward"):
        small = getattr(score_lists(model, inputs, batch, 7), field)
        torch.testing.assert_close(small, getattr(whole, field))
    # the same numbers as one forward pass per list
    of = batch.list_of_row == 3
    alone = model(inputs, batch.user[3:4], batch.item[of].unsqueeze(0), batch.start_ts[3:4])
    torch.testing.assert_close(whole.q[of], alone.q[0])


@pytest.mark.parametrize("name", ["mt_dqn", "vanilla_dqn"])
def test_scores_at_the_start_of_a_list_ignore_all_feedback_from_there_on(name):
    events = toy_events()
    lists = build_lists(events, ListOptions()).rows
    last = lists.filter(pl.col("split") == "test").filter(
        pl.col("start_ts") == pl.col("start_ts").max()
    )
    start = last["start_ts"][0]
    later = with_rewards(
        events.with_columns(
            pl.when(pl.col("ts_ms") >= start).then(1 - pl.col("long_view")).otherwise("long_view").alias("long_view"),
            pl.when(pl.col("ts_ms") >= start).then(2 - pl.col("watch_ratio")).otherwise("watch_ratio").alias("watch_ratio"),
        )
    )  # fmt: skip
    earlier = with_rewards(events.with_columns(watch_ratio=2 - pl.col("watch_ratio")))
    batch = ListBatch.from_rows(last)
    q = {}
    for key, frame in (("true", events), ("later", later), ("earlier", earlier)):
        inputs = toy_inputs(frame)
        q[key] = score_lists(toy_model(name, inputs).eval(), inputs, batch, 100).q
    assert torch.equal(q["true"], q["later"])
    if name == "mt_dqn":  # the vanilla state holds items only
        assert not torch.allclose(q["true"], q["earlier"])
