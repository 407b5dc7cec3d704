import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_error

from reelrank.evaluation.regression import (
    above_train_median,
    gauc_at_median,
    group_xauc,
    gxauc,
    mae,
    mse,
    rmse,
    xauc,
)

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(-4, 4)), min_size=1, max_size=60)


def every_pair(t, s):
    """XAUC by its definition."""
    t, s = np.asarray(t, float), np.asarray(s, float)
    dt, ds = np.sign(t[:, None] - t), np.sign(s[:, None] - s)
    pairs = dt != 0
    return (0.5 * (1 + dt * ds))[pairs].mean() if pairs.any() else np.nan


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_counting_inversions_equals_looking_at_every_pair(rows):
    t, s = (np.array(c) for c in zip(*rows, strict=True))
    np.testing.assert_allclose(xauc(t, s), every_pair(t, s), atol=1e-12)


@given(ROWS, st.randoms())
@settings(max_examples=40, deadline=None)
def test_order_of_rows_and_monotone_transforms_do_not_matter(rows, random):
    t, s = (np.array(c) for c in zip(*rows, strict=True))
    before = xauc(t, s)
    random.shuffle(rows)
    t, s = (np.array(c) for c in zip(*rows, strict=True))
    np.testing.assert_array_equal(xauc(np.exp(t), s**3), before)
    np.testing.assert_allclose(xauc(t, -s), 1 - before, atol=1e-12)


def test_binary_labels_make_it_auc():
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 900), np.round(rng.normal(size=900), 1)
    from reelrank.evaluation.classification import auc

    assert xauc(y, s) == pytest.approx(auc(y, s), abs=1e-12)


def test_gxauc_weighs_by_rows_and_counts_what_is_left_out():
    # user 1: 0.8 over 5 pairs (Appendix A); user 2: right; user 3: one watch time only
    t, s = [10, 3, 3, 7, 1, 2, 5, 5], [0.9, 0.4, 0.8, 0.5, 0.1, 0.2, 0.3, 0.4]
    users = [1, 1, 1, 1, 2, 2, 3, 3]
    found = gxauc(t, s, users)
    assert found.value == pytest.approx((4 * 0.8 + 2 * 1) / 6)
    assert found.groups_excluded == pytest.approx(1 / 3) and found.rows_excluded == 0.25
    assert gxauc(t, s, users, "uniform").value == pytest.approx(0.9)
    with pytest.raises(ValueError, match="no weighting 'positives'"):
        gxauc(t, s, users, "positives")


@pytest.fixture
def large():
    rng = np.random.default_rng(1)
    t = rng.lognormal(size=4000)
    return t, t + rng.normal(size=4000) * 2, np.repeat([0, 1], [500, 3500])


def test_pairs_are_drawn_only_in_large_groups(large):
    t, s, users = large
    drawn, all_pairs = group_xauc(t, s, users), group_xauc(t, s, users, max_pairs=None)
    assert drawn.value[0] == all_pairs.value[0] == pytest.approx(xauc(t[:500], s[:500]))
    assert all_pairs.value[1] == xauc(t[500:], s[500:])
    error = drawn.value[1] - all_pairs.value[1]
    assert 0 < abs(error) < 4 * np.sqrt(0.25 / 2000)


def test_draws_are_unbiased(large):
    t, s, users = large
    values = [group_xauc(t, s, users, max_pairs=50, seed=k).value[1] for k in range(300)]
    p = xauc(t[500:], s[500:])
    assert abs(np.mean(values) - p) < 4 * np.sqrt(p * (1 - p) / 50 / 300)
    assert np.std(values) == pytest.approx(np.sqrt(p * (1 - p) / 50), rel=0.2)


def test_draws_depend_on_the_seed_and_not_on_row_order(large):
    t, s, users = large
    order = np.random.default_rng(2).permutation(t.size)
    again = group_xauc(t[order], s[order], users[order])
    np.testing.assert_array_equal(again.value, group_xauc(t, s, users).value)
    assert group_xauc(t, s, users, seed=1).value[1] != again.value[1]


def test_a_draw_without_a_usable_pair_falls_back_to_every_pair():
    t = np.zeros(5000)
    t[17] = 1.0
    assert group_xauc(t, np.arange(5000), np.zeros(5000, int), max_pairs=3).value[0] == 17 / 4999


def test_label_above_the_users_own_train_median():
    label = above_train_median([3, 5, 1, 9], [7, 7, 8, 9], [2, 4, 6, 1, 2], [7, 7, 7, 8, 8])
    np.testing.assert_array_equal(label, [0, 1, 0, np.nan])  # medians 4 and 1.5; user 9 is new
    np.testing.assert_array_equal(above_train_median([3], [7], [], []), [np.nan])


def test_gauc_at_median_counts_users_without_train_rows():
    found = gauc_at_median(
        [3, 5, 1, 9], [0.1, 0.2, 0.5, 0.6], [7, 7, 9, 9], [2, 4, 6, 1], [7, 7, 7, 8]
    )
    assert (found.value, found.n_groups, found.groups_excluded) == (1.0, 1, 0.5)


@given(ROWS)
@settings(max_examples=30, deadline=None)
def test_errors_agree_with_scikit_learn(rows):
    t, s = zip(*rows, strict=True)
    assert mse(t, s) == pytest.approx(mean_squared_error(t, s), abs=1e-9)
    assert rmse(t, s) ** 2 == pytest.approx(mse(t, s))
    assert mae(t, s) == pytest.approx(mean_absolute_error(t, s), abs=1e-9)


def test_no_rows_no_value():
    assert np.isnan([mse([], []), rmse([], []), mae([], []), xauc([], []), xauc([1], [2])]).all()
    assert np.isnan(gxauc([], [], []).value)


@pytest.mark.parametrize(
    ("t", "s", "groups", "message"),
    [
        ([1, np.nan], [1, 2], [0, 0], "label of row 1 is nan"),
        ([1, 2], [np.nan, 2], [0, 0], "score of row 0 is nan"),
        ([1, 2], [1, 2, 3], [0, 0], "one length"),
        ([1, 2], [1, 2], [0], "one length"),
    ],
)
def test_bad_input(t, s, groups, message):
    with pytest.raises(ValueError, match=message):
        group_xauc(t, s, groups)
    with pytest.raises(ValueError, match="max_pairs"):
        group_xauc([1], [1], [0], max_pairs=0)
