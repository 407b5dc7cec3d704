from itertools import count

import pytest
import torch
from support.feed_baselines import LEARNING, OPTIONS, REPLAY, planted_feed
from support.feed_log import toy_feed

from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.baselines.constrained import AuxiliaryLearner, ConstrainedLearner
from reelrank.pipelines.mmrf.baselines.fitters import FITTERS
from reelrank.pipelines.mmrf.baselines.massa import MASSALearner, MASSAPolicy, SignalCritics
from reelrank.pipelines.mmrf.baselines.networks import ItemScorers, StateValues, gradient_rows
from reelrank.pipelines.mmrf.baselines.pareto import ParetoLearner, ParetoPolicy
from reelrank.pipelines.mmrf.baselines.tscac import TSCACPolicy
from reelrank.pipelines.mmrf.critics import build_critics
from reelrank.pipelines.mmrf.fitting import logged_replay

CLOSED = OPTIONS["tscac"]
CODE = CLOSED.model_copy(update={"variant": "code"})


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


def transition_of(feed, seed=0):
    replay = logged_replay(feed, RewardScale.fit(feed), REPLAY, 4)
    return replay.sample(torch.Generator().manual_seed(seed))


def pareto(feed, **options):
    torch.manual_seed(0)
    options = OPTIONS["pareto"].model_copy(update=options)
    spec = FeedSpec.of(feed)
    return ParetoLearner(ParetoPolicy(options, spec), build_critics(7, options.critic, spec), options)  # fmt: skip


def stage1(feed):
    torch.manual_seed(0)
    spec = FeedSpec.of(feed)
    return AuxiliaryLearner(ItemScorers(7, CLOSED.actor, spec), StateValues(7, CLOSED.critic, spec), CLOSED)  # fmt: skip


def stage2(feed, options=CLOSED):
    return ConstrainedLearner(TSCACPolicy(options, FeedSpec.of(feed)), stage1(feed), options)


def state_of(module):
    return {n: t.clone() for n, t in module.state_dict().items()}


def moved(before, module):
    return {n for n, t in module.state_dict().items() if not torch.equal(t, before[n])}


def test_stage_one_does_not_see_the_main_response(feed):
    first, second = stage1(feed), stage1(feed)
    for seed in range(3):
        given, other = transition_of(feed, seed), transition_of(feed, seed)
        other.reward[-1] = 1e3
        first.update(given)
        second.update(other)
    assert not moved(state_of(first), second)


def test_stage_one_clones_what_was_shown_and_each_agent_has_its_own_loss(feed):
    learner = stage1(feed)
    transition = transition_of(feed)
    log_policy = learner.actors(transition.batch).log_policy(1.0)
    advantage = torch.randn(7, len(transition.logged))
    losses, _ = learner.losses(log_policy, advantage, transition)
    rows = [torch.autograd.grad(loss, learner.actors.first.item.weight, retain_graph=True)[0] for loss in losses]  # fmt: skip
    for agent, row in enumerate(rows):
        assert [bool(r.any()) for r in row] == [i == agent for i in range(7)]
    # at π_i = π_b the ratio is 1: the plain policy gradient
    same = log_policy[-1:].expand(7, -1, -1)
    losses, _ = learner.losses(same, advantage, transition)
    finite = same.masked_fill(~transition.batch.mask, 0.0)
    by_hand = -(advantage * (transition.exposure * finite).sum(-1)).mean(1)
    torch.testing.assert_close(losses[:-1], by_hand[:-1])


def test_stage_two_starts_as_the_clone_and_leaves_stage_one_alone(feed):
    learner = stage2(feed)
    transition = transition_of(feed)
    clone = learner.fixed(transition.batch).logits[-1]
    torch.testing.assert_close(learner.actors(transition.batch).logits[0], clone)
    before = state_of(learner.fixed)
    learner.update(transition)
    assert not moved(before, learner.fixed)


def test_stage_two_learns_from_the_main_response_alone(feed):
    first, second = stage2(feed), stage2(feed)
    given, other = transition_of(feed), transition_of(feed)
    other.reward[:-1] = -7.0
    first.update(given)
    second.update(other)
    assert not moved(state_of(first), second)


