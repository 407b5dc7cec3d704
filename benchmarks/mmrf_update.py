"""MMRF's update (critics, seven actors with routed gradients, optimisers, targets) against the same networks in a loop over agents.

    python benchmarks/mmrf_update.py [--batch 512] [--candidates 40] [--updates 3] [--rounds 5] [--threads 2] [--device cpu]

The peer is what one writes first: a module per agent, every agent's layers on [b ‖ x], one agent's attention after the other. It has the same
weights, encoders, losses, routes, optimisers and targets. ``agrees``: in float64 and from equal weights both make the same update, to 1e-6 of its
size (a first step of Adam is a matter of signs, so that in float32 rounding shows).
"""

import argparse
import json
import resource
import statistics
import time
from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.feed import FeedBatch
from reelrank.models.feed_encoder import FeedEncoder, FeedSpec
from reelrank.pipelines.mmrf.actors import MMRFActors, Scores
from reelrank.pipelines.mmrf.critics import CriticState, build_critics
from reelrank.pipelines.mmrf.options import ActorOptions, CriticOptions, UpdateOptions
from reelrank.pipelines.mmrf.replay import Transition
from reelrank.pipelines.mmrf.updates import ActorCritic

SPEC = FeedSpec(
    n_items=7583,
    n_scenarios=15,
    user_cardinalities=(8,) * 24,
    item_cardinalities=(2049, 40, 40, 11),
)


class LoopedActors(nn.Module):
    """The same actors, one module per agent; the interface that the update needs."""

    def __init__(self, ours: MMRFActors) -> None:
        super().__init__()
        self.options = ours.options
        n, h, head = len(ours.options.agents), ours.options.hidden, ours.options.head_hidden
        e = ours.options.encoder
        self.encoder = FeedEncoder(e, SPEC)
        self.hidden_layer = nn.ModuleList(nn.Linear(e.d_state + e.d_item, h) for _ in range(n))
        self.query, self.key, self.value = (nn.Linear(h, h, bias=False) for _ in range(3))
        self.first = nn.ModuleList(
            nn.Linear(2 * h + (n - 1) * (i == n - 1), head) for i in range(n)
        )
        self.out = nn.ModuleList(nn.Linear(head, 1) for _ in range(n))
        self.encoder.load_state_dict(ours.encoder.state_dict())
        layer, exchange = ours.hidden_layer, ours.exchange
        with torch.no_grad():
            for i in range(n):
                both = torch.cat([layer.state.weight[i], layer.item.weight[i]]).T
                self.hidden_layer[i].weight.copy_(both)
                self.hidden_layer[i].bias.copy_(layer.state.bias[i, 0])
                parts = [ours.from_own.weight[i].T, ours.from_others.weight[i].T]
                if i == n - 1:
                    parts.append(ours.from_actions.weight)
                self.first[i].weight.copy_(torch.cat(parts, dim=1))
                self.first[i].bias.copy_(ours.from_own.bias[i, 0])
                self.out[i].weight.copy_(ours.out.weight[i].T)
                self.out[i].bias.copy_(ours.out.bias[i, 0])
            for mine, theirs in zip(self.exchange_parameters(), exchange.parameters(), strict=True):
                mine.copy_(theirs)

    def forward(self, batch: FeedBatch) -> Scores:
        h = self.hidden(batch)
        return self.heads(h, h, batch.mask)

    def hidden(self, batch: FeedBatch) -> Tensor:
        b, x = self.encoder(batch)
        both = torch.cat([b.unsqueeze(1).expand(-1, x.shape[1], -1), x], dim=-1).flatten(0, 1)
        return torch.stack([F.leaky_relu(layer(both)) for layer in self.hidden_layer])

    def heads(self, own: Tensor, others: Tensor, mask: Tensor) -> Scores:
        n, m = len(own), self.options.heads
        split = (own.shape[1], m, own.shape[2] // m)
        queries = [self.query(own[i]).view(split) for i in range(n)]
        keys = [self.key(others[j]).view(split) for j in range(n)]
        values = [F.leaky_relu(self.value(others[j])).view(split) for j in range(n)]
        squares, actions, scores = [], [], []
        for i in range(n):
            rest = [j for j in range(n) if j != i]
            heard = torch.stack([keys[j] for j in rest], dim=-1)  # (P, M, D, N − 1)
            logits = (queries[i].unsqueeze(2) @ heard) / split[2] ** 0.5
            squares.append(logits.square().mean())
            alpha = logits.softmax(-1)
            u = (alpha @ torch.stack([values[j] for j in rest], dim=2)).flatten(1)
            parts = [own[i], u, *([torch.stack(actions, 1)] if i == n - 1 else [])]
            score = self.out[i](F.leaky_relu(self.first[i](torch.cat(parts, dim=-1)))).squeeze(-1)
            actions.append(score.sigmoid())
            scores.append(score.view(mask.shape).masked_fill(~mask, -torch.inf))
        return Scores(torch.stack(scores), torch.stack(squares).mean())

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.first.parameters(), *self.out.parameters()]

    def exchange_parameters(self) -> list[nn.Parameter]:
        return [self.query.weight, self.key.weight, self.value.weight]


