import dataclasses

import numpy as np
import polars as pl
import pytest
from support.ranking_sessions import WEIGHTS, drawn_sessions, sessions_of

from reelrank.evaluation.off_policy.folds import user_folds
from reelrank.pipelines.head_weights.debias import (
    DebiasOptions,
    belief_proxies,
    debias,
    rerank,
)
from reelrank.pipelines.head_weights.residual import ResidualOptions

CATEGORY = np.array([0, 0, 1, -1])
OPTIONS = DebiasOptions(memory=0.5, prior=1.0)


def two_sessions(**kwargs):
    """Items 0 … 3 twice; shown first 2 then 0, later 1."""
    sessions = sessions_of(
        np.zeros((8, 4)), [2, 0, 1, 0, 0, 1, 0, 0], [0, 4, 8], user=[5, 5], item=[0, 1, 2, 3] * 2
    )
    outcomes = np.full((8, 4), np.nan)
    outcomes[0], outcomes[2] = 1, 0
    return dataclasses.replace(sessions, **kwargs), outcomes


def test_proxies_by_hand():
    sessions, outcomes = two_sessions()
    proxies = belief_proxies(sessions, CATEGORY, 2, outcomes, OPTIONS)
    np.testing.assert_allclose(proxies[:4], [[0, 0.5, 0.5, 0.5, 0.5, 0.5]] * 4)
    # one of category 0 at the end (place 1, outcome 1), one of category 1 at the start (place 0, outcome 0)
    np.testing.assert_allclose(proxies[4:, 0], [0.5, 0.5, 0.5, 0])
    np.testing.assert_allclose(proxies[4:, 1], [0.75, 0.75, 0.25, 0.5])
    np.testing.assert_allclose(proxies[4:, 2], [0.75, 0.75, 0.25, 0.5])


def test_memory_halves_what_is_older():
    sessions = sessions_of(
        np.zeros((12, 4)), [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], [0, 4, 8, 12], user=[5] * 3, item=[0, 1, 2, 3] * 3
    )  # fmt: skip
    outcomes = np.zeros((12, 4))
    proxies = belief_proxies(sessions, CATEGORY, 2, outcomes, OPTIONS)
    np.testing.assert_allclose(proxies[8:, 0], [1 / 3, 1 / 3, 2 / 3, 0], rtol=1e-6)


@pytest.mark.parametrize("field", ["user_id", "burst_id", "ts_start"])
def test_nothing_comes_from_other_users_bursts_or_the_same_moment(field):
    sessions, outcomes = two_sessions()
    changed = getattr(sessions, field).copy()
    changed[1] = changed[0] if field == "ts_start" else changed[0] + 1
    apart, _ = two_sessions(**{field: changed})
    proxies = belief_proxies(apart, CATEGORY, 2, outcomes, OPTIONS)
    np.testing.assert_allclose(proxies[4:], proxies[:4])


def test_the_future_changes_nothing():
    sessions = drawn_sessions(60, users=12)
    rng = np.random.default_rng(0)
    category, outcomes = rng.integers(-1, 5, 200), rng.uniform(size=(60 * 30, 4))
    before = belief_proxies(sessions, category, 5, outcomes)
    cut = 37 * 30
    outcomes[cut:] = 9
    shown = sessions.rank_shown.copy()
    shown[cut:] = shown[cut:].reshape(-1, 30)[:, ::-1].ravel()
    after = belief_proxies(dataclasses.replace(sessions, rank_shown=shown), category, 5, outcomes)
    np.testing.assert_array_equal(before[: cut + 30], after[: cut + 30])
    assert not np.array_equal(before[cut + 30 :], after[cut + 30 :])


