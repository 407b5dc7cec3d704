import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines.head_weights.planted import PLANTED, planted_sessions, sessions_of

from reelrank.pipelines.head_weights.embeddings import (
    Embedding,
    category_one_hot,
    l2_normalised,
    predicted_heads,
    unnormalised,
    whitened,
)
from reelrank.pipelines.head_weights.matching import half_space, matching, on_sphere
from reelrank.pipelines.head_weights.matching_kernels import select_top, successive_inclusion


def two_sessions():
    heads = np.zeros((2, 3, 4))
    heads[0, :, 0] = [0.9, 0.5, 0.1]
    heads[1, :, 0] = [0.2, 0.4, 0.8]
    rank = [[1, 2, 0], [1, 0, 0]]
    return sessions_of(heads, rank), unnormalised([[1, 0], [0, 1], [1, 1]])


def test_loss_by_hand():
    m = matching(*two_sessions())
    # session 0 shows items 0 and 1, (0.5, 0.5); + shows the same, − shows 1 and 2, (0.5, 1)
    # session 1 shows item 0, (1, 0); + shows 2, (1, 1); − shows 0
    np.testing.assert_allclose(m.losses([1, 0, 0, 0]), [0, 1])
    np.testing.assert_allclose(m.losses([-1, 0, 0, 0]), [0.25, 0])
    np.testing.assert_allclose(m.mean_losses([[1, 0, 0, 0], [-1, 0, 0, 0]]), [0.5, 0.125])
    np.testing.assert_allclose(m.user_losses([-1, 0, 0, 0]), [[0.25, 0]])


def test_equal_scores_go_to_the_earlier_candidate():
    m = matching(*two_sessions())
    # the second head is 0 everywhere: candidates 0, 1 and candidate 0
    np.testing.assert_allclose(m.losses([0, 1, 0, 0]), [0, 0])
    assert m.selected(np.zeros(6)).tolist() == [True, True, False, True, False, False]


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(1, 700),
    k=st.integers(1, 700),
    levels=st.sampled_from([1, 3, 40, 10**6]),
    seed=st.integers(0, 10**6),
)
def test_selection_is_that_of_a_stable_sort(n, k, levels, seed):
    k = min(n, k)
    score = np.random.default_rng(seed).integers(levels, size=n).astype(np.float32) - levels / 2
    kept = np.empty(n + 1, np.int32)
    select_top(score, n, k, np.empty(n + 1, np.float32), kept, np.empty(n + 1, np.int32))
    assert sorted(kept[:k]) == sorted(np.argsort(-score, kind="stable")[:k])


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_scale_does_not_matter(scale, seed):
    sessions, vectors, _ = planted_sessions(s=20)
    m = matching(sessions, l2_normalised(vectors))
    w = np.random.default_rng(seed).normal(size=4)
    # float32 rounds scaled scores anew: powers of two leave them as they are
    exact = 2.0 ** round(np.log2(scale))
    np.testing.assert_array_equal(m.losses(w.astype(np.float32) * exact), m.losses(w))


def test_threads_and_batches_change_nothing():
    sessions, vectors, _ = planted_sessions(s=600, n=40)
    m = matching(sessions, l2_normalised(vectors))
    w = on_sphere(np.random.default_rng(0).normal(size=(70, 4)))
    together = m.mean_losses(w)  # enough work for threads
    alone = [m.losses(one).mean() for one in w]
    np.testing.assert_array_equal(together, alone)
    part = m.subset([5, 599, 17])
    np.testing.assert_array_equal(part.losses(w[0]), m.losses(w[0])[[5, 599, 17]])


