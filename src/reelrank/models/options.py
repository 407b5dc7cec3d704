"""Sizes of the shared modules; apart from the modules, so that reading parameters does not import torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options


class ConfidenceOptions(Options):
    """How far each modality of an item is to be trusted. Source: METHODS §3.5."""

    hidden: int = Field(8, ge=1, description="width of the hidden layer [D: METHODS §3.5]")


class CorruptionOptions(Options):
    """Modalities that are corrupted in training. Source: METHODS §3.5."""

    probability: float = Field(
        0.3, gt=0, le=1, description="share of items with one corrupted modality [D: METHODS §3.5]"
    )
    snr_db: tuple[float, ...] = Field(
        (20.0, 10.0, 5.0, 0.0, -5.0),
        min_length=1,
        description="signal-to-noise ratios in dB that are drawn from [D: METHODS §3.5]",
    )


class FusionOptions(Options):
    """Sizes of the cross-modal fusion; the defaults are the paper's where it states them."""

    d_model: int = Field(
        768, ge=4, description="width of a token [D: BERT-base width, divisible by 12]"
    )
    layers: int = Field(
        6, ge=0, description="encoder layers [S]; 0: no attention between tokens, they are averaged"
    )
    heads: int = Field(12, ge=1, description="attention heads [S]")
    ffn_multiple: int = Field(4, ge=1, description="width of the feed-forward layer / d_model [D]")
    dropout: float = Field(0.1, ge=0, lt=1, description="on both residual branches [D]")
    layout: Literal["joint", "mult"] = Field(
        "joint",
        description="joint: every token attends to every modality [D]; mult: a stack of its own for each ordered pair of modalities [R: MulT]",
    )
    self_layers: int = Field(
        1,
        ge=1,
        description="layers of attention inside each modality after the pairs (mult) [D: MulT has at least 3]",
    )
    gate: Literal["scalar", "vector", "even"] = Field(
        "scalar",
        description="one weight per modality, or one per modality and channel [D]; even: no gate, all present ones alike",
    )
    d_f: int = Field(256, ge=1, description="width of the fused vector f [D]")
    confidence: ConfidenceOptions | None = Field(
        None,
        description="trust in each modality, in attention and gate (METHODS §3.5); null: none [D]",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.d_model % self.heads:
            raise ValueError(f"heads {self.heads} must divide d_model {self.d_model}")
        if self.layout == "mult" and not self.layers:
            raise ValueError("layout mult needs layers ≥ 1; without attention take layout joint")
        return self


class SocialOptions(Options):
    """Graph attention over who follows whom. Source: METHODS §9 MT-07."""

    hops: int = Field(
        1, ge=0, le=2, description="attention layers, each one step further; 0: the user alone"
    )
    heads: int = Field(4, ge=1, description="attention heads [D: METHODS §9 MT-07]")
    every_hours: int = Field(
        6, ge=1, description="states of the followed are made this often [D: shared within a batch]"
    )
    most: int = Field(
        20, ge=1, description="followed users that are looked at, the smallest ids first [D]"
    )


class TGNNOptions(Options):
    """Sizes of the temporal graph network; the defaults are the paper's where it states them."""

    d_h: int = Field(128, ge=1, description="width of a node state [D: TGN-size vectors]")
    layers: int = Field(3, ge=1, description="temporal attention layers [S]")
    fanout: tuple[int, ...] = Field(
        (10, 5, 3), description="last events that each layer attends to, top layer first [D]"
    )
    heads: int = Field(2, ge=1, description="attention heads [D]")
    time_dim: int = Field(64, ge=1, description="width of the time encoding [D: PyG's example]")
    message_dim: int = Field(
        16, ge=1, description="width of the projected feedback of an event [D]"
    )
    content_dim: int = Field(32, ge=1, description="width of W f_v in an event's message [D]")
    attribute_dim: int = Field(8, ge=1, description="width of a static attribute's embedding [D]")
    dropout: float = Field(0.1, ge=0, lt=1, description="on a layer's output [D]")
    kind: Literal["window", "pyg_tgn", "last_items"] = Field(
        "window",
        description="window: temporal attention, Eq. 11 [S]; pyg_tgn: the same on PyG's memory of each node; last_items: no graph, the mean of a user's last items in its place",
    )
    last: int = Field(20, ge=1, description="items that last_items averages [D: METHODS §3.10]")
    block: int = Field(
        200,
        ge=1,
        description="events that become visible together, and not to each other (pyg_tgn) [D: PyG's TGN example]",
    )
    social: SocialOptions | None = Field(
        None, description="attention over the users that a user follows (MT-07); null: none [D]"
    )

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if len(self.fanout) != self.layers or min(self.fanout, default=0) < 1:
            raise ValueError(f"fanout {self.fanout} needs {self.layers} numbers ≥ 1, one per layer")
        if self.d_h % self.heads:
            raise ValueError(f"heads {self.heads} must divide d_h {self.d_h}")
        if self.social is not None and self.d_h % self.social.heads:
            raise ValueError(f"social.heads {self.social.heads} must divide d_h {self.d_h}")
        return self
