import pytest
import torch
from support.feed_log import FixedFeedback, toy_feed, toy_learner

from reelrank.models.feed_data import batch
from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.learning import CriticDiverged, learn
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay
from reelrank.training.checkpoint import load_checkpoint
from reelrank.training.device import seed_everything

OPTIONS = LearningOptions(epochs=2, steps=4, check_every=2, conflict_every=3)


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


def replay_of(feed, feedback=None, **options):
    options = ReplayOptions(**({"batch_size": 16} | options))
    return Replay(feed, RewardScale.fit(feed), options, 4, feedback or FixedFeedback())


def run(feed, folder, options=OPTIONS, replay=None, validate=None, updates=None):
    seed_everything(options.seed)
    learner = toy_learner(feed, options.seed, updates=updates)
    learnt = learn(
        learner,
        replay or replay_of(feed),
        options,
        validate_fn=validate or (lambda policy: {"gauc": float(policy.out.bias.sum())}),
        work_dir=folder,
        identity={"name": "mmrf"},
    )
    return learner, learnt


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(t, right[n]) for n, t in left.items())


def test_a_seeded_run_repeats_itself_and_another_seed_does_not(feed, tmp_path):
    _, first = run(feed, tmp_path / "a")
    _, second = run(feed, tmp_path / "b")
    _, other = run(feed, tmp_path / "c", OPTIONS.model_copy(update={"seed": 1}))
    assert same(first.fit.last, second.fit.last)
    assert not same(first.fit.last, other.fit.last)
    assert not list((tmp_path / "a").iterdir())


class Killed(Exception):
    pass


class KilledAt(FixedFeedback):
    def __init__(self, call):
        super().__init__()
        self.calls, self.call = 0, call

    def simulate(self, batch, slots, generator):
        self.calls += 1
        if self.calls == self.call:
            raise Killed
        return super().simulate(batch, slots, generator)


@pytest.mark.parametrize("call", [1, 4, 6], ids=["first", "inside", "second_epoch"])
def test_a_killed_run_ends_as_an_uninterrupted_one(feed, tmp_path, call):
    _, whole = run(feed, tmp_path / "whole")
    with pytest.raises(Killed):
        run(feed, tmp_path / "cut", replay=replay_of(feed, KilledAt(call)))
    _, resumed = run(feed, tmp_path / "cut")
    assert resumed.fit.resumed_from_step == {1: 0, 4: 2, 6: 4}[call]
    assert same(whole.fit.last, resumed.fit.last)
    assert same(whole.fit.best, resumed.fit.best)
    torch.testing.assert_close(whole.conflicts, resumed.conflicts)
    columns = [c for c in whole.fit.history.columns if c != "seconds"]
    assert whole.fit.history.select(columns).equals(resumed.fit.history.select(columns))


def test_simulator_and_policy_learn_in_turn(feed, tmp_path):
    feedback = FixedFeedback()
    _, learnt = run(feed, tmp_path, replay=replay_of(feed, feedback))
    assert feedback.passes == 2
    history = learnt.fit.history
    assert history["simulator_fit"].to_list() == [1.0, 0.5]
    assert history["update"].to_list() == [4, 8]
    assert {"train_td_like", "train_entropy_watch_time", "val_gauc"} <= set(history.columns)
    torch.testing.assert_close(learnt.conflicts.diagonal(), torch.ones(7))


@pytest.mark.parametrize(("keep", "epochs", "kept"), [("best", 4, 2), ("last", 5, 5)])
def test_the_epoch_that_is_kept(feed, tmp_path, keep, epochs, kept):
    values = iter([0.5, 0.9, 0.1, 0.2, 0.3])
    options = OPTIONS.model_copy(update={"epochs": 5, "patience": 2, "keep": keep})
    learner, learnt = run(feed, tmp_path, options, validate=lambda _: {"gauc": next(values)})
    assert learnt.fit.history.height == epochs
    assert learnt.fit.best_epoch == kept
    assert same(learner.policy.state_dict(), learnt.fit.best)
    assert same(learnt.fit.best, learnt.fit.last) == (keep == "last")