class LoopedCritics(nn.Module):
    """The same linear critics, one module per agent."""

    def __init__(self, ours: nn.Module, options: CriticOptions) -> None:
        super().__init__()
        e, (wide, narrow) = options.encoder, options.hidden
        n, self.credit = len(ours.first.state.weight), options.credit
        self.encoder = FeedEncoder(e, SPEC)
        self.encoder.load_state_dict(ours.encoder.state_dict())

        def mlp(*widths: int) -> nn.Sequential:
            layers = []
            for i, o in pairwise(widths):
                layers += [nn.Linear(i, o), nn.LeakyReLU()]
            return nn.Sequential(*layers[:-1])

        self.q = nn.ModuleList(mlp(e.d_state + e.d_item, wide, narrow, 1) for _ in range(n))
        self.v = nn.ModuleList(mlp(e.d_state, options.value_hidden, 1) for _ in range(n))
        first = ours.first
        with torch.no_grad():
            for i in range(n):
                self.q[i][0].weight.copy_(
                    torch.cat([first.state.weight[i], first.item.weight[i]]).T
                )
                self.q[i][0].bias.copy_(first.state.bias[i, 0])
                for mine, theirs in (
                    *zip(self.q[i][2::2], ours.rest.layers, strict=True),
                    *zip(self.v[i][::2], ours.baseline.layers, strict=True),
                ):
                    mine.weight.copy_(theirs.weight[i].T)
                    mine.bias.copy_(theirs.bias[i, 0])

    def forward(self, batch: FeedBatch) -> CriticState:
        b, x = self.encoder(batch)
        both = torch.cat([b.unsqueeze(1).expand(-1, x.shape[1], -1), x], dim=-1)
        centred = []
        for q in self.q:
            score = q(both).squeeze(-1).masked_fill(~batch.mask, 0.0)
            mean = score.sum(-1, keepdim=True) / batch.mask.sum(-1, keepdim=True).clamp_min(1)
            centred.append((score - mean).masked_fill(~batch.mask, 0.0))
        values = [v(b).squeeze(-1) for v in self.v]
        return CriticState(torch.stack(centred), torch.stack(values), batch.mask)

    def value(self, state: CriticState, exposure: Tensor) -> Tensor:
        exposures = exposure.expand(len(state.value), -1, -1)
        sums = [
            (e * q).sum(-1) + v
            for e, q, v in zip(exposures, state.candidates, state.value, strict=True)
        ]
        return torch.stack(sums)


def random_batch(n: int, candidates: int, history: int) -> FeedBatch:
    codes = torch.stack(
        [torch.randint(c, (n, candidates)) for c in SPEC.item_cardinalities], dim=-1
    )
    return FeedBatch(
        user_codes=torch.randint(8, (n, len(SPEC.user_cardinalities))),
        scenario=torch.randint(SPEC.n_scenarios, (n,)),
        hour=torch.randint(24, (n,)),
        history=torch.randint(SPEC.n_items, (n, history)),
        feedback=torch.randint(2, (n, history, 7)).float(),
        candidates=torch.randint(SPEC.n_items, (n, candidates)),
        item_codes=codes,
    )


