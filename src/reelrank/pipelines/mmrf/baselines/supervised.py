r"""Behaviour cloning and RankNet, and how every baseline without critics is fitted.

.. math::
    L_{BC} &= -\frac1n \sum_{shown} \log π(c|s), \qquad L_ω = -\frac1n \sum_{shown} ω_c \log π(c|s), \quad
    ω_c = \max(0, \sum_k λ_k r_{kc}) / mean \\
    L_{RankNet} &= \frac1{|P|} \sum_{(i,j) ∈ P} \log(1 + e^{-(s_i - s_j)}), \quad
    P = \{(i, j) : u_i > u_j\}, \; u = \sum_k λ_k r_k

Source: METHODS §4.7. Shapes: B decisions, C candidates, M shown items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TypeVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch, FeedInputs
from reelrank.models.feed_data import batch, trained_decisions
from reelrank.models.feed_encoder import FeedEncoder, FeedSpec
from reelrank.models.registry import register
from reelrank.pipelines.mmrf.baselines.networks import ItemScorers, utility
from reelrank.pipelines.mmrf.baselines.options import (
    BCOptions,
    LTROptions,
    ResponseWeights,
    ScorerOptions,
    SupervisedOptions,
)
from reelrank.pipelines.mmrf.fitting import FitArguments, Fitted, method_identity
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.training.device import seed_everything
from reelrank.training.loop import fit
from reelrank.training.options import TrainOptions

Policy = TypeVar("Policy", bound=nn.Module)


@register("bc", BCOptions, FeedSpec)
class BCPolicy(nn.Module):
    """MLP over the state whose output layer has a row per candidate: ⟨W f(b_t) + w, x_c⟩.

    Differs: TSCAC's last layer has free rows for 150 items; here rows follow from the items' features, so that any set has them.
    """

    def __init__(self, options: BCOptions, spec: FeedSpec) -> None:
        super().__init__()
        encoder = options.encoder
        self.encoder = FeedEncoder(encoder, spec)
        layers: list[nn.Module] = []
        for below, above in pairwise((encoder.d_state, *options.hidden)):
            layers += [nn.Linear(below, above), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(options.hidden[-1], encoder.d_item))

    def scores(self, batch: FeedBatch) -> Tensor:
        """Logarithm of π(c|s), (B, C)."""
        b, x = self.encoder(batch)
        logits = torch.einsum("bd,bcd->bc", self.body(b), x)
        return log_policy(logits, batch.mask)


@register("ltr", LTROptions, FeedSpec)
class LTRPolicy(nn.Module):
    """An item-wise scorer."""

    def __init__(self, options: LTROptions, spec: FeedSpec) -> None:
        super().__init__()
        scorer = ScorerOptions(hidden=options.hidden, encoder=options.encoder)
        self.scorer = ItemScorers(1, scorer, spec)

    def scores(self, batch: FeedBatch) -> Tensor:
        """(B, C); comparable across a user's decisions, for so it learns."""
        logits: Tensor = self.scorer(batch).logits[0]
        return logits.float()


