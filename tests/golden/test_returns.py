import numpy as np
import pytest

from reelrank.features.rewards import discounted_returns


def test_return_of_appendix_a():
    found = discounted_returns(np.array([1, 0, 2], np.float32), np.array([True, True, False]), 0.95)
    assert found.tolist() == pytest.approx([2.805, 1.9, 2.0])
