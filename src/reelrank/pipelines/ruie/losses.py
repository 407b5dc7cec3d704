"""Losses of sequential models as functions of tensors: sampled softmax, double Q-learning, gate, triplet.

Source: METHODS §5.4, Appendix A. Shapes: n places that are asked, d width, K negatives, S scenarios.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reelrank.pipelines.ruie.options import GateOptions, TripletOptions


def softmax_loss(
    queries: Tensor,
    items: Tensor,
    target: Tensor,
    negatives: int | None,
    generator: torch.Generator,
) -> Tensor:
    """Cross-entropy of the target among all items, or its estimate from items that all places share.

    The sampled items stand for those that were not drawn: their logits are raised by log(I/K), so that the sum in
    the softmax is estimated without bias. A sampled item that is a place's target is left out of that place.

    Args:
        queries: (n, d).
        items: (I, d) of all items.
        target: (n,) int64.
        negatives: K items drawn uniformly; None: all items.
        generator: on the same device.

    Returns:
        (n,).
    """
    n_items = len(items)
    if negatives is None or negatives >= n_items - 1:
        return F.cross_entropy(queries @ items.T, target, reduction="none")
    drawn = torch.randint(n_items, (negatives,), generator=generator, device=queries.device)
    vectors = F.embedding(torch.cat([drawn, target]), items)  # one look-up: one dense gradient
    own = (queries * vectors[negatives:]).sum(-1)
    others = shared_logsumexp(queries, vectors[:negatives], clashes(drawn, target, n_items))
    return torch.logaddexp(own, others + math.log(n_items / negatives)) - own


def clashes(drawn: Tensor, target: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Pairs of a place and a draw in which the drawn item is the place's target.

    Few: no (n, K) comparison is made.

    Args:
        drawn: (K,) int64.
        target: (n,) int64.
        n_items: both are below it.

    Returns:
        Rows of ``target`` and of ``drawn``, pair by pair.
    """
    is_drawn = torch.zeros(n_items, dtype=torch.bool, device=drawn.device)
    place = torch.nonzero(is_drawn.index_fill_(0, drawn, True)[target]).squeeze(1)
    own, draw = torch.nonzero(drawn == target[place, None], as_tuple=True)
    return place[own], draw


def shared_logsumexp(queries: Tensor, vectors: Tensor, left_out: tuple[Tensor, Tensor]) -> Tensor:
    """Log Σ_k exp(q·v_k) of each query over the vectors that are not left out, (n,); −∞ where none is in.

    Args:
        queries: (n, d).
        vectors: (K, d).
        left_out: rows of queries and of vectors, pair by pair.
    """
    out: Tensor = _SharedLogSumExp.apply(queries, vectors, *left_out)  # type: ignore[no-untyped-call]
    return out


