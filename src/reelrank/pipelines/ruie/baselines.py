"""The baselines of RUIE's paper under one protocol: same data, histories, width and softmax.

Source: METHODS §5.6, Appendix B. Shapes: B sequences, P places, I items, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.registry import register
from reelrank.models.sequence_data import Histories, Sequences
from reelrank.models.sequence_encoders import Caser as CaserEncoder
from reelrank.models.sequence_encoders import make_encoder
from reelrank.options import Options
from reelrank.pipelines.ruie import losses
from reelrank.pipelines.ruie.options import (
    CaserOptions,
    DinOptions,
    EncoderOptions,
    GRU4RecOptions,
    NextItNetOptions,
    PepNetOptions,
    PopularityOptions,
    SASRecOptions,
    StarOptions,
)
from reelrank.pipelines.ruie.protocol import (
    Batch,
    SequenceModel,
    SequenceSpec,
    embedded,
    item_table,
)

SOFTMAX_NEGATIVES = 1024  # METHODS §5.4 [D], the same for all


class SoftmaxModel(SequenceModel):
    """Learns by sampled softmax over the items' own vectors."""

    def __init__(self, config: Options, spec: SequenceSpec, dim: int) -> None:
        super().__init__(config, spec)
        self.items = item_table(spec.n_items, dim)

    def losses(
        self, batch: Batch, log: Sequences, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """See :class:`SequenceModel`."""
        queries = self.queries(batch)[batch.mask]
        loss = losses.softmax_loss(
            queries, self.items.weight, batch.item[batch.mask], SOFTMAX_NEGATIVES, generator
        )
        return {"loss": loss.mean()}

    def item_vectors(self) -> Tensor:
        """See :class:`SequenceModel`."""
        return self.items.weight


class EncoderModel(SoftmaxModel):
    """A causal encoder whose output is the query; it does not know the scenario."""

    def __init__(self, config: EncoderOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec, config.dim)
        self.encoder = make_encoder(config)
        self.out: nn.Module = nn.Identity()

    def queries(self, batch: Batch) -> Tensor:
        """See :class:`SequenceModel`."""
        out: Tensor = self.out(self.encoder(embedded(self.items, batch.history)))
        return out

    def last_queries(self, batch: Batch) -> Tensor:
        """See :class:`SequenceModel`; histories of one length need no other place's output."""
        length = int(batch.history.length.max())
        if not length or int(batch.history.length.min()) < length:
            return super().last_queries(batch)
        x = self.items(batch.history.item[:, :length])  # no pads
        out: Tensor = self.out(self.encoder.last(x))
        return out


@register("nextitnet", NextItNetOptions, SequenceSpec)
class NextItNetModel(EncoderModel):
    """NextItNet alone: RUIE's backbone, and a dense layer back to the items' vectors [R].

    Without it a query holds the last item's own vector, which is nearest to itself.
    """

    def __init__(self, config: NextItNetOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec)
        self.out = nn.Linear(config.dim, config.dim)


@register("sasrec", SASRecOptions, SequenceSpec)
class SASRecModel(EncoderModel):
    """Self-attentive sequential recommendation."""


@register("gru4rec", GRU4RecOptions, SequenceSpec)
class GRU4RecModel(EncoderModel):
    """Recurrent sequential recommendation."""


@register("caser", CaserOptions, SequenceSpec)
class CaserModel(SoftmaxModel):
    """Convolutional sequence embedding; its filters span the whole window, so it answers at the last place alone."""

    all_places = False

    def __init__(self, config: CaserOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec, config.dim)
        if config.length != spec.length:
            raise ValueError(f"caser.length {config.length} is not the history's {spec.length}")
        self.encoder = CaserEncoder(config, spec.n_users)

    def queries(self, batch: Batch) -> Tensor:
        """See :class:`SequenceModel`."""
        x = _right_aligned(embedded(self.items, batch.history), batch.history.length)
        out: Tensor = self.encoder(x, batch.user)
        return out.unsqueeze(1)


@register("pepnet", PepNetOptions, SequenceSpec)
class PepNetModel(SoftmaxModel):
    """PEPNet on the mean of the history: gates of the embedding by scenario, of hidden layers by user and scenario.

    Differs: published for click prediction, here with a softmax over items; the items' part of the PPNet gate is left out, since
    one query serves all items.
    """

    def __init__(self, config: PepNetOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec, config.dim)
        o = config
        self.users = item_table(spec.n_users, o.user_dim)
        self.scenarios = item_table(spec.n_scenarios, o.scenario_dim)
        self.embedding_gate = _Gate(o.scenario_dim + o.dim, o.dim)
        sizes = (o.dim, *o.hidden)
        known = o.user_dim + o.scenario_dim + o.dim
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.gates = nn.ModuleList(_Gate(known, b) for b in o.hidden)
        self.out = nn.Linear(sizes[-1], o.dim)

    def queries(self, batch: Batch) -> Tensor:
        """See :class:`SequenceModel`."""
        x = running_mean(embedded(self.items, batch.history), batch.history)
        scenario = self.scenarios(batch.scenario)
        x = self.embedding_gate(torch.cat([scenario, x.detach()], -1)) * x
        user = self.users(batch.user)[:, None].expand(-1, x.shape[1], -1)
        known = torch.cat([user, scenario, x.detach()], -1)
        for layer, gate in zip(self.layers, self.gates, strict=True):
            x = gate(known) * F.relu(layer(x))
        out: Tensor = self.out(x)
        return out


class _Gate(nn.Module):
    """2σ(W₂ ReLU(W₁ x)): multiplies by 1 at the start."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, out), nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.outer(F.relu(self.inner(x))))


@register("star", StarOptions, SequenceSpec)
class StarModel(SoftmaxModel):
    """STAR on the mean of the history: moments per scenario, layers W_shared ⊙ W_scenario, an auxiliary network.

    Differs: published for click prediction, here with a softmax over items; the auxiliary network adds to the query, since a number
    added to all logits would change nothing.
    """

    def __init__(self, config: StarOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec, config.dim)
        o, n = config, spec.n_scenarios
        self.norm = _PartitionedNorm(o.dim, n, o.momentum)
        sizes = (o.dim, *o.hidden, o.dim)
        self.layers = nn.ModuleList(_StarLayer(a, b, n) for a, b in pairwise(sizes))
        self.scenarios = item_table(n, o.auxiliary_dim)
        self.auxiliary = nn.Sequential(
            nn.Linear(o.auxiliary_dim + o.dim, o.dim), nn.ReLU(), nn.Linear(o.dim, o.dim)
        )

    def queries(self, batch: Batch) -> Tensor:
        """See :class:`SequenceModel`."""
        mean = running_mean(embedded(self.items, batch.history), batch.history)
        x = self.norm(mean, batch.scenario, batch.mask)
        extra: Tensor = self.auxiliary(torch.cat([self.scenarios(batch.scenario), x], -1))
        for layer in self.layers:
            x = layer(x, batch.scenario)
            x = F.relu(x) if layer is not self.layers[-1] else x
        out: Tensor = x + extra
        return out


class _StarLayer(nn.Module):
    """x (W_shared ⊙ W_c) + b_shared + b_c for places of scenario c."""

    def __init__(self, width: int, out: int, scenarios: int) -> None:
        super().__init__()
        self.shared = nn.Linear(width, out)
        self.weight = nn.Parameter(torch.ones(scenarios, out, width))
        self.bias = nn.Parameter(torch.zeros(scenarios, out))

    def forward(self, x: Tensor, scenario: Tensor) -> Tensor:
        # one product per scenario for all places, then each takes its own: few scenarios
        every = torch.einsum("...i,coi->...co", x, self.weight * self.shared.weight)
        own = scenario[..., None, None].expand(*scenario.shape, 1, every.shape[-1])
        out: Tensor = every.gather(-2, own).squeeze(-2) + self.shared.bias + self.bias[scenario]
        return out


class _PartitionedNorm(nn.Module):
    """γ γ_c (x − μ_c)/σ_c + β + β_c with moments of each scenario's own places."""

    def __init__(self, dim: int, scenarios: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.scale, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.own_scale = nn.Parameter(torch.ones(scenarios, dim))
        self.own_shift = nn.Parameter(torch.zeros(scenarios, dim))
        self.register_buffer("mean", torch.zeros(scenarios, dim))
        self.register_buffer("variance", torch.ones(scenarios, dim))
        self.mean: Tensor
        self.variance: Tensor

    def forward(self, x: Tensor, scenario: Tensor, mask: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = self._moments(x[mask], scenario[mask])
        x = (x - mean[scenario]) / (variance[scenario] + 1e-5).sqrt()
        scale, shift = self.scale * self.own_scale[scenario], self.shift + self.own_shift[scenario]
        return x * scale + shift

    def _moments(self, x: Tensor, scenario: Tensor) -> tuple[Tensor, Tensor]:
        """Of this batch; a scenario with fewer than two places keeps its running moments."""
        n = torch.bincount(scenario, minlength=len(self.mean)).unsqueeze(1)
        total = torch.zeros_like(self.mean).index_add(0, scenario, x)
        mean = total / n.clamp_min(1)
        squares = torch.zeros_like(self.mean).index_add(0, scenario, (x - mean[scenario]).pow(2))
        enough = n >= 2
        mean = torch.where(enough, mean, self.mean)
        variance = torch.where(enough, squares / n.clamp_min(1), self.variance)
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance, self.momentum)
        return mean, variance


@register("din", DinOptions, SequenceSpec)
class DinModel(SequenceModel):
    """Deep interest network: each candidate weighs the history by itself, so items are scored one by one.

    Attention weights are sigmoids that are not normalised. Source: METHODS §5.6.
    """

    all_places = False

    def __init__(self, config: DinOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec)
        self.options = config
        self.items = item_table(spec.n_items, config.dim)
        self.attention = _dice_mlp(4 * config.dim, config.attention_hidden)
        self.output = _dice_mlp(3 * config.dim, config.hidden)

    def losses(
        self, batch: Batch, log: Sequences, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """Binary cross-entropy of the event and of random items."""
        drawn, valid = losses.draw_negatives(
            batch.history.item, batch.item.squeeze(1), self.spec.n_items, self.options.negatives, generator
        )  # fmt: skip
        items = torch.cat([batch.item, drawn], 1)
        labels = torch.zeros_like(items, dtype=torch.float32)
        labels[:, 0] = 1
        weight = torch.cat([torch.ones_like(batch.mask), valid], 1).float()
        loss = F.binary_cross_entropy_with_logits(
            self.scores(batch.history, items), labels, weight=weight, reduction="sum"
        )
        return {"loss": loss / weight.sum()}

    def scores(self, history: Histories, items: Tensor) -> Tensor:
        """Score of candidates (B, C) after their histories, (B, C)."""
        target = self.items(items)
        past = embedded(self.items, history)
        w_place, w_candidate, w_product, bias = self._first()
        # linear parts once per place and once per candidate
        seen = F.linear(past, w_place, bias)[:, None] + F.linear(target, w_candidate)[:, :, None]
        seen = seen + F.linear(past[:, None] * target[:, :, None], w_product)
        weight = torch.sigmoid(self.attention[1:](seen)).squeeze(-1)
        return self._scored((weight * history.mask[:, None]) @ past, target)

    def scores_of_all(self, history: Histories, items: Tensor) -> Tensor:
        """:meth:`scores` of the same candidates (C,) after every history, (B, C): one product for all of them."""
        target = self.items(items)
        past = embedded(self.items, history)
        w_place, w_candidate, w_product, bias = self._first()
        weights = (w_place + w_product * target[:, None]).flatten(0, 1)
        biases = F.linear(target, w_candidate, bias).flatten()
        seen = F.linear(past[history.mask], weights, biases)
        seen = seen.view(len(seen), len(items), len(w_place))
        weight = past.new_zeros(*history.mask.shape, len(items))
        weight[history.mask] = torch.sigmoid(self.attention[1:](seen)).squeeze(-1)
        return self._scored(weight.transpose(1, 2) @ past, target.expand(len(past), -1, -1))

    def _first(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The attention's first layer on [h, t, h − t, h ⊙ t] as weights of h, of t and of h ⊙ t, and its bias."""
        first = self.attention[0]
        assert isinstance(first, nn.Linear)
        w_h, w_t, w_difference, w_product = first.weight.chunk(4, 1)
        return w_h + w_difference, w_t - w_difference, w_product, first.bias

    def _scored(self, interest: Tensor, target: Tensor) -> Tensor:
        out: Tensor = self.output(torch.cat([interest, target, interest * target], -1))
        return out.squeeze(-1)

    def queries(self, batch: Batch) -> Tensor:
        """There is no query that serves all items.

        Raises:
            TypeError: always; use :meth:`scores`.
        """
        raise TypeError("DIN has no query vector: score its candidates with scores()")

    def item_vectors(self) -> Tensor:
        """See :class:`SequenceModel`; used with :meth:`scores` only."""
        return self.items.weight


class _Dice(nn.Module):
    """Data-adaptive activation: x · (p + α (1 − p)), p = σ(normalised x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        p = self.norm(x.flatten(0, -2)).sigmoid_().view_as(x)
        return x * torch.lerp(self.alpha, torch.ones_like(self.alpha), p)  # p + α (1 − p)


def _dice_mlp(width: int, hidden: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for below, above in pairwise((width, *hidden)):
        layers += [nn.Linear(below, above), _Dice(above)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else width, 1))


@register("popularity_of_items", PopularityOptions, SequenceSpec)
class PopularityModel(SequenceModel):
    """Train events of each item, in all scenarios or in the request's: no learning."""

    def __init__(self, config: PopularityOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec)
        groups = spec.n_scenarios if config.by_scenario else 1
        self.register_buffer("count", torch.zeros(spec.n_items, groups))
        self.count: Tensor

    def fit(self, log: Sequences) -> None:
        """Count the train events."""
        train = log.split == 0
        group = log.scenario[train] if self.count.shape[1] > 1 else torch.zeros_like(log.item[train])  # fmt: skip
        one = torch.ones(int(train.sum()), device=self.count.device)
        self.count.zero_().index_put_((log.item[train], group), one, accumulate=True)

    def losses(
        self, batch: Batch, log: Sequences, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """It has none.

        Raises:
            TypeError: always; use :meth:`fit`.
        """
        raise TypeError("popularity is counted, not trained: call fit(log)")

    def queries(self, batch: Batch) -> Tensor:
        """One-hot of the request's scenario."""
        if self.count.shape[1] == 1:
            return torch.ones(*batch.asked.shape, 1, device=self.count.device)
        return F.one_hot(batch.scenario, self.count.shape[1]).float()

    def item_vectors(self) -> Tensor:
        """(I, 1 or S) counts."""
        return self.count


def running_mean(x: Tensor, history: Histories) -> Tensor:
    """Mean of the vectors up to each place, (B, L, d); pads count as nothing."""
    seen = history.mask.cumsum(1).clamp_min(1).unsqueeze(-1)
    return x.cumsum(1) / seen


def _right_aligned(x: Tensor, length: Tensor) -> Tensor:
    """Left-aligned (B, L, d) with the last valid place at the end, zeros before the first."""
    places = x.shape[1]
    source = torch.arange(places, device=x.device) - (places - length)[:, None]
    moved = x.gather(1, source.clamp_min(0).unsqueeze(-1).expand_as(x))
    return moved * (source >= 0).unsqueeze(-1)
