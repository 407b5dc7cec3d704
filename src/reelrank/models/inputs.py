"""Everything that a model reads besides the batch, and the sizes that depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import polars as pl
import torch
from pydantic import Field

from reelrank.models.behaviours import BEHAVIOURS
from reelrank.models.event_stream import EventStream
from reelrank.models.follow_graph import FollowGraph
from reelrank.models.item_tokens import ItemTokens
from reelrank.models.tensor_record import TensorRecord
from reelrank.models.user_features import UserFeatures
from reelrank.options import Options

_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class ModelInputs(TensorRecord):
    """Events, item modalities and static user attributes, on one device; ``follows`` where the source has social edges."""

    stream: EventStream
    items: ItemTokens
    users: UserFeatures
    follows: FollowGraph | None = None

    @classmethod
    def from_tables(
        cls,
        events: pl.DataFrame,
        item_modal: pl.DataFrame,
        items: pl.DataFrame,
        users: pl.DataFrame,
        device: torch.device | str = "cpu",
        social_edges: pl.DataFrame | None = None,
    ) -> Self:
        """Tensors on a device; moments and vocabularies are fitted on train rows (L2).

        Args:
            events: as ``EventStream``, with user_id, item_id and split.
            item_modal: as ``ItemTokens``.
            items: one row per item.
            users: one row per user, as ``UserFeatures``.
            device: where the tensors go.
            social_edges: ``SocialEdges``, of which those known by the last train row are kept (L3); None: the source has none.

        Raises:
            ValueError: as the parts.
        """
        train = events.filter(pl.col("split") == "train")
        follows = None
        if social_edges is not None:
            last = int(train["ts_ms"].max() or 0)  # type: ignore[arg-type]  # an integer column
            follows = FollowGraph.from_frame(social_edges, users.height, last, device)
        return cls(
            EventStream.from_frame(events, users.height, items.height, device),
            ItemTokens.from_frame(item_modal, items.height, train["item_id"].unique(), device),
            UserFeatures.from_frame(users, train["user_id"].unique(), device),
            follows,
        )

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.stream.user.device


class InputSpec(Options):
    """Sizes of a model that follow from its inputs; saved beside its options in the checkpoint."""

    n_users: int = Field(ge=1, description="users")
    n_items: int = Field(ge=1, description="items")
    message_dim: int = Field(ge=1, description="raw features of an event")
    token_lengths: tuple[int, ...] = Field(
        description="T_m: tokens of each modality, padded; visual, audio, text"
    )
    token_dims: tuple[int, ...] = Field(description="D_m: width of a token of each modality")
    user_cardinalities: tuple[int, ...] = Field(
        description="codes of each user attribute, 0 = unseen or null"
    )
    mean_gap_hours: float = Field(
        gt=0,
        description="mean time between consecutive train events of a node",
        json_schema_extra={"unit": "h"},
    )
    logged: tuple[bool, ...] = Field(
        (True,) * len(BEHAVIOURS),
        description="whether a train row tells of each behaviour; the others are never learnt",
    )

    @classmethod
    def of(cls, inputs: ModelInputs) -> Self:
        """The sizes of ``inputs``; the mean gap is fitted on train rows (L2)."""
        return cls(
            n_users=inputs.stream.n_users,
            n_items=inputs.stream.n_items,
            message_dim=inputs.stream.message.shape[1],
            token_lengths=tuple(m.x.shape[1] for m in inputs.items.modalities),
            token_dims=tuple(m.x.shape[2] for m in inputs.items.modalities),
            user_cardinalities=inputs.users.cardinalities,
            mean_gap_hours=_mean_gap_hours(inputs.stream),
            logged=_logged(inputs.stream),
        )


def _logged(stream: EventStream) -> tuple[bool, ...]:
    """Of each behaviour, whether any row that may be learnt from has a label."""
    known = ~stream.labels[stream.trained_rows()].isnan()
    return tuple(known.any(0).tolist())


def _mean_gap_hours(stream: EventStream) -> float:
    """Mean gap of a node's consecutive train events; 1 h where no node has two."""
    key = stream.entry_key[stream.split[stream.entry_position] == 0]
    gap = key.diff()[(key // stream.span).diff() == 0]
    hours = float(gap.double().mean()) / _MS_PER_HOUR if len(gap) else 0.0
    return hours or 1.0
