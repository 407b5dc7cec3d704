"""The policy that logged, as a classifier: context in, a logit per action out.

Source: METHODS §7.2 [A: softmax MLP 512-256-256].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Choices:
    """Logged choices.

    Attributes:
        context: (n, d) float32.
        candidates: (n, C) actions that could be chosen, −1 = none; None = all A.
        target: (n,) column of the chosen one among the candidates, or among all.
    """

    context: Tensor
    candidates: Tensor | None
    target: Tensor

    def __getitem__(self, rows: Tensor) -> Choices:
        candidates = None if self.candidates is None else self.candidates[rows]
        return Choices(self.context[rows], candidates, self.target[rows])

    def to(self, device: str) -> Choices:
        """The same on a device."""
        candidates = None if self.candidates is None else self.candidates.to(device)
        return Choices(self.context.to(device), candidates, self.target.to(device))


class SoftmaxPolicy(nn.Module):
    """MLP with a softmax over the candidate set; without hidden layers a multinomial logistic model.

    Args:
        context: (n, d) training contexts: their mean and standard deviation standardise what comes in.
        n_actions: A.
        hidden: widths of the hidden layers.
    """

    def __init__(self, context: Tensor, n_actions: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", context.mean(dim=0))
        spread = context.std(dim=0, correction=0)
        self.register_buffer("scale", torch.where(spread > 0, spread, 1.0))
        self.mean: Tensor
        self.scale: Tensor
        layers: list[nn.Module] = []
        width = context.shape[1]
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(width, n_actions)

    def forward(self, context: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Logits (B, A), or (B, C) of the candidates, −∞ where there is none."""
        logits: Tensor = self.last(self.body((context - self.mean) / self.scale))
        if candidates is None:
            return logits
        chosen = logits.gather(1, candidates.clamp(min=0))
        return chosen.masked_fill(candidates < 0, -torch.inf)

    def loss(self, choices: Choices) -> Tensor:
        """Mean log loss of the choices."""
        logits = self(choices.context, choices.candidates)
        return nn.functional.cross_entropy(logits, choices.target)


def fit_logistic(train: Choices, n_actions: int, *, l2: float) -> SoftmaxPolicy:
    """The multinomial logistic model with penalty ½·l2·|W|² on the summed log loss (intercepts are free)."""
    model = SoftmaxPolicy(train.context, n_actions, ()).to(train.context.device)
    nn.init.zeros_(model.last.weight)
    nn.init.zeros_(model.last.bias)
    optimiser = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        penalty = 0.5 * l2 * model.last.weight.square().sum() / len(train.target)
        loss = model.loss(train) + penalty
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return model.eval()


def fit_mlp(
    train: Choices,
    val: Choices,
    n_actions: int,
    *,
    hidden: Sequence[int],
    epochs: int,
    batch_size: int,
    lr: float,
    patience: int,
    seed: int,
) -> SoftmaxPolicy:
    """The MLP of the epoch with the lowest log loss on ``val``; ends after ``patience`` epochs without a lower one."""
    device = train.context.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SoftmaxPolicy(train.context.cpu(), n_actions, hidden).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    order = torch.Generator().manual_seed(seed)
    best, best_loss, stale = copy.deepcopy(model.state_dict()), math.inf, 0
    for _ in range(epochs):
        model.train()
        shuffled = torch.randperm(len(train.target), generator=order)
        for rows in torch.split(shuffled, batch_size):
            optimiser.zero_grad(set_to_none=True)
            model.loss(train[rows.to(device)]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        model.eval()
        with torch.no_grad():
            loss = float(model.loss(val))
        if loss < best_loss:
            best, best_loss, stale = copy.deepcopy(model.state_dict()), loss, 0
        else:
            stale += 1
        if stale == patience:
            break
    if not math.isfinite(best_loss):
        raise FloatingPointError("the behaviour policy's log loss is not finite: lower the learning rate")  # fmt: skip
    model.load_state_dict(best)
    return model.eval()
