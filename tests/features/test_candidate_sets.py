import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from support.feature_logs import N_ITEMS, items_of, log_of, random_log

from reelrank.features.candidate_sets import (
    CandidatePool,
    CandidateSetOptions,
    _hit,
    candidate_sets,
)
from reelrank.features.candidates import NEVER, availability_ts, item_popularity
from reelrank.tables import CandidateSets


def many_requests(n, item_id=0, ts_ms=100):
    """n requests of one user each, all with the same shown item and time."""
    return log_of(
        user_id=list(range(n)), item_id=[item_id] * n, ts_ms=[ts_ms] * n, request_id=list(range(n))
    )


def pool_of(availability, popularity, sampling="popularity"):
    return CandidatePool.fit(np.array(availability), np.array(popularity), sampling)


def test_the_line_of_weights_by_hand():
    # item 3 comes first, item 1 has no train exposure, weights are 16^0.75 = 8 and 81^0.75 = 27
    pool = pool_of([20, 10, 30, 5], [16, 0, 81, 16])
    assert pool.items.tolist() == [3, 0, 2]
    assert pool.slot.tolist() == [1, -1, 2, 0]
    assert pool.cumulative_weight.tolist() == pytest.approx([0, 8, 16, 43])
    assert pool_of([20, 10, 30, 5], [16, 0, 81, 16], "uniform").cumulative_weight.tolist() == [
        *range(5)
    ]


@pytest.mark.parametrize(
    ("low", "high", "probability"),
    [
        (0.25, 0.75, 0.5),  # inside one piece
        (0.5, 1.25, 1 - 0.5 * 0.75),  # half of one, a quarter of the next
        (0.5, 2.25, 1.0),  # covers piece 1
        (1.0, 2.0, 1.0),  # is a piece
        (0.0, 1.0 + 1e-12, 1.0),
    ],
)
def test_probability_of_a_hit_by_hand(low, high, probability):
    assert _hit(low, high) == pytest.approx(probability)


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_stored_probabilities_are_the_frequencies_of_the_draws(sampling):
    n = 20_000
    popularity = [50, 1, 3, 400, 9, 20, 5, 70, 2, 30]
    pool = pool_of([0] * 9 + [101], popularity, sampling)
    options = CandidateSetOptions(size=5, sampling=sampling)
    found = candidate_sets(many_requests(n, item_id=7), pool, options)
    drawn = found.filter(pl.col("shown") == 0)
    by_item = drawn.group_by("item_id").agg(pl.len() / n, pl.col("probability").unique())
    by_item = by_item.sort("item_id")
    # neither the shown item 7 nor item 9, available only after the request
    assert by_item["item_id"].to_list() == [0, 1, 2, 3, 4, 5, 6, 8]
    stored = by_item["probability"].explode().to_numpy()
    assert len(stored) == 8  # one probability per item: all requests are alike
    assert by_item["len"].to_numpy() == pytest.approx(stored, abs=4 * 0.5 / np.sqrt(n))
    if sampling == "uniform":  # 4 pieces of 2 items each
        assert stored == pytest.approx(0.5)
    else:
        assert stored[3] == 1.0  # covers a whole piece
        assert stored[1] < 0.1


def test_an_item_that_straddles_two_pieces():
    # 3 others, 2 pieces of 1.5 items: the middle item covers a third of either
    found = candidate_sets(
        many_requests(5_000),
        pool_of([0] * 4, [1] * 4, "uniform"),
        CandidateSetOptions(size=3),
    )
    drawn = found.filter(pl.col("shown") == 0)
    stored = dict(drawn.select("item_id", "probability").unique().iter_rows())
    assert stored == pytest.approx({1: 2 / 3, 2: 1 - (2 / 3) ** 2, 3: 2 / 3})
    share = drawn.filter(pl.col("item_id") == 2).height / 5_000
    assert share == pytest.approx(5 / 9, abs=4 * 0.5 / np.sqrt(5_000))


def test_requests_by_hand():
    log = log_of(
        user_id=[4, 4, 4, 9],
        item_id=[2, 0, 2, 1],
        ts_ms=[50, 50, 50, 10],
        request_id=[7, 7, 7, 8],
    )
    pool = pool_of([0, 60, 0, 50, NEVER], [1, 1, 1, 1, 1], "uniform")
    found = candidate_sets(log, pool, CandidateSetOptions(size=9))
    CandidateSets.validate(found)
    # fewer than 9 others exist: all are taken; the shown item 1 of user 9 was not available before
    assert found.rows() == [
        (4, 7, 0, 1, 1.0),
        (4, 7, 2, 1, 1.0),
        (4, 7, 3, 0, 1.0),
        (9, 8, 1, 1, 1.0),
        (9, 8, 0, 0, 1.0),
        (9, 8, 2, 0, 1.0),
    ]


def test_a_request_longer_than_the_size_keeps_its_items():
    log = log_of(user_id=[0] * 3, item_id=[0, 1, 2], ts_ms=[5] * 3, request_id=[0] * 3)
    found = candidate_sets(log, pool_of([0] * 6, [1] * 6), CandidateSetOptions(size=2))
    assert found["item_id"].to_list() == [0, 1, 2]
    assert found["shown"].to_list() == [1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    size=st.integers(1, 14),
    sampling=st.sampled_from(["uniform", "popularity"]),
)
def test_sets_of_random_logs(seed, size, sampling):
    log = random_log(seed, n_rows=150)
    log = log.with_columns(request_id=pl.struct("user_id", "ts_ms").rank("dense").cast(pl.Int64))
    availability = availability_ts(log, items_of(N_ITEMS))
    pool = CandidatePool.fit(
        availability, item_popularity(log["item_id"].to_numpy(), N_ITEMS), sampling
    )
    options = CandidateSetOptions(size=size, sampling=sampling, seed=seed)
    found = candidate_sets(log, pool, options)
    assert not found.select("request_id", "item_id").is_duplicated().any()
    pairs = log.select("request_id", "item_id").unique()
    shown = found.filter(pl.col("shown") == 1)
    assert shown.height == pairs.join(shown, on=pairs.columns, how="semi").height == pairs.height
    sizes = found.group_by("request_id").agg(pl.len(), pl.col("shown").sum())
    assert (
        sizes["len"] <= pl.select(pl.max_horizontal(pl.lit(size), sizes["shown"])).to_series()
    ).all()
    # L7: whatever was drawn was available
    drawn = found.filter(pl.col("shown") == 0).join(log.unique("request_id"), on="request_id")
    assert (availability[drawn["item_id"].to_numpy()] <= drawn["ts_ms"].to_numpy()).all()
    # the draws of a request do not depend on what shares its bucket
    alone = candidate_sets(log.filter(pl.col("user_id") == 3), pool, options)
    assert_frame_equal(alone, found.filter(pl.col("user_id") == 3))


def test_the_seed_changes_the_draws():
    pool = pool_of([0] * 500, [1] * 500, "uniform")
    first, again, other = (
        candidate_sets(many_requests(3), pool, CandidateSetOptions(seed=s)) for s in (0, 0, 1)
    )
    assert_frame_equal(first, again)
    assert not first["item_id"].equals(other["item_id"])
    # no two requests draw alike either
    a, b, _ = (s["item_id"].to_list() for s in first.partition_by("request_id"))
    assert a != b and len(set(a) & set(b)) < 20
