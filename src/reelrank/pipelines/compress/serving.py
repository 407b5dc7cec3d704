"""Scores of a request from what was computed of its candidates before: a request pays for its user only.

Source: METHODS §3.7, §9 MT-05.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.policy import RankingModel
from reelrank.models.tensor_record import TensorRecord
from reelrank.pipelines.compress.compressed import plain
from reelrank.pipelines.compress.int8 import Int8Linear


@dataclass(frozen=True)
class ItemIndex(TensorRecord):
    """The item's part of Q's first layer over s = LayerNorm([user ‖ item]), N videos.

    With W the first layer, γ, β the norm's, μ, σ² the moments of [user ‖ item]: W LN(s) + b = (Wγ [user ‖ item] − μ Wγ1) / σ + Wβ + b, and
    Wγ [user ‖ item], μ and σ² are sums of a user's and an item's part.

    Attributes:
        projected: (N, H), Wγ of the items.
        total: (N,), sum of each item's state.
        square: (N,), sum of its squares.
    """

    projected: Tensor
    total: Tensor
    square: Tensor


class RequestScorer:
    """Q of a user's candidates from an :class:`ItemIndex`; the same scores as the network's heads.

    Args:
        model: with ``heads`` of MT-DQN's kind: ``norm``, ``trunk``, ``q``.
        user_width: Du.

    Raises:
        TypeError: the heads are of another kind.
    """

    def __init__(self, model: RankingModel, user_width: int) -> None:
        heads = plain(model).get_submodule("heads")
        norm, trunk = heads.get_submodule("norm"), heads.get_submodule("trunk")
        self.q = heads.get_submodule("q")
        if not isinstance(norm, nn.LayerNorm) or not isinstance(trunk, nn.Sequential):
            raise TypeError("heads need a LayerNorm `norm` and a Sequential `trunk`")
        first = trunk[0]
        if not isinstance(first, nn.Linear | Int8Linear):
            raise TypeError("the trunk's first layer must be a linear map")
        self.rest = trunk[1:]
        self.eps, self.width = norm.eps, norm.normalized_shape[0]
        weight = first.weight.detach()
        scaled = weight * norm.weight.detach()
        self.of_user = scaled[:, :user_width].T.contiguous()
        self.of_item = scaled[:, user_width:].T.contiguous()
        self.ones = scaled.sum(1)
        self.shift = F.linear(norm.bias.detach(), weight, first.bias)

    @torch.no_grad()
    def index(self, item_states: Tensor) -> ItemIndex:
        """What is kept of item states (N, Dv)."""
        projected = item_states @ self.of_item
        return ItemIndex(projected, item_states.sum(1), item_states.square().sum(1))

    def scores(self, index: ItemIndex, items: Tensor, user_state: Tensor) -> Tensor:
        """Q (C,) of videos ``items`` (C,), rows of the index, for one user state (1, Du)."""
        mean = (index.total[items] + user_state.sum()) / self.width
        variance = (index.square[items] + user_state.square().sum()) / self.width - mean.square()
        scale = torch.rsqrt(variance.clamp_min(0) + self.eps).unsqueeze(1)
        hidden = index.projected[items] + user_state @ self.of_user - mean.unsqueeze(1) * self.ones
        q: Tensor = self.q(self.rest(torch.addcmul(self.shift, hidden, scale)))
        return q.squeeze(-1)
