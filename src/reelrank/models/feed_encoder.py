"""The state of a feed's user and the features of the candidates: what every actor, critic and baseline starts from.

Source: METHODS §4.3. Shapes as in ``models.feed``.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from reelrank.models.feed import PAD, RESPONSES, WATCH_TIME, FeedBatch, FeedInputs
from reelrank.models.feed_options import WATCH_CAP_S, FeedEncoderOptions
from reelrank.options import Options

_HOURS = 24


class FeedSpec(Options):
    """Sizes of a model that follow from its inputs; saved beside its options in the checkpoint."""

    n_items: int = Field(ge=1, description="items")
    n_scenarios: int = Field(ge=1, description="places in the app; a later one is unknown")
    user_cardinalities: tuple[int, ...] = Field(description="codes of each user attribute")
    item_cardinalities: tuple[int, ...] = Field(description="codes of each item attribute")

    @classmethod
    def of(cls, inputs: FeedInputs) -> Self:
        """The sizes of ``inputs``; scenarios are those of train (L2)."""
        decisions = inputs.decisions
        return cls(
            n_items=len(inputs.items.codes),
            n_scenarios=int(decisions.scenario[decisions.split == 0].max()) + 1,
            user_cardinalities=inputs.users.cardinalities,
            item_cardinalities=inputs.items.cardinalities,
        )


class CodeEmbedding(nn.Module):
    """Sum of one embedding per attribute: what a linear layer makes of their one-hot codes."""

    def __init__(self, cardinalities: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max(sum(cardinalities), 1), width)
        nn.init.normal_(self.table.weight, std=1 / math.sqrt(width * max(len(cardinalities), 1)))
        start = [0, *accumulate(cardinalities)][: len(cardinalities)]
        self.register_buffer("start", torch.tensor(start, dtype=torch.int64), persistent=False)
        self.start: Tensor

    def forward(self, codes: Tensor) -> Tensor:
        """(…, G) int64 → (…, width)."""
        embedded: Tensor = self.table(codes + self.start)
        return embedded.sum(-2)


class FeedEncoder(nn.Module):
    """b_t = MLP([user ‖ GRU(history, feedbacks) ‖ context]) and x_c = id ‖ attributes.

    The ids' embeddings are shared by history and candidates; an item that train never shows keeps its small initial one.
    """

    def __init__(self, options: FeedEncoderOptions, spec: FeedSpec) -> None:
        super().__init__()
        self.id = nn.Embedding(spec.n_items + 1, options.d_id, padding_idx=0)
        with torch.no_grad():
            self.id.weight.mul_(1 / math.sqrt(options.d_id))
        self.attributes = CodeEmbedding(spec.item_cardinalities, options.d_attributes)
        self.user = CodeEmbedding(spec.user_cardinalities, options.d_user)
        self.scenario = nn.Embedding(spec.n_scenarios + 1, options.d_context)
        self.hour = nn.Embedding(_HOURS, options.d_context)
        self.history = nn.GRU(options.d_id + len(RESPONSES), options.d_history, batch_first=True)
        width = options.d_user + options.d_history + 2 * options.d_context
        self.mix = nn.Sequential(
            nn.Linear(width, options.d_state),
            nn.LeakyReLU(),
            nn.Linear(options.d_state, options.d_state),
        )

    def forward(self, batch: FeedBatch) -> tuple[Tensor, Tensor]:
        """b_t (B, d_state) and x_c (B, C, d_item)."""
        return self.state(batch), self.items(batch.candidates, batch.item_codes)

    def items(self, candidates: Tensor, codes: Tensor) -> Tensor:
        """x_c (B, C, d_item) of candidates (B, C) and their codes (B, C, G)."""
        return torch.cat([self.id(candidates + 1), self.attributes(codes)], dim=-1)

    def state(self, batch: FeedBatch) -> Tensor:
        """b_t, (B, d_state)."""
        known = batch.scenario < self.scenario.num_embeddings - 1
        context = [self.scenario((batch.scenario + 1) * known), self.hour(batch.hour)]
        past = self._past(batch.history, batch.feedback)
        mixed: Tensor = self.mix(torch.cat([self.user(batch.user_codes), past, *context], dim=-1))
        return mixed

    def _past(self, history: Tensor, feedback: Tensor) -> Tensor:
        """(B, d_history): the GRU's state after the last row; 0 for a user without history."""
        n = (history != PAD).sum(1)
        # an exported program has no size that depends on values
        longest = history.shape[1] if torch.compiler.is_exporting() else _longest(n)
        if not longest:
            return feedback.new_zeros(len(history), self.history.hidden_size)
        # left-aligned: pads come after the last row, where they cannot move the state
        first = (history.shape[1] - n).unsqueeze(1)
        at = (torch.arange(longest, device=n.device) + first).clamp_max(history.shape[1] - 1)
        answers = feedback_features(
            feedback.gather(1, at.unsqueeze(-1).expand(-1, -1, feedback.shape[2]))
        )
        steps = torch.cat([self.id(history.gather(1, at) + 1), answers], dim=-1)
        states, _ = self.history(steps)
        last: Tensor = states[torch.arange(len(n), device=n.device), (n - 1).clamp_min(0)]
        return last * (n > 0).unsqueeze(1)


def _longest(n: Tensor) -> int:
    return int(n.max()) if len(n) else 0


def feedback_features(feedback: Tensor) -> Tensor:
    """Responses (…, 7) as inputs: 0 where not logged, watch time as log(1 + s), 1 at 180 s."""
    features = feedback.nan_to_num(0.0)
    watch = features[..., WATCH_TIME:].clamp_min(0).log1p() / math.log1p(WATCH_CAP_S)
    return torch.cat([features[..., :WATCH_TIME], watch], dim=-1)
