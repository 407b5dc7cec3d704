import numpy as np
import pytest

from reelrank.evaluation.duration_bias import DurationDeciles, duration_panel
from reelrank.evaluation.grouped import gauc
from reelrank.evaluation.regression import gxauc


def test_deciles_of_train_rows_have_equal_mass():
    duration = np.random.default_rng(0).permutation(1000) + 1.0
    deciles = DurationDeciles.fit(duration, duration)
    assert np.bincount(deciles.of(duration)).tolist() == [100] * 10
    assert deciles.of([-5, 1e9]).tolist() == [0, 9]
    np.testing.assert_allclose(deciles.mean, np.arange(50.5, 1000, 100))


def test_watch_time_gain_by_hand():
    # short videos are watched for 2, 4, 6, long ones for 10 and 30; deciles in between are empty
    deciles = DurationDeciles.fit([1, 1, 1, 9, 9], [2, 4, 6, 10, 30])
    gain = deciles.watch_time_gain([6, 20, 40], [1, 9, 9])
    np.testing.assert_allclose(gain, [np.sqrt(1.5), 0, 2])


def test_train_gain_has_mean_zero_and_spread_one_in_every_decile():
    rng = np.random.default_rng(1)
    duration = rng.lognormal(size=5000)
    t = duration * rng.random(5000)
    deciles = DurationDeciles.fit(duration, t)
    gain, decile = deciles.watch_time_gain(t, duration), deciles.of(duration)
    for number in range(10):
        assert gain[decile == number].mean() == pytest.approx(0, abs=1e-9)
        assert gain[decile == number].std() == pytest.approx(1)


def test_no_gain_where_train_has_no_rows_or_no_spread():
    deciles = DurationDeciles.fit([1, 1, 1, 9], [2, 4, 6, 10])
    found = deciles.watch_time_gain([3, 3, 3], [1, 5, 9])
    assert np.isnan(found).tolist() == [False, True, True]


@pytest.fixture(scope="module")
def log():
    """Watch time is duration times an interest that the user alone decides."""
    rng = np.random.default_rng(2)
    n = 20_000
    duration = rng.lognormal(3, 1, n)
    interest = rng.random(n)
    users = rng.integers(0, 200, n)
    return duration * interest, duration, interest, users


def test_the_panel_tells_interest_from_length(log):
    t, duration, interest, users = log
    deciles = DurationDeciles.fit(duration, t)
    lists = users * 20 + np.arange(t.size) % 20

    def panel(score):
        return duration_panel(t, score, duration, users, lists, deciles, k=5)

    length, wanted = panel(duration), panel(interest)
    assert length.spearman == pytest.approx(1)
    assert abs(wanted.spearman) < 4 / np.sqrt(t.size)
    # length alone looks fine on watch time, and is worth next to nothing inside a decile or on the gain
    assert gxauc(t, duration, users).value > 0.7
    assert length.gxauc_wtg.value == pytest.approx(0.5, abs=0.02)
    assert (length.by_decile["value"][1:9] < 0.56).all()
    assert (wanted.by_decile["value"] > 0.8).all() and wanted.gxauc_wtg.value > 0.9
    assert wanted.dcg_wtg > length.dcg_wtg + 0.5
    assert wanted.by_decile["n_rows"].to_list() == [2000] * 10 and wanted.wtg_excluded == 0


def test_any_metric_inside_the_deciles(log):
    t, duration, interest, users = log
    deciles = DurationDeciles.fit(duration, t)
    y = t > np.median(t)
    found = duration_panel(
        t, interest, duration, users, users, deciles, 5,
        metric=lambda rows: gauc(y[rows], interest[rows], users[rows]),
    ).by_decile  # fmt: skip
    third = deciles.of(duration) == 7
    expected = gauc(y[third], interest[third], users[third])
    row = found.row(7, named=True)
    assert row["value"] == expected.value and row["rows_excluded"] == expected.rows_excluded
    assert row["shortest"] == duration[third].min() and row["longest"] == duration[third].max()
    # the shortest tenth is never watched for long: no group has both classes
    assert np.isnan(found["value"][0]) and found["groups_excluded"][0] == 1


def test_rows_without_a_gain_are_counted():
    deciles = DurationDeciles.fit([1, 1, 1, 9], [2, 4, 6, 10])
    panel = duration_panel([3, 5, 3, 3], [1, 2, 5, 9], [1, 1, 5, 9], [0] * 4, [0] * 4, deciles, 2)
    assert panel.wtg_excluded == 0.5
    assert panel.gxauc_wtg.value == 1 and panel.gxauc_wtg.n_rows == 2
    # gains ∓1 / sd, the better one first
    sd = np.sqrt(8 / 3)
    assert panel.dcg_wtg == pytest.approx((1 - 1 / np.log2(3)) / sd)


def test_constant_scores_have_no_correlation():
    deciles = DurationDeciles.fit([1, 2], [1, 2])
    panel = duration_panel([1, 2], [0, 0], [1, 2], [0, 0], [0, 0], deciles, 2)
    assert np.isnan(panel.spearman) and panel.by_decile.height == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: DurationDeciles.fit([], []), "need train rows"),
        (lambda d: DurationDeciles.fit([1, 2], [1]), "one length"),
        (lambda d: DurationDeciles.fit([1, np.nan], [1, 2]), "duration of row 1"),
        (lambda d: d.watch_time_gain([1, np.inf], [1, 2]), "watch time of row 1"),
        (lambda d: duration_panel([], [], [], [], [], d, 5), "needs rows"),
        (lambda d: duration_panel([1], [1], [1], [1, 2], [1], d, 5), "one length"),
        (lambda d: duration_panel([1], [np.nan], [1], [1], [1], d, 5), "score of row 0"),
        (lambda d: duration_panel([1], [1], [1], [1], [1], d, 0), "k must"),
    ],
)
def test_bad_input(call, message):
    deciles = DurationDeciles.fit([1, 2], [1, 2])
    with pytest.raises(ValueError, match=message):
        call(deciles)