@pytest.mark.parametrize("inclusion", ["successive", "sigmoid"])
def test_gradient_by_finite_differences(inclusion):
    sessions, vectors, _ = planted_sessions(s=30)
    m = matching(sessions, l2_normalised(vectors))
    point = np.append(PLANTED + 0.05, np.log(0.07))
    loss, gradient = m.soft_loss(point[:4], point[4], inclusion)
    if inclusion == "sigmoid":
        # θ_K has no gradient: a reference in NumPy, with thresholds held at the point
        heads = sessions.heads.reshape(30, 20, 4).astype(float)
        held = np.sort((heads @ point[:4] / np.exp(point[4])), axis=1)[:, [-5]]
        e = m.embedding.astype(float)[sessions.item_id].reshape(30, 20, -1)

        def value(p):
            pi = 1 / (1 + np.exp(held - heads @ p[:4] / np.exp(p[4])))
            mu = np.einsum("sn,snh->sh", pi / pi.sum(axis=1, keepdims=True), e)
            return np.square(m.observed - mu).sum(axis=1).mean()
    else:

        def value(p):
            return m.soft_loss(p[:4], p[4])[0]

    assert value(point) == pytest.approx(loss, rel=1e-5)
    h = 1e-4
    numeric = [(value(point + h * d) - value(point - h * d)) / (2 * h) for d in np.eye(5)]
    np.testing.assert_allclose(gradient, numeric, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("inclusion", ["successive", "sigmoid"])
def test_soft_becomes_hard_as_temperature_falls(inclusion):
    sessions, vectors, _ = planted_sessions(s=40)
    m = matching(sessions, l2_normalised(vectors))
    gap = abs(m.soft(PLANTED / 1e-6, inclusion).loss.mean() - m.losses(PLANTED).mean())
    # σ(0) = ½ of the K-th itself stays: K − ½ of mass spread over K
    assert gap < (1e-3 if inclusion == "successive" else 0.05)


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 60), k=st.integers(1, 60), spread=st.floats(0, 300), seed=st.integers(0, 99)
)
def test_inclusion_sums_to_k(n, k, spread, seed):
    k = min(n, k)
    eta = np.random.default_rng(seed).normal(0, spread, n)
    pi, slope = np.empty(n), np.empty(n)
    successive_inclusion(eta, k, pi, slope, np.empty(n, np.float32))
    assert pi.sum() == pytest.approx(k, rel=1e-6)
    assert (pi >= 0).all() and (pi <= 1).all()
    assert (np.diff(pi[np.argsort(eta)]) >= -1e-12).all()


def test_inclusion_is_that_of_successive_draws():
    rng = np.random.default_rng(0)
    eta = rng.normal(size=40)
    drawn = np.argsort(-(eta + rng.gumbel(size=(40_000, 40))), axis=1)[:, :8]
    pi, slope = np.empty(40), np.empty(40)
    successive_inclusion(eta, 8, pi, slope, np.empty(40, np.float32))
    np.testing.assert_allclose(pi, np.bincount(drawn.ravel(), minlength=40) / 40_000, atol=0.015)


def test_embeddings():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 3)) @ np.diag([100, 1, 0]) + 7
    lengths = np.linalg.norm(l2_normalised(np.vstack([vectors, np.zeros(3)])).vectors, axis=1)
    np.testing.assert_allclose(lengths, [1] * 50 + [0], rtol=1e-6)
    white = whitened(vectors).vectors
    assert white.shape == (50, 2)  # the third direction has no variance
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(2), atol=1e-4)
    assert category_one_hot([1, -1, 0]).vectors.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    sessions, _ = two_sessions()
    m = matching(sessions, predicted_heads(sessions))
    np.testing.assert_allclose(m.observed[:, 0], [0.7, 0.2], rtol=1e-6)


def test_the_half_space_holds_what_the_author_can_reach():
    w = half_space(np.random.default_rng(0).normal(size=(500, 3)) * 3)
    np.testing.assert_allclose(np.abs(w).sum(axis=1), 1)
    assert (w @ [1, 1, 1, -1] > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": np.full((6, 4), np.nan, np.float32)}, "heads of 6 candidates are not finite"),
        ({"heads": np.zeros((6, 3), np.float32)}, r"expected \(6, 4\)"),
        ({"rank_shown": np.array([1, 0, 0, 0, 0, 0], np.int32)}, "session 1 shows none"),
        ({"item_id": np.array([0, 1, 9, 0, 1, 2], np.int32)}, "has 3 rows, the candidates ask for 0 … 9"),
        ({"first": np.array([0, 3, 3, 6])}, "no session may be without candidates"),
    ],
    ids=["nan", "width", "none_shown", "item", "empty"],
)  # fmt: skip
def test_errors_name_what_is_wrong(change, message):
    sessions, embedding = two_sessions()
    with pytest.raises(ValueError, match=message):
        matching(type(sessions)(**(vars(sessions) | change)), embedding)


def test_vectors_must_be_finite():
    with pytest.raises(ValueError, match="1 rows are not finite, the first is 1"):
        l2_normalised([[1.0], [np.nan]], "text")
    with pytest.raises(ValueError, match="4 finite"):
        matching(two_sessions()[0], Embedding("e", np.ones((3, 1), np.float32))).soft([np.nan] * 4)
