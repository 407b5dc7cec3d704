import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from support.ranking_sessions import WEIGHTS, drawn_sessions, sessions_of

from reelrank.evaluation.off_policy.folds import user_folds
from reelrank.pipelines.head_weights.residual import (
    ResidualOptions,
    fit_temperature,
    ranks,
    residual_tables,
    scores,
)
from reelrank.tables import CandidateResiduals, SessionResiduals

FIRST_HEAD = np.array([1.0, 0, 0, 0])
VECTORS = np.array([[1, 0], [0, 1], [2, 2], [3, 0]], np.float32)
CATEGORIES = np.array([0, 1, 0, -1])


def by_value(values, rank_shown, first, **kwargs):
    heads = np.zeros((len(values), 4))
    heads[:, 0] = values
    return sessions_of(heads, rank_shown, first, **kwargs)


def tables(sessions, weights=WEIGHTS, *, temperature=0.0, options=None, items=200):
    rng = np.random.default_rng(7)
    return residual_tables(
        sessions, weights, ["val"] * len(sessions.user_id), rng.normal(size=(items, 3)),
        rng.integers(-1, 5, items), 5, temperature, options,
    )  # fmt: skip


def test_numbers_by_hand():
    sessions = by_value([0.9, 0.7, 0.5, 0.1], [0, 1, 0, 2], [0, 4])
    session, candidate = residual_tables(sessions, FIRST_HEAD, ["test"], VECTORS, CATEGORIES, 2)
    row = session.row(0, named=True)
    assert row["overlap"] == 0.5
    assert row["jaccard"] == pytest.approx(1 / 3)
    assert row["rbo"] == pytest.approx(0.1 * 0.9 * 0.5 + 0.9**2 * 0.5)
    assert row["d_mean"] == pytest.approx(0.4 - 0.8)
    assert row["d_sd"] == pytest.approx(0.3 - 0.1)
    assert row["delta_mu"] == [1, 0]
    assert row["loss"] == 1
    assert row["delta_category"] == [-0.5, 0, 0.5]
    assert (row["n_shown"], row["n_candidates"], row["split"]) == (2, 4, "test")
    assert candidate["rank_obs"].to_list() == [None, 1, None, 2]
    assert candidate["rank_sim"].to_list() == [1, 2, 3, 4]
    assert candidate["rank_residual"].to_list() == [-2, 1, 0, 1]
    SessionResiduals.validate(session)
    CandidateResiduals.validate(candidate)


def test_rank_biased_overlap_of_a_published_pair():
    # 1 2 3 4 5 against 2 3 4 1 5 at p = 0.9: 0.828
    sessions = by_value([0.9, 0.8, 0.7, 0.6, 0.5], [4, 1, 2, 3, 5], [0, 5])
    session, _ = residual_tables(sessions, FIRST_HEAD, ["val"], np.ones((5, 1)), np.zeros(5), 1)
    assert session["rbo"].item() == pytest.approx(0.828, abs=5e-4)
    assert session["overlap"].item() == 1


def test_equal_scores_rank_by_the_lower_index():
    assert ranks([0.5, 0.9, 0.5, 0.5, 0.1, 0.1], [0, 4, 6]).tolist() == [2, 1, 3, 4, 1, 2]


@given(st.integers(0, 1000), st.integers(1, 8), st.sampled_from([0.0, 0.02, 0.5]))
@settings(max_examples=25, deadline=None)
def test_bounds_and_symmetry(seed, shown, temperature):
    sessions = drawn_sessions(6, users=3, candidates=8, shown=shown, temperature=temperature, seed=seed)  # fmt: skip
    session, candidate = tables(sessions)
    for name in ("overlap", "jaccard", "rbo"):
        assert session[name].is_between(0, 1 + 1e-6).all()
    assert (session["d_mean"] <= 1e-6).all()  # nothing beats the K highest
    np.testing.assert_allclose(session["delta_category"].list.sum(), 0, atol=1e-6)
    mu = np.stack(session["delta_mu"].to_list())
    np.testing.assert_allclose(session["loss"], (mu**2).sum(axis=1), rtol=1e-4, atol=1e-10)
    # the two lists changing places: same overlaps, opposite differences
    swapped_heads = np.zeros_like(sessions.heads)
    swapped_heads[:, 0] = np.where(sessions.rank_shown > 0, 1 - 0.01 * sessions.rank_shown, 0)
    simulated = candidate["rank_sim"].to_numpy()
    swapped = dataclasses.replace(
        sessions, heads=swapped_heads, rank_shown=np.where(simulated <= shown, simulated, 0)
    )
    other, _ = tables(swapped, FIRST_HEAD)
    for name in ("overlap", "jaccard", "rbo", "loss"):
        np.testing.assert_allclose(other[name], session[name], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.stack(other["delta_mu"].to_list()), -mu, atol=1e-6)


