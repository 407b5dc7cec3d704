"""METHODS Appendix A: GAUC and XAUC test vectors."""

import pytest

from reelrank.evaluation.grouped import gauc
from reelrank.evaluation.regression import xauc

USERS = [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4]
Y = [1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 1]
S = [0.9, 0.8, 0.1, 0.4, 0.3, 0.3, 0.6, 0.2, 0.5, 0.2, 0.1]


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [("impressions", 0.444444), ("positives", 0.5), ("uniform", 0.416667)],
)
def test_gauc(weighting, expected):
    found = gauc(Y, S, USERS, weighting)
    assert found.value == pytest.approx(expected, abs=5e-7)
    assert (found.n_groups, found.groups_excluded) == (3, 0.25)
    assert (found.n_rows, found.rows_excluded) == (9, pytest.approx(2 / 11))


def test_xauc():
    assert xauc([10, 3, 3, 7], [0.9, 0.4, 0.8, 0.5]) == pytest.approx(0.8, abs=1e-12)
