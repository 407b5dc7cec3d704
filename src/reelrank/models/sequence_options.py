"""Sizes of the sequence encoders; torch is not needed to validate them.

Source: METHODS §5.3, §5.6, Appendix B [R].
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reelrank.options import Options

BEHAVIOURS = ("click", "like", "follow", "forward")  # that an event of a sequence may have


class NextItNetOptions(Options):
    """Stacked dilated causal convolutions."""

    name: Literal["nextitnet"] = Field("nextitnet", description="which encoder")
    dim: int = Field(64, ge=1, description="width d [A]")
    kernel: int = Field(3, ge=1, description="places that a convolution sees [A]")
    dilations: tuple[int, ...] = Field((1, 2, 1, 2, 1, 2), description="of each block [A]")


class SASRecOptions(Options):
    """Causal self-attention."""

    name: Literal["sasrec"] = Field("sasrec", description="which encoder")
    dim: int = Field(64, ge=1, description="width d [R]")
    layers: int = Field(2, ge=1, description="attention layers [R]")
    heads: int = Field(2, ge=1, description="attention heads [R]")
    feed_forward: int = Field(256, ge=1, description="width between the two dense layers [R]")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout [R: .5, tuned .2]")
    max_length: int = Field(200, ge=1, description="places with an embedding of their own")


class GRU4RecOptions(Options):
    """A gated recurrent unit."""

    name: Literal["gru4rec"] = Field("gru4rec", description="which encoder")
    dim: int = Field(64, ge=1, description="width d of inputs and outputs [R]")
    hidden: int = Field(128, ge=1, description="width of the recurrent state [R]")
    layers: int = Field(1, ge=1, description="recurrent layers [R]")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout of the inputs [R]")


class CaserOptions(Options):
    """Convolutions over the last places and over the dimensions."""

    name: Literal["caser"] = Field("caser", description="which encoder")
    dim: int = Field(64, ge=1, description="width d [R]")
    length: int = Field(20, ge=1, description="places that it sees, as the history is long")
    horizontal: int = Field(8, ge=1, description="filters per height [R]")
    vertical: int = Field(4, ge=1, description="filters over time [R]")
    dropout: float = Field(0.4, ge=0, lt=1, description="dropout [R]")


EncoderOptions = NextItNetOptions | SASRecOptions | GRU4RecOptions