def test_what_was_simulated_and_shown_leaves_nothing():
    session, candidate = tables(drawn_sessions(20, users=5, temperature=0.0))
    for name in ("overlap", "jaccard"):
        assert (session[name] == 1).all()
    np.testing.assert_allclose(session["rbo"], 1, rtol=1e-6)
    for name in ("d_mean", "d_sd", "loss"):
        assert (session[name] == 0).all()
    assert not np.stack(session["delta_mu"].to_list()).any()
    assert not candidate["rank_residual"].to_numpy().any()


def test_neither_chunks_nor_neighbours_change_a_session():
    sessions = drawn_sessions(30, users=10)
    whole = tables(sessions, temperature=0.05)
    pieces = tables(sessions, temperature=0.05, options=ResidualOptions(chunk_sessions=7))
    for one, other in zip(whole, pieces, strict=True):
        assert_frame_equal(one, other)


def test_depth_leaves_out_only_what_no_order_holds():
    sessions = drawn_sessions(10, users=5)
    full = tables(sessions).candidate
    cut = tables(sessions, options=ResidualOptions(candidate_depth=1)).candidate
    assert cut.height < full.height
    assert_frame_equal(
        cut, full.filter((pl.col("shown") == 1) | (pl.col("rank_sim") <= 6))
    )  # fmt: skip


def test_a_session_is_judged_by_the_weights_of_its_users_fold():
    sessions = drawn_sessions(40, users=40)
    weights = np.arange(20.0).reshape(5, 4)
    fold = user_folds(sessions.user_id)
    assert len(set(fold)) == 5
    expected = (sessions.heads.reshape(40, 30, 4) * weights[fold][:, None]).sum(-1)
    np.testing.assert_allclose(scores(sessions, weights).reshape(40, 30), expected, rtol=1e-5)
    assert tables(sessions, weights).session["fold"].to_list() == fold.tolist()


def test_what_noise_alone_leaves_is_expected_at_the_fitted_temperature():
    sessions = drawn_sessions(1500, users=300, temperature=0.08)
    found = fit_temperature(sessions, WEIGHTS)
    np.testing.assert_allclose(found, 0.08, rtol=0.05)
    session, _ = tables(sessions, temperature=found)
    for name in ("overlap", "d_mean", "d_sd", "loss"):
        raw = session[name].to_numpy()
        surprise = raw - session[f"expected_{name}"].to_numpy()
        error = surprise.std() / np.sqrt(len(surprise))
        assert abs(surprise.mean()) < 4 * error
        assert abs(raw - (name == "overlap")).mean() > 20 * error  # the raw one is far from nothing
    for name in ("overlap", "d_mean", "d_sd"):  # uniform, but for the ties
        quantile = session[f"noise_quantile_{name}"].to_numpy()
        assert abs(quantile.mean() - 0.5) < 4 * 0.29 / np.sqrt(len(quantile))
    thirds = np.bincount((session["noise_quantile_d_mean"].to_numpy() * 2.9999).astype(int))
    assert abs(thirds / len(session) - 1 / 3).max() < 0.06


def test_without_noise_nothing_is_expected():
    session, _ = tables(drawn_sessions(10, users=5))
    assert (session["expected_overlap"] == 1).all()
    assert (session["expected_d_mean"] == 0).all()
    assert session["noise_quantile_d_mean"].is_null().all()
    assert not np.stack(session["expected_delta_mu"].to_list()).any()


@pytest.mark.parametrize("rank_shown", [[1, 1, 0, 0], [0, 0, 0, 0], [1, 3, 0, 0]])
def test_ranks_that_cannot_be_are_named(rank_shown):
    sessions = by_value([0.9, 0.7, 0.5, 0.1] * 2, [1, 0, 0, 0, *rank_shown], [0, 4, 8])
    with pytest.raises(ValueError, match="session_id 101"):
        residual_tables(sessions, FIRST_HEAD, ["val"] * 2, VECTORS, CATEGORIES, 2)


def test_sizes_that_do_not_fit_are_named():
    sessions = by_value([0.9, 0.7, 0.5, 0.1], [1, 0, 0, 0], [0, 4])
    with pytest.raises(ValueError, match="item_id goes to 3"):
        residual_tables(sessions, FIRST_HEAD, ["val"], VECTORS[:3], CATEGORIES, 2)
    with pytest.raises(ValueError, match="categories -1 … 1"):
        residual_tables(sessions, FIRST_HEAD, ["val"], VECTORS, CATEGORIES, 1)
    with pytest.raises(ValueError, match="weights of shape"):
        residual_tables(sessions, np.ones(3), ["val"], VECTORS, CATEGORIES, 2)
    broken = by_value([0.9, np.nan, 0.5, 0.1], [1, 0, 0, 0], [0, 4])
    with pytest.raises(ValueError, match="candidate row 1"):
        residual_tables(broken, FIRST_HEAD, ["val"], VECTORS, CATEGORIES, 2)
