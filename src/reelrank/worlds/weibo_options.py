"""Parameters of the Weibo world (``worlds.weibo`` in the configuration)."""

from __future__ import annotations

from pydantic import Field

from reelrank.options import Options
from reelrank.worlds.population_options import PopulationOptions


class ActionRates(Options):
    """P(action) of a user who saw a post of mean affinity and quality that nobody followed had forwarded."""

    like: float = Field(0.10, gt=0, lt=1, description="of a like")
    comment: float = Field(0.04, gt=0, lt=1, description="of a comment")
    forward: float = Field(0.06, gt=0, lt=1, description="of a forward without influence")


class WeiboWorldOptions(PopulationOptions):
    """A Weibo world with viewers; its days start 2015-06-01, local time."""

    posts: int = Field(400, ge=50, le=10_000_000, description="posts")
    days: int = Field(14, ge=3, le=60, description="days of the log")
    exposures_per_user: float = Field(
        80.0, ge=5, le=5_000, description="mean posts shown per user; repeats are then left out"
    )
    activity_sd: float = Field(0.6, ge=0, le=2, description="sd of log activity between users")
    session_rows: float = Field(8.0, ge=1, le=100, description="mean posts seen in a session")
    feed_days: float = Field(2.0, gt=0, le=30, description="age at which a post leaves the feed")
    candidates: int = Field(8, ge=1, le=100, description="posts that the feed chooses from")
    follow_bonus: float = Field(
        2.0, ge=0, le=10, description="what the feed adds to a followed author's post, log-odds"
    )
    popularity_sd: float = Field(1.0, ge=0, le=3, description="sd of log popularity in the feed")
    topics: int = Field(12, ge=2, le=1_000, description="topics of posts")
    social_degree: float = Field(12.0, ge=0, le=500, description="mean number of users followed")
    quality_sd: float = Field(0.5, ge=0, le=5, description="sd of post quality, in logits")
    affinity_sd: float = Field(
        1.0, ge=0, le=5, description="sd over user–post pairs of the affinity, in logits"
    )
    rates: ActionRates = Field(ActionRates(), description="base rates of the actions")
    influence: float = Field(
        1.5,
        ge=-5,
        le=5,
        description="log-odds added to forwarding when a followed user forwarded the post before",
    )
    influence_window_h: float = Field(
        24.0, gt=0, le=720, description="how long ago that may have been, hours"
    )