def random_transition(n: int, candidates: int, agents: int, history: int) -> Transition:
    exposure = F.one_hot(torch.randint(candidates, (n,)), candidates).float()
    reward = torch.randn(agents, n)
    return Transition(
        batch=random_batch(n, candidates, history),
        exposure=exposure,
        reward=reward,
        item_reward=torch.where(exposure > 0, reward.unsqueeze(-1), torch.nan),
        next=random_batch(n, candidates, history),
        goes_on=torch.rand(n) < 0.9,
        logged=torch.arange(n) < n // 2,
    )


def moved(learner: ActorCritic, transition: Transition) -> Tensor:
    """What an update changes in the scores of all agents and in their critics."""

    @torch.no_grad()
    def answers() -> Tensor:
        batch = transition.batch
        state = learner.critics(batch)
        return torch.cat([learner.actors(batch).logits, state.candidates]).double()

    before = answers()
    learner.update(transition)
    return answers() - before


def update_error(
    batched: tuple[nn.Module, nn.Module],
    looped: tuple[nn.Module, nn.Module],
    update: UpdateOptions,
    agents: int,
    history: int,
) -> float:
    """How far the two sides' first updates of a small batch lie apart, over the size of ours; in float64."""
    small = random_transition(16, 12, agents, history)
    parts = {
        name: as_double(part) if isinstance(part, FeedBatch) else to_double(part)
        for name, part in vars(small).items()
    }
    mine, theirs = (
        moved(ActorCritic(*(deepcopy(m).double() for m in pair), update), Transition(**parts))
        for pair in (batched, looped)
    )
    return float((mine - theirs).norm() / mine.norm())


def to_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def as_double(batch: FeedBatch) -> FeedBatch:
    return FeedBatch(**{name: to_double(t) for name, t in vars(batch).items()})


def seconds_of(learner: ActorCritic, transitions: list[Transition]) -> float:
    started = time.perf_counter()
    for transition in transitions:
        learner.update(transition)
    if transitions[0].reward.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / len(transitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    actor, critic, update = ActorOptions(), CriticOptions(credit="item"), UpdateOptions()
    actors = MMRFActors(actor, SPEC)
    critics = build_critics(len(actor.agents), critic, SPEC)
    batched, looped = (actors, critics), (LoopedActors(actors), LoopedCritics(critics, critic))
    error = update_error(batched, looped, update, len(actor.agents), actor.encoder.history)
    ours, peer = (
        ActorCritic(*(m.to(given.device) for m in pair), update) for pair in (batched, looped)
    )
    transitions = [
        random_transition(
            given.batch, given.candidates, len(actor.agents), actor.encoder.history
        ).to(given.device)
        for _ in range(given.updates)
    ]
    for learner in (ours, peer):
        seconds_of(learner, transitions[:1])  # first touch of memory
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for k in range(given.rounds):
        seconds["ours"].append(seconds_of(ours, transitions))
        seconds["peer"].append(seconds_of(peer, transitions))
        print(f"round {k}: ours {seconds['ours'][-1]:.3f} s, peer {seconds['peer'][-1]:.3f} s")
    ratios = [p / o for o, p in zip(seconds["ours"], seconds["peer"], strict=True)]
    line = {
        "name": "mmrf_update",
        "ours": round(1 / statistics.median(seconds["ours"]), 3),
        "peer": round(1 / statistics.median(seconds["peer"]), 3),
        "ratio": round(statistics.median(ratios), 2),
        "unit": "updates/s",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "agrees": error < 1e-6,
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "update_error": error,
        "batch": given.batch,
        "candidates": given.candidates,
        "agents": len(actor.agents),
        "threads": given.threads,
        "device": given.device,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
