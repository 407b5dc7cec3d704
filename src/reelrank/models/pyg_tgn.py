"""Temporal graph network on a memory per node, of PyTorch Geometric's ``TGNMemory`` and ``LastNeighborLoader``.

Source: MT-DQN (arXiv 2509.12269) Eq. 11, METHODS §3.6 (``pyg_tgn``). The message store is a Python dictionary per node: for small
logs, and to hold ``tgnn.WindowTGNN`` to another implementation.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch_geometric.nn import TransformerConv
from torch_geometric.nn.models.tgn import (
    IdentityMessage,
    LastAggregator,
    LastNeighborLoader,
    TGNMemory,
)

from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.options import TGNNOptions
from reelrank.models.tgnn import GraphNetwork, TimeEncoding

_HOMES = 4  # states that can be gone back to


class _Memory(TGNMemory):  # type: ignore[misc]  # PyG is not annotated for mypy
    """PyG's memory with our time encoding; a node's last messages always wait until it is read.

    Reading them late is what carries gradient into the GRU. PyG applies them at once in evaluation: the numbers are the same, and
    one rule for both modes lets a target network and validation share a memory's course.
    """

    def __init__(self, n_nodes: int, raw_dim: int, options: TGNNOptions, time: nn.Module) -> None:
        sizes = (raw_dim, options.d_h, options.time_dim)
        super().__init__(n_nodes, *sizes, IdentityMessage(*sizes), LastAggregator())
        self.time_enc = time
        # what was seen is no part of what was learnt: it is played again
        for name in ("memory", "last_update", "_assoc"):
            self.register_buffer(name, getattr(self, name), persistent=False)

    @property
    def device(self) -> torch.device:
        """PyG's asks its own time encoding."""
        device: torch.device = self.memory.device
        return device

    def train(self, mode: bool = True) -> Self:
        """Nothing here differs by mode, and nothing is flushed."""
        return self


class _State(NamedTuple):
    """Everything that playing events changes; ``blocks`` is how many were played."""

    blocks: int
    memory: Tensor
    last_update: Tensor
    stores: tuple[dict[int, Any], dict[int, Any]]
    neighbours: Tensor
    e_id: Tensor
    cur_e_id: int


@dataclass(frozen=True)
class _Log:
    """The events of the graph in blocks.

    Attributes:
        stream: they belong to.
        position: (N,) int64, events that the graph holds, in order.
        closed: (blocks,) int64 ms, time of each full block's last event.
    """

    stream: EventStream
    position: Tensor
    closed: Tensor

    @classmethod
    def of(cls, stream: EventStream, block: int) -> Self:
        """Users' entries name every event of the graph once."""
        position = stream.entry_position[: int(stream.node_offset[stream.n_users])].sort().values
        return cls(stream, position, stream.ts_ms[position[block - 1 :: block]].contiguous())