class Exploding(FixedFeedback):
    """Rewards that no sum of the log's can reach, of one response, after some updates."""

    def __init__(self, value):
        super().__init__()
        self.calls, self.value = 0, value

    def simulate(self, batch, slots, generator):
        self.calls += 1
        answer = super().simulate(batch, slots, generator)
        if self.calls > 3:
            answer.reward[..., 1] = self.value
        return answer


@pytest.mark.parametrize("value", [1e9, float("inf")], ids=["large", "infinite"])
def test_a_diverging_critic_is_named_and_the_last_good_state_kept(feed, tmp_path, value):
    replay = replay_of(feed, Exploding(value))
    options = OPTIONS.model_copy(update={"steps": 400})
    # a rate at which the critic reaches such rewards within a few updates
    with pytest.raises(
        CriticDiverged, match=r"critic of \w+ diverged .* lower critic_lr"
    ) as caught:
        run(feed, tmp_path, options, replay, updates={"critic_lr": 30.0, "grad_clip": 1e9})
    found = caught.value
    tensors, counters = load_checkpoint(found.checkpoint)
    assert counters["update"] < found.step
    assert all(t.isfinite().all() for n, t in tensors.items() if n.startswith("learner.networks"))


def test_a_critic_inside_its_bounds_is_left_alone(feed, tmp_path):
    constant = toy_feed()
    constant.decisions.response[..., 4] = 0.0  # nobody hates: the largest reward is 0
    replay = replay_of(constant)
    run(constant, tmp_path, replay=replay)


def test_validation_that_is_no_number_is_refused(feed, tmp_path):
    with pytest.raises(ValueError, match="val_gauc is not a number"):
        run(feed, tmp_path, validate=lambda _: {"gauc": float("nan")})


@pytest.mark.long
def test_the_policy_learns_which_item_is_watched(feed, tmp_path):
    """Watch time is the item's number: the main agent must rank by it."""
    planted = toy_feed()
    d = planted.decisions
    d.response[..., -1] = torch.where(d.shown, 6.0 * d.candidates, torch.nan)
    planted.rows.response[:, -1] = 6.0 * planted.rows.item
    options = LearningOptions(epochs=1, steps=200, check_every=200, conflict_every=0)
    replay = replay_of(planted, batch_size=64, non_impressions="none")
    learner, _ = run(
        planted, tmp_path, options, replay,
        updates={"actor_lr": 1e-2, "critic_lr": 1e-2, "gamma": 0.5},
    )  # fmt: skip
    test = torch.nonzero(d.split == 2).squeeze(1)
    states = batch(planted, test, 4)
    with torch.no_grad():
        scores = learner.policy.scores(states)
    ranks = [torch.stack([scores[i].argsort().argsort(), states.candidates[i].argsort().argsort()]).double() for i in range(len(test))]  # fmt: skip
    correlation = torch.stack([torch.corrcoef(r)[0, 1] for r in ranks]).mean()
    assert correlation > 0.7


@pytest.mark.parametrize("kind", ["linear", "mlp_set"])
@pytest.mark.parametrize("pcgrad", [False, True])
def test_every_variant_makes_a_finite_update(feed, kind, pcgrad):
    replay = replay_of(feed)
    generator = torch.Generator().manual_seed(0)
    replay.sample_non_impressions(generator)
    learner = toy_learner(feed, kind=kind, updates={"pcgrad": pcgrad})
    before = {n: p.clone() for n, p in learner.actors.named_parameters()}
    losses = learner.update(replay.sample(generator))
    assert all(t.isfinite().all() for t in losses.values())
    moved = {n.split(".")[0] for n, p in learner.actors.named_parameters() if not torch.equal(p, before[n])}  # fmt: skip
    assert moved == {"encoder", "hidden_layer", "exchange", "from_own", "from_others", "from_actions", "out"}  # fmt: skip
    follow = learner.target_actors.out.weight - before["out.weight"]
    torch.testing.assert_close(follow, 1e-3 * (learner.actors.out.weight - before["out.weight"]), atol=1e-7, rtol=1e-3)  # fmt: skip
