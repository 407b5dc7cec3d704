"""The one interface of value models: features of (user, item, context) in, probabilities of the four heads out.

Source: METHODS §6.4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import nn

from reelrank.models.value_inputs import FeatureBlock, ValueInputs
from reelrank.options import Options

Floats = npt.NDArray[np.float32]
N_HEADS = 4  # complete, long, rewatch, neg


class BlockSpec(Options):
    """Sizes of a block of features."""

    continuous: int = Field(ge=0, description="continuous columns")
    cardinalities: tuple[int, ...] = Field(description="codes of each categorical column")

    @classmethod
    def of(cls, block: FeatureBlock) -> Self:
        """The sizes of ``block``."""
        return cls(continuous=block.continuous.shape[1], cardinalities=block.cardinalities)

    def check(self, name: str, block: FeatureBlock) -> None:
        """Raise where the model cannot read ``block``.

        Raises:
            ValueError: other columns, or a code outside its column's range.
        """
        found = BlockSpec.of(block)
        if found != self:
            raise ValueError(f"{name} features are {found}, the model was made for {self}")
        if not len(block.categorical):
            return
        low, high = block.categorical.min(0), block.categorical.max(0)
        bad = np.flatnonzero((low < 0) | (high >= np.array(self.cardinalities)))
        if len(bad):
            raise ValueError(
                f"{name} features, categorical column {bad[0]}: codes {low[bad[0]]} … {high[bad[0]]}, "
                f"expected 0 … {self.cardinalities[bad[0]] - 1}"
            )


class ValueSpec(Options):
    """Sizes of a value model that follow from its inputs; saved beside its options in the checkpoint."""

    n_users: int = Field(ge=1, description="users")
    n_items: int = Field(ge=1, description="items")
    user: BlockSpec = Field(description="what never changes of a user")
    item: BlockSpec = Field(description="what never changes of an item")
    edge: BlockSpec = Field(description="what belongs to one interaction")

    @classmethod
    def of(cls, inputs: ValueInputs) -> Self:
        """The sizes of ``inputs``."""
        return cls(
            n_users=len(inputs.user.continuous),
            n_items=len(inputs.item.continuous),
            user=BlockSpec.of(inputs.user),
            item=BlockSpec.of(inputs.item),
            edge=BlockSpec.of(inputs.edge),
        )

    def check(self, inputs: ValueInputs) -> None:
        """Raise where a model of these sizes cannot read ``inputs``.

        Raises:
            ValueError: users, items or columns differ in number, or a code or id is out of range.
        """
        for name in ("user", "item", "edge"):
            getattr(self, name).check(name, getattr(inputs, name))
        for name, n, block, ids in (
            ("user", self.n_users, inputs.user, inputs.user_id),
            ("item", self.n_items, inputs.item, inputs.item_id),
        ):
            if len(block.continuous) != n:
                raise ValueError(
                    f"{len(block.continuous)} {name}s, the model was made for {n}: nodes are known by their row"
                )
            if len(ids) and (ids.min() < 0 or ids.max() >= n):
                raise ValueError(f"{name}_id {ids.min()} … {ids.max()}, expected 0 … {n - 1}")


class ValueModel(nn.Module, ABC):
    """Base of the value models, rebuilt from a checkpoint as ``Model(config, spec)``."""

    def __init__(self, config: Options, spec: ValueSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    @abstractmethod
    def predict(self, inputs: ValueInputs, block_rows: int) -> Floats:
        """Probability of each head.

        Args:
            inputs: any pairs of the users and items that the model was made for, with what is known at each.
            block_rows: pairs at once; bounds memory.

        Returns:
            (E, 4) float32 in the order complete, long, rewatch, neg.

        Raises:
            ValueError: ``inputs`` has other sizes than the model's.
        """

    def item_vectors(self) -> Floats | None:
        """(n_items, H) vectors in which items can be compared; None if the model has none."""
        return None
