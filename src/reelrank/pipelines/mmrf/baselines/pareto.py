r"""PDPG: one actor climbs all critics at once, along the shortest vector in the convex hull of their gradients.

.. math:: \min_{w ∈ Δ} ‖\sum_i w_i g_i‖^2, \qquad g_i = ∂(-Q_i)/∂θ, \qquad θ ← θ - η \sum_i w_i g_i

Source: METHODS §4.7; Lin et al. (WWW'21), Désidéri (2012), Wolfe (1976). Shapes: N agents, B transitions, C candidates.
"""

from __future__ import annotations

from typing import Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_rewards import RewardScale
from reelrank.models.registry import register
from reelrank.pipelines.mmrf.baselines.networks import (
    ItemScorers,
    conflict_matrix,
    gradient_rows,
)
from reelrank.pipelines.mmrf.baselines.options import ParetoOptions
from reelrank.pipelines.mmrf.critics import FeedCritics, build_critics
from reelrank.pipelines.mmrf.fitting import FitArguments, Fitted, logged_replay, method_identity
from reelrank.pipelines.mmrf.learning import learn
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.replay import Transition
from reelrank.pipelines.mmrf.updates import CriticLearner, entropy_and_cloning
from reelrank.training.device import seed_everything

FloatArray = npt.NDArray[np.float64]


@register("pareto", ParetoOptions, FeedSpec)
class ParetoPolicy(ItemScorers):
    """One item-wise actor."""

    def __init__(self, options: ParetoOptions, spec: FeedSpec) -> None:
        super().__init__(1, options.actor, spec)
        self.options = options


