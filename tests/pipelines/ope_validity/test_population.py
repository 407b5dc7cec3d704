"""Populations: the true value of a policy, and logs that are drawn from it."""

import numpy as np
import pytest

from reelrank.pipelines.ope_validity.population import (
    Population,
    draw_columns,
    draw_log,
    greedy,
    target_policies,
)


def make_population(n_users=30, contexts_per_user=3, n_actions=4, seed=0, sharpness=0.0):
    rng = np.random.default_rng(seed)
    n = n_users * contexts_per_user
    expected = rng.uniform(0.1, 0.9, (n, n_actions))
    scores = rng.normal(size=(n, n_actions)) + sharpness * expected
    behaviour = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Population(
        user=np.repeat(np.arange(n_users), contexts_per_user),
        action=np.broadcast_to(np.arange(n_actions), (n, n_actions)),
        behaviour=behaviour,
        expected=expected,
        category=np.arange(n_actions) % 2,
        draw_reward=lambda rng, rows, columns: (
            rng.random(len(rows)) < expected[rows, columns]
        ).astype(float),
    )


def test_bandit_value_is_the_sum_over_contexts_and_actions():
    population = make_population(2, 1, 2)
    policy = np.array([[0.25, 0.75], [1.0, 0.0]])
    by_hand = 0.0
    for x in range(2):
        for a in range(2):
            by_hand += policy[x, a] * population.expected[x, a] / 2
    assert population.bandit_value(policy) == pytest.approx(by_hand, abs=1e-15)


def test_the_on_policy_mean_of_a_large_log_is_the_logging_policys_value():
    population = make_population()
    log = draw_log(population, 200_000, 20, seed=1)
    truth = population.bandit_value(population.behaviour)
    # a Bernoulli mean of 10,000 users' 20 rows: sd below 0.5 / sqrt(10,000)
    assert log.reward.mean() == pytest.approx(truth, abs=4 * 0.005)
    assert len(np.unique(log.user)) == 10_000
    assert np.bincount(log.user).max() == 20


def test_a_drawn_user_keeps_to_their_own_contexts():
    population = make_population(contexts_per_user=5)
    log = draw_log(population, 2_000, 20, seed=2)
    owner = population.user[log.context].reshape(-1, 20)
    assert (owner == owner[:, :1]).all()


def test_actions_follow_the_probabilities():
    probabilities = np.tile([0.2, 0.0, 0.5, 0.3], (100_000, 1))
    share = np.bincount(draw_columns(np.random.default_rng(0), probabilities), minlength=4) / 1e5
    assert share == pytest.approx([0.2, 0.0, 0.5, 0.3], abs=0.01)
    assert share[1] == 0


def test_repetitions_differ_and_repeat():
    population = make_population()
    one, same, other = (draw_log(population, 100, 10, seed) for seed in (3, 3, 4))
    assert (one.context == same.context).all()
    assert (one.reward == same.reward).all()
    assert (one.context != other.context).any()


def test_a_subset_keeps_rewards_with_their_contexts():
    population = make_population()
    inside = population.user % 2 == 1
    part = population.subset(inside)
    ones = part.draw_reward(np.random.default_rng(0), np.arange(45), np.zeros(45, np.int64))
    kept = np.flatnonzero(inside)
    again = population.draw_reward(np.random.default_rng(0), kept, np.zeros(45, np.int64))
    assert (ones == again).all()
    assert (part.expected == population.expected[inside]).all()


def test_policies_are_ordered_as_they_were_made():
    population = make_population(n_users=200)
    policies = target_policies(population, np.array([5.0, 1.0, 3.0, 2.0]), seed=0)
    value = {name: population.bandit_value(policy) for name, policy in policies.items()}
    assert value["uniform"] < value["noisy_reward"] < value["reward"] < value["near_greedy"]
    for policy in policies.values():
        assert policy.sum(axis=1) == pytest.approx(1)
    best = greedy(policies["near_greedy"])
    assert population.bandit_value(best) == pytest.approx(population.expected.max(axis=1).mean())


def test_a_frame_holds_candidates_only_where_contexts_differ_in_them():
    population = make_population()
    log = draw_log(population, 50, 10, seed=0)
    assert "candidates" not in log.frame(population, population.behaviour).columns
    sets = np.tile([7, 3, 9, 1], (90, 1))
    other = Population(
        population.user, sets, population.behaviour, population.expected, np.zeros(10, np.int64), population.draw_reward,
    )  # fmt: skip
    frame = log.frame(other, population.behaviour)
    assert (frame["action"].to_numpy() == sets[log.context, log.column]).all()
    own = population.behaviour[log.context, log.column]
    assert frame["propensity"].to_numpy() == pytest.approx(own)
