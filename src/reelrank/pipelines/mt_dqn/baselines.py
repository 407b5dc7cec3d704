"""The baselines of MT-DQN's paper, and popularity.

Source: METHODS §3.10.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.behaviours import BEHAVIOURS
from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.item_tokens import ItemTokens
from reelrank.models.policy import Outputs, RankingModel
from reelrank.models.registry import register
from reelrank.models.tgnn import UserAttributes
from reelrank.pipelines.mt_dqn.heads import CandidateHeads
from reelrank.pipelines.mt_dqn.options import (
    ConcatModalOptions,
    PopularityOptions,
    VanillaDQNOptions,
)


class Concatenation(nn.Sequential):
    """f = MLP([z_v ‖ z_a ‖ z_t ‖ present]) of modalities that are averaged over their tokens.

    Args:
        token_dims: D_m of each modality.
        d_f: width of f and of the hidden layer.
        dropout: on the hidden layer.
    """

    def __init__(self, token_dims: tuple[int, ...], d_f: int, dropout: float) -> None:
        width = sum(token_dims) + len(token_dims)
        super().__init__(nn.Linear(width, d_f), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_f, d_f))

    def forward(self, tokens: ItemTokens) -> Tensor:
        """Vectors f (M, d_f) of M items."""
        z = [m.x.sum(1) / m.mask.sum(1, keepdim=True).clamp_min(1) for m in tokens.modalities]
        present = torch.stack([m.present for m in tokens.modalities], dim=1).float()
        f = torch.cat([*z, present], dim=1)
        for layer in self:
            f = layer(f)
        return f


@register("concat_modal", ConcatModalOptions)
class ConcatModal(RankingModel):
    """f = MLP([z_v ‖ z_a ‖ z_t]) of mean-pooled modalities, supervised heads [S].

    differs: the user's static attributes join the state [D: without any user input it could not personalise], and the
    presence flags join z [D: an absent modality is not a zero].
    """

    config: ConcatModalOptions
    learns_q: ClassVar[bool] = False

    def __init__(self, config: ConcatModalOptions, spec: InputSpec) -> None:
        super().__init__(config, spec)
        self.f = Concatenation(spec.token_dims, config.d_f, config.dropout)
        self.attributes = UserAttributes(
            spec.user_cardinalities, config.attribute_dim, config.d_user
        )
        self.heads = CandidateHeads(
            config.d_user, config.d_f, config.head, config.behaviour_weights, spec.logged
        )

    def user_state(self, inputs: ModelInputs, users: Tensor, ts: Tensor) -> Tensor:
        """Static attributes of users (B,): (B, d_user); the time has no effect."""
        state: Tensor = self.attributes(inputs.users.codes[users])
        return state

    def item_state(self, inputs: ModelInputs, items: Tensor, ts: Tensor) -> Tensor:
        """Vectors f of items (M,): (M, d_f); the time has no effect."""
        unique, inverse = torch.unique(items, return_inverse=True)
        return F.embedding(inverse, self.f(inputs.items.select(unique)))

    def head(self, user_state: Tensor, item_state: Tensor) -> Outputs:
        """Outputs for user states (B, Du) and item states (B or 1, C, Dv)."""
        outputs: Outputs = self.heads(user_state, item_state)
        return outputs


@register("vanilla_dqn", VanillaDQNOptions)
class VanillaDQN(RankingModel):
    """Id embeddings and the mean of the user's last items before t, no modalities, no graph, the same 3 FC layers [S].

    Ids without a row to learn from share row 0, out of vocabulary.
    """

    config: VanillaDQNOptions

    def __init__(self, config: VanillaDQNOptions, spec: InputSpec) -> None:
        super().__init__(config, spec)
        self.users = _id_embedding(spec.n_users, config.d_id)
        self.items = _id_embedding(spec.n_items, config.d_id)
        self.heads = CandidateHeads(2 * config.d_id, config.d_id, config.head)
        self.register_buffer("user_row", torch.zeros(spec.n_users, dtype=torch.int64))
        self.register_buffer("item_row", torch.zeros(spec.n_items, dtype=torch.int64))
        self.user_row: Tensor
        self.item_row: Tensor

    def user_state(self, inputs: ModelInputs, users: Tensor, ts: Tensor) -> Tensor:
        """[id ‖ mean of the last items strictly before ts] of users (B,): (B, 2 d_id)."""
        self._require_refreshed()
        position, mask = inputs.stream.last_k(users, ts, self.config.history)
        history = self.items(self.item_row[inputs.stream.item[position]]) * mask.unsqueeze(-1)
        mean = history.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return torch.cat([self.users(self.user_row[users]), mean], dim=1)

    def item_state(self, inputs: ModelInputs, items: Tensor, ts: Tensor) -> Tensor:
        """Id embedding of items (M,): (M, d_id); the time has no effect."""
        self._require_refreshed()
        state: Tensor = self.items(self.item_row[items])
        return state

    def head(self, user_state: Tensor, item_state: Tensor) -> Outputs:
        """Outputs for user states (B, Du) and item states (B or 1, C, Dv)."""
        outputs: Outputs = self.heads(user_state, item_state)
        return outputs

    def _refresh(self, inputs: ModelInputs) -> None:
        if self.refreshed:  # the vocabulary is the one that the embeddings were trained with
            return
        stream = inputs.stream
        rows = stream.trained_rows()
        for row, ids in ((self.user_row, stream.user[rows]), (self.item_row, stream.item[rows])):
            row.zero_()
            row[ids] = ids + 1


@register("popularity", PopularityOptions)
class Popularity(RankingModel):
    """Train rows that watched the item; fitted in closed form by :func:`fit_popularity`, the same for every user and time."""

    config: PopularityOptions
    learns_q: ClassVar[bool] = False

    def __init__(self, config: PopularityOptions, spec: InputSpec) -> None:
        super().__init__(config, spec)
        # columns: score, behaviour logits, value, reward
        self.register_buffer("table", torch.zeros(spec.n_items, 3 + len(BEHAVIOURS)))
        self.table: Tensor

    def user_state(self, inputs: ModelInputs, users: Tensor, ts: Tensor) -> Tensor:
        """Nothing is known of a user: (B, 0)."""
        return self.table.new_zeros(len(users), 0)

    def item_state(self, inputs: ModelInputs, items: Tensor, ts: Tensor) -> Tensor:
        """Score, behaviour logits, value and reward of items (M,): (M, 6)."""
        self._require_refreshed()
        return self.table[items]

    def head(self, user_state: Tensor, item_state: Tensor) -> Outputs:
        """Outputs for B users and item states (B or 1, C, 6)."""
        table = item_state.expand(len(user_state), -1, -1)
        return Outputs(
            q=table[..., 0],
            behaviour_logits=table[..., 1:-2],
            value=table[..., -2],
            reward=table[..., -1],
        )

    def _refresh(self, inputs: ModelInputs) -> None:
        if self.refreshed:  # fitted once: a restored model predicts what was saved
            return
        stream, rows = inputs.stream, inputs.stream.trained_rows()
        item, labels = stream.item[rows], stream.labels[rows]
        positives = _sum_by_item(labels.nan_to_num(0.0), item, stream)
        known = _sum_by_item((~labels.isnan()).float(), item, stream)
        overall = positives.sum(0) / known.sum(0).clamp_min(1)
        rate = (positives + self.config.smoothing * overall) / (known + self.config.smoothing)
        self.table[:, 0] = positives[:, 0]
        self.table[:, 1:-2] = torch.logit(rate, eps=1e-6)
        self.table[:, -2] = stream.value_return[rows].nanmean().nan_to_num(0.0)
        self.table[:, -1] = stream.r_immediate[rows].nanmean().nan_to_num(0.0)


def fit_popularity(inputs: ModelInputs, config: PopularityOptions | None = None) -> Popularity:
    """Popularity fitted on train rows that were not random exposures (L2).

    Args:
        inputs: the events.
        config: how much the rates are smoothed.

    Returns:
        A model in evaluation mode, on the device of ``inputs``.
    """
    model = Popularity(config or PopularityOptions(), InputSpec.of(inputs)).to(inputs.device)
    model.refresh(inputs)
    model.eval()
    return model


def _sum_by_item(values: Tensor, item: Tensor, stream: EventStream) -> Tensor:
    """Sums of (n, F) rows by item: (n_items, F)."""
    return values.new_zeros(stream.n_items, values.shape[1]).index_add_(0, item, values)


def _id_embedding(n: int, dim: int) -> nn.Embedding:
    """Rows 1 … n for ids, row 0 for out of vocabulary, which starts at zero."""
    embedding = nn.Embedding(n + 1, dim)
    nn.init.normal_(embedding.weight, std=dim**-0.5)
    nn.init.zeros_(embedding.weight[0])
    return embedding