class ParetoLearner(CriticLearner):
    """The actor and seven critics as they learn.

    Args:
        actor: fresh weights.
        critics: fresh weights.
        options: solver and rates.
    """

    actors: ItemScorers
    critics: FeedCritics

    def __init__(self, actor: ItemScorers, critics: FeedCritics, options: ParetoOptions) -> None:
        super().__init__(actor, critics, options.agents, options.update)
        self.options = options
        n = len(options.agents)
        self.register_buffer("weights", torch.full((n,), 1 / n, dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.weights: Tensor
        self.updates: Tensor

    def update(self, transition: Transition) -> dict[str, Tensor]:
        """One step of critics and actor.

        Returns:
            ``td`` and ``actor`` (N,) losses, ``weight`` (N,), ``entropy`` of the policy, ``q_abs_max`` (N,).
        """
        rates = self.rates
        state = self.critics(transition.batch)
        loss, per_agent, value = self.td(state, transition)
        critic = list(self.critics.parameters())
        critic_gradients = torch.autograd.grad(loss, critic, materialize_grads=True)

        log_policy = self.actors(transition.batch).log_policy(rates.temperature)
        losses = -self.critics.value(state.detach(), log_policy.exp()).mean(1)
        actor = list(self.actors.parameters())
        if self.updates % self.options.solve_every == 0:
            self.solve(gradient_rows(losses, actor))
        self.updates += 1
        entropy, cloning = entropy_and_cloning(log_policy, transition)
        extra = rates.bc_coef * cloning[-1] - rates.entropy * entropy[-1]
        total = (self.weights.to(losses.dtype) * losses).sum() + extra
        actor_gradients = torch.autograd.grad(total, actor, materialize_grads=True)
        self._step("critic", dict(zip(critic, critic_gradients, strict=True)))
        self._step("actor", dict(zip(actor, actor_gradients, strict=True)))
        self._follow()
        return {
            "td": per_agent,
            "actor": losses.detach(),
            "weight": self.weights.clone(),
            "entropy": entropy[-1].detach(),
            "q_abs_max": value.detach().abs().amax(1),
        }

    def solve(self, gradients: Tensor) -> None:
        """New weights of the agents from their gradients (N, n)."""
        options = self.options
        if options.unit_gradients:
            gradients = torch.nn.functional.normalize(gradients, dim=1)
        gram = (gradients @ gradients.T).double()
        if options.solver == "code":
            self.weights.copy_(code_step(self.weights, gram, options.code_rate, options.code_clip))
        else:
            solved = min_norm_weights(gram.cpu().numpy())
            self.weights.copy_(torch.from_numpy(solved))

    def conflicts(self, transition: Transition) -> Tensor:
        """Cosines (N, N) of the agents' gradients of the actor."""
        log_policy = self.actors(transition.batch).log_policy(self.rates.temperature)
        state = self.critics(transition.batch).detach()
        losses = -self.critics.value(state, log_policy.exp()).mean(1)
        return conflict_matrix(losses, self.actors.parameters())


def min_norm_weights(gram: FloatArray, tolerance: float = 1e-10) -> FloatArray:
    """Weights (N,) on the simplex of the shortest vector in the convex hull of N vectors.

    Frank–Wolfe, fully corrective: each new vertex is followed by the exact minimum over the vertices held, so that it ends
    after finitely many steps (Wolfe's algorithm).

    Args:
        gram: (N, N) inner products of the vectors.
        tolerance: largest duality gap, in units of the longest vector's squared norm.
    """
    scale = gram.diagonal().max()
    if not scale > 0:
        return np.full(len(gram), 1 / len(gram))
    gram = gram / scale
    held = [int(gram.diagonal().argmin())]
    weights = np.zeros(len(gram))
    weights[held] = 1.0
    for _ in range(50 * len(gram)):
        slope = gram @ weights
        vertex = int(slope.argmin())
        if weights @ slope - slope[vertex] <= tolerance or vertex in held:
            break
        held.append(vertex)
        weights, held = _corrected(gram, weights, held)
    normalised: FloatArray = weights / weights.sum()
    return normalised


def _corrected(
    gram: FloatArray, weights: FloatArray, held: list[int]
) -> tuple[FloatArray, list[int]]:
    """The minimum over the simplex of the vertices ``held``, and those that it needs."""
    while True:
        n = len(held)
        system = np.ones((n + 1, n + 1))
        system[:n, :n], system[n, n] = gram[np.ix_(held, held)], 0.0
        # least squares: equal gradients make it singular
        affine = np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0][:n]
        now = weights[held]
        if (affine > 0).all():
            weights = np.zeros_like(weights)
            weights[held] = affine
            return weights, held
        falling = affine <= 0
        share = np.divide(now, now - affine, out=np.zeros(n), where=falling & (now > affine))
        step = share[falling].min()
        moved = now + step * (affine - now)
        moved[falling & (share <= step)] = 0.0
        weights = np.zeros_like(weights)
        weights[held] = moved
        held = [v for v in held if weights[v] > 0]
        weights /= weights.sum()


def code_step(weights: Tensor, gram: Tensor, rate: float, clip: float) -> Tensor:
    """The author code's step: w ← norm(max(0, w − rate · clip(⟨g, g_i⟩, ±clip))), g = Σ_j w_j g_j [A]."""
    moved = (weights - rate * (gram @ weights).clamp(-clip, clip)).clamp_min(0.0)
    return moved / moved.sum()


def fit_pareto(
    options: ParetoOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """PDPG on logged transitions."""
    scale = RewardScale.fit(inputs, options.agents)
    device, spec = inputs.rows.item.device, FeedSpec.of(inputs)
    seed_everything(learning.seed)
    policy = ParetoPolicy(options, spec).to(device)
    critics = build_critics(len(options.agents), options.critic, spec).to(device)
    learner = ParetoLearner(policy, critics, options).to(device)
    transitions = logged_replay(inputs, scale, replay, options.actor.encoder.history)
    run["identity"] = method_identity("pareto", options, replay, run)
    learnt = learn(learner, transitions, learning, **run)
    return Fitted(policy, learnt.fit, learnt.conflicts)
