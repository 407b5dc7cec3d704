"""RUIE: an encoder of the history, a contextual Q estimator of the next scenario, and the user's intent.

Source: RUIE (arXiv 2506.17682), METHODS §5.3, §5.4. Shapes: B sequences, L places, S scenarios, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.registry import register
from reelrank.models.sequence_data import Histories, Sequences
from reelrank.models.sequence_encoders import make_encoder
from reelrank.pipelines.ruie import losses
from reelrank.pipelines.ruie.options import RuieOptions
from reelrank.pipelines.ruie.protocol import (
    Batch,
    SequenceModel,
    SequenceSpec,
    embedded,
    item_table,
)

N_NETWORKS = 2  # A and B of double Q-learning


@dataclass(frozen=True)
class State:
    """What a network says of each place of a history.

    Attributes:
        h: (B, L, d) the backbone's output.
        context: (B, L, d) o, what the contextual attention adds.
        q: (B, L, S) Q of each scenario as the next one.
        log_p: (B, L, S) log-probability of each scenario as the next one.
    """

    h: Tensor
    context: Tensor
    q: Tensor
    log_p: Tensor


class ContextualAttention(nn.Module):
    """A flag token after the history looks at every token e_item + e_scenario up to each place, and at itself.

    Source: METHODS §5.3: heads without bias, N(0, 0.02) truncated.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.flag = nn.Parameter(torch.empty(dim))
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        for weight in (self.flag, self.query.weight, self.key.weight, self.value.weight):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, d) to (B, L, d); place t sees tokens up to t."""
        n, length, dim = tokens.shape
        flag = self.flag.expand(n, 1, dim)
        seen = torch.cat([flag, tokens], 1)
        q = self._split(self.query(flag)).expand(-1, -1, length, -1)
        k, v = self._split(self.key(seen)), self._split(self.value(seen))
        # column 0 is the flag, column 1 + j the token at place j
        mask = torch.ones(length, length + 1, dtype=torch.bool, device=tokens.device).tril(1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class RuieNetwork(nn.Module):
    """One of the two networks: everything but the choice between them."""

    def __init__(self, config: RuieOptions, spec: SequenceSpec) -> None:
        super().__init__()
        o, dim = config, config.backbone.dim
        self.config = config
        self.items = item_table(spec.n_items, dim)
        self.scenarios = item_table(spec.n_scenarios, dim)
        self.encoder = make_encoder(o.backbone)
        self.attention = ContextualAttention(dim, o.heads) if o.attention else None
        self.q = _mlp(2 * dim, (o.q_hidden,), spec.n_scenarios)
        self.p = _mlp(2 * dim, (o.q_hidden,), spec.n_scenarios)
        # W of CE(W h) is items · next_item: h holds the last item's own vector, which is nearest to itself
        self.next_item = nn.Linear(dim, dim)
        # the request's scenario is an input of the intent only: Q and p predict that very scenario
        self.intent = _mlp(3 * dim, o.intent_hidden, dim)

    def state(self, history: Histories) -> State:
        """State at every place; depends on the events up to it only."""
        x = embedded(self.items, history)
        h = self.encoder(x)
        tokens = x + self.scenarios(history.scenario) * history.mask.unsqueeze(-1)
        context = torch.zeros_like(h) if self.attention is None else self.attention(tokens)
        both = torch.cat([h, context], -1)
        z = self.q(both)
        if self.config.q.head == "shared_softmax":
            return State(h, context, torch.softmax(z, -1), torch.log_softmax(z, -1))
        return State(h, context, z, torch.log_softmax(self.p(both), -1))

    def intents(self, state: State, scenario: Tensor) -> Tensor:
        """ê (…, d) of places whose request has the scenario (…)."""
        known = torch.cat([state.h, state.context, self.scenarios(scenario)], -1)
        out: Tensor = self.intent(known)
        return out


@register("ruie", RuieOptions, SequenceSpec)
class RUIE(SequenceModel):
    r"""Recommendation with a user-intent estimate whose contrastive loss is gated by what Q-learning expects.

    .. math:: L = g \cdot L_{CL} + L_Q + \lambda_{sc} CE(p, c) + \lambda_{CE} CE(W h)

    At each step one of two networks, chosen by a coin, learns and the other is the target of double Q-learning. Scores are the
    mean of both. Differs from the released code: METHODS §5.5.
    """

    def __init__(self, config: RuieOptions, spec: SequenceSpec) -> None:
        super().__init__(config, spec)
        self.options = config
        self.networks = nn.ModuleList(RuieNetwork(config, spec) for _ in range(N_NETWORKS))

    def network(self, number: int) -> RuieNetwork:
        """A or B."""
        network = self.networks[number]
        assert isinstance(network, RuieNetwork)
        return network

    def losses(
        self, batch: Batch, log: Sequences, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """See :class:`SequenceModel`; beside the losses, monitors of gate, p and Q."""
        o = self.options
        coin = int(torch.randint(N_NETWORKS, (1,), generator=generator, device=generator.device))
        main, other = self.network(coin), self.network(1 - coin)
        state = main.state(batch.history)
        keep = batch.mask
        target, scenario, position = batch.item[keep], batch.scenario[keep], batch.asked[keep]
        h, log_p, q = state.h[keep], state.log_p[keep], state.q[keep]
        p = log_p.exp().gather(1, scenario[:, None]).squeeze(1)
        q_taken = q.gather(1, scenario[:, None]).squeeze(1)

        g = losses.gate(p, q_taken, scenario, o.gate)
        intent = main.intents(state, batch.scenario)[keep]
        history = batch.history.item[:, None].expand(-1, keep.shape[1], -1)[keep]
        drawn, valid = losses.draw_negatives(
            history, target, self.spec.n_items, o.triplet.negatives, generator
        )
        contrast = losses.triplet_loss(intent, main.items(target), main.items(drawn), valid, o.triplet)  # fmt: skip
        softmax = losses.softmax_loss(
            main.next_item(h), main.items.weight, target, o.softmax_negatives, generator
        )
        td, known = self._td_error(batch, log, q_taken, position, state, other)
        parts = {
            "triplet": (g * contrast).mean(),
            "q": td.pow(2).sum() / known.sum().clamp_min(1),
            "scenario": -log_p.gather(1, scenario[:, None]).mean(),
            "softmax": softmax.mean(),
        }
        square = parts["triplet"].detach().square()  # of the steps of an epoch: their variance
        weights = {
            "triplet": o.triplet.weight,
            "q": o.q.weight,
            "scenario": o.q.scenario_weight * (o.q.head == "linear"),
            "softmax": o.softmax_weight,
        }
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        monitors = self._monitors(p, q_taken, g, contrast, td, scenario)
        return {"loss": total, **parts, "triplet_square": square, **monitors}

    def _td_error(
        self,
        batch: Batch,
        log: Sequences,
        q_taken: Tensor,
        position: Tensor,
        state: State,
        other: RuieNetwork,
    ) -> tuple[Tensor, Tensor]:
        """Q − y of the asked places (n,), 0 where the window ends before the next state is known; and where it is known."""
        o = self.options
        keep = batch.mask
        train_end = _train_end(log, position)
        if o.q.target != "double_q":
            before = position - log.first[log.user[position]]
            length = before if o.q.target == "history_length" else train_end - 1 - position
            return q_taken - length.float().log1p(), torch.ones_like(length, dtype=torch.bool)
        with torch.no_grad():
            next_main, next_other = (
                _shifted(q)[keep] for q in (state.q, other.state(batch.history).q)
            )
        done = position + 1 >= train_end
        has_next = _shifted(batch.history.mask.unsqueeze(-1)).squeeze(-1)[keep]
        known = done | has_next
        reward = log.behaviour[position].float() @ torch.tensor(
            o.reward.weights(), device=position.device
        )
        y = losses.double_q_target(reward, done, next_main, next_other, o.q.gamma)
        return (q_taken - y) * known, known

    def _monitors(
        self, p: Tensor, q: Tensor, g: Tensor, contrast: Tensor, td: Tensor, scenario: Tensor
    ) -> dict[str, Tensor]:
        """Shares of gates at either clip, spread of p, mean |TD error|, and by scenario mean Q, mean gate before normalising, gate mass and loss mass."""
        raw = losses.raw_gate(p, q, self.options.gate).detach()
        low, high = self.options.gate.clip
        found = {
            "gate_at_low": (raw <= low).float().mean(),
            "gate_at_high": (raw >= high).float().mean(),
            "p_sd": p.detach().std(correction=0),
            "td_abs": td.detach().abs().mean(),
        }
        weighted = (g * contrast).detach()
        for c in range(self.spec.n_scenarios):
            own = (scenario == c).float()
            n = own.sum().clamp_min(1)
            found[f"q_scenario_{c}"] = (q.detach() * own).sum() / n
            found[f"gate_mean_{c}"] = (raw.clamp(low, high) * own).sum() / n
            found[f"gate_share_{c}"] = (g.detach() * own).sum() / g.detach().sum().clamp_min(1e-12)
            found[f"loss_share_{c}"] = (weighted * own).sum() / weighted.sum().clamp_min(1e-12)
        return found

    def queries(self, batch: Batch) -> Tensor:
        """See :class:`SequenceModel`; both networks side by side."""
        return torch.cat([self._query(self.network(k), batch) for k in range(N_NETWORKS)], -1)

    def item_vectors(self) -> Tensor:
        """See :class:`SequenceModel`; as many columns as a query."""
        return torch.cat([self._items(self.network(k)) for k in range(N_NETWORKS)], -1)

    def _query(self, network: RuieNetwork, batch: Batch) -> Tensor:
        state = network.state(batch.history)
        if self.options.ranks_by == "backbone":
            ranked: Tensor = network.next_item(state.h)
            return ranked
        intent = network.intents(state, batch.scenario)
        match self.options.triplet.distance:
            case "l2":  # −‖ê − e‖² = 2 ê·e − ‖e‖² − ‖ê‖², the last the same for every item
                return torch.cat([2 * intent, torch.ones_like(intent[..., :1])], -1)
            case "dot":
                return intent
            case _:
                return F.normalize(intent, dim=-1)

    def _items(self, network: RuieNetwork) -> Tensor:
        items = network.items.weight
        if self.options.ranks_by == "backbone" or self.options.triplet.distance == "dot":
            return items
        if self.options.triplet.distance == "l2":
            return torch.cat([items, -items.pow(2).sum(-1, keepdim=True)], -1)
        return F.normalize(items, dim=-1)


def _shifted(x: Tensor) -> Tensor:
    """What stands one place later, (B, L, …); zeros at the end."""
    return F.pad(x[:, 1:], (0, 0, 0, 1))


def _train_end(log: Sequences, position: Tensor) -> Tensor:
    """One past the last train event of each event's user, (n,)."""
    ends = log.first[1:].clone()
    later = (log.split != 0).nonzero().squeeze(1)
    ends.scatter_reduce_(0, log.user[later], later, "amin")
    return ends[log.user[position]]


def _mlp(width: int, hidden: tuple[int, ...], out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for below, above in pairwise((width, *hidden)):
        layers += [nn.Linear(below, above), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else width, out))
