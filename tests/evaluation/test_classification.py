import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from reelrank.evaluation.classification import auc, average_precision, best_f1_threshold, f1_counts

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=60)


def columns(rows):
    y, p = (np.array(c) for c in zip(*rows, strict=True))
    return y, p / 6


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_agreement_with_scikit_learn(rows):
    y, p = columns(rows)
    if 0 < y.sum() < y.size:
        assert auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    else:
        assert np.isnan(auc(y, p))
    if y.sum() == 0:
        assert np.isnan(average_precision(y, p))
    else:
        assert average_precision(y, p) == pytest.approx(average_precision_score(y, p), abs=1e-9)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_the_threshold_is_the_best_of_all(rows):
    y, p = columns(rows)
    threshold = best_f1_threshold(y, p)
    if y.sum() == 0:
        assert threshold == np.inf
        return
    every = {t: f1_score(y, p >= t) for t in np.unique(p)}
    assert every[threshold] == pytest.approx(max(every.values()), abs=1e-9)
    numerator, denominator = f1_counts(y, p, threshold)
    assert numerator.sum() / denominator.sum() == pytest.approx(every[threshold], abs=1e-9)


@given(ROWS, st.randoms())
@settings(max_examples=30, deadline=None)
def test_row_order_and_monotone_transforms_do_not_matter(rows, random):
    y, p = columns(rows)
    before = (auc(y, p), average_precision(y, p))
    random.shuffle(rows)
    y, p = columns(rows)
    np.testing.assert_allclose((auc(y, np.exp(p)), average_precision(y, np.exp(p))), before)


def test_auc_by_hand():
    assert auc([1, 0, 0, 1], [0.9, 0.8, 0.1, 0.4]) == 0.75
    assert auc([0, 1], [0.3, 0.3]) == 0.5


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [([0, 1], [0.5], "length"), ([0, 2], [0.1, 0.2], "0 or 1"), ([0, 1], [0.1, np.nan], "finite")],
)
def test_bad_input(y, p, message):
    with pytest.raises(ValueError, match=message):
        auc(y, p)
