"""What the value models read: features that belong to a user, to an item, or to one interaction (edge)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNKNOWN = 0  # code of a category that train did not show, or that is missing


@dataclass(frozen=True)
class FeatureBlock:
    """Encoded features of n users, items or edges.

    Attributes:
        continuous: (n, c) float32: standardised numbers, binaries and missing flags.
        categorical: (n, k) int32: codes, :data:`UNKNOWN` = 0.
        cardinalities: (k,) codes of each categorical column, the unknown one included.
    """

    continuous: npt.NDArray[np.float32]
    categorical: npt.NDArray[np.int32]
    cardinalities: tuple[int, ...]


@dataclass(frozen=True)
class ValueInputs:
    """E edges between users and items, with what is known at each before it is shown.

    ``user`` and ``item`` hold what never changes, so that a first layer's share of it is worked out once per node and not
    once per edge; ``edge`` holds the rest (session, context, history, age of the video).
    Source: METHODS §6.3, §6.4.

    Attributes:
        user: n_users rows.
        item: n_items rows.
        edge: E rows.
        user_id: (E,) int32, row of ``user``.
        item_id: (E,) int32, row of ``item``.
    """

    user: FeatureBlock
    item: FeatureBlock
    edge: FeatureBlock
    user_id: npt.NDArray[np.int32]
    item_id: npt.NDArray[np.int32]
