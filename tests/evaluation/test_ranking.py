import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import dcg_score, ndcg_score

from reelrank.evaluation.ranking import (
    dcg,
    hit_rate,
    mrr,
    ndcg,
    ndcg_from_ranks,
    ranks_in_lists,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(-3, 3), st.integers(0, 3)), min_size=1, max_size=40
)


def columns(rows):
    lists, scores, relevance = (np.array(c) for c in zip(*rows, strict=True))
    return scores.astype(float), relevance, lists


@given(ROWS, st.integers(1, 7), st.randoms())
@settings(max_examples=40, deadline=None)
def test_row_order_never_matters(rows, k, random):
    ids, value = ndcg(*columns(rows), k)
    random.shuffle(rows)
    again_ids, again = ndcg(*columns(rows), k)
    np.testing.assert_array_equal(ids, again_ids)
    np.testing.assert_allclose(value, again, rtol=1e-14)


@given(ROWS, st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_monotone_transforms_keep_the_value_and_bounds_hold(rows, k):
    scores, relevance, lists = columns(rows)
    _, value = ndcg(scores, relevance, lists, k)
    _, transformed = ndcg(np.exp(scores) + 7, relevance, lists, k)
    np.testing.assert_array_equal(value, transformed)
    assert ((value >= 0) & (value <= 1 + 1e-12) | np.isnan(value)).all()


@given(ROWS, st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_agrees_with_scikit_learn_on_ties_and_both_gains(rows, k):
    scores, relevance, lists = columns(rows)
    for gain, gains in (("linear", relevance), ("exponential", 2.0**relevance - 1)):
        for list_id, value in zip(*ndcg(scores, relevance, lists, k, gain), strict=True):
            rows_of = lists == list_id
            if gains[rows_of].max() == 0:
                assert np.isnan(value)
            elif rows_of.sum() > 1:  # scikit-learn refuses lists of one
                expected = ndcg_score(gains[rows_of][None], scores[rows_of][None], k=k)
                assert value == pytest.approx(expected, abs=1e-9)


@given(ROWS, st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_dcg_agrees_with_scikit_learn_and_takes_negative_gains(rows, k):
    scores, relevance, lists = columns(rows)
    gains = relevance - 1.5
    ids, value = dcg(scores, gains, lists, k)
    for list_id, found in zip(ids, value, strict=True):
        of = lists == list_id
        if of.sum() > 1:
            expected = dcg_score(gains[of][None], scores[of][None], k=k)
            assert found == pytest.approx(expected, abs=1e-9)
        else:
            assert found == gains[of][0]


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_ranks_in_lists_are_average_ranks(rows):
    scores, _, lists = columns(rows)
    rank = ranks_in_lists(scores, lists)
    for list_id in np.unique(lists):
        of = lists == list_id
        np.testing.assert_array_equal(rank[of], rankdata(-scores[of]))


def test_a_list_from_scores_to_hits():
    scores, relevant = np.array([0.1, 0.9, 0.5, 0.3, 0.2]), np.array([1, 0, 1, 0, 1], bool)
    lists = np.array([0, 0, 0, 1, 1])
    rank = ranks_in_lists(scores, lists)[relevant]
    assert rank.tolist() == [3, 2, 2]
    assert mrr(rank, lists[relevant], 2)[1].tolist() == [0.5, 0.5]
    assert hit_rate(rank, lists[relevant], 1)[1].tolist() == [0, 0]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.integers(1, 12), st.randoms())
@settings(max_examples=30, deadline=None)
def test_agreement_with_torchmetrics(relevance, k, random):
    retrieval = pytest.importorskip("torchmetrics.functional.retrieval")
    torch = pytest.importorskip("torch")
    # it breaks ties as the sort falls, and takes no row of a score of 0 as relevant
    scores = list(range(1, len(relevance) + 1))
    random.shuffle(scores)
    score, gains = torch.tensor(scores, dtype=torch.float64), torch.tensor(relevance)
    lists = np.zeros(len(scores))
    if gains.max() == 0:
        return
    expected = retrieval.retrieval_normalized_dcg(score, gains, top_k=k)
    assert ndcg(scores, relevance, lists, k)[1][0] == pytest.approx(expected.item(), abs=1e-6)
    hit = gains > 0
    rank = ranks_in_lists(scores, lists)[hit.numpy()]
    first = retrieval.retrieval_reciprocal_rank(score, hit, top_k=k).item()
    assert mrr(rank, np.zeros(rank.size), k)[1][0] == pytest.approx(first, abs=1e-6)
    found = retrieval.retrieval_hit_rate(score, hit, top_k=k).item()
    assert hit_rate(rank, np.zeros(rank.size), k)[1][0] == found


def test_all_tied_is_the_mean_over_orders():
    # one relevant of two rows: (1 + 1/log2(3)) / 2
    _, value = ndcg([0.0, 0.0], [0, 1], [3, 3], 5)
    assert value[0] == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_single_target_formulas_agree():
    ranks, lists = [1, 3, 9], [10, 11, 12]
    np.testing.assert_allclose(ndcg_from_ranks(ranks, lists, 1, 5)[1], [1, 0.5, 0])
    np.testing.assert_allclose(hit_rate(ranks, lists, 5)[1], [1, 1, 0])
    np.testing.assert_allclose(mrr(ranks, lists, 5)[1], [1, 1 / 3, 0])


def test_the_best_rank_of_a_list_counts_for_hits():
    ids, value = mrr([8, 2, 4], ["b", "a", "a"], 5)
    assert ids.tolist() == ["a", "b"] and value.tolist() == [0.5, 0.0]


def test_from_ranks_equals_from_scores():
    rng = np.random.default_rng(0)
    scores, relevance = rng.normal(size=200), rng.integers(0, 2, 200)
    lists = np.repeat(np.arange(10), 20)
    rank = np.concatenate([np.argsort(np.argsort(-s)) + 1 for s in scores.reshape(10, 20)])
    hit = relevance == 1
    n_relevant = relevance.reshape(10, 20).sum(1)[lists]
    _, value = ndcg_from_ranks(rank[hit], lists[hit], n_relevant[hit], 5)
    np.testing.assert_allclose(value, ndcg(scores, relevance, lists, 5)[1])


def test_no_rows_no_lists():
    ids, value = ndcg([], [], [], 5)
    assert ids.size == value.size == 0


@pytest.mark.parametrize(
    ("scores", "relevance", "lists", "k", "message"),
    [
        ([1.0, 2.0], [1, 0], [0], 5, "length"),
        ([1.0, np.nan], [1, 0], [0, 0], 5, "scores"),
        ([1.0, 2.0], [1, -1], [0, 0], 5, "≥ 0"),
        ([1.0, 2.0], [1, 0], [0, 0], 0, "k must"),
    ],
)
def test_bad_input(scores, relevance, lists, k, message):
    with pytest.raises(ValueError, match=message):
        ndcg(scores, relevance, lists, k)


@pytest.mark.parametrize(
    ("ranks", "n_relevant", "message"), [([0], 1, "start at 1"), ([1], 0, "n_relevant")]
)
def test_bad_ranks(ranks, n_relevant, message):
    with pytest.raises(ValueError, match=message):
        ndcg_from_ranks(ranks, [0], n_relevant, 5)
