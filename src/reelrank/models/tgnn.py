"""Window temporal graph network: users and items attend to their last events, strictly before a time.

Source: MT-DQN (arXiv 2509.12269) Eq. 11, METHODS §3.6 (``window``). Shape suffixes: R roots, K neighbours, E unique
(event, endpoint) neighbours, D = d_h.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.options import TGNNOptions
from reelrank.models.temporal_attention import Neighbourhood, attend

_MS_PER_HOUR = 3_600_000
_CONTEXT_GAIN = 2.0  # [D: of 1 and 2, by average precision in benchmarks/tgnn.py]


class TimeEncoding(nn.Module):
    """Φ(Δ) = cos(ω Δ̃ + b), Δ̃ = hours / mean train gap; ω starts geometric, so that seconds and weeks both show."""

    def __init__(self, dim: int, mean_gap_hours: float) -> None:
        super().__init__()
        self.omega = nn.Parameter(torch.logspace(-2, 3, dim))
        self.phase = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean_gap_hours", torch.tensor(mean_gap_hours))
        self.mean_gap_hours: Tensor

    def forward(self, delta_ms: Tensor) -> Tensor:
        """Encode (…,) int64 ms as (…, dim)."""
        gap = delta_ms.float() / _MS_PER_HOUR / self.mean_gap_hours
        return torch.cos(gap.unsqueeze(-1) * self.omega + self.phase)


class UserAttributes(nn.Module):
    """MLP over embeddings of the static attributes: a user's state without any event."""

    def __init__(self, cardinalities: tuple[int, ...], attribute_dim: int, out_dim: int) -> None:
        super().__init__()
        # all attributes share one table; offsets keep them apart
        offsets = torch.tensor([0, *cardinalities], dtype=torch.int64).cumsum(0)[:-1]
        self.register_buffer("offsets", offsets)
        self.offsets: Tensor
        self.embedding = nn.Embedding(max(sum(cardinalities), 1), attribute_dim)
        self.mlp = nn.Sequential(
            nn.Linear(max(len(cardinalities), 1) * attribute_dim, out_dim),
            nn.ReLU(),
            nn.Linear(out_dim, out_dim),
        )
        self.n_fields = len(cardinalities)

    def forward(self, codes: Tensor) -> Tensor:
        """(M, F) codes to (M, out_dim); without attributes every user gets the same learnt vector."""
        codes = codes + self.offsets if self.n_fields else codes.new_zeros(len(codes), 1)
        out: Tensor = self.mlp(self.embedding(codes).flatten(1))
        return out


class _TemporalAttention(nn.Module):
    """One layer of Eq. 11; linear maps of a concatenation are applied part by part, each where it is smallest."""

    def __init__(self, options: TGNNOptions) -> None:
        super().__init__()
        d, event = options.d_h, options.message_dim + options.content_dim
        self.heads = options.heads
        self.query = nn.Linear(d + options.time_dim, d)
        self.event_kv = nn.Linear(d + event, 2 * d)
        self.time_kv = nn.Linear(options.time_dim, 2 * d, bias=False)
        context_and_root = nn.Linear(2 * d, d)
        with (
            torch.no_grad()
        ):  # a mean over neighbours varies less than the root's own state beside it
            context_and_root.weight[:, :d] *= _CONTEXT_GAIN
        self.merge = nn.Sequential(context_and_root, nn.ReLU(), nn.Linear(d, d))
        self.norm = nn.LayerNorm(d)
        self.dropout = nn.Dropout(options.dropout)

    def forward(
        self,
        h_RD: Tensor,
        *,
        neighbours_ED: Tensor,
        messages_E: Tensor,
        near: Neighbourhood,
        time_PT: Tensor,
        time_zero_T: Tensor,
    ) -> Tensor:
        """New root states (R, D) from their own and their neighbours' states of the layer below."""
        r = len(h_RD)
        q_RHC = self.query(torch.cat([h_RD, time_zero_T.expand(r, -1)], dim=1)).view(
            r, self.heads, -1
        )
        key_ED, value_ED = self.event_kv(torch.cat([neighbours_ED, messages_E], dim=1)).chunk(2, 1)
        # W[x ‖ Φ] = W_x x + W_Φ Φ, and W_Φ moves to where no neighbour is: a map of every pair's time is never built
        time_key_HCT, time_value_HCT = self.time_kv.weight.view(2, self.heads, -1, time_PT.shape[1])
        q_RHT = torch.einsum("rhc,hct->rht", q_RHC, time_key_HCT)
        # MT-DQN Eq. 11: α_uj = softmax_j((W_q[h_u‖Φ(0)])ᵀ (W_k[h_j‖msg‖Φ(t−t_uj)]) / √d)
        context_RHC, time_RHT = attend(q_RHC, q_RHT, key_ED, value_ED, time_PT, near)
        context_RHC = context_RHC + torch.einsum("rht,hct->rhc", time_RHT, time_value_HCT)
        context = context_RHC.flatten(1)
        update = self.merge(torch.cat([context, h_RD], dim=1))
        out: Tensor = self.norm(h_RD + self.dropout(update))
        return out


