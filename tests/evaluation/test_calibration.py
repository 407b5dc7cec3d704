import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as log_loss_of_scikit_learn

from reelrank.evaluation.calibration import brier, ece, log_loss, reliability_table

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40)), min_size=1, max_size=80)


def columns(rows):
    y, p = (np.array(c) for c in zip(*rows, strict=True))
    return y, p / 40


def test_table_by_hand():
    table = reliability_table([0, 1, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.9, 0.7], bins=3)
    assert table.rows() == [
        (0, 2, 0.1, 0.2, pytest.approx(0.15), 0.5),
        (1, 2, 0.3, 0.4, pytest.approx(0.35), 0.5),
        (2, 2, 0.7, 0.9, pytest.approx(0.8), 1.0),
    ]
    assert ece([0, 1, 0, 1, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.9, 0.7], bins=3) == pytest.approx(0.7 / 3)


@pytest.mark.parametrize(("n", "bins"), [(30, 15), (31, 15), (7, 15), (1000, 15), (45, 9)])
def test_without_ties_bins_have_equal_mass(n, bins):
    rng = np.random.default_rng(0)
    p = rng.permutation(n) / n
    sizes = reliability_table(rng.integers(0, 2, n), p, bins)["n"]
    assert sizes.sum() == n and sizes.len() == min(n, bins)
    assert sizes.max() - sizes.min() <= 1


@given(ROWS, st.randoms())
@settings(max_examples=50, deadline=None)
def test_row_order_does_not_matter_and_ties_share_a_bin(rows, random):
    y, p = columns(rows)
    table = reliability_table(y, p)
    random.shuffle(rows)
    again = reliability_table(*columns(rows))
    np.testing.assert_allclose(again.to_numpy(), table.to_numpy())
    assert (table["lowest"][1:] > table["highest"][:-1]).all()
    assert 0 <= ece(y, p) <= 1


def test_calibrated_predictions_have_almost_no_error_and_distorted_ones_a_known_one():
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    assert ece(y, p) < 15 * 0.5 / np.sqrt(200_000)
    # sqrt lifts every prediction: the error is the mean lift, 2/3 − 1/2
    assert ece(y, np.sqrt(p)) == pytest.approx(1 / 6, abs=0.005)


def test_constant_predictions_are_one_bin():
    assert reliability_table([0, 1, 1, 1], [0.5] * 4)["n"].to_list() == [4]
    assert ece([0, 1, 1, 1], [0.5] * 4) == 0.25


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_agreement_with_scikit_learn(rows):
    y, p = columns(rows)
    assert brier(y, p) == pytest.approx(brier_score_loss(y, p, labels=[0, 1]), abs=1e-9)
    inner = 0.01 + 0.98 * p
    expected = log_loss_of_scikit_learn(y, inner, labels=[0, 1])
    assert log_loss(y, inner) == pytest.approx(expected, abs=1e-9)


def test_what_was_called_impossible_costs_everything():
    assert log_loss([1, 0], [0.0, 0.5]) == np.inf
    assert log_loss([1, 0], [1.0, 0.0]) == 0


def test_no_rows_no_value():
    assert np.isnan([ece([], []), brier([], []), log_loss([], [])]).all()


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 1], [0.5, 1.5], "prediction of row 1 is 1.5"),
        ([0, 1], [-0.1, 0.5], "prediction of row 0"),
        ([0, 3], [0.1, 0.5], "label of row 1 is 3"),
        ([0, 1], [0.1, np.nan], "score of row 1 is nan"),
        ([0], [0.1, 0.2], "one length"),
    ],
)
def test_bad_input(y, p, message):
    for metric in (ece, brier, log_loss):
        with pytest.raises(ValueError, match=message):
            metric(y, p)
    with pytest.raises(ValueError, match="bins"):
        ece([0], [0.1], bins=0)
