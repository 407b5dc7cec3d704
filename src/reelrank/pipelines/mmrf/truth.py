"""What a policy earns when it is rolled out in the world that wrote the log.

Source: METHODS §3.9 (true value); ARCHITECTURE choice 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import Estimate, Ratio, UserBootstrap, paired
from reelrank.models.feed import RESPONSES, FeedInputs
from reelrank.models.feed_environment import RollOut, TruthPolicy, roll_out
from reelrank.models.feed_start import test_start, test_users
from reelrank.pipelines.mmrf.logged import IntArray
from reelrank.pipelines.mmrf.run_options import RolloutOptions
from reelrank.worlds.feed_world import environment_of_log
from reelrank.worlds.rollout import WorldEnvironment, WorldRolloutOptions
from reelrank.worlds.truth import Truth

TRUE_VALUE = "true_value"
ORACLE, UNIFORM = "oracle", "uniform"


def world_environment(
    truth: Truth,
    inputs: FeedInputs,
    raw_users: IntArray,
    raw_items: IntArray,
    options: RolloutOptions,
    history: int,
) -> tuple[WorldEnvironment, IntArray]:
    """Users of the test part at its first moment, with what they had seen by then.

    Args:
        truth: of the world that the log came from.
        inputs: the log, on the CPU.
        raw_users: (n_users,) official id of each dense one.
        raw_items: (n_items,) the same of videos.
        options: how many users and days.
        history: rows that policies read.

    Returns:
        The environment, and the dense ids of its users.
    """
    users = np.random.default_rng(options.seed).permutation(test_users(inputs))[: options.users]
    users = np.sort(users)
    environment = environment_of_log(
        truth,
        inputs,
        raw_users,
        raw_items,
        users,
        start_ms=test_start(inputs),
        options=WorldRolloutOptions(days=options.days, history=history),
    )
    return environment, users


@dataclass(frozen=True)
class Rolled:
    """One policy's roll-out: rows, and estimates that pair with another's."""

    rows: list[ResultRow]
    estimates: Mapping[str, Estimate]


def rolled_out(
    name: str,
    policy: nn.Module | TruthPolicy,
    environment: WorldEnvironment,
    options: RolloutOptions,
    bootstrap: UserBootstrap,
    k: int,
    temperature: float = 0.0,
) -> Rolled:
    """``true_value`` of a policy that ranks greedily: discounted return of a session (group all), and each response per shown video.

    Chance is the same for all policies under one seed, so that differences are paired.
    """
    got = roll_out(
        environment, policy, seed=options.seed, k=k, gamma=options.gamma, temperature=temperature
    )
    estimates = _estimates(got, bootstrap)
    rows = [ResultRow.from_estimate(name, TRUE_VALUE, e, group=group) for group, e in estimates.items()]  # fmt: skip
    return Rolled(rows, estimates)


def _estimates(got: RollOut, bootstrap: UserBootstrap) -> dict[str, Estimate]:
    rows = got.rows.sum(1).astype(np.float64)
    terms = [[Ratio(got.returns, got.units.astype(np.float64))]]
    terms += [[Ratio(np.nan_to_num(got.response[:, :, j]).sum(1), rows)] for j in range(len(RESPONSES))]  # fmt: skip
    found = bootstrap.ratios(bootstrap.users, terms)
    return dict(zip(("all", *RESPONSES), found, strict=True))


def oracle(environment: WorldEnvironment) -> npt.NDArray[np.float64]:
    """Ranks by the true expected reward."""
    return environment.expected_reward


def logging(environment: WorldEnvironment) -> npt.NDArray[np.float64]:
    """Ranks as the log was made; at temperature 1."""
    return environment.logging_scores


def uniform(environment: WorldEnvironment) -> npt.NDArray[np.float64]:
    """A random order, at any temperature above 0."""
    return np.zeros(environment.state.candidates.shape)


def differences(name: str, own: Rolled, rival: str, other: Rolled) -> list[ResultRow]:
    """``name − rival`` of the discounted return and of each response per video; users are the pairs."""
    return [
        ResultRow.from_difference(name, rival, TRUE_VALUE, paired(e, other.estimates[group]), group=group)
        for group, e in own.estimates.items()
    ]  # fmt: skip