def test_unknown_rewards_move_no_policy_but_by_cloning_and_entropy(feed):
    options = CLOSED.model_copy(update={"update": CLOSED.update.model_copy(update={"bc_coef": 0.0, "entropy": 0.0})})  # fmt: skip
    learner = stage2(feed, options)
    transition = transition_of(feed)
    transition.reward[-1] = torch.nan
    before = state_of(learner.actors)
    metrics = learner.update(transition)
    assert not moved(before, learner.actors)
    assert all(t.isfinite().all() for t in metrics.values())


def test_the_multiplier_climbs_where_a_constraint_is_broken_and_falls_where_none_is(feed):
    def multiplier(excess):
        learner = stage2(feed)
        learner._dual_step(torch.tensor(excess))
        return float(learner.log_multiplier.exp())

    start = CLOSED.closed_form.multiplier
    assert multiplier([-0.5, 0.2, -0.1]) == pytest.approx(start * 2.718281828 ** (0.1 * 0.2))
    assert multiplier([-0.5, -0.2]) < start
    low, high = CLOSED.closed_form.bounds
    learner = stage2(feed)
    for sign, bound in ((1.0, high), (-1.0, low)):
        for _ in range(400):
            learner._dual_step(torch.tensor([sign]))
        assert float(learner.log_multiplier.exp()) == pytest.approx(bound)


def test_the_geometric_mean_keeps_every_constraint_with_its_slack(feed):
    learner = stage2(feed)
    batch = transition_of(feed).batch
    fixed = 5 * learner.fixed(batch).logits
    fixed = fixed.log_softmax(-1)
    middle = fixed[:-1].mean(0, keepdim=True).log_softmax(-1)
    kl, epsilon = learner.divergences(middle, fixed, batch.mask)
    torch.testing.assert_close(epsilon - kl, torch.full((6,), CLOSED.closed_form.slack))
    same, _ = learner.divergences(fixed[:1], fixed, batch.mask)
    assert float(same[0]) == pytest.approx(0, abs=1e-6)
    by_hand = (fixed[0].exp() * (fixed[0] - fixed[1])).sum(-1).mean()
    torch.testing.assert_close(same[1], by_hand)


@pytest.mark.long
def test_tscac_keeps_its_constraints(tmp_path):
    """Two opposite wishes: the main response pulls one way, the auxiliary one the other."""
    feed = planted_feed()
    feed.decisions.response[..., 0] = 1 - feed.decisions.response[..., 0]
    options = CLOSED.model_copy(update={"agents": ("click", "watch_time")})
    free = options.closed_form.model_copy(update={"slack": 50.0})
    learning = LEARNING.model_copy(
        update={"epochs": 5, "steps": 30, "check_every": 30, "keep": "best"}
    )
    rows = []  # of the epoch that val chose: so few steps do not settle, the last one may stand anywhere
    for own in (options, options.model_copy(update={"closed_form": free})):
        found = fit("tscac", own, feed, tmp_path, learning).fit
        rows.append(found.history.filter(epoch=found.best_epoch).to_dicts()[0])
    kept, loose = rows
    assert kept["val_epsilon_click"] == CLOSED.closed_form.slack  # one policy is its own mean
    assert kept["val_kl_click"] <= kept["val_epsilon_click"] < loose["val_kl_click"]
    assert kept["train_multiplier"] > loose["train_multiplier"]


def test_the_pareto_step_is_the_shortest_common_descent(feed):
    learner = pareto(feed)
    transition = transition_of(feed)
    log_policy = learner.actors(transition.batch).log_policy(1.0)
    state = learner.critics(transition.batch).detach()
    losses = -learner.critics.value(state, log_policy.exp()).mean(1)
    rows = gradient_rows(losses, learner.actors.parameters()).double()
    learner.update(transition)
    weights = learner.weights
    assert float(weights.sum()) == pytest.approx(1)
    step = weights @ rows
    # no response loses to first order
    assert ((rows @ step) >= float(step @ step) * (1 - 1e-4)).all()


