"""Social diffusion: a user's state takes in those of the users that it follows, by graph attention.

Source: METHODS §9 MT-07 (MT-DQN's open question 2); layers: Veličković et al. 2018 (arXiv 1710.10903).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from reelrank.models.follow_graph import FollowGraph
from reelrank.models.inputs import ModelInputs
from reelrank.models.options import SocialOptions
from reelrank.models.tgnn import GraphNetwork

_MS_PER_HOUR = 3_600_000


class SocialDiffusion(GraphNetwork):
    """h_u' = LayerNorm(h_u + MLP([h_u ‖ GAT(h)_u ‖ mean of the followed users' h])); items keep their states.

    What diffuses are the states at the last full ``every_hours``, so that the many roots of a batch share them; they know strictly
    less than h_u does. Without hops the user's own state of that hour is in GAT's place and the mean is 0: the same network without
    edges.

    Args:
        network: gives states of users and items.
        options: hops, heads, age of states.
    """

    def __init__(self, network: GraphNetwork, options: SocialOptions) -> None:
        nn.Module.__init__(self)  # the wrapped network has the base states
        d = network.options.d_h
        self.options = network.options
        self.social = options
        self.network = network
        self.layers = nn.ModuleList(
            GATConv(d, d // options.heads, options.heads, dropout=network.options.dropout)
            for _ in range(options.hops)
        )
        self.merge = nn.Sequential(nn.Linear(3 * d, d), nn.ReLU(), nn.Linear(d, d))
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(network.options.dropout)

    def forget(self) -> None:
        """As the wrapped network."""
        self.network.forget()

    def forward(self, inputs: ModelInputs, nodes: Tensor, ts: Tensor, memory: Tensor) -> Tensor:
        """States (R, d_h) of nodes (R,) at times (R,); arguments as of :class:`GraphNetwork`.

        Raises:
            ValueError: the inputs hold no social edges.
        """
        if inputs.follows is None:
            raise ValueError(
                "tgnn.social needs social_edges, which were not given: KuaiRand publishes none, a cell of MT-07 runs on mt_dqn_weibo"
            )
        stream = inputs.stream
        h: Tensor = self.network(inputs, nodes, ts, memory)
        rows = torch.nonzero(nodes < stream.n_users).squeeze(1)
        if not len(rows):
            return h
        period = self.social.every_hours * _MS_PER_HOUR
        # (user, time slot) as one number
        seeds, inverse = torch.unique(ts[rows] // period * stream.n_users + nodes[rows], return_inverse=True)  # fmt: skip
        keys, edge_index = self._reach(inputs.follows, seeds, stream.n_users)
        now = self.network(inputs, keys % stream.n_users, keys // stream.n_users * period, memory)
        x = now
        for layer in self.layers:
            x = F.elu(layer(x, edge_index))
        at = torch.searchsorted(keys, seeds)
        group = _mean_of_sources(now, edge_index)
        own = h[rows]
        social = torch.cat([x[at], group[at]], dim=1)[inverse]
        update = self.dropout(self.merge(torch.cat([own, social], dim=1)))
        out: Tensor = h.index_put((rows,), self.norm(own + update))
        return out

    def _reach(self, follows: FollowGraph, seeds: Tensor, n_users: int) -> tuple[Tensor, Tensor]:
        """All keys within the hops, sorted, and edges (2, E) followed → follower between their places."""
        keys, source, target = seeds, seeds[:0], seeds[:0]
        for _ in self.layers:
            row, followed = follows.of(keys % n_users, self.social.most)
            target = keys[row]
            source = target // n_users * n_users + followed
            keys = torch.unique(torch.cat([keys, source]))
        return keys, torch.stack([torch.searchsorted(keys, ends) for ends in (source, target)])


def _mean_of_sources(x: Tensor, edge_index: Tensor) -> Tensor:
    """Mean of x (M, D) over the sources of each target's edges; 0 without one."""
    source, target = edge_index
    total = torch.zeros_like(x).index_add(0, target, x[source])
    count = torch.bincount(target, minlength=len(x)).clamp_min(1).unsqueeze(1)
    return total / count
