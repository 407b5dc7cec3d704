import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.evaluation.off_policy import estimators as e
from reelrank.evaluation.off_policy.diagnostics import Diagnostics

# METHODS, Appendix A
ACTION = np.array([0, 1, 2, 0, 1, 2])
REWARD = np.array([1.0, 0, 1, 0, 1, 1])
BEHAVIOUR, POLICY, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.5, 0.9])  # fmt: skip
WEIGHT = (POLICY / BEHAVIOUR)[ACTION]
Q_POLICY, Q_LOGGED = np.full(6, POLICY @ Q), Q[ACTION]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (e.ipw(REWARD, WEIGHT), 1.066667),
        (e.ipw(REWARD, WEIGHT, 1.5), 0.733333),
        (e.snipw(REWARD, WEIGHT), 0.820513),
        (e.dm(WEIGHT, Q_POLICY), 0.70),
        (e.dr(REWARD, WEIGHT, Q_POLICY, Q_LOGGED), 0.783333),
        (e.sndr(REWARD, WEIGHT, Q_POLICY, Q_LOGGED), 0.764103),
        (e.ncis(REWARD, WEIGHT, 1.5), 0.758621),
        (e.ncis(REWARD, WEIGHT, 1.0), 0.708333),
        # by hand: weights .4/1, 1/1, 2.5/1.75; the first action's is .4/(.5 + .2)
        (e.sg_ipw(REWARD, WEIGHT, 0.5), (0.4 / 0.7 + 2 * 2.5 / 1.75 + 1) / 6),
        # actions 2 drop out; residuals .5, −.5, ., −.5, .5, .
        (e.switch_dr(REWARD, WEIGHT, Q_POLICY, Q_LOGGED, 1.5), 0.70),
        # groups 0, 1 of three rows each: (.4 + 2.5)/3.9 and 3.5/3.9
        (e.piece_ncis(REWARD, WEIGHT, np.array([0, 0, 0, 1, 1, 1]), math.inf), (2.9 + 3.5) / 7.8),
    ],
)
def test_appendix_a_and_hand_worked_numbers(terms, expected):
    assert terms.value() == pytest.approx(expected, abs=5e-7)


@pytest.mark.parametrize(
    ("cap", "ess", "clipped"), [(math.inf, 4.105263, 0), (1.5, 4.932551, 1 / 3), (1, 5.333333, 1 / 3)]
)  # fmt: skip
def test_appendix_a_diagnostics(cap, ess, clipped):
    d = Diagnostics.of(WEIGHT, e.ncis(REWARD, WEIGHT, cap).weight, capped=True)
    assert d.ess == pytest.approx(ess, abs=5e-7)
    assert d.mean_weight == pytest.approx(1.3)
    assert d.clip_fraction == pytest.approx(clipped)
    assert d.n == 6 and d.max_share == pytest.approx(min(2.5, cap) / np.minimum(WEIGHT, cap).sum())


def obp_rows():
    """Sixty deterministic rows; the numbers below are what obp 0.4.1 makes of them."""
    i = np.arange(60)
    action = (7 * i + 3) % 4
    propensity = 0.05 + 0.9 * ((13 * i + 5) % 17) / 17
    reward = ((5 * i + 2) % 11) / 10
    raw = 1 + ((3 * i[:, None] + 11 * np.arange(4)) % 7)
    policy = raw / raw.sum(axis=1, keepdims=True)
    q = ((i[:, None] * 5 + np.arange(4) * 3) % 9) / 8
    greedy = (raw.argmax(axis=1) == action).astype(float)
    return reward, policy[i, action] / propensity, (policy * q).sum(axis=1), q[i, action], greedy


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rm", 0.53125),
        ("ipw", 0.4481705606518322),
        ("snipw", 0.48369847452669),
        ("dm", 0.5017708333333334),
        ("dr", 0.5303899066645418),
        ("sndr", 0.5326586321493452),
        ("switch-dr", 0.4812596086289488),
        ("dr-os", 0.4848030137862766),
    ],
)
def test_agrees_with_obp(name, expected):
    reward, weight, q_policy, q_logged, greedy = obp_rows()
    terms = {
        "rm": e.rm(reward, greedy),
        "ipw": e.ipw(reward, weight),
        "snipw": e.snipw(reward, weight),
        "dm": e.dm(weight, q_policy),
        "dr": e.dr(reward, weight, q_policy, q_logged),
        "sndr": e.sndr(reward, weight, q_policy, q_logged),
        "switch-dr": e.switch_dr(reward, weight, q_policy, q_logged, 1.5),
        "dr-os": e.dr_os(reward, weight, q_policy, q_logged, 2.0),
    }
    assert terms[name].value() == pytest.approx(expected, abs=1e-12)


