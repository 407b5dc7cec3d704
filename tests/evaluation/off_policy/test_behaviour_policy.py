import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from reelrank.evaluation.off_policy import (
    BehaviourOptions,
    BehaviourRows,
    fit_behaviour_policy,
    softened,
)
from reelrank.evaluation.off_policy.behaviour import _fit_temperature
from reelrank.evaluation.off_policy.folds import user_folds

LOGISTIC = BehaviourOptions(kind="logistic")
SMALL_MLP = BehaviourOptions(hidden=(32, 16), lr=1e-2, epochs=5, batch_size=128)


def choices(seed, n=2_000, candidates=False):
    """Rows of a planted softmax policy over 5 actions, and its probabilities."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 200, n)
    context = rng.normal(size=(n, 3)) * [1, 10, 0] + [0, 5, 2]  # the last never varies
    weight = np.array([[1.0, 0, 0], [-1, 0.1, 0], [0, -0.1, 0], [0.5, 0.05, 0], [0, 0, 0]])
    logits = context @ weight.T
    listed = None
    if candidates:
        listed = rng.permuted(np.tile(np.arange(5), (n, 1)), axis=1)[:, :4]
        listed[: n // 2, 3] = -1
        logits = np.where(listed >= 0, np.take_along_axis(logits, listed.clip(min=0), 1), -np.inf)
    truth = softened(logits, 1.0)
    place = (truth.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    action = place if listed is None else np.take_along_axis(listed, place[:, None], 1)[:, 0]
    return BehaviourRows(user, context, action, listed), truth


@pytest.mark.parametrize("options", [LOGISTIC, SMALL_MLP], ids=["logistic", "mlp"])
@pytest.mark.parametrize("candidates", [False, True])
def test_the_planted_policy_is_recovered(options, candidates):
    (train, truth), (val, _) = choices(0, candidates=candidates), choices(1, 1_000, candidates)
    fitted = fit_behaviour_policy(train, val, 5, options)
    found = fitted.probabilities(train)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.abs(found - truth).mean() < 0.04
    if candidates:
        assert (found[train.candidates < 0] == 0).all()
    of_train, of_val = fitted.report.rows(named=True)
    place = train.action if not candidates else (train.candidates == train.action[:, None]).argmax(1)  # fmt: skip
    best = -np.log(truth[np.arange(len(place)), place]).mean()
    for part in (of_train, of_val):
        assert best - 0.06 < part["log_loss"] < best + 0.06 < part["log_loss_uniform"]
        assert part["ece"] < 0.08 and part["floored"] == 0
    assert of_train["top1"] == pytest.approx((found.argmax(axis=1) == place).mean())
    own = fitted.propensity(train)
    np.testing.assert_allclose(own, found[np.arange(len(place)), place])
    assert 0.7 < fitted.temperature < 1.5


def test_the_logistic_model_is_the_convex_optimum():
    train, _ = choices(2, 800)
    fitted = fit_behaviour_policy(train, train, 5, LOGISTIC)
    seen = user_folds(train.user) != 2
    mean, sd = train.context[seen].mean(axis=0), train.context[seen].std(axis=0)
    scaled = (train.context - mean) / np.where(sd > 0, sd, 1)
    peer = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(scaled[seen], train.action[seen])
    import torch

    with torch.no_grad():
        logits = fitted.models[2](torch.from_numpy(train.context.astype(np.float32))).numpy()
    np.testing.assert_allclose(softened(logits, 1.0), peer.predict_proba(scaled), atol=2e-3)


def test_no_model_judges_a_user_that_it_has_seen():
    # users choose by a coin that is theirs: who knows the user knows the choice
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(60), 20)
    coin = rng.integers(0, 2, 60)[user]
    context = np.eye(60)[user]
    rows = BehaviourRows(user, context, coin)
    fitted = fit_behaviour_policy(rows, rows, 2, BehaviourOptions(kind="logistic", l2=0.01))
    assert fitted.report["log_loss"][0] > 0.65  # log 2 = 0.693
    other = fitted.models[(user_folds(user)[0] + 1) % 5]
    import torch

    with torch.no_grad():
        logits = other(torch.from_numpy(context[:1].astype(np.float32)))[0]
    assert int(logits.argmax()) == coin[0] and float((logits[0] - logits[1]).abs()) > 3


def test_folds_follow_from_the_user_alone():
    user = np.arange(1000)
    fold = user_folds(user, seed=4)
    np.testing.assert_array_equal(user_folds(user[::-7], seed=4), fold[::-7])
    assert np.bincount(fold, minlength=5).min() > 150
    assert (user_folds(user, seed=5) != fold).any()


def test_temperature_undoes_overconfidence():
    train, truth = choices(3)
    logits = 4 * np.log(truth)
    assert _fit_temperature(logits, train.action) == pytest.approx(4, rel=0.1)


def test_propensities_have_a_floor_and_equal_seeds_agree():
    train, _ = choices(4, 600)
    options = SMALL_MLP.model_copy(update={"floor": 0.15, "epochs": 1})
    a, b = (fit_behaviour_policy(train, train, 5, options) for _ in range(2))
    np.testing.assert_array_equal(a.propensity(train), b.propensity(train))
    assert a.propensity(train).min() == 0.15
    floored = (a.probabilities(train)[np.arange(600), train.action] < 0.15).mean()
    assert a.report["floored"][0] == pytest.approx(floored) and floored > 0


def test_bad_rows():
    train, _ = choices(5, 50)
    none = BehaviourRows(train.user[:0], train.context[:0], train.action[:0])
    with pytest.raises(ValueError, match="0 val rows"):
        fit_behaviour_policy(train, none, 5, LOGISTIC)
    with pytest.raises(ValueError, match="all train users fall into one fold"):
        one = BehaviourRows(np.zeros(50), train.context, train.action)
        fit_behaviour_policy(one, train, 5, LOGISTIC)
    with pytest.raises(ValueError, match=r"row \d+: action 4 is not among .* not in 0 … 3"):
        fit_behaviour_policy(train, train, 4, LOGISTIC)
    lists = np.tile([0, 1, 2], (50, 1))
    with pytest.raises(ValueError, match="is not among its candidates"):
        fit_behaviour_policy(BehaviourRows(train.user, train.context, np.full(50, 3), lists), train, 5, LOGISTIC)  # fmt: skip
    context = train.context.copy()
    context[17, 1] = np.nan
    with pytest.raises(ValueError, match="row 17: its context is not finite"):
        fit_behaviour_policy(BehaviourRows(train.user, context, train.action), train, 5, LOGISTIC)
