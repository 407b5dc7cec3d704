import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from support.feature_logs import DAY, HOUR, N_ITEMS, START, items_of, log_of, random_log

from reelrank.features.candidate_features import (
    CandidateOptions,
    LogTables,
    candidate_rows,
    pair_features,
    ranking_sessions,
)
from reelrank.features.candidates import NEVER, availability_ts
from reelrank.features.heads import HeadRule
from reelrank.features.histories import HistoryOptions, ItemCodes, histories
from reelrank.features.value_encoder import ValueEncoder, ValueFeatureOptions
from reelrank.features.value_features import FEATURE_BLOCKS, NodeFeatures, edge_features
from reelrank.tables import Bursts, Splits

EDGE = list(FEATURE_BLOCKS["edge"])
ITEMS = items_of(
    N_ITEMS,
    category_1=[70, 10, 30, None] * 3,
    category_2=[5, 5, 6, 7, None, 9] * 2,
    author_id=[100, 200, None] * 4,
    upload_ts=[None if i % 5 == 0 else START + (i - 6) * DAY // 2 for i in range(N_ITEMS)],
)
BURSTS = Bursts.conform(
    pl.DataFrame(
        {
            "burst_id": [0, 1],
            "start_ms": [START, START + 3 * DAY],
            "end_ms": [START + 3 * DAY, START + 6 * DAY],
            "rows": [1, 1],
        }
    )
)
EVERYTHING = CandidateOptions(catalogue="all", exclude_seen=False)


def tables(log, bursts=BURSTS, options=None):
    options = options or HistoryOptions()
    past = histories(log, ItemCodes.of(ITEMS), options, bursts)
    return LogTables(log, past, ITEMS, options, bursts)


def edges_of(t):
    return edge_features(t.interactions, t.histories, t.items, t.bursts, t.clock)


def splits_of(log, split):
    return Splits.conform(log.select("user_id", "row_id", split=split))


def sessions_of(log, min_length=1, bursts=BURSTS):
    return ranking_sessions(log, splits_of(log, pl.lit("test")), bursts, min_length)[0]


def candidates(t, sessions, options):
    return pl.concat(candidate_rows(t, sessions, availability_ts(t.interactions, ITEMS), options))


# --- sessions ------------------------------------------------------------------------------------------------


def test_hand_made_sessions():
    hours = (0, 0.1, 0.2, 5, 5.1, 10, 10.1, 10.2, 20)
    log = log_of(
        user_id=[3] * 9,
        item_id=[1, 2, 1, 4, 5, 6, 7, 8, 9],
        ts_ms=[START + int(h * HOUR) for h in hours],
        row_id=[8, 7, 6, 5, 4, 3, 2, 1, 0],
    )
    part = pl.when(pl.col("ts_ms") < START + 10.15 * HOUR).then(pl.lit("val")).otherwise(pl.lit("test"))  # fmt: skip
    found, counts = ranking_sessions(log, splits_of(log, part), BURSTS, min_length=3)
    # the second is too short; the third has rows in val and test; the fourth is too short
    assert counts == {"sessions": 4, "across_parts": 1, "too_short": 2, "kept": 1, "repeats": 1}
    row = found.row(0, named=True)
    assert (row["user_id"], row["burst_id"], row["first_row_id"]) == (3, 0, 8)
    assert (row["start_ms"], row["n_rows"], row["n_shown"], row["split"]) == (START, 3, 2, "val")
    left_out = splits_of(log, part).filter(pl.col("row_id") != 7)
    assert ranking_sessions(log, left_out, BURSTS, 3)[1]["kept"] == 0


# --- features ------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(["code", "poster"]))
@settings(max_examples=25, deadline=None)
def test_the_first_rows_own_item_has_the_rows_own_features(seed, in_bursts, rule):
    log = random_log(seed, n_rows=120, n_users=4)
    t = tables(log, BURSTS if in_bursts else None, HistoryOptions(heads=HeadRule(rule=rule)))
    sessions = sessions_of(log, bursts=t.bursts)
    own = edges_of(t).join(sessions.select(row_id="first_row_id"), on="row_id", how="semi", maintain_order="left")  # fmt: skip
    found = candidates(t, sessions, EVERYTHING).filter(pl.col("rank_shown") == 1)
    assert_frame_equal(
        found.select("user_id", "item_id", *EDGE), own.select("user_id", "item_id", *EDGE), check_exact=True
    )  # fmt: skip


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_any_rows_own_item_has_the_rows_own_features(seed):
    log = random_log(seed, n_rows=150, n_users=4)
    t = tables(log)
    pairs = log.select(position=pl.int_range(pl.len()), item_id="item_id")
    found = pair_features(t, log["row_id"], pairs)
    assert_frame_equal(found.select(EDGE), edges_of(t).select(EDGE), check_exact=True)


@given(st.integers(0, 10_000), st.integers(0, N_ITEMS - 1), st.integers(0, 149))
@settings(max_examples=25, deadline=None)
def test_another_item_has_the_features_of_the_log_in_which_it_was_shown(seed, item, place):
    log = random_log(seed, n_rows=150, n_users=4)
    here = pl.int_range(pl.len()) == place
    instead = log.with_columns(
        item_id=pl.when(here).then(pl.lit(item, pl.Int32)).otherwise("item_id")
    )
    pair = pl.DataFrame({"position": [0], "item_id": [item]})
    found = pair_features(tables(log), log["row_id"][place : place + 1], pair)
    expected = edges_of(tables(instead))[place]
    assert_frame_equal(found.select(EDGE), expected.select(EDGE), check_exact=True)


# --- which items ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [CandidateOptions(), CandidateOptions(exclude_seen=False), CandidateOptions(catalogue="all"), EVERYTHING],
    ids=["default", "seen", "all", "everything"])  # fmt: skip
