"""Where logs are drawn from: contexts with known π_b, known expected rewards, and a planted draw of rewards.

A repetition draws users anew (by their share of contexts), then contexts of each user, actions by π_b and rewards. So the mean over all
contexts is what every estimate aims at, and users are the independent units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.evaluation.off_policy import mean_entropy, softened
from reelrank.evaluation.off_policy.softening import equal_entropy_temperature

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
DrawReward = Callable[[np.random.Generator, IntArray, IntArray], FloatArray]

NEAR_GREEDY = 0.95  # [D] mass on the best action


@dataclass(frozen=True, slots=True)
class Population:
    """R contexts with C actions each.

    Attributes:
        user: (R,) user of each context, sorted.
        action: (R, C) ids of the actions; where every context has all of them, the broadcast 0 … C − 1.
        behaviour: (R, C) true π_b.
        expected: (R, C) true E[r|x, a].
        category: (number of action ids,) category of each action.
        draw_reward: (generator, contexts (n,), columns (n,)) → rewards (n,).
    """

    user: IntArray
    action: IntArray
    behaviour: FloatArray
    expected: FloatArray
    category: IntArray
    draw_reward: DrawReward

    def bandit_value(self, policy: FloatArray) -> float:
        """Mean over the contexts of Σ_a π_e(a|x) E[r|x,a]; ``policy`` (R, C). Source: METHODS §7.1 [S]."""
        return float((policy * self.expected).sum(axis=1).mean())

    def subset(self, contexts: npt.NDArray[np.bool_]) -> Population:
        """Only those contexts, numbered anew."""
        kept = np.flatnonzero(contexts)

        def draw(rng: np.random.Generator, rows: IntArray, columns: IntArray) -> FloatArray:
            return self.draw_reward(rng, kept[rows], columns)

        arrays = (self.user[kept], self.action[kept], self.behaviour[kept], self.expected[kept])
        return Population(*arrays, self.category, draw)


@dataclass(frozen=True, slots=True)
class Draw:
    """One log of n rows.

    Attributes:
        user: (n,) the drawn user, a new one for each time that one was drawn.
        context: (n,) row of the population.
        column: (n,) the logged action's column.
        reward: (n,).
    """

    user: IntArray
    context: IntArray
    column: IntArray
    reward: FloatArray

    def frame(self, population: Population, propensity: FloatArray) -> pl.DataFrame:
        """The log as :func:`~reelrank.evaluation.off_policy.estimate_policy_value` reads it.

        Args:
            population: that it was drawn from.
            propensity: (R, C) π_b, or (n,) of the logged actions.
        """
        own = propensity if propensity.ndim == 1 else propensity[self.context, self.column]
        action = population.action[self.context, self.column]
        frame = pl.DataFrame(
            {"user_id": self.user, "action": action, "propensity": own, "reward": self.reward}
        )
        if (
            population.action.strides[0] == 0
        ):  # every context has all actions, in order of their ids
            return frame
        candidates = pl.Series(population.action[self.context]).cast(pl.List(pl.Int64))
        return frame.with_columns(candidates=candidates)


def draw_log(population: Population, n: int, rows_per_user: int, seed: int) -> Draw:
    """Draw users with replacement, ``rows_per_user`` contexts of each, actions and rewards: n rows (the last user may have fewer)."""
    rng = np.random.default_rng(seed)
    contexts = len(population.user)
    n_users = -(-n // rows_per_user)
    chosen = population.user[rng.integers(contexts, size=n_users)]
    first = np.searchsorted(population.user, chosen)
    count = np.searchsorted(population.user, chosen, side="right") - first
    user = np.repeat(np.arange(n_users), rows_per_user)[:n]
    context = first[user] + (rng.random(n) * count[user]).astype(np.int64)
    column = draw_columns(rng, population.behaviour[context])
    return Draw(user, context, column, population.draw_reward(rng, context, column))


def draw_columns(rng: np.random.Generator, probabilities: FloatArray) -> IntArray:
    """(n,) a column of each row of (n, C) probabilities."""
    cumulative = probabilities.cumsum(axis=1)
    point = rng.random((len(cumulative), 1)) * cumulative[:, -1:]
    column: IntArray = (cumulative <= point).sum(axis=1).clip(max=cumulative.shape[1] - 1)
    return column.astype(np.int64)


def target_policies(
    population: Population, popularity: FloatArray, seed: int
) -> dict[str, FloatArray]:
    """Policies to be valued, (R, C) each: from far above what logged to far below, from random to almost greedy.

    Args:
        population: contexts and actions.
        popularity: (number of action ids,) > 0.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    expected, behaviour = population.expected, population.behaviour
    noise = rng.normal(0, expected.std(), expected.shape)
    untied = expected + 1e-6 * noise  # rows of many equal rewards could not be made as sharp as π_b
    entropy = mean_entropy(behaviour)

    def equal_entropy(scores: FloatArray) -> FloatArray:
        return softened(scores, equal_entropy_temperature(scores, entropy))

    best = np.zeros_like(expected)
    best[np.arange(len(best)), expected.argmax(axis=1)] = 1
    uniform = np.full_like(expected, 1 / expected.shape[1])
    return {
        "uniform": uniform,
        "popularity": equal_entropy(np.log(popularity)[population.action]),
        "noisy_reward": equal_entropy(expected + noise),
        "reward": equal_entropy(untied),
        "near_greedy": NEAR_GREEDY * best + (1 - NEAR_GREEDY) * uniform,
    }


def greedy(policy: FloatArray) -> FloatArray:
    """(R, C) all mass on the likeliest action."""
    out = np.zeros_like(policy)
    out[np.arange(len(out)), policy.argmax(axis=1)] = 1
    return out


def values(population: Population, policies: Mapping[str, FloatArray]) -> dict[str, float]:
    """True value of each policy."""
    return {name: population.bandit_value(policy) for name, policy in policies.items()}
