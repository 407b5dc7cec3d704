"""Parameters of the KuaiRand world (``worlds.kuairand`` in the configuration)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reelrank.options import Options


class ModalityOptions(Options):
    """How one modality shows the topic of a video."""

    tokens: int = Field(4, ge=1, le=512, description="vectors in the sequence (T)")
    dim: int = Field(32, ge=1, le=4096, description="width of a vector (D)")
    snr_db: float = Field(
        10.0, ge=-200, le=100, description="signal-to-noise ratio in dB; −100 is pure noise"
    )
    missing_rate: float = Field(
        0.02, ge=0, lt=1, description="share of videos without this modality"
    )


class HeadWeights(Options):
    """Planted weights of the logging policy: its score is Σ weight · true probability."""

    click: float = Field(1.0, description="weight of P(click)")
    long_view: float = Field(1.0, description="weight of P(long_view)")
    like: float = Field(2.0, description="weight of P(like)")
    follow: float = Field(2.0, description="weight of P(follow)")
    comment: float = Field(1.0, description="weight of P(comment)")
    forward: float = Field(2.0, description="weight of P(forward)")
    hate: float = Field(-4.0, description="weight of P(hate)")


class RewardWeights(Options):
    """Weights of the immediate reward, METHODS §3.8 [D]; the planted return rule looks at its expectation."""

    watch_ratio: float = Field(0.5, description="weight of min(watch ratio, 2)")
    like: float = Field(0.5, description="weight of like")
    follow: float = Field(0.5, description="weight of follow")
    comment: float = Field(0.3, description="weight of comment")
    forward: float = Field(0.5, description="weight of forward")
    hate: float = Field(-1.0, description="weight of hate")


class ReturnRule(Options):
    """P(next session within 24 h of the last row) = σ(intercept + slope · mean true expected reward of the session)."""

    intercept: float = Field(-1.0, ge=-10, le=10, description="log-odds at reward 0")
    slope: float = Field(5.0, ge=-50, le=50, description="log-odds per unit of reward")


class WorldOptions(Options):
    """A KuaiRand world. The days are the release's: 2022-04-08 to 05-08, local time."""

    seed: int = Field(0, ge=0, lt=2**31, description="of every random draw")
    variant: Literal["pure"] = Field("pure", description="official folder and file names")
    users: int = Field(600, ge=200, le=2_000_000, description="users; fewer than 200 train nothing")
    videos: int = Field(500, ge=100, le=2_000_000, description="videos = pool of the random log")
    exposures_per_user: float = Field(
        100.0, ge=10, le=5_000, description="mean rows of the standard logs per user"
    )
    random_per_user: float = Field(
        5.0, ge=0, le=1_000, description="mean rows of the random log per user, from 04-22 on"
    )
    activity_sd: float = Field(
        0.8, ge=0, le=2, description="sd of log activity between users (real rows: about 0.9)"
    )
    session_rows: float = Field(8.0, ge=1, le=100, description="mean rows of a session")
    request_rows: float = Field(
        5.0, ge=1, le=50, description="mean rows that share one time_ms (27K: 5)"
    )
    tab_stay: float = Field(0.7, ge=0, lt=1, description="P(a request stays in the tab before it)")
    latent_dim: int = Field(16, ge=2, le=256, description="width of interests and topic vectors")
    topics: int = Field(20, ge=2, le=1_000, description="topics = first-level categories")
    topic_spread: float = Field(0.6, ge=0, le=5, description="scatter of videos around a topic")
    drift: float = Field(
        0.03, ge=0, le=3, description="mean turn of interests, radians per day; 0 = fixed"
    )
    social_degree: float = Field(8.0, ge=0, le=500, description="mean number of users followed")
    homophily: float = Field(
        4.0, ge=0, le=50, description="weight of like interest in whom one follows"
    )
    social_weight: float = Field(
        0.5, ge=0, le=10, description="pull of the followed users' mean interest"
    )
    affinity_sd: float = Field(
        1.2, ge=0, le=5, description="sd over user–video pairs of the affinity, in logits"
    )
    quality_sd: float = Field(0.5, ge=0, le=5, description="sd of video quality, in logits")
    user_sd: float = Field(
        0.4, ge=0, le=3, description="sd of a user's own level, per head; of engagement half of it"
    )
    video_sd: float = Field(0.4, ge=0, le=3, description="sd of a video's own level, per head")
    popularity_sd: float = Field(
        1.35, ge=0, le=3, description="sd of log popularity among candidates"
    )
    candidates: int = Field(20, ge=2, le=200, description="videos per candidate set (C)")
    temperature: float = Field(
        0.25, gt=0, le=100, description="of the logging softmax; smaller = greedier"
    )
    visual: ModalityOptions = Field(ModalityOptions(tokens=4, dim=32), description="visual")
    audio: ModalityOptions = Field(ModalityOptions(tokens=4, dim=16), description="audio")
    text: ModalityOptions = Field(ModalityOptions(tokens=8, dim=32), description="text")
    head_weights: HeadWeights = Field(HeadWeights(), description="of the logging policy")
    reward: RewardWeights = Field(RewardWeights(), description="of the immediate reward")
    return_rule: ReturnRule = Field(ReturnRule(), description="planted return rule")

    @model_validator(mode="after")
    def _candidates_exist(self) -> WorldOptions:
        if self.videos < 10 * self.candidates:
            raise ValueError(
                f"videos = {self.videos} is too few for {self.candidates} distinct candidates at the start of the log; "
                f"set videos to at least {10 * self.candidates} or candidates to at most {self.videos // 10}"
            )
        return self
