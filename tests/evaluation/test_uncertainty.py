import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from reelrank.evaluation.uncertainty import UserBootstrap, holm, macro, paired


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    users = rng.integers(0, 40, 600)
    y = rng.integers(0, 2, 600)
    return users, y, np.round(0.3 * y + rng.random(600), 2)


def with_counts(users, counts):
    bootstrap = UserBootstrap(users, replicates=len(counts))
    bootstrap.counts = np.array(counts, dtype=np.uint16)
    return bootstrap


def test_weights_of_one_reproduce_the_point_value(rows):
    users, y, p = rows
    bootstrap = with_counts(users, np.ones((1, 40)))
    for estimate, expected in (
        (bootstrap.average_precision(users, y, p), average_precision_score(y, p)),
        (bootstrap.auc(users, y, p), roc_auc_score(y, p)),
        (bootstrap.f1(users, y, p, 0.6), f1_score(y, p >= 0.6)),
        (bootstrap.mean(users, p), p.mean()),
    ):
        assert estimate.value == pytest.approx(expected, abs=1e-12)
        assert estimate.replicates[0] == pytest.approx(expected, abs=1e-12)


def test_a_resample_equals_repeating_its_users(rows):
    users, y, p = rows
    counts = np.random.default_rng(0).integers(0, 4, (3, 40))
    bootstrap = with_counts(users, counts)
    ap = bootstrap.average_precision(users, y, p)
    auc = bootstrap.auc(users, y, p)
    f1 = bootstrap.f1(users, y, p, 0.6)
    for b, count in enumerate(counts):
        repeat = np.repeat(np.arange(users.size), count[users])
        expected = average_precision_score(y[repeat], p[repeat])
        assert ap.replicates[b] == pytest.approx(expected, abs=1e-9)
        expected = roc_auc_score(y[repeat], p[repeat])
        assert auc.replicates[b] == pytest.approx(expected, abs=1e-9)
        expected = f1_score(y[repeat], p[repeat] >= 0.6)
        assert f1.replicates[b] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("rare", [0, 1])
def test_an_auc_of_few_rows_of_a_class_is_not_reliable(rare):
    y = np.full(100, 1 - rare)
    y[:9] = rare
    users, p = np.arange(100) % 20, np.linspace(0, 1, 100)
    bootstrap = UserBootstrap(users, 50)
    assert not bootstrap.auc(users, y, p).reliable
    y[9] = rare
    assert bootstrap.auc(users, y, p).reliable
    assert np.isnan(bootstrap.auc(users, np.ones(100), p).value)


def test_every_resample_draws_as_many_users():
    bootstrap = UserBootstrap(np.arange(30), 50, seed=1)
    assert (bootstrap.counts.sum(axis=1) == 30).all()
    again = UserBootstrap(np.arange(30)[::-1], 50, seed=1)
    np.testing.assert_array_equal(bootstrap.counts, again.counts)


def test_the_interval_covers_a_known_mean_at_its_nominal_rate():
    rng = np.random.default_rng(11)
    users = np.repeat(np.arange(150), 4)
    repetitions, covered = 300, 0
    for seed in range(repetitions):
        values = rng.normal(size=150)[users] + rng.normal(size=users.size)  # true mean 0, clustered
        estimate = UserBootstrap(users, 300, seed).mean(users, values)
        covered += estimate.ci_low <= 0 <= estimate.ci_high
    low, high = binom.interval(0.99, repetitions, 0.95)
    assert low <= covered <= high


def test_identical_models_differ_by_exactly_zero(rows):
    users, y, p = rows
    bootstrap = UserBootstrap(users, 200)
    a, b = (bootstrap.average_precision(users, y, p) for _ in range(2))
    d = paired(a, b)
    assert (d.value, d.ci_low, d.ci_high, d.p_value) == (0, 0, 0, 1)


def test_p_agrees_with_the_interval_and_is_never_zero(rows):
    users, _, p = rows
    bootstrap = UserBootstrap(users, 199)
    d = paired(bootstrap.mean(users, p + 1), bootstrap.mean(users, p))
    assert d.ci_low > 0 and d.p_value == 2 / 200


