"""The networks of the value model: EdgeMLP, and the GNN that adds vectors of user and item to its input.

The first layer is factored: W [x_u ‖ x_v ‖ x_e] = W_u x_u + W_v x_v + W_e x_e, so that a node's share is worked out once
and not once per edge. Shapes: E edges, N = users + items, H width of node vectors, D width of the first hidden layer.

Source: METHODS §6.4; GCN of Kipf and Welling (arXiv 1609.02907).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.registry import register
from reelrank.models.tensor_record import TensorRecord
from reelrank.models.value_inputs import FeatureBlock, ValueInputs
from reelrank.models.value_model import N_HEADS, BlockSpec, Floats, ValueModel, ValueSpec
from reelrank.pipelines.value_model.graph import Graph
from reelrank.pipelines.value_model.kernels import FusedEdgeLoss
from reelrank.pipelines.value_model.options import EdgeMlpOptions, GnnOptions


@dataclass(frozen=True)
class BlockTensors(TensorRecord):
    """A :class:`FeatureBlock` on a device."""

    continuous: Tensor
    codes: Tensor

    @classmethod
    def of(cls, block: FeatureBlock, rows: slice = slice(None)) -> Self:
        """On the CPU, sharing memory with ``block`` where its rows lie together."""
        return cls(_tensor(block.continuous[rows]), _tensor(block.categorical[rows]))

    def rows(self, index: Tensor) -> Self:
        """Some rows."""
        return type(self)(self.continuous[index], self.codes[index])


@dataclass(frozen=True)
class ValueTensors(TensorRecord):
    """:class:`ValueInputs` on a device."""

    user: BlockTensors
    item: BlockTensors
    edge: BlockTensors
    user_id: Tensor
    item_id: Tensor

    @classmethod
    def of(cls, inputs: ValueInputs) -> Self:
        """On the CPU."""
        user, item, edge = (BlockTensors.of(b) for b in (inputs.user, inputs.item, inputs.edge))
        return cls(user, item, edge, _tensor(inputs.user_id), _tensor(inputs.item_id))


class BlockEncoder(nn.Module):
    """A block's continuous columns and the embeddings of its categorical ones, side by side."""

    def __init__(self, spec: BlockSpec, options: EdgeMlpOptions) -> None:
        super().__init__()
        self.n_continuous = spec.continuous
        self.embeddings = nn.ModuleList(
            nn.Embedding(n, options.embedding_dim(n)) for n in spec.cardinalities
        )
        self.dims = [options.embedding_dim(n) for n in spec.cardinalities]
        self.width = spec.continuous + sum(self.dims)

    def forward(self, block: BlockTensors) -> Tensor:
        """(n, width)."""
        embedded = (table(block.codes[:, k]) for k, table in enumerate(self.embeddings))
        return torch.cat([block.continuous, *embedded], dim=1)

    def projected(self, weight: Tensor) -> list[Tensor]:
        """What each code adds to a linear layer with ``weight`` (D, width): (cardinality, D) for each categorical column."""
        shares = torch.split(weight[:, self.n_continuous :], self.dims, dim=1)
        tables = (table.get_parameter("weight") for table in self.embeddings)
        return [table @ share.T for table, share in zip(tables, shares, strict=True)]


