r"""TSCAC as its author's code has it: DDPG with weighted critics, then DDPG on play time near the first one's scores [A].

.. math:: L = mean(ρ · (-\sum_i w_i Q_i)) + c_{BC} CE + c_{KL} ‖a - a_1‖^2, \qquad ρ = clip(N(a; a_1, σ), 0, 1)

Stage 1 is the first term with ρ = 1. Differs: their action is one number, an item's index 0 … 149; here a is the list of the candidates'
scores, each sigmoid stretched to the same range, so that σ and c_KL mean what they did, and distances are means over the candidates.

Source: METHODS §4.7 [A]. Shapes: N agents, B transitions, C candidates.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor

from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.baselines.networks import ItemScorers, conflict_matrix
from reelrank.pipelines.mmrf.baselines.options import ResponseWeights, TSCACOptions
from reelrank.pipelines.mmrf.critics import FeedCritics
from reelrank.pipelines.mmrf.options import AGENTS
from reelrank.pipelines.mmrf.replay import Transition
from reelrank.pipelines.mmrf.updates import CriticLearner, entropy_and_cloning

HATE = AGENTS.index("hate")


class WeightedLearner(CriticLearner):
    """One actor that climbs Σ w_i Q_i.

    Args:
        actor: a single agent.
        critics: of all agents.
        weights: (N,), w_i of critics of standardised rewards.
        options: of both stages.
        anchor: stage 2: the actor of stage 1.
    """

    actors: ItemScorers
    critics: FeedCritics

    def __init__(
        self,
        actor: ItemScorers,
        critics: FeedCritics,
        weights: Tensor,
        options: TSCACOptions,
        anchor: ItemScorers | None = None,
    ) -> None:
        super().__init__(actor, critics, options.agents, options.update)
        self.options = options
        self.register_buffer("weights", weights)
        self.weights: Tensor
        self.anchor = None if anchor is None else deepcopy(anchor).requires_grad_(False)

    def update(self, transition: Transition) -> dict[str, Tensor]:
        """One step of critics and actor.

        Returns:
            ``td`` (N,), ``actor`` loss, ``entropy``, ``ratio`` and squared ``distance`` to stage 1, ``q_abs_max`` (N,).
        """
        code, rates, batch = self.options.code, self.rates, transition.batch
        state = self.critics(batch)
        loss, per_agent, value = self.td(state, transition)
        critic = list(self.critics.parameters())
        critic_gradients = torch.autograd.grad(loss, critic, materialize_grads=True)

        scores = self.actors(batch)
        log_policy = scores.log_policy(rates.temperature)
        q = self.critics.value(state.detach(), log_policy.exp())
        distance = torch.zeros_like(q[0])
        ratio = torch.ones_like(distance)
        if self.anchor is not None:
            with torch.no_grad():
                near = self.anchor(batch).logits[0]
            distance = score_distance(scores.logits[0], near, batch.mask, code.span)
            ratio = gaussian_ratio(distance.detach(), code.sigma)
        entropy, cloning = entropy_and_cloning(log_policy, transition)
        climb = -(ratio * (self.weights.unsqueeze(1) * q).sum(0)).mean()
        extra = rates.bc_coef * cloning[0] + code.kl_coef * distance.mean()
        actor = list(self.actors.parameters())
        actor_gradients = torch.autograd.grad(climb + extra, actor, materialize_grads=True)
        self._step("critic", dict(zip(critic, critic_gradients, strict=True)))
        self._step("actor", dict(zip(actor, actor_gradients, strict=True)))
        self._follow()
        return {
            "td": per_agent,
            "actor": climb.detach(),
            "entropy": entropy[0].detach(),
            "ratio": ratio.mean(),
            "distance": distance.detach().mean(),
            "q_abs_max": value.detach().abs().amax(1),
        }

    def conflicts(self, transition: Transition) -> Tensor:
        """Cosines (N, N) of the agents' gradients of the actor."""
        log_policy = self.actors(transition.batch).log_policy(self.rates.temperature)
        state = self.critics(transition.batch).detach()
        losses = -self.critics.value(state, log_policy.exp()).mean(1)
        return conflict_matrix(losses, self.actors.parameters())


def critic_weights(weights: ResponseWeights, scale: RewardScale) -> Tensor:
    """λ (N,) of raw responses as weights of critics whose rewards are in train sds and count hate as negative."""
    lam = torch.tensor(weights.in_order, device=scale.sd.device)
    lam[HATE] = -lam[HATE]
    return lam[scale.columns] * scale.sd


def main_weights(main_weight: float, scale: RewardScale) -> Tensor:
    """The same with ``main_weight`` per 10 s watched, and nothing else."""
    weights = torch.zeros_like(scale.sd)
    weights[-1] = main_weight / 10 * scale.sd[-1]
    return weights


def score_distance(logits: Tensor, near: Tensor, mask: Tensor, span: float) -> Tensor:
    """Mean over the candidates of (a − a_1)², (B,), a = span · σ(logit)."""
    gap = span * (logits.sigmoid() - near.sigmoid()).masked_fill(~mask, 0.0)
    return gap.square().sum(-1) / mask.sum(-1).clamp_min(1)


def gaussian_ratio(squared: Tensor, sigma: float) -> Tensor:
    """Density N(a; a_1, σ) of a squared distance, at most 1."""
    density = (-squared / (2 * sigma**2)).exp() / (sigma * math.sqrt(2 * math.pi))
    return density.clamp_max(1.0)