class GraphNetwork(nn.Module, ABC):
    """What gives users and items a state at a time; a state without any event is made of attributes or of the item memory.

    Args:
        options: sizes.
        spec: sizes of the inputs.
        d_f: width of the item memory.
    """

    def __init__(self, options: TGNNOptions, spec: InputSpec, d_f: int) -> None:
        super().__init__()
        self.options = options
        self.user_base = UserAttributes(spec.user_cardinalities, options.attribute_dim, options.d_h)
        self.item_base = nn.Linear(d_f, options.d_h)
        # whatever the scale of the memory, what is known of an item is not drowned by what all users share
        self.norm = nn.LayerNorm(options.d_h)

    @abstractmethod
    def forward(self, inputs: ModelInputs, nodes: Tensor, ts: Tensor, memory: Tensor) -> Tensor:
        """States of nodes at times.

        Args:
            inputs: events and user attributes.
            nodes: (R,) int64; users 0 … n_users−1, item v is n_users + v.
            ts: (R,) int64, UTC epoch ms; only events with a smaller ts_ms are seen.
            memory: (n_items, d_f) item memory, no gradient flows into it.

        Returns:
            (R, d_h).
        """

    def forget(self) -> None:
        """Forget what is kept of the events; overridden by a network that keeps something."""

    def _base(self, inputs: ModelInputs, nodes: Tensor, memory: Tensor) -> Tensor:
        """Layer 0: attributes of users, memory of items."""
        unique, inverse = torch.unique(nodes, return_inverse=True)
        n_users = inputs.stream.n_users
        # sorted ids: users come first
        users, items = unique[unique < n_users], unique[unique >= n_users] - n_users
        item_base = self.norm(self.item_base(memory[items]))
        base = torch.cat([self.user_base(inputs.users.codes[users]), item_base])
        return F.embedding(inverse, base)


class LastItems(GraphNetwork):
    """In place of a graph: a user is its static attributes and the mean of its last items, an item is itself (METHODS §3.10).

    Args:
        options: widths, and how many items.
        spec: sizes of the inputs.
        d_f: width of the item memory.
    """

    def forward(self, inputs: ModelInputs, nodes: Tensor, ts: Tensor, memory: Tensor) -> Tensor:
        """States (R, d_h) of nodes (R,) at times (R,); arguments as of :class:`GraphNetwork`."""
        stream = inputs.stream
        is_user = nodes < stream.n_users
        h = memory.new_zeros(len(nodes), self.options.d_h)
        users, items = nodes[is_user], nodes[~is_user] - stream.n_users
        position, mask = stream.last_k(users, ts[is_user], self.options.last)
        history = memory[stream.item[position]] * mask.unsqueeze(-1)
        # the map is affine: of a user without history nothing but the bias is left
        mean = history.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        own = self.user_base(inputs.users.codes[users]) + self.item_base(mean)
        h = h.index_put((is_user,), own.to(h.dtype))
        out: Tensor = self.norm(h.index_put((~is_user,), self.item_base(memory[items]).to(h.dtype)))
        return out


