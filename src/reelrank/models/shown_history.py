"""What simulated users have seen, as policies read it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelrank.models.feed import FeedBatch, ItemFeatures
from reelrank.models.feed_data import candidate_codes

HOUR_MS, LOCAL_OFFSET_H = 3_600_000, 8


class ShownHistory:
    """Histories of B users that grow as they are shown items.

    Args:
        start: the users' codes, histories and feedback at the start; scenario, hour and candidates do not matter.
        items: attributes of the items.
    """

    def __init__(self, start: FeedBatch, items: ItemFeatures) -> None:
        self._start, self._items = start, items
        self.reset()

    def reset(self) -> None:
        """Back to the start."""
        self.history, self.feedback = self._start.history.clone(), self._start.feedback.clone()
        self._codes = self._start.user_codes

    def keep(self, chosen: Tensor) -> None:
        """Go on with some of the users, (B,) bool."""
        self.history, self.feedback = self.history[chosen], self.feedback[chosen]
        self._codes = self._codes[chosen]

    def add(self, users: Tensor, item: Tensor, response: Tensor) -> None:
        """One item (n,) and its response (n, 7) to each of n distinct ``users``, by their places."""
        self.history[users] = torch.cat([self.history[users, 1:], item[:, None]], 1)
        self.feedback[users] = torch.cat([self.feedback[users, 1:], response[:, None]], 1)

    def batch(
        self, candidates: NDArray[np.int64], ts_ms: NDArray[np.float64], scenario: Tensor
    ) -> FeedBatch:
        """Decisions at times (B,), UTC epoch ms, with candidates (B, C)."""
        device = self.history.device
        shown = torch.from_numpy(candidates).to(device)
        hour = (ts_ms // HOUR_MS + LOCAL_OFFSET_H) % 24
        return replace(
            self._start,
            user_codes=self._codes,
            scenario=scenario,
            hour=torch.from_numpy(hour.astype(np.int64)).to(device),
            history=self.history.clone(),
            feedback=self.feedback.clone(),
            candidates=shown,
            item_codes=candidate_codes(self._items, shown),
        )
