"""Layers of N agents with weights of their own, computed as one.

Shapes: N agents, P positions (decision and candidate, or decision). The agents come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AgentLinear(nn.Module):
    """N linear layers, one per agent; each is initialised as ``nn.Linear``.

    Args:
        agents: N.
        inputs: width of the input.
        outputs: width of the output.
        bias: with one.
        fan_in: width of the whole input where this layer reads a share of it.
    """

    def __init__(
        self, agents: int, inputs: int, outputs: int, *, bias: bool = True, fan_in: int = 0
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(fan_in or inputs)
        self.weight = nn.Parameter(torch.empty(agents, inputs, outputs).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(agents, 1, outputs).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, x: Tensor, agents: slice = slice(None)) -> Tensor:
        """(n, P, in), or (P, in) that all read → (n, P, out) of n ``agents``."""
        weight = self.weight[agents]
        x = x.expand(len(weight), -1, -1)
        if self.bias is None:
            return torch.bmm(x, weight)
        return torch.baddbmm(self.bias[agents], x, weight)


class StateItemLinear(nn.Module):
    """N linear layers over [b_t ‖ x_c]: the state's share is computed once per decision, not per candidate."""

    def __init__(self, agents: int, d_state: int, d_item: int, outputs: int) -> None:
        super().__init__()
        fan_in = d_state + d_item
        self.state = AgentLinear(agents, d_state, outputs, fan_in=fan_in)
        self.item = AgentLinear(agents, d_item, outputs, bias=False, fan_in=fan_in)

    def forward(self, state: Tensor, items: Tensor) -> Tensor:
        """(B, d_state), (B, C, d_item) → (N, B, C, out)."""
        of_state: Tensor = self.state(state)
        of_items: Tensor = self.item(items.flatten(0, 1))
        return of_items.view(*of_state.shape[:2], items.shape[1], -1) + of_state.unsqueeze(2)


class AgentMLP(nn.Module):
    """N multilayer perceptrons with LeakyReLU between the layers; the last width is 1 and dropped."""

    def __init__(self, agents: int, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = zip(widths, [*widths[1:], 1], strict=True)
        self.layers = nn.ModuleList(AgentLinear(agents, i, o) for i, o in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, in), or (P, in) shared → (N, P)."""
        *hidden, last = self.layers
        for layer in hidden:
            x = nn.functional.leaky_relu(layer(x))
        scores: Tensor = last(x)
        return scores.squeeze(-1)
