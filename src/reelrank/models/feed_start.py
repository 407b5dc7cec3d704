"""Where a log's users stand at a moment: what they had seen by then, as roll-outs begin with it.

Shapes: B users, L rows of history.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reelrank.models.feed import PAD, FeedBatch, FeedInputs

TEST = 2


class Past(NamedTuple):
    """The last rows of B users before a moment, oldest first, right-aligned.

    ``items`` (B, L) int64, PAD = none; ``feedback`` (B, L, 7) float32, 0 where there is no row.
    """

    items: Tensor
    feedback: Tensor


def test_start(inputs: FeedInputs) -> int:
    """Time of the first test decision of the logging policy, UTC epoch ms.

    Raises:
        ValueError: there is none.
    """
    decisions = inputs.decisions
    test = (decisions.split == TEST) & ~decisions.is_rand
    if not bool(test.any()):
        raise ValueError(
            "the test split shows no rows under the logging policy: a longer log is needed"
        )
    return int(decisions.ts_ms[test].min())


def test_users(inputs: FeedInputs) -> NDArray[np.int64]:
    """Dense ids, ascending, of the users for whom the logging policy made a test decision."""
    decisions = inputs.decisions
    test = (decisions.split == TEST) & ~decisions.is_rand
    return np.unique(decisions.user[test].cpu().numpy())


def past_of(inputs: FeedInputs, users: NDArray[np.int64], before_ms: int, length: int) -> Past:
    """The last ``length`` rows of ``users`` (B,) strictly before a moment (L1)."""
    rows = inputs.rows
    user = torch.as_tensor(users, device=rows.item.device)
    earlier = torch.nn.functional.pad((rows.ts_ms < before_ms).long().cumsum(0), (1, 0))
    first = rows.first[user]
    # a user's rows are in order of time: the earlier ones come first
    stop = first + earlier[rows.first[user + 1]] - earlier[first]
    at = stop.unsqueeze(1) - torch.arange(length, 0, -1, device=user.device)
    is_row = at >= first.unsqueeze(1)
    at = at.clamp_min(0)
    return Past(
        rows.item[at].masked_fill(~is_row, PAD),
        rows.response[at].masked_fill(~is_row.unsqueeze(-1), 0.0),
    )


def starting_states(inputs: FeedInputs, users: NDArray[np.int64], past: Past) -> FeedBatch:
    """States of ``users`` (B,) without candidates; scenario and hour do not matter."""
    user = torch.as_tensor(users, device=past.items.device)
    nothing = torch.zeros(len(user), 0, dtype=torch.int64, device=user.device)
    return FeedBatch(
        user_codes=inputs.users.codes[user],
        scenario=torch.zeros_like(user),
        hour=torch.zeros_like(user),
        history=past.items,
        feedback=past.feedback,
        candidates=nothing,
        item_codes=nothing.unsqueeze(-1).expand(-1, -1, inputs.items.codes.shape[1]),
    )
