"""The graph of users and items as a normalised sparse matrix: node u is user u, node n_users + v is item v.

Source: METHODS §6.4, Appendix A; normalisation of Kipf and Welling's GCN, D̂^-½ (A + I) D̂^-½.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from reelrank.models.tensor_record import TensorRecord
from reelrank.pipelines.value_model.kernels import SparseProduct, csr_times

GraphKind = Literal["honest", "poster_literal"]


@dataclass(frozen=True)
class CsrMatrix(TensorRecord):
    """A sparse matrix of N rows.

    Attributes:
        indptr: (N + 1,) int32.
        indices: (nnz,) int32, columns ascending in each row.
        values: (nnz,) float32.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor

    @classmethod
    def of(cls, matrix: sp.csr_array) -> Self:
        """From SciPy's form."""
        return cls(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data.astype(np.float32)),
        )

    def times(self, x: Tensor) -> Tensor:
        """Product with x (N, H), on the device where both are."""
        if x.device.type == "cpu":
            arrays = (self.indptr, self.indices, self.values, x.detach().contiguous())
            return torch.from_numpy(csr_times(*(array.numpy() for array in arrays)))
        size = (len(self.indptr) - 1, len(x))
        matrix = torch.sparse_csr_tensor(
            self.indptr, self.indices, self.values, size, check_invariants=False
        )
        return matrix @ x


@dataclass(frozen=True)
class Graph(TensorRecord):
    """Where messages go: row = node that receives, column = node that sends.

    Attributes:
        matrix: D̂^-½ (A + I) D̂^-½.
        transposed: its transpose, for gradients; the same object where the matrix is symmetric.
    """

    matrix: CsrMatrix
    transposed: CsrMatrix

    def propagate(self, x: Tensor) -> Tensor:
        """Every node's weighted sum over its neighbours and itself: (N, H) to (N, H), differentiable."""
        out: Tensor = SparseProduct.apply(self.matrix, self.transposed, x)  # type: ignore[no-untyped-call]
        return out

    def to(self, device: torch.device | str) -> Self:
        """The same graph on ``device``; a matrix that is its own transpose is moved once."""
        matrix = self.matrix.to(device)
        same = self.transposed is self.matrix
        return type(self)(matrix, matrix if same else self.transposed.to(device))


def build_graph(
    kind: GraphKind,
    user_id: npt.NDArray[np.integer],
    item_id: npt.NDArray[np.integer],
    n_users: int,
    n_items: int,
) -> Graph:
    """The normalised graph of some interactions.

    A node without an edge keeps its self-loop alone, with weight 1.

    Args:
        kind: ``honest``: both directions, every pair once. ``poster_literal``: messages from user to item only, a pair as
            often as it occurs; the normalisation counts what a node receives, so users have degree 1 and receive nothing
            but their own vector [A].
        user_id: (n,) interactions whose pairs are edges: train for an honest graph (L3).
        item_id: (n,).
        n_users: users.
        n_items: items.

    Raises:
        ValueError: an id is out of range.

    Source: METHODS §6.4, Appendix A.
    """
    for name, ids, n in (("user_id", user_id, n_users), ("item_id", item_id, n_items)):
        if len(ids) and (ids.min() < 0 or ids.max() >= n):
            raise ValueError(f"{name} {ids.min()} … {ids.max()}, expected 0 … {n - 1}")
    pairs = sp.csr_array((np.ones(len(item_id)), (item_id, user_id)), shape=(n_items, n_users))
    pairs.sum_duplicates()
    n = n_users + n_items
    if kind == "honest":
        pairs.data[:] = 1
        adjacency = sp.block_array([[None, pairs.T], [pairs, None]])
    else:
        adjacency = sp.block_array([[sp.csr_array((n_users, n_users)), None], [pairs, None]])
        adjacency.resize(n, n)
    with_self = (adjacency + sp.eye_array(n)).tocsr()
    scale = sp.diags_array(np.asarray(with_self.sum(axis=1)) ** -0.5)
    normalised = (scale @ with_self @ scale).tocsr()
    normalised.sort_indices()
    matrix = CsrMatrix.of(normalised)
    if kind == "honest":
        return Graph(matrix, matrix)
    transposed = normalised.T.tocsr()
    transposed.sort_indices()
    return Graph(matrix, CsrMatrix.of(transposed))