class _SharedLogSumExp(torch.autograd.Function):
    """One (n, K) matrix, changed in place, serves both passes; written out, the sum and its gradient would make eight."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        queries: Tensor,
        vectors: Tensor,
        query: Tensor,
        vector: Tensor,
    ) -> Tensor:
        logits = queries @ vectors.T
        logits[query, vector] = -torch.inf
        top = logits.amax(1, keepdim=True).clamp_min_(torch.finfo(logits.dtype).min)
        odds = logits.sub_(top).exp_()
        total = odds.sum(1, keepdim=True)
        ctx.save_for_backward(queries, vectors, odds, total)
        return (top + total.log()).squeeze(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        queries, vectors, odds, total = ctx.saved_tensors
        weight = grad[:, None] / total.clamp_min(torch.finfo(total.dtype).tiny)
        return weight * (odds @ vectors), odds.T @ (weight * queries), None, None


def double_q_target(
    reward: Tensor, done: Tensor, next_main: Tensor, next_target: Tensor, gamma: float
) -> Tensor:
    """Target r + γ (1 − done) Q_target(s', argmax Q_main(s')).

    Args:
        reward: (n,).
        done: (n,) bool.
        next_main: (n, S), Q of the network that is trained.
        next_target: (n, S), Q of the other.
        gamma: discount.

    Returns:
        (n,).

    Source: METHODS §5.4, Appendix A.
    """
    best = next_main.argmax(-1, keepdim=True)
    return reward + gamma * (~done) * next_target.gather(-1, best).squeeze(-1)


def raw_gate(probability: Tensor, q: Tensor, options: GateOptions) -> Tensor:
    """Gate before clipping, (n,): 1/(1 − p), 1/p, 2σ(Q) or 1. Source: METHODS §5.4 [A]."""
    match options.form:
        case "one_minus_p":
            return 1 / (1 - probability + options.epsilon)
        case "inverse_p":
            return 1 / (probability + options.epsilon)
        case "sigmoid_q":
            return 2 * torch.sigmoid(q)
        case "none":
            return torch.ones_like(probability)


def gate(probability: Tensor, q: Tensor, scenario: Tensor, options: GateOptions) -> Tensor:
    """Weight of each place's contrastive loss, (n,).

    Args:
        probability: (n,) p(a|s) of the scenario that followed.
        q: (n,) Q(s, a).
        scenario: (n,) int64, a.
        options: form, clip, normalisation.

    Source: METHODS §5.4.
    """
    if not options.attached:
        probability, q = probability.detach(), q.detach()
    if options.form == "none":
        return torch.ones_like(probability)
    g = raw_gate(probability, q, options).clamp(*options.clip)
    if options.normalise == "none":
        return g
    group = scenario if options.normalise == "scenario" else torch.zeros_like(scenario)
    n_groups = int(group.max()) + 1 if len(group) else 1
    total = torch.zeros(n_groups, device=g.device).index_add_(0, group, g.detach())
    count = torch.bincount(group, minlength=n_groups)
    return g / (total / count.clamp_min(1))[group]


def triplet_loss(
    anchor: Tensor, positive: Tensor, negatives: Tensor, valid: Tensor, options: TripletOptions
) -> Tensor:
    """Mean over valid negatives of max(0, d(ê, e⁺) − d(ê, e⁻) + m), or InfoNCE; 0 without one.

    Args:
        anchor: (n, d), the intent ê, for positive and negatives alike.
        positive: (n, d), the next item.
        negatives: (n, K, d).
        valid: (n, K) bool, negatives that may serve.
        options: distance and margin.

    Returns:
        (n,).

    Source: METHODS §5.4.
    """
    if options.distance == "infonce":
        unit = F.normalize(anchor, dim=-1)
        near = (unit * F.normalize(positive, dim=-1)).sum(-1, keepdim=True)
        far = torch.einsum("nd,nkd->nk", unit, F.normalize(negatives, dim=-1))
        logits = torch.cat([near, far.masked_fill(~valid, -torch.inf)], 1) / options.temperature
        return torch.logsumexp(logits, 1) - logits[:, 0]
    near = distance(anchor, positive, options.distance)
    far = distance(anchor[:, None], negatives, options.distance)
    hinge = F.relu(near[:, None] - far + options.margin)
    return (hinge * valid).sum(1) / valid.sum(1).clamp_min(1)


def distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Over the last dimension: 1 − cosine, Euclidean, or −a·b."""
    if kind == "l2":
        return (a - b).pow(2).sum(-1).clamp_min(1e-12).sqrt()
    if kind == "dot":
        return -(a * b).sum(-1)
    # many b to one a: divided after the product, which einsum takes without copies of a
    product = torch.einsum("...d,...d->...", F.normalize(a, dim=-1), b)
    cosine: Tensor = product / torch.linalg.vector_norm(b, dim=-1).clamp_min(1e-8)
    return 1 - cosine


def draw_negatives(
    history: Tensor, target: Tensor, n_items: int, k: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Items drawn uniformly for each place, and which of them may serve: not in the history, not the target.

    Args:
        history: (n, L) int64 items, −1 = none.
        target: (n,) int64.
        n_items: items; a pad is none of them.
        k: draws per place.
        generator: on the same device.

    Returns:
        (n, k) int64, and (n, k) bool.
    """
    drawn = torch.randint(n_items, (len(target), k), generator=generator, device=target.device)
    clashes = (drawn[:, :, None] == history[:, None]).any(-1) | (drawn == target[:, None])
    return drawn, ~clashes
