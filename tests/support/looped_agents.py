"""MMRF's actors one agent and one attention head at a time, from the batched module's weights: slow, and plain to read."""

import torch
import torch.nn.functional as F


def looped_scores(actors, batch, detached=False):
    """Logits (N, B, C) and penalty; with ``detached`` no agent's gradient reaches what it hears from others."""
    n = len(actors.options.agents)
    b, x = actors.encoder(batch)
    both = torch.cat([b.unsqueeze(1).expand(-1, x.shape[1], -1), x], -1).flatten(0, 1)
    layer = actors.hidden_layer
    weight = torch.cat([layer.state.weight, layer.item.weight], 1)
    h = [F.leaky_relu(both @ weight[i] + layer.state.bias[i]) for i in range(n)]
    heard = [t.detach() if detached else t for t in h]
    logits, squares, actions = [], [], []
    for i in range(n):
        z = h[i] @ actors.from_own.weight[i] + actors.from_own.bias[i]
        if actors.exchange is not None:
            u, found = _exchange(actors, h, heard, i)
            squares += found
            z = z + u @ actors.from_others.weight[i]
            if i == n - 1:
                z = z + torch.stack(actions, 1) @ actors.from_actions.weight.T
        score = (F.leaky_relu(z) @ actors.out.weight[i] + actors.out.bias[i])[:, 0]
        actions.append(score.sigmoid())
        logits.append(score.view(batch.mask.shape).masked_fill(~batch.mask, -torch.inf))
    penalty = torch.cat(squares).mean() if squares else both.new_zeros(())
    return torch.stack(logits), penalty


def _exchange(actors, h, heard, i):
    others = [j for j in range(len(h)) if j != i]
    exchange = actors.exchange
    if actors.options.exchange == "concat":
        blocks = exchange.mix.weight
        return h[i] @ blocks[i] + sum(heard[j] @ blocks[j] for j in others), []
    heads, parts, squares = actors.options.heads, [], []
    d = h[i].shape[1] // heads
    for m in range(heads):
        at = slice(m * d, (m + 1) * d)
        w_q, w_k, w_v = (
            layer.weight[at] for layer in (exchange.query, exchange.key, exchange.value)
        )
        # MMRF Eq. 1
        logits = torch.stack([((heard[j] @ w_k.T) * (h[i] @ w_q.T)).sum(1) for j in others], 1)
        logits = logits / d**0.5
        alpha = logits.softmax(1)
        parts.append(
            sum(alpha[:, k : k + 1] * F.leaky_relu(heard[j] @ w_v.T) for k, j in enumerate(others))
        )
        squares.append(logits.square().flatten())
    return torch.cat(parts, 1), squares
