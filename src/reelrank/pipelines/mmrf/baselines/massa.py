r"""MASSA: a signal network tells every agent something at random, actors and critics of all agents read their own signal.

.. math::
    z_i &∼ N(μ_i(s), σ_i(s)), \qquad a_i = MLP([h_i ‖ z_i]), \qquad Q_i(s, a_i, z_i) = \sum_c π_i(c) \tilde q_i(s, x_c, z_i) + V_i(s) \\
    L_ζ &= -\sum_i Q_i - c_H H(ζ)

V_i does not read the signal, and ζ does not move the state encoder [D]: ζ would raise values that no ranking earns.

Source: METHODS §4.7 [R: summary of the paper]. Shapes: N agents, B decisions, C candidates, Z = ``signal``.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch, FeedInputs
from reelrank.models.feed_encoder import FeedEncoder, FeedSpec
from reelrank.models.feed_rewards import RewardScale
from reelrank.models.registry import register
from reelrank.pipelines.mmrf.actors import Scores
from reelrank.pipelines.mmrf.agent_layers import AgentLinear, AgentMLP, StateItemLinear
from reelrank.pipelines.mmrf.baselines.networks import conflict_matrix
from reelrank.pipelines.mmrf.baselines.options import MASSAOptions
from reelrank.pipelines.mmrf.critics import CriticState, centred, td_target
from reelrank.pipelines.mmrf.fitting import FitArguments, Fitted, logged_replay, method_identity
from reelrank.pipelines.mmrf.learning import learn
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.replay import Transition
from reelrank.pipelines.mmrf.updates import CriticLearner, entropy_and_cloning
from reelrank.training.device import seed_everything

_HALF_LOG_2_PI_E = 0.5 * math.log(2 * math.pi * math.e)
_LOG_SD = (
    -5.0,
    1.0,
)  # beyond, the signal is a constant, or noise that the entropy bonus grows without end


@register("massa", MASSAOptions, FeedSpec)
class MASSAPolicy(nn.Module):
    """Signal network and actors; it ranks by the main actor with the mean signal."""

    def __init__(self, options: MASSAOptions, spec: FeedSpec) -> None:
        super().__init__()
        self.options = options
        n, encoder, hidden = len(options.agents), options.actor.encoder, options.actor.hidden
        self.encoder = FeedEncoder(encoder, spec)
        self.signal_net = nn.Sequential(
            nn.Linear(encoder.d_state, options.signal_hidden),
            nn.LeakyReLU(),
            nn.Linear(options.signal_hidden, 2 * n * options.signal),
        )
        fan_in = hidden[0] + options.signal
        self.hidden_layer = StateItemLinear(n, encoder.d_state, encoder.d_item, hidden[0])
        self.from_own = AgentLinear(n, hidden[0], hidden[1], fan_in=fan_in)
        self.from_signal = AgentLinear(n, options.signal, hidden[1], bias=False, fan_in=fan_in)
        self.rest = AgentMLP(n, hidden[1:])

    def moments(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and ln σ of each agent's signal, (N, B, Z), of states (B, d)."""
        both = self.signal_net(state.detach()).view(len(state), 2, len(self.options.agents), -1)
        mean, log_sd = both.permute(1, 2, 0, 3)
        return mean, log_sd.clamp(*_LOG_SD)

    def acted(self, batch: FeedBatch, state: Tensor, signal: Tensor) -> Scores:
        """Scores of all agents who heard ``signal`` (N, B, Z)."""
        items = self.encoder.items(batch.candidates, batch.item_codes)
        h = F.leaky_relu(self.hidden_layer(state, items))
        own = self.from_own(h.flatten(1, 2)).view(*h.shape[:3], -1)
        z = F.leaky_relu(own + self.from_signal(signal).unsqueeze(2)).flatten(1, 2)
        logits = self.rest(z).view(-1, *batch.mask.shape)
        return Scores(logits.masked_fill(~batch.mask, -torch.inf), logits.new_zeros(()))

    def forward(self, batch: FeedBatch) -> Scores:
        """Scores of all agents under the mean signal."""
        state = self.encoder.state(batch)
        return self.acted(batch, state, self.moments(state)[0])

    def head_scores(self, batch: FeedBatch) -> Tensor:
        """Every agent's ln π_i(c|s), (N, B, C)."""
        logits: Tensor = self(batch).logits
        return logits.float().log_softmax(-1)

    def scores(self, batch: FeedBatch) -> Tensor:
        """The main agent's ln π(c|s), (B, C)."""
        return self.head_scores(batch)[-1]