class ValueNetwork(ValueModel):
    """MLP over what is known of user, item and interaction, the first layer factored.

    ``vectors`` (N, H) are the node vectors that predictions use, filled by :meth:`refresh`; H = 0 without a graph.
    """

    def __init__(self, config: EdgeMlpOptions, spec: ValueSpec, node_width: int = 0) -> None:
        super().__init__(config, spec)
        self.user, self.item, self.edge = (
            BlockEncoder(block, config) for block in (spec.user, spec.item, spec.edge)
        )
        self.widths = [node_width + self.user.width, node_width + self.item.width, self.edge.width]
        sizes = (*config.hidden, N_HEADS)
        self.first = nn.Linear(sum(self.widths), sizes[0])
        self.rest = nn.Sequential()
        for below, above in pairwise(sizes):
            self.rest.extend([nn.ReLU(), nn.Linear(below, above)])
        self.register_buffer("vectors", torch.zeros(spec.n_users + spec.n_items, node_width))
        self.register_buffer("refreshed", torch.tensor(node_width == 0))
        self.vectors: Tensor
        self.refreshed: Tensor

    def propagate(self, graph: Graph | None) -> Tensor:
        """Node vectors (N, H) as a function of the weights."""
        return self.vectors

    @torch.no_grad()
    def refresh(self, graph: Graph | None) -> None:
        """Recompute the node vectors that predictions use; a checkpoint carries them."""
        self.vectors.copy_(self.propagate(graph))
        self.refreshed.fill_(True)

    def first_weights(self) -> tuple[Tensor, ...]:
        """The first layer's columns for user, item and edge: (D, width) each."""
        return torch.split(self.first.weight, self.widths, dim=1)

    def node_shares(
        self,
        data: ValueTensors,
        vectors: Tensor,
        users: Tensor | None = None,
        items: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """First-layer shares of users, with the bias, and of items.

        Args:
            data: features; those of users and items are read.
            vectors: (N, H).
            users: ids; None: all.
            items: ids; None: all.

        Returns:
            (users, D) and (items, D).
        """
        w_user, w_item, _ = self.first_weights()
        user_vectors, item_vectors = torch.split(vectors, [self.spec.n_users, self.spec.n_items])
        user = _side_by_side(self.user, user_vectors, data.user, users)
        item = _side_by_side(self.item, item_vectors, data.item, items)
        return F.linear(user, w_user, self.first.bias), F.linear(item, w_item)

    def head(
        self, shares: tuple[Tensor, Tensor], edge: BlockTensors, user: Tensor, item: Tensor
    ) -> Tensor:
        """Logits (E, 4) of edges between rows ``user`` and ``item`` of the two shares."""
        w_edge = self.first_weights()[2]
        z = F.embedding(user, shares[0]) + F.embedding(item, shares[1])
        logits: Tensor = self.rest(z + F.linear(self.edge(edge), w_edge))
        return logits

    def forward(self, data: ValueTensors, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits of the heads.

        Args:
            data: features and edges.
            vectors: (N, H) from :meth:`propagate`.
            rows: edges; None: all. Only the nodes of these edges are worked out.

        Returns:
            (E, 4) in the order complete, long, rewatch, neg.
        """
        if rows is None:
            return self.head(self.node_shares(data, vectors), data.edge, data.user_id, data.item_id)
        users, user = torch.unique(data.user_id[rows], return_inverse=True)
        items, item = torch.unique(data.item_id[rows], return_inverse=True)
        shares = self.node_shares(data, vectors, users, items)
        return self.head(shares, data.edge.rows(rows), user, item)

    @torch.no_grad()
    def predict(self, inputs: ValueInputs, block_rows: int) -> Floats:
        """See :class:`ValueModel`; an item without a train edge has the vector that its own embedding gives.

        Raises:
            RuntimeError: the node vectors were never computed.
        """
        if not self.refreshed:
            raise RuntimeError("the node vectors were never computed: call refresh(graph) first")
        self.spec.check(inputs)
        device = self.first.weight.device
        # no edge is read for the nodes' shares
        nodes = ValueTensors.of(edges_at(inputs, slice(0))).to(device)
        shares = self.node_shares(nodes, self.vectors)
        out = np.empty((len(inputs.user_id), N_HEADS), np.float32)
        for first in range(0, len(out), block_rows):
            rows = slice(first, first + block_rows)
            user, item = (_tensor(ids[rows]).to(device) for ids in (inputs.user_id, inputs.item_id))
            logits = self.head(shares, BlockTensors.of(inputs.edge, rows).to(device), user, item)
            out[rows] = logits.sigmoid().cpu().numpy()
        return out


@register("edge_mlp", EdgeMlpOptions, ValueSpec)
class EdgeMLP(ValueNetwork):
    """The features alone: no node vectors, no graph."""

    def __init__(self, config: EdgeMlpOptions, spec: ValueSpec) -> None:
        super().__init__(config, spec)


@register("gnn", GnnOptions, ValueSpec)
class GNN(ValueNetwork):
    r"""EdgeMLP with vectors of user and item from graph convolutions over learnt embeddings.

    .. math:: h^{l+1} = \mathrm{ReLU}(\hat D^{-1/2} (A + I) \hat D^{-1/2} h^l W^l + b^l)

    An item without a train edge keeps its self-loop alone: its embedding was never trained, its vector says nothing of it.
    Differs: a bias in each convolution, as PyTorch Geometric's ``GCNConv`` has.
    """

    def __init__(self, config: GnnOptions, spec: ValueSpec) -> None:
        super().__init__(config, spec, config.width)
        self.embedding = nn.Embedding(spec.n_users + spec.n_items, config.width)
        self.layers = nn.ModuleList(
            nn.Linear(config.width, config.width) for _ in range(config.layers)
        )
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def propagate(self, graph: Graph | None) -> Tensor:
        """Node vectors (N, H).

        Raises:
            ValueError: no graph.
        """
        if graph is None:
            raise ValueError("the GNN needs a graph")
        h: Tensor = self.embedding.weight
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            h = F.relu(graph.propagate(h @ layer.weight.T) + layer.bias)
        return h

    def item_vectors(self) -> Floats:
        """(n_items, H) as last refreshed."""
        return self.vectors[self.spec.n_users :].detach().cpu().numpy()


@dataclass(frozen=True)
class FusedEdges:
    """Edges in the order of their users, for :func:`fused_loss`.

    Attributes:
        codes: (E, 2 + k) int32 rows of the stacked shares: user, item, each category of the edge.
        continuous: (E, c) float32.
        labels: (E, 4) int8, −1 = unknown.
    """

    codes: npt.NDArray[np.int32]
    continuous: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int8]

    @classmethod
    def of(
        cls, inputs: ValueInputs, labels: npt.NDArray[np.int8], rows: npt.NDArray[np.integer]
    ) -> Self:
        """Edges ``rows`` of inputs that ``ValueSpec.check`` has passed."""
        rows = rows[np.argsort(inputs.user_id[rows], kind="stable")]
        sizes = (len(inputs.user.continuous), len(inputs.item.continuous))
        starts = np.cumsum([0, *sizes, *inputs.edge.cardinalities])[:-1]
        ids = (inputs.user_id[rows], inputs.item_id[rows])
        codes = np.column_stack([*ids, inputs.edge.categorical[rows]]) + starts
        return cls(codes.astype(np.int32), inputs.edge.continuous[rows], labels[rows])


def can_fuse(network: ValueNetwork) -> bool:
    """Whether :func:`fused_loss` can stand for the loss of ``network``: one hidden layer, on the CPU."""
    return len(network.rest) == 2 and network.first.weight.device.type == "cpu"  # ReLU, output


def fused_loss(
    network: ValueNetwork, edges: FusedEdges, data: ValueTensors, vectors: Tensor
) -> Tensor:
    """:func:`masked_loss` over all of ``edges`` without an activation per edge in memory; see :func:`can_fuse`."""
    w_edge = network.first_weights()[2]
    out = network.rest[-1]
    assert isinstance(out, nn.Linear)
    shares = [*network.node_shares(data, vectors), *network.edge.projected(w_edge)]
    loss: Tensor = FusedEdgeLoss.apply(  # type: ignore[no-untyped-call]
        edges.codes,
        edges.continuous,
        edges.labels,
        torch.cat(shares),
        w_edge[:, : network.edge.n_continuous].T,
        out.weight.T,
        out.bias,
    )
    return loss


def masked_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross-entropy over the known labels.

    Args:
        logits: (E, 4).
        labels: (E, 4) 0, 1, or −1 for unknown.
    """
    known = labels >= 0
    target = labels.clamp_min(0).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (losses * known).sum() / known.sum().clamp_min(1)


def edges_at(inputs: ValueInputs, rows: slice | npt.NDArray[np.integer]) -> ValueInputs:
    """The same nodes with some of the edges."""
    edge = inputs.edge
    chosen = FeatureBlock(edge.continuous[rows], edge.categorical[rows], edge.cardinalities)
    ids = (inputs.user_id[rows], inputs.item_id[rows])
    return ValueInputs(inputs.user, inputs.item, chosen, *ids)


def _side_by_side(
    encoder: BlockEncoder, vectors: Tensor, block: BlockTensors, rows: Tensor | None
) -> Tensor:
    """Node vectors and static features of some nodes, or of all."""
    if rows is not None:
        vectors, block = F.embedding(rows, vectors), block.rows(rows)
    return torch.cat([vectors, encoder(block)], dim=1)


def _tensor(array: npt.NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
