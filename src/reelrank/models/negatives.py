"""Negatives drawn on the device: items available at a time, popular ones more often.

Source: METHODS §3.7, §1.5 L2, L7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelrank.models.tensor_record import TensorRecord

POPULARITY_POWER = 0.75  # METHODS §3.7 [D]
NO_ITEM = -1


@dataclass(frozen=True)
class NegativeSampler(TensorRecord):
    """Draws items available at a time with probability ∝ (train popularity)^0.75.

    Attributes:
        items: (n,) int64, in order of availability.
        availability: (n,) int64, of ``items``, ascending, UTC epoch ms.
        cumulative_weight: (n + 1,) float64, starts with 0.
    """

    items: Tensor
    availability: Tensor
    cumulative_weight: Tensor

    @classmethod
    def fit(
        cls,
        availability: npt.NDArray[np.int64],
        popularity: npt.NDArray[np.int64],
        device: torch.device | str = "cpu",
    ) -> Self:
        """Prepare draws.

        Args:
            availability: (n_items,) from ``features.candidates.availability_ts``.
            popularity: (n_items,) train exposures; an item without any is never drawn.
            device: where the draws happen.
        """
        order = np.argsort(availability, kind="stable")
        order = order[popularity[order] > 0]
        weights = popularity[order].astype(np.float64) ** POPULARITY_POWER
        cumulative = np.append(0.0, np.cumsum(weights))
        arrays = (order.astype(np.int64), availability[order], cumulative)
        return cls(*map(torch.from_numpy, arrays)).to(device)

    def sample(self, ts: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draw with replacement; the logged item is not excluded.

        Args:
            ts: (B,) int64 times, UTC epoch ms.
            n: draws per time.
            generator: on the same device.

        Returns:
            (B, n) int64 item ids, ``NO_ITEM`` in a row before whose time nothing was available.
        """
        shape = (len(ts), n)
        if not len(self.items):
            return torch.full(shape, NO_ITEM, device=ts.device)
        n_available = torch.searchsorted(self.availability, ts, right=True).unsqueeze(1)
        total = self.cumulative_weight[n_available]
        uniform = torch.rand(shape, generator=generator, device=ts.device, dtype=torch.float64)
        slot = torch.searchsorted(self.cumulative_weight, uniform * total, right=True) - 1
        # rounding may lift a draw to the total itself
        slot = torch.minimum(slot, (n_available - 1).clamp_min(0))
        return torch.where(n_available > 0, self.items[slot], NO_ITEM)
