"""Off-policy sums against the library's own estimates, and agreement of estimators by hand."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import kendalltau
from support.feeds import planted_feed

from reelrank.evaluation.off_policy import (
    OffPolicyOptions,
    estimate_policy_value,
    mean_entropy,
    softened,
)
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.models.feed import RESPONSES, WATCH_TIME
from reelrank.models.feedback_options import SimulatorOptions, UserFold
from reelrank.models.feedback_simulator import FeedbackSimulator
from reelrank.pipelines.ab_test.agreement import COVERED, ERROR, SIGN, TAU, agreement_rows, kendall
from reelrank.pipelines.ab_test.columns import BANDIT
from reelrank.pipelines.ab_test.effects import EFFECT, _treated, estimate_of
from reelrank.pipelines.ab_test.environments import fit_fold, simulator_place
from reelrank.pipelines.ab_test.evaluate import off_policy_effects
from reelrank.pipelines.ab_test.off_policy import off_policy_sums
from reelrank.pipelines.ab_test.run_options import (
    DesignOptions,
    EvaluationOptions,
    SimulatorPopulation,
)
from reelrank.training.feedback_simulator import fold_of_users
from reelrank.training.options import TrainOptions

OPTIONS = EvaluationOptions(cap=3.0, replicates=50)
C = 4


@pytest.fixture(scope="module")
def feed():
    """A feed whose decisions have four candidates, the shown one at a place of its own."""
    made = planted_feed(n_users=40, rows_of_user=30)
    d, rng = made.decisions, np.random.default_rng(3)
    n = len(d.user)
    place = torch.from_numpy(rng.integers(0, C, n))
    candidates = (d.candidates + 1 + torch.arange(C)) % 12
    candidates = candidates.scatter(1, place[:, None], d.candidates)
    shown = torch.nn.functional.one_hot(place, C).bool()
    response = torch.full((n, C, len(RESPONSES)), torch.nan)
    response[shown] = d.response[:, 0]
    decisions = replace(d, candidates=candidates, shown=shown, response=response)
    return replace(made, decisions=decisions)


@pytest.fixture(scope="module")
def judged(feed):
    """Positions of val and test decisions, π̂_b and the scores of two arms."""
    rng = np.random.default_rng(0)
    index = np.flatnonzero(feed.decisions.split.numpy() >= 1)
    behaviour = softened(rng.normal(size=(len(index), C)), 1.0)
    scores = {arm: rng.normal(0, size, (len(index), C)) for arm, size in (("new", 3.0), ("ltr", 0.5))}  # fmt: skip
    decision = pl.Series("decision", index.astype(np.uint32))
    frames = {
        arm: pl.DataFrame({"decision": decision, "scores": pl.Series(s, dtype=pl.Array(pl.Float32, C))})
        for arm, s in scores.items()
    }  # fmt: skip
    propensities = pl.DataFrame({"decision": decision, "probabilities": pl.Series(behaviour, dtype=pl.Array(pl.Float64, C))})  # fmt: skip
    return index, behaviour, scores, frames, propensities


def test_sums_make_the_librarys_estimates(feed, judged):
    index, behaviour, scores, frames, propensities = judged
    sums, temperatures = off_policy_sums(frames, propensities, feed, OPTIONS)
    d = feed.decisions
    split, is_rand = d.split.numpy()[index], d.is_rand.numpy()[index]
    test, val = (split == 2) & ~is_rand, (split == 1) & ~is_rand
    for arm in ("new", "ltr"):
        temperature = temperatures.filter(arm=arm)["temperature"][0]
        # as random as the policy that logged, on val alone
        assert mean_entropy(softened(scores[arm][val], temperature)) == pytest.approx(mean_entropy(behaviour[val]), abs=1e-5)  # fmt: skip
        policy = softened(scores[arm][test].astype(np.float32), temperature)
        rows = index[test]
        place = d.shown[rows].int().argmax(1).numpy()
        log = pl.DataFrame(
            {
                "user_id": d.user[rows].numpy(),
                "action": d.candidates[rows].numpy()[np.arange(len(rows)), place],
                "propensity": behaviour[test][np.arange(len(rows)), place],
                "reward": d.response[rows].numpy()[np.arange(len(rows)), place, WATCH_TIME],
                "candidates": pl.Series(d.candidates[rows].tolist()),
            }
        )
        names, settings = ("ncis", "dr", "dm"), OffPolicyOptions(cap=3.0)
        expected = estimate_policy_value(log, policy, names, options=settings)
        for name in names:
            own = sums.filter(arm=arm, estimator=name, response="watch_time")
            value = own["numerator"].sum() / own["denominator"].sum()
            assert value == pytest.approx(expected[name].estimate.value, rel=1e-6), name


def test_a_capped_weight_by_hand(feed, judged):
    index, behaviour, scores, frames, propensities = judged
    sums, temperatures = off_policy_sums(frames, propensities, feed, OPTIONS)
    d, user = feed.decisions, 7
    temperature = temperatures.filter(arm="new")["temperature"][0]
    top = bottom = 0.0
    for row, i in enumerate(index):
        if d.user[i] == user and d.split[i] == 2 and not d.is_rand[i]:
            place = int(d.shown[i].int().argmax())
            p = np.exp(scores["new"][row] / temperature)
            weight = min(p[place] / p.sum() / behaviour[row, place], 3.0)
            top += weight * float(d.response[i, place, WATCH_TIME])
            bottom += weight
    own = sums.filter(arm="new", estimator="ncis", response="watch_time", user_id=user)
    assert own["numerator"].item() == pytest.approx(top, rel=1e-4)
    assert own["denominator"].item() == pytest.approx(bottom, rel=1e-4)


def test_the_control_against_itself_is_no_effect(feed, judged):
    *_, frames, propensities = judged
    twins = {"new": frames["ltr"], "ltr": frames["ltr"]}
    sums, _ = off_policy_sums(twins, propensities, feed, OPTIONS)
    rows, effects = off_policy_effects(sums, "ltr", UserBootstrap(np.arange(40), 50, 0))
    for key, by_arm in effects.items():
        assert by_arm["new"].value == 0 and not np.nan_to_num(by_arm["new"].replicates).any(), key
    assert {r.variant for own in rows.values() for r in own if r.metric == EFFECT} == {"new"}


def test_what_is_true_in_the_logged_contexts_by_hand(feed, judged):
    index, _, scores, frames, propensities = judged
    test = (feed.decisions.split.numpy()[index] == 2) & ~feed.decisions.is_rand.numpy()[index]
    n = int(test.sum())
    expected = np.zeros((n, C, len(RESPONSES)), np.float32)
    expected[..., RESPONSES.index("watch_time")] = 2.0
    expected[:, 0, RESPONSES.index("follow")] = 1.0
    sums, temperatures = off_policy_sums(frames, propensities, feed, OPTIONS, expected)
    own = sums.filter(arm="new", estimator=BANDIT)
    value = {r: p["numerator"].sum() / p["denominator"].sum() for (r,), p in own.group_by("response")}  # fmt: skip
    # whatever is shown is watched for 2 s; only the first candidate is followed
    assert value["watch_time"] == pytest.approx(2.0) and value["comment"] == 0
    temperature = temperatures.filter(arm="new")["temperature"][0]
    first = softened(scores["new"][test].astype(np.float32), temperature)[:, 0]
    assert value["follow"] == pytest.approx(first.mean(), rel=1e-5)
    assert BANDIT not in off_policy_sums(frames, propensities, feed, OPTIONS)[0]["estimator"]


def test_predictions_of_another_feed_are_refused(feed, judged):
    *_, frames, propensities = judged
    with pytest.raises(ValueError, match="lacks decisions of the feed"):
        off_policy_sums({"ltr": frames["ltr"].tail(30)}, propensities, feed, OPTIONS)


def test_kendall_is_scipys_without_ties():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 10, 6))
    expected = [kendalltau(x[:, b], y[:, b]).statistic for b in range(6)]
    assert kendall(x, y) == pytest.approx(expected)
    assert kendall(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 3)


def effect(value, half=1.0):
    return estimate_of(value, np.array([value - half, value, value + half]), 9, is_reliable=True)


def test_agreement_by_hand():
    estimated = {"a": effect(4.0), "b": effect(1.0), "c": effect(-2.0), "d": effect(np.nan)}
    truth = {"a": effect(2.0), "b": effect(1.5), "c": effect(3.0), "d": effect(1.0)}
    rows = {r.metric: r for r in agreement_rows("dr", "watch_time", estimated, truth, "t")}
    # pairs: a over b right, a over c wrong, b over c wrong; d has no estimate
    assert rows[TAU].value == pytest.approx(-1 / 3) and rows[TAU].n == 3
    assert rows[SIGN].value == pytest.approx(2 / 3)
    assert rows[ERROR].value == pytest.approx((2 + 0.5 + 5) / 3)
    assert rows[COVERED].value == pytest.approx(1 / 3)
    assert agreement_rows("dr", "watch_time", {"a": effect(1.0)}, truth, "t") == []


def test_the_simulator_learns_from_some_and_is_lived_in_by_the_others(feed, tmp_path):
    fold = UserFold(share=0.5, seed=0)
    small = SimulatorOptions(d_state=4, d_id=4, d_attributes=2, d_context=2, hidden=4, window=16, warm_up=4)  # fmt: skip
    training = TrainOptions(epochs=1, batch_size=8, device="cpu")
    checkpoint, history = fit_fold(feed, fold, small, training, tmp_path, "data")
    assert history["variant"].unique().to_list() == ["simulator"]
    design = DesignOptions(days=3, control_days=1)
    population = SimulatorPopulation(candidates=4)
    place = simulator_place(checkpoint, feed, fold, design, population, 5)
    inside = set(torch.nonzero(fold_of_users(40, fold)).squeeze(1).tolist())
    assert set(place.users.tolist()) == set(range(40)) - inside
    # who is treated is another chance than who is in the fold
    days = pl.DataFrame({"user_id": place.users})
    treated = days.filter(_treated(days, design)).height
    assert 0 < treated < len(place.users)
    # nothing that the others answered reaches the simulator
    other = feed.rows.response.clone()
    outside = torch.isin(feed.decisions.user, torch.from_numpy(place.users))
    other[outside] = 0.5
    moved = replace(feed, rows=replace(feed.rows, response=other))
    again, _ = fit_fold(moved, fold, small, training, tmp_path / "again", "other data")
    for name, tensor in checkpoint.best.items():
        torch.testing.assert_close(again.best[name], tensor, equal_nan=True)
    assert isinstance(FeedbackSimulator.from_checkpoint(again.config, again.best, feed.items), FeedbackSimulator)  # fmt: skip
