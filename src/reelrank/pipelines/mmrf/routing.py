"""Which loss moves which parameter of the actors (Eq. 4): routes of gradients, not one scalar objective.

=====================  ============  =====================  ===============  ==============  =======
loss                   θ_i, own      θ_j of other agents    shared W         state encoder   critics
=====================  ============  =====================  ===============  ==============  =======
Q_i, i < N             yes           no (h_j is detached)   yes              yes             no
Q_N                    yes           yes, times β           yes              yes             no
=====================  ============  =====================  ===============  ==============  =======

θ_i is agent i's h-layer and head. Gradients of shared W are scaled by 1/N.

Source: METHODS §4.5. Shapes: N agents, B decisions, C candidates, P = B·C, H = width of h.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch
from reelrank.pipelines.mmrf.actors import MMRFActors, Scores


@dataclass(frozen=True)
class _Above:
    """Gradients of one loss down to h: of h (N, P, H), of the heads' and of the exchange's parameters."""

    h: Tensor
    heads: tuple[Tensor, ...]
    exchange: tuple[Tensor, ...]


class RoutedGraph:
    """One forward pass of the actors whose h can be told apart by who reads it.

    Attributes:
        scores: of all agents.
    """

    scores: Scores

    def __init__(self, actors: MMRFActors, batch: FeedBatch) -> None:
        self._actors = actors
        self._h = actors.hidden(batch)
        # equal numbers, but the auxiliary losses never ask for the gradient of the second
        self._own = self._h.detach().requires_grad_()
        self._others = self._h.detach().requires_grad_()
        self.scores = actors.heads(self._own, self._others, batch.mask)
        self._heads = list(actors.head_parameters())
        self._exchange = actors.exchange_parameters()
        self._encoder = list(actors.encoder.parameters())
        self._layer = list(actors.hidden_layer.parameters())

    @property
    def shared(self) -> list[nn.Parameter]:
        """Parameters that all agents share: exchange and state encoder."""
        return [*self._exchange, *self._encoder]

    def gradients(self, losses: Tensor, beta: float) -> dict[nn.Parameter, Tensor]:
        """Gradient of every parameter of the actors.

        Args:
            losses: (N,) from ``scores``, to be minimised, the main agent's last.
            beta: β of Eq. 4.
        """
        # MMRF Eq. 4; one backward pass for all auxiliary losses: they meet only where the table lets them
        parts = [self._above(losses[-1], is_main=True, beta=beta)]
        if len(losses) > 1:
            parts.append(self._above(losses[:-1].sum(), is_main=False, beta=beta))
        below = [*self._layer, *self._encoder]
        to_h = sum((p.h for p in parts[1:]), parts[0].h)
        found = self._below(to_h, below, retain=False)
        names = [*self._heads, *self._exchange]
        above = [
            sum(g[1:], g[0]) for g in zip(*((*p.heads, *p.exchange) for p in parts), strict=True)
        ]
        return dict(zip([*names, *below], [*above, *found], strict=True))

    def shared_gradients(self, losses: Tensor, beta: float) -> Tensor:
        """Each loss's gradient of the ``shared`` parameters, flat: (N, number of them)."""
        rows = []
        for i, loss in enumerate(losses):
            above = self._above(loss, is_main=i == len(losses) - 1, beta=beta)
            found = self._below(above.h, self._encoder, retain=True)
            rows.append(torch.cat([g.flatten() for g in (*above.exchange, *found)]))
        return torch.stack(rows)

    def _above(self, loss: Tensor, *, is_main: bool, beta: float) -> _Above:
        leaves = [self._own, self._others] if is_main else [self._own]
        inputs = [*leaves, *self._heads, *self._exchange]
        found = torch.autograd.grad(loss, inputs, retain_graph=True, materialize_grads=True)
        to_h = found[0] + found[1] if is_main else found[0]
        heads = found[len(leaves) : len(leaves) + len(self._heads)]
        n_agents = len(self._own)
        if is_main and beta != 1:
            by_agent = torch.full((n_agents, 1, 1), beta, device=to_h.device)
            by_agent[-1] = 1.0
            to_h = to_h * by_agent
            # what has no agents' dimension reads the actions, and is the main agent's own
            heads = tuple(g * by_agent if g.dim() == by_agent.dim() else g for g in heads)
        return _Above(to_h, heads, tuple(g / n_agents for g in found[len(leaves) + len(heads) :]))

    def _below(
        self, to_h: Tensor, parameters: list[nn.Parameter], *, retain: bool
    ) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            self._h, parameters, to_h, retain_graph=retain, materialize_grads=True
        )


def conflicts(gradients: Tensor) -> Tensor:
    """Cosine of each pair of gradients (N, n): (N, N), the conflict matrix of the agents; 0 where one is 0."""
    unit = nn.functional.normalize(gradients, dim=1)
    return unit @ unit.T


def pcgrad(gradients: Tensor, order: Tensor) -> Tensor:
    """Sum of the gradients after each has lost what conflicts with the others.

    Args:
        gradients: (N, n).
        order: (N, N), row i is the order in which gradient i meets the others; itself is passed over.

    Returns:
        (n,). Source: Yu et al. 2020 (arXiv 2001.06782), Algorithm 1.
    """
    projected = gradients.clone()
    norms = gradients.square().sum(1).clamp_min(torch.finfo(gradients.dtype).tiny)
    for i, others in enumerate(order.tolist()):
        for j in others:
            if j != i:
                along = (projected[i] @ gradients[j]).clamp_max(0.0) / norms[j]
                projected[i] -= along * gradients[j]
    return projected.sum(0)
