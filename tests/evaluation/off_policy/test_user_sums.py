import numpy as np
import pytest

from reelrank.evaluation.uncertainty import Ratio, UserBootstrap


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    users = rng.integers(0, 40, 600)
    return users, rng.normal(size=600), rng.random(600), rng.integers(0, 3, 600)


def test_every_resample_recomputes_the_sum_of_grouped_ratios(rows):
    users, top, bottom, group = rows
    bootstrap = UserBootstrap(users, replicates=70)  # more than one block
    parts = (Ratio(top, bottom), Ratio(bottom, top**2, group))
    both, alone = bootstrap.ratios(users, [parts, parts[:1]])

    def statistic(rows):
        grouped = sum(
            np.mean(group[rows] == g)
            * bottom[rows][group[rows] == g].sum()
            / (top[rows][group[rows] == g] ** 2).sum()
            for g in range(3)
        )
        return top[rows].sum() / bottom[rows].sum() + grouped

    assert both.value == pytest.approx(statistic(np.arange(600)), abs=1e-9)
    for b in (0, 1, 69):
        drawn = np.repeat(np.arange(600), bootstrap.counts[b][users])
        assert both.replicates[b] == pytest.approx(statistic(drawn), abs=1e-9)
    one = bootstrap.ratio(users, top, bottom)
    np.testing.assert_allclose(one.replicates, alone.replicates, atol=1e-13)
    assert one.value == pytest.approx(alone.value, abs=1e-13) and both.n == 600


def test_the_interval_of_a_mean_is_that_of_the_cluster_standard_error():
    rng = np.random.default_rng(5)
    n_users = 400
    users = np.repeat(np.arange(n_users), rng.integers(1, 12, n_users))
    values = rng.normal(size=n_users)[users] + 0.5 * rng.normal(size=users.size)
    residual = np.bincount(users, values - values.mean())
    cluster_se = np.sqrt((residual**2).sum()) / users.size
    estimate = UserBootstrap(users, 4000, seed=1).mean(users, values)
    # 4,000 resamples: the standard error of a resampled standard error is 1.1 %
    assert estimate.replicates.std() == pytest.approx(cluster_se, rel=0.06)
    assert (estimate.ci_high - estimate.ci_low) / 2 == pytest.approx(1.96 * cluster_se, rel=0.08)
    plain_se = values.std() / np.sqrt(users.size)
    assert cluster_se > 2 * plain_se  # rows taken as independent would be far too sure


def test_the_thinnest_part_decides_whether_there_is_an_interval(rows):
    users, top, bottom, _ = rows
    of_one_user = np.where(users == 7, bottom, 0.0)
    thick, thin = UserBootstrap(users, 50).ratios(
        users, [(Ratio(top, bottom),), (Ratio(top, bottom), Ratio(top * of_one_user, of_one_user))]
    )
    assert thick.reliable and not thin.reliable
    assert np.isnan(thin.ci_low) and np.isfinite(thin.value)


def test_bad_input(rows):
    users, top, bottom, group = rows
    bootstrap = UserBootstrap(users, 5)
    assert bootstrap.ratios(users, []) == []
    with pytest.raises(ValueError, match="one length"):
        bootstrap.ratios(users, [(Ratio(top, bottom, group[:5]),)])
    with pytest.raises(ValueError, match="not finite"):
        bootstrap.ratios(users, [(Ratio(top, np.full(600, np.inf)),)])
