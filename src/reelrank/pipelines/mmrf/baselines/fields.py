r"""Wide & Deep and DeepFM over fields of codes, as softmax over the candidates.

.. math::
    s_{WD} &= \sum_j w_j + \sum_{(u,v)} w_{hash(u,v)} + MLP(e), \qquad
    s_{FM} = \sum_j w_j + ⟨\sum_{j∈state} e_j, \sum_{j∈item} e_j⟩ + \sum_{j<l∈item} ⟨e_j, e_l⟩ + MLP(e)

Terms of the state alone are the same for all candidates and left out. Differs: TSCAC regresses the item's index, which means
nothing; here the loss is a softmax over candidates weighted by ω [D].

Source: METHODS §4.7 [S, A]. Shapes: B decisions, C candidates, S fields of the state, I of an item, E = ``embedding``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import TypeVar, Unpack

import torch
from torch import Tensor, nn

from reelrank.models.feed import PAD, FeedBatch, FeedInputs
from reelrank.models.feed_data import batch, trained_decisions
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.registry import register
from reelrank.pipelines.mmrf.baselines.options import (
    DeepFMOptions,
    FieldOptions,
    WideDeepOptions,
)
from reelrank.pipelines.mmrf.baselines.supervised import (
    fit_supervised,
    log_policy,
    mean_weight,
    sample_weights,
    shuffled,
    weighted_cross_entropy,
)
from reelrank.pipelines.mmrf.fitting import FitArguments, Fitted
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.training.device import seed_everything

HOURS = 24
_PRIMES = (2_654_435_761, 805_459_861, 97)


class Codes(nn.Module):
    """A feed batch as codes: of the state's user attributes, scenario and hour, and of the items' id and attributes."""

    def __init__(self, spec: FeedSpec) -> None:
        super().__init__()
        self.state = (*spec.user_cardinalities, spec.n_scenarios + 1, HOURS)
        self.item = (spec.n_items + 1, *spec.item_cardinalities)
        self.n_scenarios = spec.n_scenarios

    def of_state(self, batch: FeedBatch) -> Tensor:
        """(B, S − 1); a scenario that train lacks is 0."""
        scenario = (batch.scenario + 1) * (batch.scenario < self.n_scenarios)
        return torch.cat([batch.user_codes, torch.stack([scenario, batch.hour], 1)], 1)

    def of_items(self, batch: FeedBatch) -> Tensor:
        """(B, C, I)."""
        return torch.cat([(batch.candidates + 1).unsqueeze(-1), batch.item_codes], -1)


class CodeTable(nn.Module):
    """One embedding per field, kept apart."""

    def __init__(self, cardinalities: tuple[int, ...], width: int, std: float) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(cardinalities), width)
        nn.init.normal_(self.table.weight, std=std)
        start = torch.tensor([0, *accumulate(cardinalities)][: len(cardinalities)])
        self.register_buffer("start", start, persistent=False)
        self.start: Tensor

    def forward(self, codes: Tensor) -> Tensor:
        """(…, fields) → (…, fields, width)."""
        found: Tensor = self.table(codes + self.start)
        return found


class Deep(nn.Module):
    """Embeddings of all fields and an MLP over them; the state's share is computed once per decision."""

    def __init__(self, codes: Codes, options: FieldOptions) -> None:
        super().__init__()
        o, self.codes = options, codes
        # small: products of random embeddings would be the factorisation machine's first opinion
        self.state, self.item = (CodeTable(c, o.embedding, 0.05) for c in (codes.state, codes.item))
        n_state, n_item = len(codes.state) + 1, len(codes.item)  # the history's mean is a field too
        self.from_state = nn.Linear(n_state * o.embedding, o.hidden[0])
        self.from_item = nn.Linear(n_item * o.embedding, o.hidden[0], bias=False)
        layers: list[nn.Module] = [nn.ReLU(), nn.Dropout(o.dropout)]
        for below, above in pairwise(o.hidden):
            layers += [nn.Linear(below, above), nn.ReLU(), nn.Dropout(o.dropout)]
        self.rest = nn.Sequential(*layers, nn.Linear(o.hidden[-1], 1))

    def embedded(self, batch: FeedBatch) -> tuple[Tensor, Tensor]:
        """(B, S, E) and (B, C, I, E)."""
        seen = (batch.history != PAD).unsqueeze(-1)
        past = (self.item.table(batch.history + 1) * seen).sum(1) / seen.sum(1).clamp_min(1)
        state = torch.cat([self.state(self.codes.of_state(batch)), past.unsqueeze(1)], 1)
        return state, self.item(self.codes.of_items(batch))

    def forward(self, state: Tensor, items: Tensor) -> Tensor:
        """(B, S, E), (B, C, I, E) → (B, C)."""
        first = self.from_state(state.flatten(1)).unsqueeze(1) + self.from_item(items.flatten(2))
        out: Tensor = self.rest(first)
        return out.squeeze(-1)


