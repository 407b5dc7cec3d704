"""What a shown set is described by: a vector per item, or per candidate, whose mean over the set is compared.

Source: METHODS §6.6. The poster takes the GNN's item vectors as they are, where a few large dimensions decide the loss (it moves from 2,476 to
203 [A]); our default normalises them to length 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelrank.pipelines.head_weights.problem import RankingSessions

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedding:
    """Vectors that sets are compared by.

    Attributes:
        name: for tables.
        vectors: (n_items, H) float32, or (N, H) with ``per_candidate``.
        per_candidate: rows are candidates in the order of the sessions, not items.
    """

    name: str
    vectors: Floats
    per_candidate: bool = False


def unnormalised(vectors: npt.ArrayLike, name: str = "unnormalised") -> Embedding:
    """Vectors as they are: the poster's choice [S].

    Args:
        vectors: (n_items, H).
        name: for tables.

    Raises:
        ValueError: not a matrix, or a value that is not finite.
    """
    return Embedding(name, _checked(vectors, name))


def l2_normalised(vectors: npt.ArrayLike, name: str = "l2") -> Embedding:
    """Vectors of length 1, the default; a zero vector stays zero. Arguments and errors as :func:`unnormalised`."""
    given = _checked(vectors, name)
    length = np.linalg.norm(given, axis=1, keepdims=True)
    return Embedding(name, (given / np.where(length > 0, length, 1)).astype(np.float32))


def whitened(vectors: npt.ArrayLike, name: str = "whitened", floor: float = 1e-6) -> Embedding:
    """Centred and turned to unit covariance over the items; directions without variance are left out.

    Args:
        vectors: (n_items, H).
        name: for tables.
        floor: eigenvalues of the covariance below this share of the largest count as zero.

    Raises:
        ValueError: as :func:`unnormalised`, or all items have one vector.
    """
    given = _checked(vectors, name).astype(np.float64)
    centred = given - given.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(given))
    kept = values > floor * max(values[-1], np.finfo(np.float64).tiny)
    if not kept.any() or values[-1] <= 0:
        raise ValueError(
            f"embedding {name}: all items have the same vector, there is nothing to whiten"
        )
    return Embedding(name, (centred @ (axes[:, kept] / np.sqrt(values[kept]))).astype(np.float32))


def category_one_hot(category: npt.ArrayLike, n_categories: int | None = None) -> Embedding:
    """One dimension per category: μ is then the share of each category in a set.

    Args:
        category: (n_items,) from 0; negative = none, which is a dimension of its own, the last.
        n_categories: dimensions before that one; the largest + 1 by default.

    Raises:
        ValueError: a category is beyond ``n_categories``.
    """
    code = np.asarray(category, np.int64)
    n = int(code.max(initial=-1)) + 1 if n_categories is None else n_categories
    if code.max(initial=-1) >= n:
        raise ValueError(
            f"category {code.max()} of item {int(code.argmax())}: only {n} are declared"
        )
    vectors = np.zeros((len(code), n + 1), np.float32)
    vectors[np.arange(len(code)), np.where(code < 0, n, code)] = 1
    return Embedding("category", vectors if (code < 0).any() else vectors[:, :n])


def predicted_heads(sessions: RankingSessions) -> Embedding:
    """The four predictions themselves: a vector per candidate, since they differ by session."""
    return Embedding("heads", _checked(sessions.heads, "heads"), per_candidate=True)


def _checked(vectors: npt.ArrayLike, name: str) -> Floats:
    given = np.ascontiguousarray(vectors, np.float32)
    if given.ndim != 2 or 0 in given.shape:
        raise ValueError(f"embedding {name}: expected rows of vectors, got shape {given.shape}")
    bad = ~np.isfinite(given).all(axis=1)
    if bad.any():
        raise ValueError(
            f"embedding {name}: {int(bad.sum())} rows are not finite, the first is {int(bad.argmax())}: fill or drop them"
        )
    return given
