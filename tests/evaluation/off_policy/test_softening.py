import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelrank.evaluation.off_policy import equal_entropy_temperature, mean_entropy, softened


def test_softened_by_hand():
    p = softened([[math.log(1), math.log(4), -math.inf]], 2.0)
    np.testing.assert_allclose(p, [[1 / 3, 2 / 3, 0]])
    np.testing.assert_allclose(softened([[0, 1e3]], 1e-3), [[0, 1]], atol=1e-12)
    assert mean_entropy([[0.5, 0.5, 0], [1, 0, 0]]) == pytest.approx(math.log(2) / 2)


@given(st.floats(0.05, 20), st.floats(1e-3, 1e3), st.integers(0, 100))
def test_the_temperature_that_made_an_entropy_is_found(temperature, scale, seed):
    scores = scale * np.random.default_rng(seed).normal(size=(20, 6))
    scores[:5, 4:] = -np.inf
    entropy = mean_entropy(softened(scores, scale * temperature))
    found = equal_entropy_temperature(scores, entropy)
    assert mean_entropy(softened(scores, found)) == pytest.approx(entropy, abs=1e-8)


@pytest.mark.parametrize("entropy", [-0.1, 0.2, 1.2])
def test_an_entropy_out_of_reach_says_what_can_be_reached(entropy):
    scores = [[1.0, 1.0, 0.0], [2.0, 1.0, 0.0]]  # greedy: a tie of two in one row of two
    with pytest.raises(ValueError, match=r"these scores reach 0\.3466 … 1\.099"):
        equal_entropy_temperature(scores, entropy)
    with pytest.raises(ValueError, match="no temperature"):
        equal_entropy_temperature(np.ones((2, 3)), 0.5)


def test_bad_scores():
    with pytest.raises(ValueError, match="row 1: a score is NaN"):
        softened([[0, 1], [np.nan, 1]], 1.0)
    with pytest.raises(ValueError, match=r"row 0: .*no candidate"):
        softened([[-np.inf, -np.inf]], 1.0)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        softened([[0, 1]], 0.0)
