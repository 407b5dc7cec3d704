"""METHODS §4.5: which loss moves which parameter."""

import pytest
import torch
from support.feed_log import ENCODER, toy_actors, toy_feed, toy_learner
from support.looped_agents import looped_scores

from reelrank.models.feed_data import batch
from reelrank.pipelines.mmrf.routing import RoutedGraph, conflicts, pcgrad

N = 7


@pytest.fixture(scope="module")
def feed():
    return toy_feed()


def given_states(feed):
    return batch(feed, torch.arange(20), ENCODER.history)


def losses_of(scores):
    """One loss per agent that depends on its own scores alone."""
    return (scores.softmax(-1) * torch.linspace(-1, 1, scores.shape[-1]) ** 2).sum(-1).mean(1)


def gradients_of(actors, states, agent, beta=1.0):
    graph = RoutedGraph(actors, states)
    chosen = torch.zeros(len(actors.options.agents), dtype=torch.float64)
    chosen[agent] = 1.0
    found = graph.gradients(losses_of(graph.scores.logits) * chosen, beta)
    assert len(found) == len(list(actors.parameters()))
    return {name: found[p] for name, p in actors.named_parameters()}


def moves(gradients):
    """Which agents' own parameters, and which shared ones, a loss moves."""
    own = torch.zeros(N, dtype=torch.bool)
    shared = {"exchange": [], "encoder": []}
    for name, gradient in gradients.items():
        part = name.split(".")[0]
        if part in shared:
            shared[part].append(bool(gradient.abs().max() > 0))
        elif part == "from_actions":
            own[-1] |= bool(gradient.abs().max() > 0)
        else:
            own |= gradient.abs().amax((1, 2)) > 0
    return own, shared


@pytest.mark.parametrize("exchange", ["attention", "concat"])
@pytest.mark.parametrize("agent", range(N))
def test_every_cell_of_the_table(feed, agent, exchange):
    actors = toy_actors(feed, exchange=exchange).double()
    own, shared = moves(gradients_of(actors, given_states(feed), agent))
    if agent < N - 1:
        assert own.tolist() == [i == agent for i in range(N)]
    else:
        assert own.all()
    # all of W_q, W_k, W_v, and the encoder
    assert all(shared["exchange"])
    assert sum(shared["encoder"]) > len(shared["encoder"]) / 2


@pytest.mark.parametrize("exchange", ["attention", "concat"])
@pytest.mark.parametrize("agent", [0, 4, N - 1])
def test_gradients_are_those_of_a_loop_with_detached_others(feed, agent, exchange):
    actors, states = toy_actors(feed, exchange=exchange).double(), given_states(feed)
    routed = gradients_of(actors, states, agent)
    logits, _ = looped_scores(actors, states, detached=agent < N - 1)
    names, parameters = zip(*actors.named_parameters(), strict=True)
    expected = torch.autograd.grad(losses_of(logits)[agent], parameters, materialize_grads=True)
    for name, gradient in zip(names, expected, strict=True):
        share = N if name.startswith("exchange") else 1
        torch.testing.assert_close(routed[name], gradient / share, msg=name)


def test_losses_add_up(feed):
    actors, states = toy_actors(feed).double(), given_states(feed)
    graph = RoutedGraph(actors, states)
    together = graph.gradients(losses_of(graph.scores.logits), 1.0)
    apart = [gradients_of(actors, states, i) for i in range(N)]
    for name, parameter in actors.named_parameters():
        torch.testing.assert_close(together[parameter], sum(g[name] for g in apart))


def test_beta_weighs_what_the_main_loss_does_to_the_others(feed):
    actors, states = toy_actors(feed).double(), given_states(feed)
    full, none = (gradients_of(actors, states, N - 1, beta) for beta in (1.0, 0.0))
    own, shared = moves(none)
    assert own.tolist() == [False] * (N - 1) + [True]
    assert all(shared["exchange"])
    torch.testing.assert_close(none["out.weight"][-1], full["out.weight"][-1])
    torch.testing.assert_close(none["from_actions.weight"], full["from_actions.weight"])


def test_an_update_of_the_actors_leaves_the_critics_and_the_reverse(feed):
    from support.feed_log import FixedFeedback

    from reelrank.models.feed_rewards import RewardScale
    from reelrank.pipelines.mmrf.options import ReplayOptions
    from reelrank.pipelines.mmrf.replay import Replay

    replay = Replay(feed, RewardScale.fit(feed), ReplayOptions(batch_size=16), 4, FixedFeedback())
    generator = torch.Generator().manual_seed(0)
    replay.sample_non_impressions(generator)
    transition = replay.sample(generator)
    for frozen, moving in (("critics", "actors"), ("actors", "critics")):
        learner = toy_learner(feed)
        group = learner.optimisers["critic" if frozen == "critics" else "actor"]
        group.param_groups[0]["lr"] = 0.0
        before = {n: p.clone() for n, p in learner.named_parameters()}
        learner.update(transition)
        changed = {n for n, p in learner.named_parameters() if not torch.equal(p, before[n])}
        assert {n.split(".")[0] for n in changed} == {moving, f"target_{moving}"}


def test_shared_gradients_are_the_rows_of_the_whole(feed):
    actors, states = toy_actors(feed).double(), given_states(feed)
    graph = RoutedGraph(actors, states)
    losses = losses_of(graph.scores.logits)
    rows = graph.shared_gradients(losses, 1.0)
    whole = graph.gradients(losses, 1.0)
    torch.testing.assert_close(rows.sum(0), torch.cat([whole[p].flatten() for p in graph.shared]))


def test_pcgrad_on_two_gradients_by_hand():
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    order = torch.tensor([[0, 1], [1, 0]])
    # g1 − (−1/2) g2 = (.5, .5); g2 − (−1/1) g1 = (0, 1)
    assert pcgrad(gradients, order).tolist() == pytest.approx([0.5, 1.5])
    agreeing = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert pcgrad(agreeing, order).tolist() == [2, 1]
    assert pcgrad(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), order).tolist() == [1, 0]


def test_conflicts_by_hand():
    found = conflicts(torch.tensor([[1.0, 0.0], [-2.0, 0.0], [3.0, 3.0], [0.0, 0.0]]))
    r = 0.5**0.5
    expected = [[1, -1, r, 0], [-1, 1, -r, 0], [r, -r, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_pcgrad_changes_only_the_shared_parameters(feed):
    states = given_states(feed)
    actors = toy_actors(feed).double()
    graph = RoutedGraph(actors, states)
    shared = {id(p) for p in graph.shared}
    names = {n.split(".")[0] for n, p in actors.named_parameters() if id(p) in shared}
    assert names == {"exchange", "encoder"}