def test_candidates_are_what_the_rule_says(options):
    log = random_log(seed=11, n_rows=250)
    t, sessions = tables(log), sessions_of(log)
    availability = availability_ts(log, ITEMS)
    found = candidates(t, sessions, options)
    for position, session in enumerate(sessions.iter_rows(named=True)):
        of_user = log.filter(pl.col("user_id") == session["user_id"])
        before = set(of_user.filter(pl.col("ts_ms") < session["start_ms"])["item_id"])
        rows = of_user.filter(pl.col("session_id") == session["session_id"])
        rows = rows.filter(pl.col("ts_ms") >= session["start_ms"])[: session["n_rows"]]
        shown = rows["item_id"].unique(maintain_order=True).to_list()
        assert len(shown) == session["n_shown"]
        expected = {
            item
            for item in range(N_ITEMS)
            if (options.catalogue == "all" or availability[item] <= session["start_ms"])
            and not (options.exclude_seen and item in before)
        } | set(shown)
        here = found.filter(pl.col("position") == position)
        assert here["item_id"].to_list() == sorted(expected)
        ranks = {item: rank for item, rank in here.select("item_id", "rank_shown").iter_rows() if rank}  # fmt: skip
        assert ranks == {item: rank for rank, item in enumerate(shown, start=1)}


def test_chunks_change_nothing():
    log = random_log(seed=12)
    t, sessions = tables(log), sessions_of(log)
    whole = candidates(t, sessions, CandidateOptions())
    pieces = list(
        candidate_rows(t, sessions, availability_ts(log, ITEMS), CandidateOptions(max_rows=3 * N_ITEMS))
    )  # fmt: skip
    assert len(pieces) == -(-sessions.height // 3)
    assert_frame_equal(pl.concat(pieces), whole)
    some = sessions.filter(pl.col("user_id") > 2)
    shift = sessions.height - some.height
    rest = whole.filter(pl.col("user_id") > 2).with_columns(pl.col("position") - shift)
    assert_frame_equal(candidates(t, some, CandidateOptions()), rest)


def test_a_share_of_the_candidates_keeps_what_was_shown():
    log = random_log(seed=13, n_rows=900, n_users=30)
    t, sessions = tables(log), sessions_of(log)
    whole = candidates(t, sessions, EVERYTHING)
    options = CandidateOptions(catalogue="all", exclude_seen=False, share=0.3, seed=1)
    part = candidates(t, sessions, options)
    assert_frame_equal(part, whole.join(part, on=["position", "item_id"], how="semi", maintain_order="left"))  # fmt: skip
    assert part.filter(pl.col("rank_shown") > 0).height == sessions["n_shown"].sum()
    others = whole.filter(pl.col("rank_shown") == 0).height
    kept = part.filter(pl.col("rank_shown") == 0).height
    assert abs(kept - 0.3 * others) < 4 * (0.3 * 0.7 * others) ** 0.5
    other_seed = candidates(t, sessions, options.model_copy(update={"seed": 2}))
    assert not other_seed.equals(part)


def test_candidates_can_be_encoded():
    log = random_log(seed=14)
    t, sessions = tables(log), sessions_of(log)
    users = pl.DataFrame({"user_id": range(6), "register_days": range(6)}, schema_overrides={"user_id": pl.Int32})  # fmt: skip
    nodes = NodeFeatures.of(users, ITEMS)
    encoder = ValueEncoder.fit(nodes, [edges_of(t)], ValueFeatureOptions())
    rows = candidates(t, sessions, EVERYTHING)
    found = encoder.encode(nodes, rows)
    assert np.isfinite(found.edge.continuous).all()
    own = rows.with_row_index("at").filter(pl.col("rank_shown") == 1)["at"].to_numpy()
    first = edges_of(t).join(sessions.select(row_id="first_row_id"), on="row_id", how="semi", maintain_order="left")  # fmt: skip
    expected = encoder.encode(nodes, first)
    assert np.array_equal(found.edge.continuous[own], expected.edge.continuous)
    assert np.array_equal(found.edge.categorical[own], expected.edge.categorical)


def test_no_sessions_give_no_chunks_and_foreign_ones_are_refused():
    log = random_log(seed=15)
    t, sessions = tables(log), sessions_of(log)
    never = np.full(N_ITEMS, NEVER)
    assert list(candidate_rows(t, sessions.clear(), never, CandidateOptions())) == []
    only_shown = pl.concat(candidate_rows(t, sessions, never, CandidateOptions()))
    assert (only_shown["rank_shown"] > 0).all()
    foreign = sessions.with_columns(pl.col("first_row_id") + 10_000)
    with pytest.raises(ValueError, match=r"first row_id 10\d+ is not in interactions"):
        next(candidate_rows(t, foreign, never, CandidateOptions()))
    with pytest.raises(ValueError, match="not in the order of interactions"):
        next(candidate_rows(t, sessions.reverse(), never, CandidateOptions()))
    pairs = pl.DataFrame({"position": [1, 0], "item_id": [0, 0]})
    with pytest.raises(ValueError, match="must not decrease"):
        pair_features(t, sessions["first_row_id"], pairs)