def test_undefined_lists_are_left_out_and_n_says_so():
    estimate = UserBootstrap([0, 1, 2]).mean([0, 1, 2], [1.0, np.nan, 0.0])
    assert estimate.n == 2 and estimate.value == 0.5


def test_one_user_has_no_interval():
    estimate = UserBootstrap([0, 1]).mean([1, 1], [0.2, 0.4])
    assert estimate.value == pytest.approx(0.3)
    assert np.isnan([estimate.ci_low, estimate.ci_high]).all() and not estimate.reliable
    assert np.isnan(paired(estimate, estimate).p_value)


def test_no_rows_is_not_a_number():
    estimate = UserBootstrap([0, 1]).mean([], [])
    assert np.isnan(estimate.value) and estimate.n == 0 and not estimate.reliable
    assert np.isnan(UserBootstrap([0, 1]).average_precision([], [], []).value)


@pytest.mark.parametrize(
    ("positives", "reliable"), [(0, False), (9, False), (10, True), (40, False)]
)
def test_rare_or_single_class_is_not_reliable(positives, reliable):
    users = np.arange(40)
    y = (users < positives).astype(int)
    p = np.linspace(1, 0, 40)
    bootstrap = UserBootstrap(users, 200)
    assert bootstrap.f1(users, y, p, 0.5).reliable is reliable
    assert bootstrap.average_precision(users, y, p).reliable is reliable


def test_macro_is_the_mean_in_every_resample(rows):
    users, y, p = rows
    bootstrap = UserBootstrap(users, 100)
    a, b = bootstrap.f1(users, y, p, 0.5), bootstrap.f1(users[:300], y[:300], p[:300], 0.5)
    mean = macro([a, b])
    assert mean.value == pytest.approx((a.value + b.value) / 2) and mean.n == 300
    np.testing.assert_allclose(mean.replicates, (a.replicates + b.replicates) / 2)


def test_holm_by_hand():
    # sorted .01 .03 .04 times 3 2 1, made monotone
    np.testing.assert_allclose(holm([0.04, 0.01, np.nan, 0.03]), [0.06, 0.03, np.nan, 0.06])


def test_bad_input(rows):
    users, _, p = rows
    bootstrap = UserBootstrap(users, 10)
    with pytest.raises(ValueError, match="user 99 was not drawn"):
        bootstrap.mean([99], [1.0])
    with pytest.raises(ValueError, match="one length"):
        bootstrap.ratio(users, p, p[:3])
    with pytest.raises(ValueError, match="finite"):
        bootstrap.ratio(users[:1], [np.nan], [1.0])
    with pytest.raises(ValueError, match="not comparable"):
        paired(bootstrap.mean(users, p), bootstrap.mean(users[:9], p[:9]))
    with pytest.raises(ValueError, match="at least one"):
        UserBootstrap([])
    with pytest.raises(ValueError, match="at least one"):
        macro([])


def test_correlation_is_pearsons_of_the_repeated_rows():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(20), 5)
    a = rng.normal(size=100)
    b = a + rng.normal(size=100)
    bootstrap = UserBootstrap(users, 60, 1)
    got = bootstrap.correlation(users, a + 1e4, b)
    assert got.value == pytest.approx(np.corrcoef(a, b)[0, 1])
    for drawn, counts in zip(got.replicates[:5], bootstrap.counts[:5], strict=True):
        rows = np.repeat(np.arange(100), counts[users])
        assert drawn == pytest.approx(np.corrcoef(a[rows], b[rows])[0, 1])
    assert got.ci_low < got.value < got.ci_high
    constant = bootstrap.correlation(users, np.full(100, 0.3), b)
    assert np.isnan(constant.value) and not constant.reliable
    none = bootstrap.correlation(users[:0], a[:0], b[:0])
    assert np.isnan(none.value) and none.n == 0
    with pytest.raises(ValueError, match="not finite"):
        bootstrap.correlation(users, np.full(100, np.nan), b)