@register("wide_deep", WideDeepOptions, FeedSpec)
class WideDeepPolicy(nn.Module):
    """Weights of the item's codes and of their crosses with scenario, hour and last item, beside the MLP."""

    def __init__(self, options: WideDeepOptions, spec: FeedSpec) -> None:
        super().__init__()
        self.codes = Codes(spec)
        self.deep = Deep(self.codes, options)
        self.wide = CodeTable(self.codes.item, 1, 0.0)
        self.crossed = nn.Embedding(options.buckets, 1)
        nn.init.zeros_(self.crossed.weight)

    def scores(self, batch: FeedBatch) -> Tensor:
        """Logarithm of π(c|s), (B, C)."""
        items = self.codes.of_items(batch)
        wide = self.wide(items).sum((-2, -1)) + self.crossed(self.buckets(batch)).sum((-2, -1))
        return log_policy(self.deep(*self.deep.embedded(batch)) + wide, batch.mask)

    def buckets(self, batch: FeedBatch) -> Tensor:
        """Hash buckets of the crosses, (B, C, 3 · I)."""
        state = self.codes.of_state(batch)[:, -2:]
        left = torch.cat([state, batch.history[:, -1:] + 1], 1)[:, None, :, None]
        right = self.codes.of_items(batch)[:, :, None, :]
        pair = torch.arange(left.shape[2] * right.shape[3], device=left.device)
        mixed = (left + 1) * _PRIMES[0] ^ (right + 1) * _PRIMES[1]
        mixed = mixed.flatten(2) * _PRIMES[2] + pair
        return (mixed ^ (mixed >> 15)) % self.crossed.num_embeddings


@register("deepfm", DeepFMOptions, FeedSpec)
class DeepFMPolicy(nn.Module):
    """A factorisation machine and an MLP over the same embeddings."""

    def __init__(self, options: DeepFMOptions, spec: FeedSpec) -> None:
        super().__init__()
        self.codes = Codes(spec)
        self.deep = Deep(self.codes, options)
        self.linear = CodeTable(self.codes.item, 1, 0.0)

    def scores(self, batch: FeedBatch) -> Tensor:
        """Logarithm of π(c|s), (B, C)."""
        state, items = self.deep.embedded(batch)
        total = items.sum(2)
        with_state = torch.einsum("be,bce->bc", state.sum(1), total)
        among = 0.5 * (total.square().sum(-1) - items.square().sum((2, 3)))
        linear = self.linear(self.codes.of_items(batch)).sum((-2, -1))
        return log_policy(linear + with_state + among + self.deep(state, items), batch.mask)


FieldPolicy = TypeVar("FieldPolicy", WideDeepPolicy, DeepFMPolicy)


def _fit(
    name: str,
    build: Callable[[FeedSpec], FieldPolicy],
    options: FieldOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    seed_everything(learning.seed)
    policy = build(FeedSpec.of(inputs)).to(inputs.rows.item.device)
    mean = mean_weight(inputs, options.weights)

    def losses(model: FieldPolicy, index: Tensor) -> dict[str, Tensor]:
        weight = sample_weights(inputs, index, options.weights) / mean
        log_pi = model.scores(batch(inputs, index, options.history))
        return {"loss": weighted_cross_entropy(log_pi, inputs.decisions.shown[index], weight)}

    rows = shuffled(trained_decisions(inputs.decisions), learning.seed)
    return fit_supervised(name, policy, rows, losses, options, learning, replay, **run)


def fit_wide_deep(
    options: WideDeepOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """Wide & Deep on impressions weighted by ω."""
    return _fit("wide_deep", lambda s: WideDeepPolicy(options, s), options, inputs, learning, replay, **run)  # fmt: skip


def fit_deepfm(
    options: DeepFMOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """DeepFM on impressions weighted by ω."""
    return _fit("deepfm", lambda s: DeepFMPolicy(options, s), options, inputs, learning, replay, **run)  # fmt: skip