@pytest.fixture(scope="module")
def believed():
    """The feed ranks by p̂ without beliefs; the heads that were learned add γ times each proxy."""
    sessions = drawn_sessions(400, users=80, candidates=25, shown=5, temperature=0.01, items=100)
    rng = np.random.default_rng(1)
    category = np.arange(100) % 6
    outcomes = rng.uniform(size=(len(sessions.item_id), 4))
    proxies = belief_proxies(sessions, category, 6, outcomes)
    gamma = np.array([[1.5, 0.0, 0.0, -1.0], [0.8, 0.0, 0.0, 0.0], [0.0, 1.2, 0.0, 0.0]])
    heads = sessions.heads + proxies[:, :1] * gamma[0] + proxies[:, 1:2] * gamma[1] + proxies[:, 2:] * gamma[2]  # fmt: skip
    learned = dataclasses.replace(sessions, heads=heads.astype(np.float32))
    return sessions, learned, proxies, gamma, category


def test_planted_beliefs_are_found_and_removed(believed):
    sessions, learned, proxies, gamma, _ = believed
    found = debias(learned, proxies)
    mean = found.coefficients.group_by("head", "proxy").agg(pl.col("estimate").mean(), sd=pl.col("estimate").std())  # fmt: skip
    heads, names = ("complete", "long", "rewatch", "neg"), ("share", "position", "recent_mean")
    for j, head in enumerate(heads):
        for k, name in enumerate(names):
            row = mean.row(by_predicate=(pl.col("head") == head) & (pl.col("proxy") == name), named=True)  # fmt: skip
            assert row["estimate"] == pytest.approx(gamma[k, j], abs=0.3)
    assert found.r2["complete"] > 0.1 > abs(found.r2["rewatch"])

    def inside(heads):
        by_session = heads.reshape(400, 25, 4)
        return by_session - by_session.mean(axis=1, keepdims=True)

    truth = inside(sessions.heads)
    left = inside(found.sessions.heads) - truth
    assert (left**2).mean() < 0.05 * ((inside(learned.heads) - truth) ** 2).mean()


def test_the_ranking_without_beliefs_is_nearer_to_what_was_shown(believed):
    _, learned, proxies, _, category = believed
    vectors = np.random.default_rng(2).normal(size=(100, 4))
    table = rerank(
        learned, debias(learned, proxies).sessions, WEIGHTS, ["test"] * 400, vectors, category, 6
    )
    gain = (table["overlap_debiased"] - table["overlap"]).to_numpy()
    assert gain.mean() > 5 * gain.std() / np.sqrt(400)
    assert table["loss_debiased"].mean() < 0.7 * table["loss"].mean()
    assert table["kept"].is_between(0, 1).all()
    same = rerank(learned, learned, WEIGHTS, ["test"] * 400, vectors, category, 6, ResidualOptions())  # fmt: skip
    assert (same["kept"] == 1).all()
    assert same["overlap"].equals(same["overlap_debiased"])


def test_a_fold_is_cleaned_by_what_other_users_did(believed):
    _, learned, proxies, _, _ = believed
    fold = np.repeat(user_folds(learned.user_id), 25)
    changed = learned.heads.copy()
    changed[fold == 2] += 3 * proxies[fold == 2, :1]
    one = debias(learned, proxies).coefficients
    other = debias(dataclasses.replace(learned, heads=changed), proxies).coefficients
    of_fold = pl.col("fold") == 2
    assert one.filter(of_fold).equals(other.filter(of_fold))
    assert not one.filter(~of_fold).equals(other.filter(~of_fold))


def test_what_is_the_same_for_all_candidates_is_left_alone(believed):
    _, learned, _, _, _ = believed
    constant = np.repeat(np.random.default_rng(3).normal(size=(400, 6)), 25, axis=0)
    found = debias(learned, constant)
    np.testing.assert_allclose(found.sessions.heads, learned.heads, atol=1e-6)


def test_sizes_that_do_not_fit_are_named(believed):
    _, learned, proxies, _, category = believed
    with pytest.raises(ValueError, match="outcomes of shape"):
        belief_proxies(learned, category, 6, proxies)
    with pytest.raises(ValueError, match="proxies of shape"):
        debias(learned, proxies[:, :4])
    with pytest.raises(ValueError, match="one fold"):
        debias(dataclasses.replace(learned, user_id=np.zeros(400, np.int32)), proxies)
