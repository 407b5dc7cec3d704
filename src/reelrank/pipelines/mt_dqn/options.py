"""Sizes of MT-DQN and its baselines; the defaults are the paper's where it states them (METHODS Appendix C)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from reelrank.models.fusion import FusionOptions
from reelrank.models.tgnn import TGNNOptions
from reelrank.options import Options


class HeadOptions(Options):
    """The fully connected layers over a state, shared by all trained models."""

    hidden: tuple[int, int] = Field(
        (256, 128), description="widths of the trunk: 3 FC layers to Q [S], 512→256→128→1 [D]"
    )
    value_hidden: int = Field(128, ge=1, description="width of the on-policy value head [D]")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.hidden) < 1:
            raise ValueError(f"hidden {self.hidden}: every width must be ≥ 1")
        return self


class MTDQNOptions(Options):
    """MT-DQN: fusion, temporal graph network, Q-network."""

    fusion: FusionOptions = Field(FusionOptions(), description="cross-modal transformer, Eq. 4–6")
    tgnn: TGNNOptions = Field(TGNNOptions(), description="temporal graph network, Eq. 11")
    head: HeadOptions = Field(HeadOptions(), description="Q-network and the other heads")
    item_graph_state: bool = Field(
        True, description="the item's graph vector h_v is in the state beside f and h_u [D]"
    )
    link_head: bool = Field(False, description="a head for the optional link loss [D]")

    @model_validator(mode="after")
    def _link_needs_items(self) -> Self:
        if self.link_head and not self.item_graph_state:
            raise ValueError("link_head needs item_graph_state: there is no h_v to link to")
        return self


class ConcatModalOptions(Options):
    """Concat-Modal [S]: mean-pooled modalities, no attention, no graph, supervised heads."""

    d_f: int = Field(256, ge=1, description="width of f = MLP([z_v‖z_a‖z_t]) [D: as MT-DQN]")
    d_user: int = Field(128, ge=1, description="width of the user's static attributes [D: as d_h]")
    attribute_dim: int = Field(8, ge=1, description="width of a static attribute's embedding [D]")
    dropout: float = Field(0.1, ge=0, lt=1, description="on f's hidden layer [D]")
    head: HeadOptions = Field(HeadOptions(), description="the same layers as MT-DQN's")
    behaviour_weights: tuple[float, float, float] = Field(
        (1.0, 0.5, 0.5), description="score = Σ weight · p over watch, like, share [D]"
    )


class VanillaDQNOptions(Options):
    """Vanilla-DQN [S]: ids and the last items, no modalities, no graph."""

    d_id: int = Field(128, ge=1, description="width of an id embedding [D: as d_h]")
    history: int = Field(20, ge=1, description="last items that are averaged [S]")
    head: HeadOptions = Field(HeadOptions(), description="the same 3 FC layers as MT-DQN's [S]")


class PopularityOptions(Options):
    """Train long views per item, with smoothed behaviour rates."""

    smoothing: float = Field(
        20.0, gt=0, description="rows of the overall rate added to each item's own [D]"
    )
