import itertools

import numpy as np
import pytest
import statsmodels.api as sm
from pipelines.head_weights.planted import PLANTED, planted_sessions, sessions_of
from sklearn.linear_model import LogisticRegression

from reelrank.pipelines.head_weights.alternatives import (
    bradley_terry,
    category_cross_entropy,
    pair_differences,
    plackett_luce,
)
from reelrank.pipelines.head_weights.embeddings import l2_normalised, unnormalised
from reelrank.pipelines.head_weights.matching import cosine, matching
from reelrank.pipelines.head_weights.nulls import (
    compare_with_nulls,
    random_losses,
    user_category_losses,
)
from reelrank.pipelines.head_weights.options import AlternativeOptions, NullOptions, SoftOptions
from reelrank.pipelines.head_weights.search import fit_soft

NULLS = ["random", "popularity", "user_categories"]
HEADS = ["complete", "long", "rewatch", "neg"]
EXACT = AlternativeOptions(ridge=0, negatives=3)


def compared(temperature: float):
    sessions, vectors, _ = planted_sessions(s=600, temperature=temperature)
    problem = matching(sessions, l2_normalised(vectors))
    fitted, held_out = problem.subset(np.arange(300)), problem.subset(np.arange(300, 600))
    w = fit_soft(fitted, SoftOptions()).weights
    rng = np.random.default_rng(0)
    return compare_with_nulls(
        held_out,
        w,
        NullOptions(replicates=200),
        popularity=rng.random(200),
        category=np.arange(200) % 7,
        history=rng.integers(9, size=(50, 7)),
    )


def test_every_null_is_beaten_where_heads_rank():
    own, rows = compared(0.5)
    names = [f"{sign}{head}" for sign, head in itertools.product("+−", HEADS)]
    assert [row.name for row in rows] == [*NULLS, *names, "equal_signed"]
    assert all(row.beaten for row in rows)
    assert all(row.difference.value == pytest.approx(row.loss.value - own.value) for row in rows)


def test_nulls_are_not_beaten_where_chance_ranks():
    _, rows = compared(np.inf)
    assert not any(row.beaten for row in rows if row.name in NULLS)


def test_random_loss_is_the_mean_over_all_choices():
    vectors = np.array([[1.0, 0], [0, 2], [3, 1], [-1, 1]])
    sessions = sessions_of(np.zeros((1, 4, 4)), [[1, 0, 2, 0]])
    problem = matching(sessions, unnormalised(vectors))
    observed = vectors[[0, 2]].mean(axis=0)
    every = [
        np.square(observed - vectors[list(two)].mean(axis=0)).sum()
        for two in itertools.combinations(range(4), 2)
    ]
    assert random_losses(problem)[0] == pytest.approx(np.mean(every))


def test_category_sampler_follows_the_users_shares():
    # user 0 has seen category 0 alone, user 1 category 1: each is shown it
    vectors = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    rank = [[1, 0, 0, 0], [0, 0, 1, 0]]
    problem = matching(sessions_of(np.zeros((2, 4, 4)), rank, users=2), unnormalised(vectors))
    options = NullOptions(draws=400, smoothing=1e-9)
    history = np.array([[100, 0], [0, 100]])
    given = [0, 0, 1, 1]
    np.testing.assert_allclose(user_category_losses(problem, given, history, options), 0, atol=1e-6)
    even = user_category_losses(problem, given, np.full((2, 2), 10), options)
    np.testing.assert_allclose(even, 1, atol=0.2)  # wrong in half of the draws, by ‖(1, −1)‖² = 2
    with pytest.raises(ValueError, match="row for user 1 and a column for category 1"):
        user_category_losses(problem, given, history[:1], options)


def test_bradley_terry_is_a_logistic_regression_of_differences():
    sessions, _, _ = planted_sessions(s=100)
    fit = bradley_terry(sessions, EXACT)
    d = pair_differences(sessions, EXACT)
    y = np.arange(len(d)) % 2
    sign = np.where(y == 1, 1, -1)[:, None]
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000).fit(
        d * sign, y
    )
    np.testing.assert_allclose(fit.beta, peer.coef_[0], rtol=1e-3)
    assert fit.n == len(d) == 100 * 5 * 3
    assert fit.baseline == pytest.approx(np.log(2))


def test_never_shown_leaves_out_what_another_session_showed():
    heads = np.zeros((2, 3, 4))
    heads[:, :, 0] = [[1, 2, 4], [1, 2, 4]]
    # one user; item 1 was shown in the second session: 2 is the only one never shown
    sessions = sessions_of(heads, [[1, 0, 0], [1, 2, 0]], users=1)
    assert set(pair_differences(sessions, EXACT)[:, 0]) == {1 - 4, 2 - 4}


def test_plackett_luce_is_a_conditional_logit():
    sessions, _, _ = planted_sessions(s=30, n=5, k=3)
    fit = plackett_luce(sessions, EXACT)
    rows, chosen, group = [], [], []
    for s in range(30):
        heads = sessions.heads[5 * s : 5 * s + 5].astype(float)
        rank = sessions.rank_shown[5 * s : 5 * s + 5]
        for place in (1, 2, 3):
            left = (rank == 0) | (rank >= place)
            rows.append(heads[left])
            chosen.append(rank[left] == place)
            group.append(np.full(left.sum(), 3 * s + place))
    peer = sm.ConditionalLogit(
        np.concatenate(chosen).astype(int), np.vstack(rows), groups=np.concatenate(group)
    ).fit(disp=0)
    np.testing.assert_allclose(fit.beta, peer.params, rtol=3e-3)  # BFGS stops early
    assert fit.objective == pytest.approx(-peer.llf / 90)
    assert fit.n == 90


def test_plackett_luce_does_not_count_places_without_a_choice():
    rng = np.random.default_rng(0)
    rank = np.stack([rng.permutation(2) + 1 for _ in range(30)])
    fit = plackett_luce(sessions_of(rng.random((30, 2, 4)), rank), AlternativeOptions())
    assert fit.n == 30
    assert fit.baseline == pytest.approx(np.log(2))


def test_category_cross_entropy_by_hand_and_its_optimum():
    heads = np.zeros((1, 3, 4))
    heads[0, :, 0] = [1, 0, 0]
    sessions = sessions_of(heads, [[1, 2, 0]])
    fit = category_cross_entropy(sessions, [0, 1, 1], AlternativeOptions(ridge=0))
    # observed ½, ½ against ⅓, ⅔ at β = 0; the optimum gives ½ to each: exp(β₁) = 2
    assert fit.baseline == pytest.approx(-(np.log(1 / 3) + np.log(2 / 3)) / 2)
    assert fit.objective == pytest.approx(np.log(2))
    assert fit.beta[0] == pytest.approx(np.log(2), abs=1e-3)


def test_all_find_the_planted_signs():
    sessions, vectors, _ = planted_sessions(s=400)
    options = AlternativeOptions()
    category = vectors.argmax(axis=1)
    for fit in (
        bradley_terry(sessions, options),
        plackett_luce(sessions, options),
        category_cross_entropy(sessions, category, options),
    ):
        assert fit.sign_agreement(PLANTED) == 1, fit.name
        assert cosine(fit.weights, PLANTED) > 0.95, fit.name
        assert fit.objective < fit.baseline, fit.name


def test_no_pairs_is_an_error():
    sessions = sessions_of(np.zeros((2, 2, 4)), [[1, 2], [2, 1]])
    with pytest.raises(ValueError, match="there is no pair"):
        bradley_terry(sessions, AlternativeOptions())
