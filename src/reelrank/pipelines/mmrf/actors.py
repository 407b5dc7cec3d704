r"""The agents' actors as one batched computation.

.. math::
    h_i &= LeakyReLU(MLP_i([b_t ‖ x_c])) \\
    u_i &= ‖_m \sum_{j≠i} α^m_{ij} LeakyReLU(W_v^m h_j), \quad α^m_{ij} ∝ \exp((W_k^m h_j)ᵀ(W_q^m h_i)/\sqrt{d_m}) \\
    a_i &= σ(MLP_i([h_i ‖ u_i])), \; i<N, \qquad a_N = σ(MLP_N([h_N ‖ u_N ‖ a_1 … a_{N−1}]))

W_q, W_k, W_v are shared by the agents.

Source: METHODS §4.3, MMRF (arXiv 2405.01847) Eq. 1–3. Shapes: N agents, B decisions, C candidates, P = B·C, H = ``hidden``, M heads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch
from reelrank.models.feed_encoder import FeedEncoder, FeedSpec
from reelrank.models.registry import register
from reelrank.models.tensor_record import TensorRecord
from reelrank.pipelines.mmrf.agent_layers import AgentLinear, StateItemLinear
from reelrank.pipelines.mmrf.options import ActorOptions


class Exchange(nn.Module, ABC):
    """What agents tell each other: u_i."""

    @abstractmethod
    def forward(self, own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Beneficial information u (N, P, H) and the penalty of this exchange, a scalar.

        Args:
            own: (N, P, H), h_i where it speaks for agent i itself.
            others: the same values where they speak to other agents, so that gradients can be told apart.
        """


