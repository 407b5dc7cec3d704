import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.features.sequences import SequenceOptions, core_of, sequence_events


def interactions(rows):
    """(user, item, scenario, split, click) in the order of time."""
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "scenario", "split", "click"], orient="row")  # fmt: skip
    return frame.with_row_index("row_id").with_columns(
        ts_ms=pl.col("row_id").cast(pl.Int64) * 1000,
        like=0,
        follow=None,
        comment=1 - pl.col("click"),
        forward=0,
        is_rand=(pl.col("item_id") == 99).cast(pl.Int8),
    )


LOG = interactions(
    [
        (0, 5, 1, "train", 1), (0, 7, 0, "train", 1), (0, 5, 1, "train", 1), (0, 8, 1, "train", 0), (0, 99, 1, "train", 1),
        (1, 5, 1, "train", 1), (1, 7, 1, "train", 1), (1, 9, 1, "test", 1), (1, 5, 4, "test", 1), (0, 7, 1, "test", 1),
    ]
)  # fmt: skip


def test_events_by_hand():
    made = sequence_events(LOG.lazy(), SequenceOptions(k_core=2))
    assert made.events["row_id"].to_list() == [0, 1, 2, 9, 5, 6]
    assert made.items["item_id"].to_list() == [5, 7]
    assert made.scenarios["raw_scenario"].to_list() == [0, 1]
    assert made.events["item"].to_list() == [0, 1, 0, 1, 0, 1]
    assert made.report["rows"].to_list() == [9, 8, 7, 6, 6]


def test_an_item_never_seen_in_train_and_a_scenario_only_in_test_are_counted_out():
    report = sequence_events(LOG.lazy(), SequenceOptions(k_core=1)).report
    lost = dict(zip(report["step"], -report["rows"].diff(), strict=True))
    assert lost["in a scenario that train has"] == 1
    assert lost["of items and users in the 1-core of train"] == 1


def test_what_counts_as_an_event():
    assert (
        sequence_events(LOG.lazy(), SequenceOptions(k_core=1, events="all")).report["rows"][1] == 9
    )
    commented = sequence_events(LOG.lazy(), SequenceOptions(k_core=1, events="any_feedback"))
    assert 3 in commented.events["row_id"]


def test_a_scenario_without_train_events_is_refused():
    with pytest.raises(
        ValueError, match=r"scenarios \[4\] have no train event; train has \[0, 1\]"
    ):
        sequence_events(LOG.lazy(), SequenceOptions(k_core=1, scenarios=(1, 4)))


def test_too_high_a_core_says_so():
    with pytest.raises(ValueError, match="lower k_core"):
        sequence_events(LOG.lazy(), SequenceOptions(k_core=50))


def test_the_last_events_stay():
    made = sequence_events(LOG.lazy(), SequenceOptions(k_core=1, max_events=2))
    assert made.events["row_id"].to_list() == [2, 9, 5, 6]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=60), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_the_core_is_the_largest_set_in_which_all_have_k(pairs, k):
    rows = pl.DataFrame(pairs, schema={"user_id": pl.Int64, "item_id": pl.Int64}, orient="row")
    core = core_of(rows, k)
    for name in ("user_id", "item_id"):
        assert core.is_empty() or core[name].value_counts()["count"].min() >= k
    # peeling one row's item or user at a time, in any order, ends in the same set
    left = list(pairs)
    while bad := [
        p for p in left if min(sum(q[0] == p[0] for q in left), sum(q[1] == p[1] for q in left)) < k
    ]:
        left.remove(bad[-1])
    assert sorted(core.rows()) == sorted(left)


def test_random_exposures_are_no_events():
    made = sequence_events(LOG.lazy(), SequenceOptions(k_core=1))
    assert 99 not in made.items["item_id"]


def test_auto_takes_the_core_nearest_to_the_published_items():
    rows = [(u, i, 0, "train", 1) for u in range(4) for i in range(10)]
    made = sequence_events(interactions(rows).lazy(), SequenceOptions(k_core="auto"))
    assert "3-core" in made.report["step"][-2]
