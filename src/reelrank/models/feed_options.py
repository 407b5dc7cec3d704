"""Sizes of what models of a feed share; apart from the modules, so that reading parameters does not import torch."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from reelrank.options import Options

WATCH_CAP_S = 180.0  # watch time is winsorised here, METHODS §4.2
LONG_VIEW_S = (
    18.0  # a play of this length, or of a shorter video's whole, is a long view: KuaiRand's rule
)
ResponseName = Literal["click", "like", "follow", "comment", "hate", "long_view", "watch_time"]
RESPONSE_NAMES: tuple[ResponseName, ...] = get_args(ResponseName)
"""As ``models.feed.RESPONSES``, which imports torch."""


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
    responses: tuple[ResponseName, ...] = Field(
        RESPONSE_NAMES,
        description="those that the log knows, watch_time last; agents of others are left out",
    )
    long_view: Literal["logged", "rule"] = Field(
        "logged",
        description="rule: from play and duration where the log has none, as KuaiRand defines it [D]",
    )

    @model_validator(mode="after")
    def _known_responses(self) -> Self:
        known = [name for name in RESPONSE_NAMES if name in self.responses]
        if list(self.responses) != known or RESPONSE_NAMES[-1] not in known:
            raise ValueError(
                f"responses {self.responses}: some of {', '.join(RESPONSE_NAMES)}, each once, in this order, the last among them"
            )
        return self


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