class SharedAttention(Exchange):
    """Eq. 1."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors u (N, P, H), and mean(logit²) over j ≠ i."""
        logits = self._logits(own, others)
        alpha = _attention(logits)
        values = self._split(F.leaky_relu(self.value(others)))
        u = torch.bmm(alpha, values).transpose(0, 1)
        return u.reshape(own.shape), _mean_square(logits)

    def weights(self, h: Tensor) -> Tensor:
        """α (P, M, N, N): [p, m, i, j] is what agent i takes from j; rows sum to 1, the diagonal is 0."""
        alpha = _attention(self._logits(h, h))
        return alpha.view(h.shape[1], self.heads, *alpha.shape[1:])

    def _logits(self, own: Tensor, others: Tensor) -> Tensor:
        """(P·M, N, N)."""
        query, key = self._split(self.query(own)), self._split(self.key(others))
        return torch.bmm(query, key.transpose(1, 2)) / math.sqrt(own.shape[-1] // self.heads)

    def _split(self, x: Tensor) -> Tensor:
        """(N, P, H) → (P·M, N, H / M), without a copy."""
        return x.reshape(len(x), -1, x.shape[-1] // self.heads).transpose(0, 1)


class Concatenation(Exchange):
    """MMRF-CO: u_i = W [h_1 ‖ … ‖ h_N]."""

    def __init__(self, agents: int, width: int) -> None:
        super().__init__()
        self.mix = AgentLinear(agents, width, width, bias=False)  # one block of W per agent heard

    def forward(self, own: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors u (N, P, H), and no penalty."""
        heard, self_heard = self.mix(others), self.mix(own)
        return heard.sum(0) - heard + self_heard, own.new_zeros(())


@dataclass(frozen=True)
class Scores(TensorRecord):
    """What the actors say of B decisions.

    Attributes:
        logits: (N, B, C) before the sigmoid, the main agent last; −inf at a pad.
        penalty: scalar, mean squared attention logit.
    """

    logits: Tensor
    penalty: Tensor

    def log_policy(self, temperature: float) -> Tensor:
        """Logarithm of π_i(c|s), (N, B, C); −inf at a pad. Source: METHODS §4.3."""
        return (self.logits / temperature).log_softmax(-1)


class MMRFActors(nn.Module):
    """State encoder, h_i, exchange and heads of all agents; a :class:`~reelrank.models.feed.FeedPolicy`."""

    def __init__(self, options: ActorOptions, spec: FeedSpec) -> None:
        super().__init__()
        self.options = options
        n, h, encoder = len(options.agents), options.hidden, options.encoder
        fan_in = 2 * h + n - 1  # of [h_N ‖ u_N ‖ a]
        self.encoder = FeedEncoder(encoder, spec)
        self.hidden_layer = StateItemLinear(n, encoder.d_state, encoder.d_item, h)
        # an agent without another has nobody to hear
        self.exchange = _exchange(options) if n > 1 and options.exchange != "none" else None
        self.from_own = AgentLinear(n, h, options.head_hidden, fan_in=fan_in)
        self.out = AgentLinear(n, options.head_hidden, 1)
        if self.exchange is not None:
            self.from_others = AgentLinear(n, h, options.head_hidden, bias=False, fan_in=fan_in)
            self.from_actions = nn.Linear(n - 1, options.head_hidden, bias=False)

    def forward(self, batch: FeedBatch) -> Scores:
        """Scores of all agents."""
        h = self.hidden(batch)
        return self.heads(h, h, batch.mask)

    def hidden(self, batch: FeedBatch) -> Tensor:
        """h, (N, P, H)."""
        return F.leaky_relu(self.hidden_layer(*self.encoder(batch))).flatten(1, 2)

    def heads(self, own: Tensor, others: Tensor, mask: Tensor) -> Scores:
        """Eq. 1–3.

        Args:
            own: (N, P, H), h_i as agent i's own.
            others: the same values as what other agents hear of it.
            mask: (B, C), where a candidate stands.
        """
        z, penalty = self.from_own(own), own.new_zeros(())
        if self.exchange is not None:
            u, penalty = self.exchange(own, others)
            z = z + self.from_others(u)
        # MMRF Eq. 2
        auxiliary = self.out(F.leaky_relu(z[:-1]), slice(-1))
        main = z[-1:]
        if self.exchange is not None:
            # MMRF Eq. 3
            main = main + self.from_actions(auxiliary.squeeze(-1).sigmoid().T)
        main = self.out(F.leaky_relu(main), slice(-1, None))
        scores = torch.cat([auxiliary, main]).view(-1, *mask.shape)
        return Scores(scores.masked_fill(~mask, -torch.inf), penalty)

    def scores(self, batch: FeedBatch) -> Tensor:
        """The main agent's score before the sigmoid, (B, C): the final ranking. Source: METHODS §4.8."""
        logits: Tensor = self(batch).logits
        return logits[-1].float()

    def head_scores(self, batch: FeedBatch) -> Tensor:
        """Every agent's own scores, (N, B, C)."""
        logits: Tensor = self(batch).logits
        return logits.float()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters above h that belong to one agent each."""
        modules = [self.from_own, self.out]
        if self.exchange is not None:
            modules.append(self.from_others)
        for module in modules:
            yield from module.parameters()
        if self.exchange is not None:
            yield from self.from_actions.parameters()

    def exchange_parameters(self) -> list[nn.Parameter]:
        """W_q, W_k, W_v, which all agents share."""
        return [] if self.exchange is None else list(self.exchange.parameters())


def _exchange(options: ActorOptions) -> Exchange:
    if options.exchange == "concat":
        return Concatenation(len(options.agents), options.hidden)
    return SharedAttention(options.hidden, options.heads)


def _attention(logits: Tensor) -> Tensor:
    """Softmax of (…, N, N) over j ≠ i; torch's own is six times slower on rows as short as these."""
    n = logits.shape[-1]
    is_self = torch.eye(n, dtype=torch.bool, device=logits.device)
    others = logits.masked_fill(is_self, -torch.inf)
    weight = (others - others.detach().amax(-1, keepdim=True)).exp()
    return weight / weight.sum(-1, keepdim=True)


def _mean_square(logits: Tensor) -> Tensor:
    n = logits.shape[-1]
    own = logits.diagonal(dim1=1, dim2=2)
    return (logits.square().sum() - own.square().sum()) / (len(logits) * n * (n - 1))


# the variants differ in options and food, not in kind
for _name in ("mmrf", "mmrf_co", "mmrf_da", "mmrf_ns"):
    register(_name, ActorOptions, FeedSpec)(MMRFActors)
