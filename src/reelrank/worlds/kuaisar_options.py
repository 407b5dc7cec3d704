"""Parameters of the KuaiSAR world (``worlds.kuaisar`` in the configuration)."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator

from reelrank.sources.kuaisar_schema import Variant
from reelrank.worlds.population_options import FeedOptions, HeadWeights, RewardWeights


class WorldOptions(FeedOptions):
    """A KuaiSAR world. The days are the release's: 2023-05-22 14:50 to 05-31 14:50 (small), local time."""

    variant: Variant = Field("small", description="official folder and days")
    items: int = Field(
        500, ge=100, le=8_000_000, description="videos and pictures; small has 4,195,529"
    )
    exposures_per_user: float = Field(
        100.0, ge=10, le=5_000, description="mean rows of rec_inter per user (small: 290)"
    )
    searches_per_user: float = Field(
        4.0, ge=0.2, le=500, description="mean search sessions per user (small: 10.3)"
    )
    search_rows: float = Field(
        12.0,
        ge=1,
        le=100,
        description="mean things shown per search session (small: 11.9); fewer where a topic has few items",
    )
    session_rows: float = Field(8.0, ge=1, le=100, description="mean rec rows of a session")
    request_rows: float = Field(5.0, ge=1, le=50, description="mean rec rows of one timestamp")
    latent_dim: int = Field(16, ge=4, le=256, description="width of interests and topic vectors")
    scenario_angle: float = Field(
        1.2,
        ge=0,
        le=math.pi,
        description="angle between a user's interest in search and in recommendation, radians: 0 = one interest, π/2 = unrelated, π = opposite",
    )
    social_degree: float = Field(3.0, ge=0, le=500, description="mean number of users followed")
    item_sd: float = Field(0.4, ge=0, le=3, description="sd of an item's own level, per head")
    popularity_sd: float = Field(
        1.35, ge=0, le=3, description="sd of log popularity among candidates and search results"
    )
    from_feed: float = Field(
        0.3, ge=0, le=1, description="share of searches begun from a recommended item"
    )
    related_share: float = Field(
        0.5, ge=0, le=1, description="share of those that are about the item's topic on purpose"
    )
    query_focus: float = Field(
        1.5, ge=0, le=20, description="how far queries follow the search interest; 0 = any topic"
    )
    relevance: float = Field(
        0.8, ge=0, le=1, description="share of results drawn from the topic of the query"
    )
    other_types: float = Field(
        0.1, ge=0, lt=1, description="share of results that are users, live rooms, goods …"
    )
    search_click_rate: float = Field(
        0.09,
        gt=0,
        lt=0.9,
        description="mean click rate of results; about 60 % of sessions have one",
    )
    head_weights: HeadWeights = Field(
        HeadWeights(long_view=0, comment=0, hate=0), description="of the logging policy"
    )
    reward: RewardWeights = Field(
        RewardWeights(comment=0, hate=0), description="of the immediate reward"
    )

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.items < 10 * self.candidates:
            raise ValueError(
                f"items = {self.items} is too few for {self.candidates} distinct candidates at the start of the log; "
                f"set items to at least {10 * self.candidates} or candidates to at most {self.items // 10}"
            )
        requests = self.exposures_per_user / self.request_rows
        if self.searches_per_user > 0.5 * requests:
            raise ValueError(
                f"searches_per_user = {self.searches_per_user} is too many: searches follow requests, of which a user has "
                f"{requests:.1f}; set it to at most {0.5 * requests:.1f} or exposures_per_user higher"
            )
        return self
