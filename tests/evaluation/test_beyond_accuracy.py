import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.evaluation.beyond_accuracy import (
    category_entropy,
    coverage,
    exposure,
    gini,
    novelty,
)


def test_coverage_and_exposure():
    shown = [3, 3, 1, 3]
    assert coverage(shown, 5) == 0.4
    assert exposure(shown, 5).tolist() == [0, 1, 0, 3, 0]
    assert coverage([], 5) == 0


def test_gini_by_hand():
    assert gini([1, 1, 1, 1]) == 0
    assert gini([0, 0, 0, 7]) == 0.75
    assert gini([1, 3]) == 0.25
    assert np.isnan(gini([0, 0])) and np.isnan(gini([]))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.randoms())
@settings(max_examples=50, deadline=None)
def test_gini_is_half_the_relative_mean_difference(amounts, random):
    x = np.array(amounts, float)
    if x.sum():
        expected = np.abs(x[:, None] - x).mean() / (2 * x.mean())
        assert gini(x) == pytest.approx(expected, abs=1e-12)
        assert gini(7 * x) == pytest.approx(expected, abs=1e-12)
        random.shuffle(amounts)
        assert gini(amounts) == pytest.approx(expected, abs=1e-12)


def test_entropy_of_categories():
    ids, value = category_entropy([5, 5, 2, 2, 7, 7, -1, -1], [1, 1, 1, 1, 0, 0, 0, 3])
    assert ids.tolist() == [0, 1, 3]
    np.testing.assert_allclose(value, [0, np.log(2), np.nan])  # a list without categories has none
    _, uniform = category_entropy(np.arange(8), np.zeros(8))
    assert uniform == pytest.approx(np.log(8))
    assert category_entropy([], [])[1].size == novelty([], [], [1])[1].size == 0


def test_novelty_is_surprise_in_bits():
    # (3 + 1, 0 + 1, 2 + 1) of 8
    ids, value = novelty([0, 1, 0, 2], [9, 9, 4, 4], [3, 0, 2])
    assert ids.tolist() == [4, 9]
    np.testing.assert_allclose(value, [(1 + np.log2(8 / 3)) / 2, (1 + 3) / 2])


def test_popular_lists_are_less_novel():
    _, value = novelty([0, 1, 2], [0, 1, 2], [10, 100, 1000])
    assert value[0] > value[1] > value[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coverage([0, 5], 5), "item of row 1 is 5"),
        (lambda: coverage([0, -1], 5), "item of row 1 is -1"),
        (lambda: coverage([0.5], 5), "id of the catalogue"),
        (lambda: coverage([], 0), "catalogue is empty"),
        (lambda: gini([1, -1]), "amount of row 1 is -1"),
        (lambda: gini([1, np.nan]), "amount of row 1 is nan"),
        (lambda: category_entropy([1, -2], [0, 0]), "category of row 1 is -2"),
        (lambda: category_entropy([1, np.nan], [0, 0]), "whole number"),
        (lambda: category_entropy([1], [0, 0]), "one length"),
        (lambda: novelty([3], [0], [1, 2, 3]), "item of row 0 is 3"),
        (lambda: novelty([0], [0, 1], [1]), "one length"),
        (lambda: novelty([0], [0], [-1]), "popularity of row 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