def log_policy(logits: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of the softmax over candidates (B, C), float32; −∞ at a pad."""
    return logits.float().masked_fill(~mask, -torch.inf).log_softmax(-1)


def weighted_cross_entropy(log_policy: Tensor, shown: Tensor, weight: Tensor) -> Tensor:
    """−mean over the shown items of ω ln π; all (B, C)."""
    picked = torch.where(shown, log_policy, 0.0)
    return -(picked * weight).sum() / shown.sum().clamp_min(1)


def ranknet(scores: Tensor, utilities: Tensor, group: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Loss of the pairs of M items, and how many there are.

    Args:
        scores: (M,).
        utilities: (M,); NaN = unknown, without pairs; equal ones make none.
        group: (M,), equal within a list.
        window: an item meets the next ``window`` − 1 of its list.
    """
    first = torch.arange(len(scores), device=scores.device).unsqueeze(1)
    second = first + torch.arange(1, window, device=scores.device)
    inside = second < len(scores)
    second = second.clamp_max(len(scores) - 1)
    gap = utilities[first] - utilities[second]
    counts = inside & (group[first] == group[second]) & (gap.nan_to_num(0.0) != 0)
    losses = F.softplus(-gap.sign() * (scores[first] - scores[second]))
    n = counts.sum()
    return torch.where(counts, losses, 0.0).sum() / n.clamp_min(1), n


def sample_weights(inputs: FeedInputs, index: Tensor, weights: ResponseWeights) -> Tensor:
    """max(0, Σ_k λ_k r_k) (B, C) of decisions (B,); 0 where not shown."""
    return utility(inputs.decisions.response[index], weights).clamp_min(0.0)


def mean_weight(inputs: FeedInputs, weights: ResponseWeights) -> float:
    """Mean of ω before it is divided by it, over the shown items of train (L2).

    Raises:
        ValueError: nothing shown in train is worth anything.
    """
    total, n = 0.0, 0
    for index in torch.split(trained_decisions(inputs.decisions), 100_000):
        total += float(sample_weights(inputs, index, weights).double().sum())
        n += int(inputs.decisions.shown[index].sum())
    if not total > 0:
        raise ValueError(
            "weights: Σ λ_k r_k is nowhere above 0 in train, there is nothing to learn"
        )
    return total / n


def shuffled(rows: Tensor, seed: int) -> Tensor:
    """Rows in an order drawn once."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows[order.to(rows.device)]


def shuffled_runs(rows: Tensor, user: Tensor, length: int, seed: int) -> Tensor:
    """Rows (n,) of users (n,), both in the users' order, in runs of ``length`` of one user whose order is drawn once."""
    starts = torch.ones_like(user, dtype=torch.bool)
    starts[1:] = user[1:] != user[:-1]
    place = torch.arange(len(rows), device=rows.device)
    rank = place - torch.where(starts, place, 0).cummax(0).values
    run = ((rank % length) == 0).cumsum(0) - 1
    drawn = torch.randperm(int(run[-1]) + 1, generator=torch.Generator().manual_seed(seed))
    return rows[drawn.to(rows.device)[run].argsort(stable=True)]


def fit_supervised(
    name: str,
    policy: Policy,
    rows: Tensor,
    losses: Callable[[Policy, Tensor], Mapping[str, Tensor]],
    options: SupervisedOptions,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """Fit a policy by the common loop.

    Args:
        name: of the method.
        policy: fresh weights, on the rows' device.
        rows: (n,) train decisions, in the order to learn them.
        losses: of decisions (B,); the first is minimised.
        options: length and rates.
        learning: patience and seed.
        replay: batch size.
        run: validation and identity.

    Raises:
        ValueError: nothing to train on.
    """
    training = TrainOptions(
        epochs=options.epochs,
        batch_size=replay.batch_size,
        lr=options.lr,
        lr_min=options.lr / 100,
        weight_decay=options.weight_decay,
        patience=learning.patience,
        seed=learning.seed,
        device=learning.device,
    )
    run["identity"] = method_identity(name, options, replay, run)
    result = fit(
        policy,
        rows,
        step_fn=lambda model, index, _: losses(model, index),
        options=training,
        **run,
    )
    return Fitted(policy, result)


def fit_bc(
    options: BCOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """Behaviour cloning: what was shown, whatever was answered."""
    seed_everything(learning.seed)
    policy = BCPolicy(options, FeedSpec.of(inputs)).to(inputs.rows.item.device)

    def losses(model: BCPolicy, index: Tensor) -> dict[str, Tensor]:
        states = batch(inputs, index, options.encoder.history)
        shown = inputs.decisions.shown[index]
        return {"loss": weighted_cross_entropy(model.scores(states), shown, shown.float())}

    rows = shuffled(trained_decisions(inputs.decisions), learning.seed)
    return fit_supervised("bc", policy, rows, losses, options, learning, replay, **run)


def fit_ltr(
    options: LTROptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """RankNet over the shown items of a user, across requests too: with one item each there are no other pairs."""
    seed_everything(learning.seed)
    policy = LTRPolicy(options, FeedSpec.of(inputs)).to(inputs.rows.item.device)
    trained = trained_decisions(inputs.decisions)
    user = inputs.decisions.user

    def losses(model: LTRPolicy, index: Tensor) -> dict[str, Tensor]:
        states = batch(inputs, index, options.encoder.history)
        loss, pairs = ltr_loss(model.scores(states), inputs, index, options)
        return {"loss": loss, "pairs": pairs.float()}

    rows = trained
    if len(trained):
        rows = shuffled_runs(trained, user[trained], options.window, learning.seed)
    return fit_supervised("ltr", policy, rows, losses, options, learning, replay, **run)


def ltr_loss(
    scores: Tensor, inputs: FeedInputs, index: Tensor, options: LTROptions
) -> tuple[Tensor, Tensor]:
    """RankNet's loss and pairs of decisions (B,) with scores (B, C)."""
    shown = inputs.decisions.shown[index]
    response = inputs.decisions.response[index][shown]
    unknown = response.isnan().all(-1)
    worth = utility(response, options.weights).masked_fill(unknown, torch.nan)
    user = inputs.decisions.user[index].unsqueeze(1).expand_as(shown)[shown]
    return ranknet(scores[shown], worth, user, options.window)
