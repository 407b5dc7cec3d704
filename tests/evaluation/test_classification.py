import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from reelrank.evaluation.classification import (
    auc,
    average_precision,
    best_f1_threshold,
    f1_counts,
    f1_scores,
    f1_thresholds,
)

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
    [
        ([0, 1], [0.5], "length"),
        ([0, 2], [0.1, 0.2], "label of row 1 is 2.0 .* 0 or 1"),
        (
            [0, 1, 0],
            [0.1, np.nan, np.inf],
            r"score of row 1 is nan \(2 such rows\): must be finite",
        ),
        ([[0, 1]], [[0.1, 0.2]], "length"),
    ],
)
def test_bad_input(y, p, message):
    with pytest.raises(ValueError, match=message):
        auc(y, p)


@given(st.dictionaries(st.sampled_from("abc"), ROWS, min_size=1), st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_macro_and_micro_agree_with_scikit_learn(behaviours, threshold):
    labels, scores = {}, {}
    for name, rows in behaviours.items():
        labels[name], scores[name] = columns(rows)
    predicted = {name: scores[name] >= threshold / 6 for name in labels}
    found = f1_scores(labels, scores, dict.fromkeys(labels, threshold / 6))
    each = [f1_score(labels[n], predicted[n], zero_division=np.nan) for n in labels]
    np.testing.assert_allclose(list(found.by_behaviour.values()), each, atol=1e-12)
    assert found.undefined == tuple(n for n, v in zip(labels, each, strict=True) if np.isnan(v))
    np.testing.assert_allclose(
        found.macro, np.nan if np.isnan(each).all() else np.nanmean(each), atol=1e-12
    )
    together = [np.concatenate(list(c.values())) for c in (labels, predicted)]
    np.testing.assert_allclose(found.micro, f1_score(*together, zero_division=np.nan), atol=1e-12)


def test_thresholds_come_from_other_rows_than_the_scores():
    thresholds = f1_thresholds(
        {"like": [0, 1, 1], "share": [0, 0, 0]},
        {"like": [0.1, 0.4, 0.6], "share": [0.1, 0.2, 0.3]},
    )
    assert thresholds == {"like": 0.4, "share": np.inf}
    found = f1_scores(
        {"like": [1, 0, 1], "share": [1, 0]},
        {"like": [0.3, 0.5, 0.9], "share": [0.9, 0.1]},
        thresholds,
    )
    assert found.by_behaviour == {"like": 0.5, "share": 0.0}  # one hit, one miss, one false alarm
    assert (found.macro, found.micro) == (0.25, 0.4)


def test_behaviours_must_be_the_same():
    with pytest.raises(ValueError, match=r"thresholds .* \['share'\]"):
        f1_scores({"like": [1]}, {"like": [0.1]}, {"like": 0.5, "share": 0.5})
    with pytest.raises(ValueError, match="scores and labels"):
        f1_thresholds({"like": [1]}, {})


def test_large_columns_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 20_000), np.round(rng.normal(size=20_000), 2)
    assert auc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert average_precision(y, p) == pytest.approx(average_precision_score(y, p), abs=1e-12)