@st.composite
def logs(draw):
    n = draw(st.integers(1, 30))
    reward, q_policy, q_logged = (
        np.array(draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n))) for _ in range(3)
    )
    weight = np.array(draw(st.lists(st.floats(0.01, 50), min_size=n, max_size=n)))
    return reward, weight, q_policy, q_logged


def same(a, b):
    assert a.value() == pytest.approx(b.value(), abs=1e-9, rel=1e-9)


@settings(deadline=None)  # the first example compiles a kernel
@given(logs())
def test_limits_of_shrinkage_and_caps(log):
    reward, weight, q_policy, _ = log
    zero = np.zeros_like(reward)
    dr, dm = e.dr(*log), e.dm(weight, q_policy)
    same(e.dr(reward, weight, zero, zero), e.ipw(reward, weight))
    same(e.sndr(reward, weight, zero, zero), e.snipw(reward, weight))
    same(e.dr(*log, lambda_=math.inf), dr)
    for shrinking in (e.switch_dr, e.dr_os):
        same(shrinking(*log, 0.0), dm)
        same(shrinking(*log, math.inf), dr)
    same(e.sg_dr(*log, 0.0), dr)
    same(e.sg_ipw(reward, weight, 0.0), e.ipw(reward, weight))
    same(e.ncis(reward, weight, math.inf), e.snipw(reward, weight))
    one_group = np.zeros(reward.size, np.int64)
    same(e.piece_ncis(reward, weight, one_group), e.ncis(reward, weight))
    # steps of sessions of one row each
    alone = e.trajectory_weight(weight, np.arange(reward.size))
    np.testing.assert_array_equal(alone, weight)


@given(logs(), st.floats(0.1, 100))
def test_bounds(log, bound):
    reward, weight, _, _ = log
    low, high = reward.min() - 1e-9, reward.max() + 1e-9
    group = e.quantile_groups(weight, 3)
    for terms in (
        e.snipw(reward, weight), e.ncis(reward, weight, bound), e.piece_ncis(reward, weight, group, bound),
    ):  # fmt: skip
        assert low <= terms.value() <= high
    assert e.shrunk_weight(weight, bound).max() <= math.sqrt(bound) / 2 * (1 + 1e-12)
    assert e.sub_gaussian_weight(weight, 0.25).max() <= 4
    assert e.ncis(reward, weight, bound).weight.max() <= bound
    d = Diagnostics.of(weight, weight, capped=True)
    assert 1 - 1e-9 <= d.ess <= reward.size * (1 + 1e-9) and 0 < d.max_share <= 1


@given(logs(), st.randoms(use_true_random=False))
def test_row_order_does_not_matter(log, random):
    order = list(range(log[0].size))
    random.shuffle(order)
    shuffled = [column[order] for column in log]
    group = e.quantile_groups(log[1], 3)
    same(e.ncis(*log[:2], 3.0), e.ncis(*shuffled[:2], 3.0))
    same(e.sndr(*log), e.sndr(*shuffled))
    same(e.dr_os(*log, 2.0), e.dr_os(*shuffled, 2.0))
    same(e.piece_ncis(*log[:2], group), e.piece_ncis(*shuffled[:2], group[order]))


