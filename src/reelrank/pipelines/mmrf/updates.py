"""One update of critics and actors, their optimisers and their slow targets.

Source: METHODS §4.4, §4.5. Shapes: N agents, B transitions, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from reelrank.pipelines.mmrf.actors import MMRFActors, Scores
from reelrank.pipelines.mmrf.critics import (
    CriticState,
    FeedCritics,
    td_loss,
    td_loss_of_items,
    td_target,
)
from reelrank.pipelines.mmrf.options import RateOptions, UpdateOptions
from reelrank.pipelines.mmrf.replay import Transition
from reelrank.pipelines.mmrf.routing import RoutedGraph, conflicts, pcgrad
from reelrank.training.checkpoint import (
    optimiser_tensors,
    restore_optimiser,
    under_prefix,
    with_prefix,
)


class CriticLearner(nn.Module):
    """Actors and critics as they learn, their slow targets and their optimisers.

    Args:
        actors: fresh weights; :class:`Scores` of a batch, and a policy.
        critics: fresh weights.
        agents: names of the N critics.
        options: rates.
    """

    def __init__(
        self, actors: nn.Module, critics: nn.Module, agents: Sequence[str], options: RateOptions
    ) -> None:
        super().__init__()
        self.agents = tuple(agents)
        self.rates = options
        self.actors, self.critics = actors, critics
        self.target_actors: Any = deepcopy(actors).requires_grad_(False)
        self.target_critics: Any = deepcopy(critics).requires_grad_(False)
        self.optimisers = {
            "actor": torch.optim.Adam(actors.parameters(), options.actor_lr, fused=True),
            "critic": torch.optim.Adam(
                critics.parameters(),
                options.critic_lr,
                weight_decay=options.critic_weight_decay,
                fused=True,
            ),
        }

    @property
    def gamma(self) -> float:
        """Discount of the critics."""
        return self.rates.gamma

    @property
    def policy(self) -> nn.Module:
        """What ranks."""
        return self.actors

    @torch.no_grad()
    def target(self, transition: Transition) -> Tensor:
        """TD targets (N, B)."""
        policy = self.target_actors(transition.next).log_policy(self.rates.temperature).exp()
        critics = self.target_critics
        next_value = critics.value(critics(transition.next), policy)
        return td_target(transition.reward, next_value, transition.goes_on, self.rates.gamma)

    def td(self, state: CriticState, transition: Transition) -> tuple[Tensor, Tensor, Tensor]:
        """Σ_i of the mean of δ_i², those means (N,), and Q_i of what was shown (N, B)."""
        critics: Any = self.critics
        value: Tensor = critics.value(state, transition.exposure)
        target = self.target(transition)
        if critics.credit == "set":
            return *td_loss(value, target), value
        # each shown item is a one-hot step from s to s', of which a linear critic says q̃ + V
        own = state.candidates + state.value.unsqueeze(-1)
        ahead = (target - transition.reward).unsqueeze(-1)
        target = transition.item_reward + ahead
        return *td_loss_of_items(own, target, transition.logged), value

    def tensors(self) -> dict[str, Tensor]:
        """All that an update depends on: networks, targets, moments of the optimisers."""
        moments = {name: optimiser_tensors(o) for name, o in self.optimisers.items()}
        stored = with_prefix("networks", self.state_dict())
        for name, tensors in moments.items():
            stored |= with_prefix(name, tensors)
        return stored

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        self.load_state_dict(under_prefix("networks", tensors))
        for name, optimiser in self.optimisers.items():
            restore_optimiser(optimiser, under_prefix(name, tensors))

    def _step(self, name: str, gradients: Mapping[nn.Parameter, Tensor]) -> None:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(gradients.keys(), self.rates.grad_clip)
        self.optimisers[name].step()

    @torch.no_grad()
    def _follow(self) -> None:
        pairs = ((self.target_actors, self.actors), (self.target_critics, self.critics))
        for target, online in pairs:
            soft_update(target.parameters(), online.parameters(), self.rates.tau)


class ActorCritic(CriticLearner):
    """MMRF as it learns.

    Args:
        actors: fresh weights.
        critics: fresh weights, as many agents as the actors.
        options: rates and weights.
    """

    actors: MMRFActors
    critics: FeedCritics

    def __init__(self, actors: MMRFActors, critics: FeedCritics, options: UpdateOptions) -> None:
        super().__init__(actors, critics, actors.options.agents, options)
        self.options = options

    def update(self, transition: Transition) -> dict[str, Tensor]:
        """One step of critics, actors and targets.

        Both gradients are taken at the same weights, so that one pass of the critics serves both [D].

        Returns:
            ``td`` and ``actor`` (N,) losses, ``entropy`` (N,) of the policies, ``q_abs_max`` (N,) of the batch.
        """
        options = self.options
        state = self.critics(transition.batch)
        loss, per_agent, value = self.td(state, transition)
        critic = list(self.critics.parameters())
        critic_gradients = torch.autograd.grad(loss, critic, materialize_grads=True)

        graph = RoutedGraph(self.actors, transition.batch)
        losses, entropy = self.actor_losses(graph.scores, state, transition)
        shared = graph.shared_gradients(losses, options.beta) if options.pcgrad else None
        gradients = graph.gradients(losses, options.beta)
        if shared is not None:
            n = len(shared)
            order = torch.stack([torch.randperm(n) for _ in range(n)])
            combined = torch.split(pcgrad(shared, order), [p.numel() for p in graph.shared])
            gradients |= {p: g.view_as(p) for p, g in zip(graph.shared, combined, strict=True)}
        self._step("critic", dict(zip(critic, critic_gradients, strict=True)))
        self._step("actor", gradients)
        self._follow()
        return {
            "td": per_agent,
            "actor": losses.detach(),
            "entropy": entropy.detach(),
            "q_abs_max": value.detach().abs().amax(1),
        }

    def actor_losses(
        self, scores: Scores, state: CriticState, transition: Transition
    ) -> tuple[Tensor, Tensor]:
        """What each agent minimises, and its policy's mean entropy: both (N,).

        −Q_i(s, π_i) − entropy bonus; the main agent's also has the cloning term on logged rows and the attention's penalty.
        """
        options = self.options
        log_policy = scores.log_policy(options.temperature)
        q = self.critics.value(state.detach(), log_policy.exp())
        entropy, cloning = entropy_and_cloning(log_policy, transition)
        extra = options.bc_coef * cloning[-1]
        losses = -q.mean(1) - options.entropy * entropy
        main = losses[-1:] + extra + options.logit_penalty * scores.penalty
        return torch.cat([losses[:-1], main]), entropy

    def conflicts(self, transition: Transition) -> Tensor:
        """Cosines (N, N) of ∂Q_i/∂(shared)."""
        graph = RoutedGraph(self.actors, transition.batch)
        state = self.critics(transition.batch).detach()
        policy = graph.scores.log_policy(self.options.temperature).exp()
        q = self.critics.value(state, policy).mean(1)
        return conflicts(graph.shared_gradients(q, self.options.beta))


def entropy_and_cloning(log_policy: Tensor, transition: Transition) -> tuple[Tensor, Tensor]:
    """Mean entropy of policies (N, B, C), and their cross-entropy to the shown items of logged rows: both (N,)."""
    finite = log_policy.masked_fill(~transition.batch.mask, 0.0)
    entropy = -(log_policy.exp() * finite).sum(-1).mean(1)
    cloning = -(transition.exposure * finite).sum(-1) * transition.logged
    return entropy, cloning.sum(1) / transition.logged.sum().clamp_min(1)


@torch.no_grad()
def soft_update(targets: Iterable[Tensor], online: Iterable[Tensor], tau: float) -> None:
    """Move each target ``tau`` of the way to its online weight."""
    torch._foreach_lerp_(list(targets), list(online), tau)
