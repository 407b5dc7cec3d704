"""Sizes of what models of a feed share; apart from the modules, so that reading parameters does not import torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reelrank.options import Options

WATCH_CAP_S = 180.0  # watch time is winsorised here, METHODS §4.2


class FeedDataOptions(Options):
    """How a log becomes decisions."""

    track: Literal["request", "top_videos"] = Field(
        "request",
        description="request (K2): one decision per request, among its candidate set; top_videos (K1): one per row, among the most viewed",
    )
    top_videos: int = Field(150, ge=2, description="K1: most viewed videos of train [S: TSCAC]")
    k: int = Field(
        6, ge=1, description="items shown of a candidate set, which may not be smaller [S: 6]"
    )


class FeedEncoderOptions(Options):
    """State b_t and item features x_c; the defaults are the paper preset."""

    d_state: int = Field(128, ge=1, description="width of b_t [D]")
    d_history: int = Field(64, ge=1, description="width of the GRU over the history [D]")
    history: int = Field(50, ge=1, description="last rows that the GRU reads [D]")
    d_id: int = Field(32, ge=1, description="width of an item's id embedding [D]")
    d_attributes: int = Field(16, ge=1, description="width of an item's attributes together [D]")
    d_user: int = Field(32, ge=1, description="width of a user's attributes together [D]")
    d_context: int = Field(8, ge=1, description="width of the scenario's, and of the hour's [D]")

    @property
    def d_item(self) -> int:
        """Width of x_c."""
        return self.d_id + self.d_attributes