def test_the_logging_policy_earns_the_on_policy_mean():
    weight = np.ones_like(REWARD)
    for terms in (
        e.rm(REWARD, weight), e.ipw(REWARD, weight), e.ipw(REWARD, weight, 1.0), e.snipw(REWARD, weight),
        e.ncis(REWARD, weight, 1.0), e.ncis(REWARD, weight), e.sg_ipw(REWARD, weight, 0.3),
    ):  # fmt: skip
        assert terms.value() == pytest.approx(REWARD.mean(), abs=1e-12)


def test_a_trajectory_multiplies_the_steps_of_its_own_session():
    weight, session = np.array([2.0, 3, 0.5, 4, 0, 5]), np.array([0, 1, 0, 1, 0, 0])
    np.testing.assert_allclose(e.trajectory_weight(weight, session), [2, 3, 1, 12, 0, 0])
    huge = e.trajectory_weight(np.array([1e200, 1e200, 0.0]), np.zeros(3, np.int64))
    assert np.isfinite(huge).all() and huge[2] == 0


def test_marginal_weights_by_hand():
    # the first row's category holds columns 0 and 2, the second's column 1 alone
    policy, behaviour = np.array([[0.2, 0.3, 0.5]] * 2), np.array([[0.5, 0.4, 0.1]] * 2)
    category = np.array([[7, 8, 7]] * 2)
    weight = e.marginal_weight(policy, behaviour, category, np.array([0, 1]))
    np.testing.assert_allclose(weight, [0.7 / 0.6, 0.3 / 0.4])
    # categories of one action: the plain weight
    plain = e.marginal_weight(policy, behaviour, np.array([[0, 1, 2]] * 2), np.array([0, 1]))
    np.testing.assert_allclose(plain, [0.4, 0.75])


def test_gaussian_index_weights_of_appendix_a():
    index, policy, behaviour = np.array([40.0, 90.0]), np.full(2, 60.0), np.full(2, 20.0)
    weight = e.gaussian_index_weight(index, policy, behaviour)
    np.testing.assert_allclose(weight, [1.0, 24.5325], rtol=1e-5)
    assert e.ncis(np.ones(2), weight).weight[1] == 10


def test_quantile_groups_are_of_equal_size_and_keep_ties_together():
    np.testing.assert_array_equal(np.bincount(e.quantile_groups(np.arange(100.0), 10)), 10)
    groups = e.quantile_groups(np.array([1.0, 1, 1, 1, 2, 3]), 3)
    assert len(set(groups[:4])) == 1 and groups.max() + 1 == len(set(groups))


def test_without_weight_there_is_no_value():
    nothing = np.zeros(3)
    assert math.isnan(e.snipw(np.ones(3), nothing).value())
    # one of two groups has no weight: its rows cannot be spoken for
    assert math.isnan(e.piece_ncis(np.ones(3), np.array([1.0, 0, 0]), np.array([0, 1, 1])).value())
    d = Diagnostics.of(nothing, nothing, capped=True)
    assert d.ess == 0 and math.isnan(d.max_share) and len(d.reasons()) == 4


@pytest.mark.parametrize(
    ("diagnostics", "reason"),
    [
        (Diagnostics(100_000, 1.0, 999.0, 0, 0.01), "ESS/n 0.01 < 0.01"),
        (Diagnostics(1_000, 1.0, 199.0, 0, 0.01), "ESS 199 < 200"),
        (Diagnostics(1_000, 1.0, 200.0, 0, 0.06), "largest share 0.06 > 0.05"),
        (Diagnostics(1_000, 0.79, 200.0, 0, 0.05), "mean weight 0.79 is not within 1 ± 0.2"),
        (Diagnostics(1_000, math.inf, 200.0, 0, 0.05), "mean weight inf is not within 1 ± 0.2"),
    ],
)
def test_each_rule_of_reliability(diagnostics, reason):
    assert diagnostics.reasons() == (reason,)


def test_at_the_limits_an_estimate_is_still_reliable():
    assert Diagnostics(20_000, 1.2, 200.0, 1.0, 0.05).reasons() == ()
