"""The layers over a state that all trained models of this system share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reelrank.models.behaviours import BEHAVIOURS
from reelrank.models.policy import Outputs
from reelrank.pipelines.mt_dqn.options import HeadOptions


@dataclass(frozen=True)
class ActionOutputs(Outputs):
    """Outputs of a model with several actions on a candidate; ``q`` is that of the best.

    Attributes:
        q_actions: (B, C, A).
    """

    q_actions: Tensor


@dataclass(frozen=True)
class Levels:
    """What is foretold of a row of which nothing is known.

    Attributes:
        q: mean discounted return of what Q learns.
        behaviours: (3,) rates of watch, like, share; NaN = not logged.
        value: mean discounted return.
        reward: mean immediate reward.
    """

    q: float
    behaviours: Tensor
    value: float
    reward: float


class CandidateHeads(nn.Module):
    """s = LayerNorm([user ‖ item]); Q and behaviours on a trunk; immediate reward and on-policy value are judged only: detached.

    Args:
        user_dim: width of a user state.
        item_dim: width of an item state.
        options: widths of the layers.
        behaviour_weights: without them Q is learnt; with them it is Σ weight · p over the behaviours that are logged.
        logged: whether the log tells of each behaviour: what nothing was learnt about is left out.
        n_actions: on a candidate, A; 1: to show it.
    """

    def __init__(
        self,
        user_dim: int,
        item_dim: int,
        options: HeadOptions,
        behaviour_weights: tuple[float, float, float] | None = None,
        logged: tuple[bool, ...] = (True,) * len(BEHAVIOURS),
        n_actions: int = 1,
    ) -> None:
        super().__init__()
        first, second = options.hidden
        state = user_dim + item_dim
        self.norm = nn.LayerNorm(state)
        self.trunk = nn.Sequential(
            nn.Linear(state, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()
        )
        self.behaviours = nn.Linear(second, len(BEHAVIOURS))
        self.reward = nn.Linear(second, 1)
        self.value = nn.Sequential(
            nn.Linear(state, options.value_hidden), nn.ReLU(), nn.Linear(options.value_hidden, 1)
        )
        self.behaviour_weights = (
            None
            if behaviour_weights is None
            else tuple(w * known for w, known in zip(behaviour_weights, logged, strict=True))
        )
        self.q = nn.Linear(second, n_actions) if behaviour_weights is None else None

    def forward(self, user_state: Tensor, item_state: Tensor) -> Outputs:
        """Outputs (B, C) for user states (B, Du) and item states (B or 1, C, Dv)."""
        # not len(): an exported graph would keep the number
        b, c = user_state.shape[0], item_state.shape[1]
        state = self.norm(
            torch.cat(
                [user_state.unsqueeze(1).expand(-1, c, -1), item_state.expand(b, -1, -1)], dim=-1
            )
        )
        trunk = self.trunk(state)
        # float(): losses and sums keep their bits where products were made with fewer
        logits = self.behaviours(trunk).float()
        if self.q is None:
            weights = logits.new_tensor(self.behaviour_weights)
            q = (torch.sigmoid(logits) * weights).sum(-1, keepdim=True)
        else:
            q = self.q(trunk).float()
        # METHODS §3.9: judged beside Q̂, so it may not shape what Q̂ learns
        value = self.value(state.detach()).squeeze(-1).float()
        # judged only (METHODS §3.9): MT-DQN's loss has no term for it
        reward = self.reward(trunk.detach()).squeeze(-1).float()
        if q.shape[-1] == 1:
            return Outputs(q.squeeze(-1), logits, value, reward)
        return ActionOutputs(q.amax(-1), logits, value, reward, q)

    @torch.no_grad()
    def start_at(self, levels: Levels) -> None:
        """Begin at the means: Huber's steps are short, and as long as Q climbs to its level it does not tell candidates apart."""
        rates = torch.logit(levels.behaviours, eps=1e-4).nan_to_num(0.0)
        self.behaviours.bias.copy_(rates)
        last = self.value[-1]
        assert isinstance(last, nn.Linear)
        for head, level in ((self.reward, levels.reward), (last, levels.value), (self.q, levels.q)):
            if head is not None:
                head.bias.fill_(level)
