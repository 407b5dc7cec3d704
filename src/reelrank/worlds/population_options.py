"""Parameters that worlds share: their users, interests and social graph, their response and logging policy."""

from __future__ import annotations

from pydantic import Field

from reelrank.options import Options


class PopulationOptions(Options):
    """Users, what they like, and whom they follow."""

    seed: int = Field(0, ge=0, lt=2**31, description="of every random draw")
    users: int = Field(300, ge=50, le=2_000_000, description="users")
    activity_sd: float = Field(0.8, ge=0, le=2, description="sd of log activity between users")
    latent_dim: int = Field(16, ge=2, le=256, description="width of interests and topic vectors")
    topics: int = Field(20, ge=2, le=1_000, description="topics = first-level categories")
    topic_spread: float = Field(0.6, ge=0, le=5, description="scatter of items around a topic")
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


class FeedOptions(PopulationOptions):
    """A short-video feed: how users respond, and how the logging policy chooses."""

    affinity_sd: float = Field(
        1.2, ge=0, le=5, description="sd over user–item pairs of the affinity, in logits"
    )
    quality_sd: float = Field(0.5, ge=0, le=5, description="sd of item quality, in logits")
    user_sd: float = Field(
        0.4, ge=0, le=3, description="sd of a user's own level, per head; of engagement half of it"
    )
    candidates: int = Field(20, ge=2, le=200, description="items per candidate set (C)")
    temperature: float = Field(
        0.25, gt=0, le=100, description="of the logging softmax; smaller = greedier"
    )
    head_weights: HeadWeights = Field(HeadWeights(), description="of the logging policy")
    reward: RewardWeights = Field(RewardWeights(), description="of the immediate reward")
    return_rule: ReturnRule = Field(ReturnRule(), description="planted return rule")