def test_pareto_weights_are_solved_as_often_as_told(feed):
    learner = pareto(feed, solve_every=3)
    found = [learner.update(transition_of(feed, i))["weight"] for i in range(4)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])
    unit = pareto(feed, unit_gradients=True)
    unit.solve(torch.diag(torch.tensor([1e-6, 1, 1, 1, 1, 1, 1])))
    torch.testing.assert_close(unit.weights, torch.full((7,), 1 / 7).double())


def test_massas_signal_and_actors_climb_critics_that_only_td_moves(feed):
    torch.manual_seed(0)
    options = OPTIONS["massa"]
    spec = FeedSpec.of(feed)
    learner = MASSALearner(MASSAPolicy(options, spec), SignalCritics(options, spec), options)
    actors, critics = state_of(learner.actors), state_of(learner.critics)
    transition = transition_of(feed)
    transition.reward.fill_(torch.nan)
    learner.update(transition)
    # without a reward there is no TD: what moves the critics is their weight decay alone
    fresh = {n for n in moved(actors, learner.actors) if n.startswith(("signal_net", "from_signal", "encoder.mix"))}  # fmt: skip
    assert len(fresh) == 4 + 1 + 4
    shrunk = [(t.abs() <= critics[n].abs() + 1.01e-2).all() for n, t in learner.critics.state_dict().items()]  # fmt: skip
    assert all(shrunk)


def fit(name, options, feed, folder, learning=LEARNING, validate=None):
    calls = count()
    return FITTERS[name](
        options,
        feed,
        learning,
        REPLAY,
        validate_fn=validate or (lambda policy: {"gauc": float(next(calls))}),
        work_dir=folder,
        identity={},
    )


class Killed(Exception):
    pass


def killed_at(call):
    calls = count(1)

    def validate(policy):
        number = next(calls)
        if number == call:
            raise Killed
        return {"gauc": float(number)}

    return validate


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(t, right[n]) for n, t in left.items())


@pytest.mark.parametrize(("name", "options"), [
    pytest.param("pareto", OPTIONS["pareto"].model_copy(update={"solver": "code", "code_rate": 0.1}), marks=pytest.mark.long),
    ("tscac", CLOSED),
    pytest.param("tscac", CODE, marks=pytest.mark.long),
    ("massa", OPTIONS["massa"]),
], ids=["pareto", "tscac", "tscac_code", "massa"])  # fmt: skip
def test_a_killed_run_ends_as_an_uninterrupted_one(feed, tmp_path, name, options):
    learning = LEARNING.model_copy(update={"epochs": 3, "conflict_every": 3})
    whole = fit(name, options, feed, tmp_path / "whole", learning)
    with pytest.raises(Killed):
        fit(name, options, feed, tmp_path / "cut", learning, killed_at(2))
    assert list((tmp_path / "cut").iterdir())
    resumed = fit(name, options, feed, tmp_path / "cut", learning)
    assert resumed.fit.resumed_from_step > 0
    assert same(whole.fit.last, resumed.fit.last)
    assert not list((tmp_path / "cut").iterdir())
    columns = [c for c in whole.fit.history.columns if c != "seconds" and not c.startswith(("val_gauc", "val_constrained"))]  # fmt: skip
    assert whole.fit.history.select(columns).equals(resumed.fit.history.select(columns))
    assert whole.conflicts.shape == (7, 7)
    torch.testing.assert_close(whole.conflicts, resumed.conflicts)


def test_both_stages_are_in_the_history(feed, tmp_path):
    learning = LEARNING.model_copy(update={"epochs": 5})
    found = fit("tscac", CLOSED, feed, tmp_path, learning).fit
    assert found.history["epoch"].to_list() == [1, 2, 3, 4, 5]
    assert found.history["stage"].to_list() == [1, 1, 2, 2, 2]
    assert found.history["update"].to_list() == [4, 8, 12, 16, 20]
    assert found.best_epoch == 5
    assert {"val_kl_hate", "val_epsilon_hate", "train_kl_click", "train_multiplier"} <= set(found.history.columns)  # fmt: skip
    assert next(c for c in found.history.columns if c.startswith("val_")) == "val_constrained"