class SignalCritics(nn.Module):
    """Linear critics that also read the agents' signals."""

    def __init__(self, options: MASSAOptions, spec: FeedSpec) -> None:
        super().__init__()
        n, critic = len(options.agents), options.critic
        encoder = critic.encoder
        width = encoder.d_state + options.signal
        self.encoder = FeedEncoder(encoder, spec)
        self.first = StateItemLinear(n, width, encoder.d_item, critic.hidden[0])
        self.rest = AgentMLP(n, critic.hidden)
        self.baseline = AgentMLP(n, [encoder.d_state, critic.value_hidden])
        self.credit = critic.credit

    def forward(self, batch: FeedBatch, signal: Tensor) -> CriticState:
        """q̃ and V of signals (N, B, Z)."""
        b, x = self.encoder(batch)
        heard = torch.cat([b.expand(len(signal), -1, -1), signal], -1)
        q = self.rest(F.leaky_relu(self.first(heard, x)).flatten(1, 2))
        q = q.view(-1, *batch.mask.shape)
        return CriticState(centred(q, batch.mask), self.baseline(b), batch.mask)

    def value(self, state: CriticState, exposure: Tensor) -> Tensor:
        """Σ_c e_c q̃_c + V, (N, B), of exposures (N or 1, B, C)."""
        return (exposure * state.candidates).sum(-1) + state.value


class MASSALearner(CriticLearner):
    """Signal network, actors and critics as they learn.

    Args:
        policy: fresh weights.
        critics: fresh weights.
        options: rates.
    """

    actors: MASSAPolicy
    critics: SignalCritics

    def __init__(self, policy: MASSAPolicy, critics: SignalCritics, options: MASSAOptions) -> None:
        super().__init__(policy, critics, options.agents, options.update)
        self.options = options

    def update(self, transition: Transition) -> dict[str, Tensor]:
        """One step; signals are drawn from torch's global generator.

        Returns:
            ``td`` and ``actor`` (N,) losses, ``entropy`` (N,) of the policies, ``signal_entropy``, ``q_abs_max`` (N,).
        """
        rates, batch = self.rates, transition.batch
        log_policy, signal, signal_entropy = self._act(batch)
        state = self.critics(batch, signal)
        loss, per_agent, value = self.td(state, transition)
        q = self.critics.value(state, log_policy.exp()).mean(1)
        entropy, cloning = entropy_and_cloning(log_policy, transition)
        losses = -q - rates.entropy * entropy
        total = losses.sum() + rates.bc_coef * cloning[-1]
        total = total - self.options.signal_entropy * signal_entropy
        # one pass of the critics: their parameters take the TD gradient alone, the actors' and ζ's the other
        critic, actor = list(self.critics.parameters()), list(self.actors.parameters())
        critic_gradients = torch.autograd.grad(loss, critic, retain_graph=True, materialize_grads=True)  # fmt: skip
        actor_gradients = torch.autograd.grad(total, actor, materialize_grads=True)
        self._step("critic", dict(zip(critic, critic_gradients, strict=True)))
        self._step("actor", dict(zip(actor, actor_gradients, strict=True)))
        self._follow()
        return {
            "td": per_agent,
            "actor": losses.detach(),
            "entropy": entropy.detach(),
            "signal_entropy": signal_entropy.detach(),
            "q_abs_max": value.detach().abs().amax(1),
        }

    @torch.no_grad()
    def target(self, transition: Transition) -> Tensor:
        """TD targets (N, B) under a signal drawn for s'."""
        actors, critics, batch = self.target_actors, self.target_critics, transition.next
        b = actors.encoder.state(batch)
        signal = _drawn(*actors.moments(b))
        policy = actors.acted(batch, b, signal).log_policy(self.rates.temperature).exp()
        next_value = critics.value(critics(batch, signal), policy)
        return td_target(transition.reward, next_value, transition.goes_on, self.rates.gamma)

    def conflicts(self, transition: Transition) -> Tensor:
        """Cosines (N, N) of ∂Q_i/∂(state encoder of the actors)."""
        log_policy, signal, _ = self._act(transition.batch)
        state = self.critics(transition.batch, signal)
        losses = -self.critics.value(state, log_policy.exp()).mean(1)
        return conflict_matrix(losses, self.actors.encoder.parameters())

    def _act(self, batch: FeedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Drawn policies ln π_i (N, B, C), their signals (N, B, Z), and ζ's mean entropy per agent."""
        b = self.actors.encoder.state(batch)
        mean, log_sd = self.actors.moments(b)
        signal = _drawn(mean, log_sd)
        scores = self.actors.acted(batch, b, signal)
        entropy = (log_sd + _HALF_LOG_2_PI_E).sum(-1).mean()
        return scores.log_policy(self.rates.temperature), signal, entropy


def _drawn(mean: Tensor, log_sd: Tensor) -> Tensor:
    return mean + log_sd.exp() * torch.randn_like(mean)


def fit_massa(
    options: MASSAOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """MASSA on logged transitions."""
    scale = RewardScale.fit(inputs, options.agents)
    device, spec = inputs.rows.item.device, FeedSpec.of(inputs)
    seed_everything(learning.seed)
    policy = MASSAPolicy(options, spec).to(device)
    learner = MASSALearner(policy, SignalCritics(options, spec).to(device), options).to(device)
    transitions = logged_replay(inputs, scale, replay, options.actor.encoder.history)
    run["identity"] = method_identity("massa", options, replay, run)
    learnt = learn(learner, transitions, learning, **run)
    return Fitted(policy, learnt.fit, learnt.conflicts)
