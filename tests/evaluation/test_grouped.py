import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from reelrank.evaluation.grouped import gauc, group_auc

ROWS = st.lists(
    st.tuples(st.integers(-2, 4), st.integers(0, 1), st.integers(-3, 3)), min_size=1, max_size=80
)


def columns(rows):
    groups, y, p = (np.array(c) for c in zip(*rows, strict=True))
    return y, p / 4, groups


def by_scikit_learn(y, p, groups):
    """Σ ω AUC and Σ ω over the groups with both classes, by weighting; and the rows and groups left out."""
    found, weights, rows = [], {"impressions": [], "positives": [], "uniform": []}, 0
    for group in np.unique(groups):
        of = groups == group
        if 0 < y[of].sum() < of.sum():
            found.append(roc_auc_score(y[of], p[of]))
            for name, w in (("impressions", of.sum()), ("positives", y[of].sum()), ("uniform", 1)):
                weights[name].append(w)
            rows += of.sum()
    return np.array(found), weights, 1 - rows / y.size, 1 - len(found) / np.unique(groups).size


@given(ROWS, st.sampled_from(["impressions", "positives", "uniform"]))
@settings(max_examples=80, deadline=None)
def test_agreement_with_scikit_learn(rows, weighting):
    y, p, groups = columns(rows)
    found, weights, rows_excluded, groups_excluded = by_scikit_learn(y, p, groups)
    ours = gauc(y, p, groups, weighting)
    if found.size:
        assert ours.value == pytest.approx(np.average(found, weights=weights[weighting]), abs=1e-9)
    else:
        assert np.isnan(ours.value)
    assert ours.rows_excluded == pytest.approx(rows_excluded)
    assert ours.groups_excluded == pytest.approx(groups_excluded)
    assert ours.n_groups == found.size and ours.weighting == weighting


def test_large_groups_of_both_float_widths_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 8, 3000)
    p = np.round(rng.normal(size=3000), 2).astype(np.float32)
    y = (rng.random(3000) < 0.4).astype(np.int8)
    found, weights, *_ = by_scikit_learn(y, p, groups)
    expected = np.average(found, weights=weights["impressions"])
    for score in (p, p.astype(np.float64)):
        assert gauc(y, score, groups).value == pytest.approx(expected, abs=1e-12)


@given(ROWS, st.randoms())
@settings(max_examples=40, deadline=None)
def test_row_order_and_monotone_transforms_by_group_do_not_matter(rows, random):
    y, p, groups = columns(rows)
    before = group_auc(y, p, groups)
    random.shuffle(rows)
    y, p, groups = columns(rows)
    after = group_auc(y, np.exp(p) + 10 * groups, groups)  # another transform in every group
    np.testing.assert_allclose(after.value, before.value, atol=1e-12)
    np.testing.assert_array_equal(after.n_positive, before.n_positive)


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_reversed_scores_reverse_the_value(rows):
    y, p, groups = columns(rows)
    forward, backward = group_auc(y, p, groups).value, group_auc(y, -p, groups).value
    np.testing.assert_allclose(forward + backward, np.where(np.isnan(forward), np.nan, 1.0))


@pytest.mark.parametrize("name", [str, lambda g: f"user {g}", float, lambda g: g * 10**12 - 5])
def test_any_kind_of_id_names_the_same_groups(name):
    groups = np.array([3, 1, 1, 3, 7, 7])
    y, p = [1, 0, 1, 0, 1, 1], [0.2, 0.1, 0.3, 0.6, 0.5, 0.4]
    found = group_auc(y, p, np.array([name(g) for g in groups.tolist()]))
    assert found.groups.tolist() == [name(1), name(3), name(7)]
    np.testing.assert_array_equal(found.value, [1, 0, np.nan])
    assert found.n.tolist() == [2, 2, 2] and found.n_positive.tolist() == [1, 1, 2]


def test_positive_and_negative_zero_tie():
    assert gauc([1, 0], [0.0, -0.0], [0, 0]).value == 0.5


def test_polars_columns_in():
    log = pl.DataFrame({"user": [1, 1, 2], "y": [True, False, True], "p": [0.9, 0.1, 0.3]})
    found = gauc(log["y"], log["p"], log["user"])
    assert (found.value, found.n_groups, found.rows_excluded) == (1.0, 1, pytest.approx(1 / 3))


def test_nothing_to_average():
    empty = gauc([], [], [])
    assert np.isnan(empty.value) and np.isnan(empty.groups_excluded) and empty.n_rows == 0
    one_class = gauc([1, 1], [0.1, 0.2], [0, 1])
    assert np.isnan(one_class.value) and one_class.groups_excluded == one_class.rows_excluded == 1


@pytest.mark.parametrize(
    ("y", "p", "groups", "message"),
    [
        ([0, 1, 1], [0.1, np.nan, 0.2], [0, 0, 0], "score of row 1 is nan"),
        ([0, 1], [0.1, np.inf], [0, 0], "score of row 1 is inf"),
        ([0, 1, 2], [0.1, 0.2, 0.3], [0, 0, 0], "label of row 2 is 2"),
        ([0, np.nan], [0.1, 0.2], [0, 0], "label of row 1 is nan"),
        ([0, 1], [0.1, 0.2], [0], "one length"),
        ([0, 1], [0.1, 0.2], [0, np.nan], "group of row 1"),
        ([0, 1], [0.1, 0.2], ["a", None], "group of row 1 is None"),
    ],
)
def test_bad_input_names_the_row(y, p, groups, message):
    with pytest.raises(ValueError, match=message):
        group_auc(y, p, groups)


def test_weightings_of_binary_labels_only():
    values = group_auc([0, 1], [0.1, 0.2], [0, 0])
    with pytest.raises(ValueError, match="no weighting 'rows'"):
        values.mean("rows")
