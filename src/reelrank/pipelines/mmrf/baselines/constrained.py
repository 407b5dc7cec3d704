r"""TSCAC's two stages: policies of the auxiliary responses, then the main one within a distance of each.

.. math::
    stage\ 1: \quad & A_i = r_i + γ V_i(s') - V_i(s), \quad ∇ = E_{log}[\min(π_i/π_b, c) A_i ∇ \log π_i] \\
    stage\ 2: \quad & \max_π E_π[A] \quad s.t. \; KL(π‖π_i) ≤ ε_i \\
    & π^* ∝ \prod_i π_i^{λ_i/Σλ} e^{A/Σλ}, \qquad L = -E_{log}[w \log π], \; w = \prod_i (π_i/π_b)^{λ_i/Σλ} e^{A/Σλ}

π_b is cloned in stage 1. The weights w are divided by their batch mean (for the state's constant of π*) and capped.

ε_i and λ [D]: the closest that π can be to all π_i at once is their geometric mean π̄ (λ → ∞), so ε_i = KL(π̄‖π_i) + ``slack`` can
always be kept. One λ for all constraints, as in the paper, climbs in ln λ by ``dual_rate`` times the worst violation
max_i KL(π‖π_i) − ε_i (plus a margin): larger λ pulls π to π̄, smaller λ lets the main advantage rule. With ``dual_rate`` 0 it is the paper's fixed λ.

Source: METHODS §4.7 [M: the closed form]. Shapes: N agents, the main one last; B transitions, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor

from reelrank.models.feed import FeedBatch
from reelrank.pipelines.mmrf.baselines.networks import (
    ItemScorers,
    StateValues,
    conflict_matrix,
)
from reelrank.pipelines.mmrf.baselines.options import TSCACOptions
from reelrank.pipelines.mmrf.critics import td_loss, td_target
from reelrank.pipelines.mmrf.replay import Transition
from reelrank.pipelines.mmrf.updates import CriticLearner, entropy_and_cloning

MARGIN = 0.1  # of the slack, kept free in train so that the constraint holds on val


class ValueLearner(CriticLearner):
    """Actors with state values for critics: the values are those of the policy that logged."""

    actors: ItemScorers
    critics: StateValues

    def __init__(self, actors: ItemScorers, critics: StateValues, options: TSCACOptions) -> None:
        super().__init__(actors, critics, options.agents, options.update)
        self.options = options

    @torch.no_grad()
    def target(self, transition: Transition) -> Tensor:
        """R + γ V⁻(s'), (N, B)."""
        next_value = self.target_critics(transition.next)
        return td_target(transition.reward, next_value, transition.goes_on, self.rates.gamma)

    def _judge(self, transition: Transition, agents: slice) -> tuple[Tensor, dict[str, Tensor]]:
        """Advantages A_i (N, B), NaN where not logged; TD gradients of some ``agents`` are taken and the critics stepped."""
        value = self.critics(transition.batch)
        target = self.target(transition)
        loss, per_agent = td_loss(value[agents], target[agents])
        learnt = list(self.critics.parameters())
        gradients = torch.autograd.grad(loss, learnt, materialize_grads=True)
        self._step("critic", dict(zip(learnt, gradients, strict=True)))
        of_all = value.new_zeros(len(value))
        of_all[agents] = per_agent
        q_max = torch.zeros_like(of_all)
        q_max[agents] = value[agents].detach().abs().amax(1)
        return (target - value).detach(), {"td": of_all, "q_abs_max": q_max}

    def _climb(self, loss: Tensor) -> None:
        learnt = list(self.actors.parameters())
        gradients = torch.autograd.grad(loss, learnt, materialize_grads=True)
        self._step("actor", dict(zip(learnt, gradients, strict=True)))
        self._follow()


class AuxiliaryLearner(ValueLearner):
    """Stage 1: N − 1 auxiliary policies, and in the main one's place the clone of the policy that logged.

    The main response is not looked at.
    """

    def update(self, transition: Transition) -> dict[str, Tensor]:
        """One step.

        Returns:
            ``td``, ``actor`` and ``entropy`` (N,), ``q_abs_max`` (N,); of the main response ``actor`` is the clone's loss.
        """
        log_policy = self.actors(transition.batch).log_policy(self.rates.temperature)
        advantage, metrics = self._judge(transition, slice(-1))
        losses, entropy = self.losses(log_policy, advantage, transition)
        # the clone has no entropy bonus: it is to be what logged
        self._climb(losses.sum() - self.rates.entropy * entropy[:-1].sum())
        return metrics | {"actor": losses.detach(), "entropy": entropy.detach()}

    def losses(
        self, log_policy: Tensor, advantage: Tensor, transition: Transition
    ) -> tuple[Tensor, Tensor]:
        """Policy-gradient losses and the clone's cross-entropy, and entropies, both (N,)."""
        finite = log_policy.masked_fill(~transition.batch.mask, 0.0)
        ratio = (finite[:-1] - finite[-1:]).detach().exp().clamp_max(self.options.ratio_cap)
        shown = (transition.exposure * ratio * finite[:-1]).sum(-1)
        climb = -(advantage[:-1].nan_to_num(0.0) * shown).mean(1)
        entropy, cloning = entropy_and_cloning(log_policy, transition)
        return torch.cat([climb, cloning[-1:]]), entropy

    def conflicts(self, transition: Transition) -> Tensor:
        """Cosines (N, N) of the losses' gradients of the state encoder."""
        log_policy = self.actors(transition.batch).log_policy(self.rates.temperature)
        advantage = (self.target(transition) - self.critics(transition.batch)).detach()
        losses, _ = self.losses(log_policy, advantage, transition)
        return conflict_matrix(losses, self.actors.encoder.parameters())


class ConstrainedLearner(ValueLearner):
    """Stage 2: the main policy, from the clone on; stage 1's policies stay as they are.

    Args:
        actor: a single agent.
        stage1: learnt; its critics learn on.
        options: of both stages.
    """

    def __init__(self, actor: ItemScorers, stage1: AuxiliaryLearner, options: TSCACOptions) -> None:
        actor.take(stage1.actors, -1)
        super().__init__(actor, deepcopy(stage1.critics), options)
        self.fixed = deepcopy(stage1.actors).requires_grad_(False)
        first = torch.tensor(options.closed_form.multiplier, dtype=torch.float64)
        self.register_buffer("log_multiplier", first.log())
        self.log_multiplier: Tensor

    def update(self, transition: Transition) -> dict[str, Tensor]:
        """One step.

        Returns:
            ``td``, ``q_abs_max`` (N,), ``actor`` loss, ``entropy``, ``multiplier`` λ, largest sample weight, and ``kl_<agent>`` and
            ``epsilon_<agent>`` of each constraint.
        """
        form = self.options.closed_form
        log_policy = self.actors(transition.batch).log_policy(self.rates.temperature)
        fixed = self._fixed_log_policies(transition.batch)
        advantage, metrics = self._judge(transition, slice(-1, None))
        multipliers = self.log_multiplier.exp().float().expand(len(fixed) - 1)
        log_weight = closed_form_log_weights(
            fixed[:-1], fixed[-1], advantage[-1].unsqueeze(-1), multipliers
        )
        known = transition.exposure * ~advantage[-1].isnan().unsqueeze(-1)
        weight = sample_weights(log_weight, known, form.weight_cap)
        finite = log_policy[0].masked_fill(~transition.batch.mask, 0.0)
        entropy, cloning = entropy_and_cloning(log_policy, transition)
        loss = -(known * weight * finite).sum() / known.sum().clamp_min(1)
        extra = self.rates.bc_coef * cloning[0] - self.rates.entropy * entropy[0]
        self._climb(loss + extra)
        kl, epsilon = self.divergences(log_policy.detach(), fixed, transition.batch.mask)
        self._dual_step(kl - epsilon + MARGIN * form.slack)
        metrics |= {
            "actor": loss.detach(),
            "entropy": entropy[0].detach(),
            "multiplier": multipliers[0],
            "weight_largest": weight.max(),
        }
        return metrics | self._named(kl, epsilon)

    @torch.no_grad()
    def constraints(self, batch: FeedBatch) -> dict[str, Tensor]:
        """Mean ``kl_<agent>`` = KL(π‖π_i) and ``epsilon_<agent>`` over the states of a batch."""
        log_policy = self.actors(batch).log_policy(self.rates.temperature)
        return self._named(
            *self.divergences(log_policy, self._fixed_log_policies(batch), batch.mask)
        )

    def divergences(self, log_policy: Tensor, fixed: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the states of KL(π‖π_i), and ε_i: both (N − 1,), of ln π (1, B, C) and stage 1's (N, B, C)."""
        auxiliary = fixed[:-1]
        middle = auxiliary.mean(0, keepdim=True).log_softmax(-1)  # geometric mean π̄
        closest = _kl(middle, auxiliary, mask).mean(1)
        kl = _kl(log_policy, auxiliary, mask).mean(1)
        return kl, closest + self.options.closed_form.slack

    def conflicts(self, transition: Transition) -> Tensor:
        """Cosines (N, N) of the gradients with which each response alone would move the policy."""
        log_policy = self.actors(transition.batch).log_policy(self.rates.temperature)
        finite = log_policy[0].masked_fill(~transition.batch.mask, 0.0)
        advantage = (self.target(transition) - self.critics(transition.batch)).detach()
        shown = (transition.exposure * finite).sum(-1)
        losses = -(advantage.nan_to_num(0.0) * shown).mean(1)
        return conflict_matrix(losses, self.actors.parameters())

    @torch.no_grad()
    def _fixed_log_policies(self, batch: FeedBatch) -> Tensor:
        policies: Tensor = self.fixed(batch).log_policy(self.rates.temperature)
        return policies

    @torch.no_grad()
    def _dual_step(self, excess: Tensor) -> None:
        form = self.options.closed_form
        if form.dual_rate:
            worst = excess.max().double().clamp(-1.0, 1.0)
            smallest, largest = torch.tensor(form.bounds, dtype=torch.float64).log().tolist()
            self.log_multiplier.add_(form.dual_rate * worst).clamp_(smallest, largest)

    def _named(self, kl: Tensor, epsilon: Tensor) -> dict[str, Tensor]:
        pairs: Mapping[str, Tensor] = {"kl": kl, "epsilon": epsilon}
        return {f"{n}_{a}": v for n, of in pairs.items() for a, v in zip(self.agents, of, strict=False)}  # fmt: skip


def closed_form_log_weights(
    log_auxiliary: Tensor, log_behaviour: Tensor, advantage: Tensor, multipliers: Tensor
) -> Tensor:
    """Logarithm of w, (B, C): what turns π_b into π*, up to a constant of the state.

    Args:
        log_auxiliary: ln π_i, (N − 1, B, C); −inf at a pad.
        log_behaviour: ln π_b, (B, C).
        advantage: A of the main response, (B, C) or (B, 1).
        multipliers: λ_i, (N − 1,).
    """
    total = multipliers.sum()
    share = (multipliers / total).view(-1, 1, 1)
    tilt = (share * log_auxiliary).sum(0) - log_behaviour
    return (tilt + advantage / total).nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def sample_weights(log_weight: Tensor, exposure: Tensor, cap: float) -> Tensor:
    """Weights (B, C) of the exposed items, in units of their mean over the batch, at most ``cap``; 0 elsewhere."""
    is_exposed = exposure > 0
    inside = log_weight.masked_fill(~is_exposed, -torch.inf)
    largest = inside.max()
    weight = (inside - largest.nan_to_num(0.0, neginf=0.0)).exp()
    mean = (exposure * weight).sum() / exposure.sum().clamp_min(torch.finfo(weight.dtype).tiny)
    return (weight / mean.clamp_min(torch.finfo(weight.dtype).tiny)).clamp_max(cap)


def _kl(log_p: Tensor, log_q: Tensor, mask: Tensor) -> Tensor:
    """KL(p‖q) over the candidates, (N, B)."""
    gap = (log_p - log_q).masked_fill(~mask, 0.0)
    return (log_p.exp() * gap).sum(-1)
