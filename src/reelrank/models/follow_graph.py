"""Who follows whom, as tensors.

Source: METHODS §3.6 (social edges), §1.5 L3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.tensor_record import TensorRecord


@dataclass(frozen=True)
class FollowGraph(TensorRecord):
    """The users that each user follows.

    Attributes:
        offset: (n_users + 1,) int64, where each user's followed start in ``followed``.
        followed: (E,) int64 user ids, ascending inside a user.
    """

    offset: Tensor
    followed: Tensor

    @classmethod
    def from_frame(
        cls,
        social_edges: pl.DataFrame,
        n_users: int,
        known_by: int,
        device: torch.device | str = "cpu",
    ) -> Self:
        """Edges that were known at a time; a repeated one counts once.

        Args:
            social_edges: ``SocialEdges``; an edge without a time is kept.
            n_users: number of users; ids are 0 … n_users−1.
            known_by: UTC epoch ms, the last train row's (L3).
            device: where the tensors go.

        Raises:
            ValueError: an id is out of range.
        """
        inside = pl.all_horizontal(pl.col("src", "dst").is_between(0, n_users - 1))
        wrong = social_edges.filter(~inside)
        if wrong.height:
            src, dst = wrong.select("src", "dst").row(0)
            raise ValueError(f"social_edges: edge {src} → {dst} is outside 0 … {n_users - 1}")
        known = social_edges.filter(pl.col("ts").is_null() | (pl.col("ts") <= known_by))
        edges = known.select("src", "dst").unique().sort("src", "dst")
        counts = np.bincount(edges["src"].to_numpy(), minlength=n_users)
        offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        followed = edges["dst"].to_numpy().astype(np.int64)
        return cls(torch.from_numpy(offset), torch.from_numpy(followed)).to(device)

    def of(self, users: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """The first ``most`` users whom each user follows.

        Args:
            users: (M,) int64.
            most: looked at per user.

        Returns:
            row of ``users`` and followed user of each edge, both (edges,) int64, row by row.
        """
        start = self.offset[users]
        count = (self.offset[users + 1] - start).clamp_max(most)
        row = torch.repeat_interleave(torch.arange(len(users), device=users.device), count)
        first = count.cumsum(0) - count
        place = torch.arange(len(row), device=users.device) - first[row]
        return row, self.followed[start[row] + place]

    def rewired(self, seed: int) -> Self:
        """As many followed users of each user, drawn from everybody else: a graph without homophily or influence (MT-07)."""
        n_users = len(self.offset) - 1
        row = torch.repeat_interleave(
            torch.arange(n_users, device=self.offset.device), self.offset.diff()
        )
        generator = torch.Generator().manual_seed(seed)
        step = torch.randint(1, max(n_users, 2), (len(row),), generator=generator).to(row.device)
        return type(self)(self.offset, (row + step) % n_users)