class WindowTGNN(GraphNetwork):
    """Node states from the last events strictly before t, recursively (Eq. 11).

    A neighbour's state is taken at the time of the event that connects it, so it knows only what came strictly before
    that event. differs from the paper's sketch: residual + LayerNorm around each layer [D: three layers train].

    Args:
        options: sizes.
        spec: sizes of the inputs.
        d_f: width of the item memory.
    """

    def __init__(self, options: TGNNOptions, spec: InputSpec, d_f: int) -> None:
        super().__init__(options, spec, d_f)
        self.feedback = nn.Linear(spec.message_dim, options.message_dim)
        self.content = nn.Linear(d_f, options.content_dim)
        self.time = TimeEncoding(options.time_dim, spec.mean_gap_hours)
        # layers[0] is the top one, as in ``fanout``
        self.layers = nn.ModuleList(_TemporalAttention(options) for _ in options.fanout)

    def forward(self, inputs: ModelInputs, nodes: Tensor, ts: Tensor, memory: Tensor) -> Tensor:
        """States (R, d_h) of nodes (R,) at times (R,); arguments as of :class:`GraphNetwork`."""
        return self._state(inputs, nodes, ts, memory, depth=0)

    def _state(
        self, inputs: ModelInputs, nodes: Tensor, ts: Tensor, memory: Tensor, depth: int
    ) -> Tensor:
        if depth == len(self.layers):
            return self._base(inputs, nodes, memory)
        stream = inputs.stream
        position_RK, mask_RK = stream.last_k(nodes, ts, self.options.fanout[depth])
        # roots share neighbours: a state depends on (event, endpoint) only, so each is computed once
        far_is_item_R = nodes < stream.n_users
        endpoint, index_RK = torch.unique(
            position_RK * 2 + far_is_item_R.unsqueeze(1), return_inverse=True
        )
        event_E, is_item_E = endpoint // 2, endpoint % 2 == 1
        far_E = torch.where(is_item_E, stream.n_users + stream.item[event_E], stream.user[event_E])
        below = self._state(
            inputs,
            torch.cat([nodes, far_E]),
            torch.cat([ts, stream.ts_ms[event_E]]),
            memory,
            depth + 1,
        )
        messages_E = torch.cat(
            [
                self.feedback(stream.message[event_E]),
                self.content(memory[stream.item[event_E]]),
            ],
            dim=1,
        )
        delta_P = (ts.unsqueeze(1) - stream.ts_ms[position_RK])[mask_RK]
        out: Tensor = self.layers[depth](
            below[: len(nodes)],
            neighbours_ED=below[len(nodes) :],
            messages_E=messages_E,
            near=Neighbourhood(index_RK, mask_RK),
            time_PT=self.time(delta_P),
            time_zero_T=self.time(ts.new_zeros(1)),
        )
        return out


KINDS = {  # imported when one is built: PyG takes a second
    "window": ("reelrank.models.tgnn", "WindowTGNN"),
    "pyg_tgn": ("reelrank.models.pyg_tgn", "MemoryTGN"),
    "last_items": ("reelrank.models.tgnn", "LastItems"),
}


def graph_network(options: TGNNOptions, spec: InputSpec, d_f: int) -> GraphNetwork:
    """The network of ``options.kind``, with attention over followed users if the options ask for it; arguments as of :class:`GraphNetwork`."""
    module, name = KINDS[options.kind]
    network: GraphNetwork = getattr(import_module(module), name)(options, spec, d_f)
    if options.social is None:
        return network
    social = import_module("reelrank.models.social")
    diffused: GraphNetwork = social.SocialDiffusion(network, options.social)
    return diffused
