"""Parameters of the KuaiRec world (``worlds.kuairec`` in the configuration)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options
from reelrank.worlds.population_options import FeedOptions

EARLY_SHARE = 0.6  # videos uploaded before the log; those of the small matrix are among them


class ValueWeights(Options):
    """Planted weights of the value model's heads (METHODS §6.2, rule ``code``) in the logging policy's score."""

    complete: float = Field(0.0, description="weight of P(complete)")
    long: float = Field(0.0, description="weight of P(long)")
    rewatch: float = Field(0.0, description="weight of P(rewatch)")
    neg: float = Field(0.0, description="weight of P(neg)")


class ShockOptions(Options):
    """Session shocks: in all requests of a session one topic is pushed up or down (METHODS §6.7)."""

    sd: float = Field(
        0.0, ge=0, le=20, description="root mean square of a shock, temperatures; 0 = no shocks"
    )
    endogenous: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of sessions whose shock follows from their local hour: topic 0 down before noon, up from noon on; the others' "
        "topic and size are random",
    )


class WorldOptions(FeedOptions):
    """A KuaiRec world. The days are the release's three bursts: 2020-07-05…12, 08-01…10, 08-27…09-05, local time."""

    variant: Literal["v2"] = Field("v2", description="official folder and file names")
    videos: int = Field(400, ge=100, le=2_000_000, description="videos; the release has 10,728")
    rows_per_user: float = Field(
        150.0, ge=10, le=10_000, description="mean rows of the big matrix per user (release: 1,746)"
    )
    small_users: int = Field(
        60, ge=1, description="users who watch every video of the small matrix (release: 1,411)"
    )
    small_videos: int = Field(
        100, ge=1, description="videos of the small matrix (release: 3,327), all older than the log"
    )
    untimed_share: float = Field(
        0.04, ge=0, le=1, description="share of the small matrix's rows without a time"
    )
    session_rows: float = Field(
        12.0, ge=1, le=200, description="mean rows of a session (release: 22.5)"
    )
    request_rows: float = Field(5.0, ge=1, le=20, description="mean rows of a request")
    topics: int = Field(20, ge=2, le=31, description="topics = tags; the release has 31")
    drift: float = Field(
        0.015, ge=0, le=3, description="mean turn of interests, radians per day; 0 = fixed"
    )
    social_degree: float = Field(5.0, ge=0, le=500, description="mean number of friends")
    listed_share: float = Field(
        0.3, ge=0, le=1, description="share of users whose friends are published (release: 0.066)"
    )
    video_sd: float = Field(0.4, ge=0, le=3, description="sd of a video's own level, per head")
    duration_sd: float = Field(
        0.6, ge=0, le=2, description="sd of log video length; at 0 all heads follow one scalar"
    )
    popularity_sd: float = Field(
        0.8, ge=0, le=3, description="sd of log popularity among candidates"
    )
    value_weights: ValueWeights = Field(
        ValueWeights(), description="of the logging policy, beside head_weights"
    )
    shock: ShockOptions = Field(ShockOptions(), description="of sessions")
    daily_shows: float = Field(
        200.0, gt=0, le=1e6, description="mean shows of a new video per day on the whole platform"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.small_users >= self.users:
            raise ValueError(
                f"small_users = {self.small_users} must leave some of the {self.users} users"
            )
        others = int(EARLY_SHARE * self.videos) - self.small_videos
        if others < 3 * self.candidates:
            raise ValueError(
                f"videos = {self.videos} leave {others} that are there from the start and not in the small matrix, "
                f"too few for {self.candidates} distinct candidates: raise videos, or lower small_videos or candidates"
            )
        return self
