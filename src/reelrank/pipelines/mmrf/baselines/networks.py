r"""Networks that the baselines share: item-wise actors without exchange, state values, pooled utilities.

.. math:: a_{ic} = MLP_i([b_t ‖ x_c])

Source: METHODS §4.3, §4.7. Shapes: N agents, B decisions, C candidates, P = B·C.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.feed import WATCH_TIME, FeedBatch
from reelrank.models.feed_encoder import FeedEncoder, FeedSpec
from reelrank.models.feed_options import WATCH_CAP_S
from reelrank.pipelines.mmrf.actors import Scores
from reelrank.pipelines.mmrf.agent_layers import AgentMLP, StateItemLinear
from reelrank.pipelines.mmrf.baselines.options import ResponseWeights, ScorerOptions
from reelrank.pipelines.mmrf.options import CriticOptions
from reelrank.pipelines.mmrf.routing import conflicts


class ItemScorers(nn.Module):
    """Actors of N agents over one state encoder, computed as one."""

    def __init__(self, agents: int, options: ScorerOptions, spec: FeedSpec) -> None:
        super().__init__()
        encoder = options.encoder
        self.encoder = FeedEncoder(encoder, spec)
        self.first = StateItemLinear(agents, encoder.d_state, encoder.d_item, options.hidden[0])
        self.rest = AgentMLP(agents, options.hidden)

    def forward(self, batch: FeedBatch) -> Scores:
        """Scores of all agents."""
        h = F.leaky_relu(self.first(*self.encoder(batch))).flatten(1, 2)
        logits = self.rest(h).view(-1, *batch.mask.shape)
        return Scores(logits.masked_fill(~batch.mask, -torch.inf), logits.new_zeros(()))

    def scores(self, batch: FeedBatch) -> Tensor:
        """The last agent's ln π(c|s), (B, C): a number added to all candidates of a state is never learnt."""
        logits: Tensor = self(batch).logits[-1]
        return logits.float().log_softmax(-1)

    @torch.no_grad()
    def take(self, other: ItemScorers, agent: int) -> None:
        """Become a copy of one agent of ``other``; this one must have a single agent."""
        own = self.state_dict()
        for name, tensor in other.state_dict().items():
            own[name].copy_(tensor if name.startswith("encoder.") else tensor[agent].unsqueeze(0))


class StateValues(nn.Module):
    """V_i(s) of N responses, over an encoder of their own."""

    def __init__(self, agents: int, options: CriticOptions, spec: FeedSpec) -> None:
        super().__init__()
        self.encoder = FeedEncoder(options.encoder, spec)
        self.heads = AgentMLP(agents, [options.encoder.d_state, options.value_hidden])

    def forward(self, batch: FeedBatch) -> Tensor:
        """(N, B)."""
        values: Tensor = self.heads(self.encoder.state(batch))
        return values


def utility(response: Tensor, weights: ResponseWeights) -> Tensor:
    """Σ_k λ_k r_k (…,) of responses (…, 7), watch time at most 180 s; what was not logged counts as 0."""
    known = response.nan_to_num(0.0)
    watch = known[..., WATCH_TIME:].clamp(max=WATCH_CAP_S)
    lam = torch.tensor(weights.in_order, device=response.device)
    return torch.cat([known[..., :WATCH_TIME], watch], -1) @ lam


def gradient_rows(losses: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> Tensor:
    """Each loss's gradient of all ``parameters``, flat: (N, number of them)."""
    learnt = list(parameters)
    rows = []
    for loss in losses:
        found = torch.autograd.grad(loss, learnt, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


def conflict_matrix(losses: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> Tensor:
    """Cosines (N, N) of the losses' gradients."""
    return conflicts(gradient_rows(losses, parameters))