class MemoryTGN(GraphNetwork):
    """Node states from a recurrent memory and attention over the last events, as PyG's TGN.

    h⁰ = base + memory, then a ``TransformerConv`` per layer over the graph of last neighbours, whose edges carry
    [message ‖ content ‖ Φ]. Events are played in blocks in the order of time; a node's state at t is made from the full blocks whose
    last event lies strictly before t, so events of one block do not see each other. Calls whose earliest times do not fall are cheap;
    any other call plays the log again from its start, with the weights of that moment, as does a resumed run.

    differs from PyG's example: base states of attributes and content; residual + LayerNorm around each layer [D: as ``WindowTGNN``]; the
    largest of ``fanout`` serves all layers. A neighbour's state is that of now, not that of its event's time.

    Args:
        options: sizes.
        spec: sizes of the inputs.
        d_f: width of the item memory.
    """

    def __init__(self, options: TGNNOptions, spec: InputSpec, d_f: int) -> None:
        super().__init__(options, spec, d_f)
        d, edge = options.d_h, options.message_dim + options.content_dim + options.time_dim
        self.n_nodes = spec.n_users + spec.n_items
        self.feedback = nn.Linear(spec.message_dim, options.message_dim)
        self.content = nn.Linear(d_f, options.content_dim)
        self.memory = _Memory(
            self.n_nodes,
            spec.message_dim + d_f,
            options,
            TimeEncoding(options.time_dim, spec.mean_gap_hours),
        )
        self.layers = nn.ModuleList(
            TransformerConv(d, d // options.heads, options.heads, dropout=options.dropout, edge_dim=edge)
            for _ in options.fanout
        )  # fmt: skip
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in options.fanout)
        self._log: _Log | None = None
        self._loader: LastNeighborLoader | None = None
        self._blocks = 0
        self._homes: deque[_State] = deque(maxlen=_HOMES)

    def forget(self) -> None:
        """Forget all events; the next call plays them again."""
        self._log = None
        self._loader = None
        self._homes.clear()

    def forward(self, inputs: ModelInputs, nodes: Tensor, ts: Tensor, memory: Tensor) -> Tensor:
        """States (R, d_h) of nodes (R,) at times (R,); arguments as of :class:`GraphNetwork`."""
        if not len(nodes):
            return memory.new_zeros(0, self.options.d_h)
        log = self._begun(inputs.stream)
        blocks = torch.searchsorted(log.closed, ts.contiguous())
        order = torch.argsort(blocks, stable=True)
        wanted, counts = torch.unique_consecutive(blocks[order], return_counts=True)
        self._return_to(log, int(wanted[0]), memory)
        states = []
        for block, rows in zip(wanted.tolist(), torch.split(order, counts.tolist()), strict=True):
            self._play(log, block, memory)
            states.append(self._states(inputs, log, nodes[rows], memory))
        return torch.cat(states)[torch.argsort(order)]

    def neighbours(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The last events of nodes (R,) after the last call, as ``EventStream.last_k`` gives them: positions and mask, both (R, K).

        Raises:
            RuntimeError: nothing was played yet.
        """
        if self._log is None or self._loader is None:
            raise RuntimeError("no events were played: call the network first")
        e_id = self._loader.e_id[nodes]
        mask = e_id >= 0
        if not len(self._log.position):
            return torch.zeros_like(e_id), mask
        return self._log.position[e_id.clamp_min(0)].masked_fill(~mask, 0), mask

    def _begun(self, stream: EventStream) -> _Log:
        if self._log is None or self._log.stream is not stream:
            self.forget()
            self._log = _Log.of(stream, self.options.block)
            self._start(stream.user.device)
        return self._log

    def _start(self, device: torch.device) -> None:
        self.memory.reset_state()
        self._loader = LastNeighborLoader(self.n_nodes, max(self.options.fanout), device)
        self._blocks = 0

    def _return_to(self, log: _Log, block: int, memory: Tensor) -> None:
        """Be at ``block``, from the newest state that was kept at or before it; and keep it."""
        if block < self._blocks:
            known = [home for home in self._homes if home.blocks <= block]
            if known:
                self._restore(max(known, key=lambda home: home.blocks))
            else:
                self._start(log.stream.user.device)
        self._play(log, block, memory)
        if all(home.blocks != block for home in self._homes):
            self._homes.append(self._saved())

    @torch.no_grad()
    def _play(self, log: _Log, block: int, memory: Tensor) -> None:
        """Take in the events up to the end of ``block`` blocks."""
        stream, size = log.stream, self.options.block
        loader = self._require_loader()
        while self._blocks < block:
            at = log.position[self._blocks * size : (self._blocks + 1) * size]
            source, target = stream.user[at], stream.n_users + stream.item[at]
            raw = torch.cat([stream.message[at], memory[stream.item[at]]], dim=1)
            self.memory.update_state(source, target, stream.ts_ms[at] - stream.t0, raw)
            # of more than ``size`` events of one node in one call PyG keeps any, not the last
            busiest = int(torch.bincount(torch.cat([source, target])).max())
            step = loader.size if busiest > loader.size else size
            for s, t in zip(torch.split(source, step), torch.split(target, step), strict=True):
                loader.insert(s, t)
            self._blocks += 1

    def _states(self, inputs: ModelInputs, log: _Log, nodes: Tensor, memory: Tensor) -> Tensor:
        """States of nodes (R,) now, each distinct node's made once."""
        stream, loader = inputs.stream, self._require_loader()
        n_id = torch.unique(nodes)
        for _ in self.layers:
            n_id, edge_index, e_id = loader(n_id)
        at = log.position[e_id]
        item = stream.item[at]
        remembered, last_update = self.memory(n_id)
        since = last_update[edge_index[0]] - (stream.ts_ms[at] - stream.t0)
        edges = torch.cat(
            [self.feedback(stream.message[at]), self.content(memory[item]), self.memory.time_enc(since)], 1
        )  # fmt: skip
        h = remembered + self._base(inputs, n_id, memory)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = norm(h + layer(h, edge_index, edges))
        out: Tensor = h[torch.searchsorted(n_id, nodes)]
        return out

    def _saved(self) -> _State:
        m, loader = self.memory, self._require_loader()
        tensors = (m.memory.clone(), m.last_update.clone())
        # messages are replaced, never changed: shallow copies do
        stores = (dict(m.msg_s_store), dict(m.msg_d_store))
        return _State(self._blocks, *tensors, stores, loader.neighbors.clone(), loader.e_id.clone(), loader.cur_e_id)  # fmt: skip

    def _restore(self, state: _State) -> None:
        m, loader = self.memory, self._require_loader()
        self._blocks = state.blocks
        m.memory.copy_(state.memory)
        m.last_update.copy_(state.last_update)
        m.msg_s_store, m.msg_d_store = map(dict, state.stores)
        loader.neighbors.copy_(state.neighbours)
        loader.e_id.copy_(state.e_id)
        loader.cur_e_id = state.cur_e_id

    def _require_loader(self) -> LastNeighborLoader:
        if self._loader is None:
            raise RuntimeError("no log was begun: call the network")
        return self._loader
