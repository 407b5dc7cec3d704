"""The sort of compiled loops against NumPy's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.sorting import sort_by


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.integers(0, 9), max_size=70), st.randoms(use_true_random=False))
def test_sorts_places_by_key_and_keeps_the_order_of_equal_ones(keys, random):
    key = np.array(keys, np.int64)
    places = random.sample(range(len(keys)), len(keys))
    order = np.array(places, np.int64)
    sort_by(order, key, np.empty_like(order))
    assert order.tolist() == sorted(places, key=keys.__getitem__)


def test_sorts_a_part_of_a_longer_array():
    key = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    order = np.array([4, 2, 0])
    sort_by(order, key, np.empty(3, np.int64))
    assert order.tolist() == [4, 2, 0]
    sort_by(order, -key, np.empty(3, np.int64))
    assert order.tolist() == [0, 2, 4]
