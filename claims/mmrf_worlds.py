"""KuaiRand worlds in which the claims on MMRF are judged: each plants one property.

A head's level is slope · affinity + quality + a user's + a video's own level (METHODS §8.2). Watch time follows affinity and quality too, and the length.
So the shared part is what feedbacks can tell of one another, and the heads' own levels are what they cannot. The log's selection is what the logging
policy's temperature and the videos' popularity make of it; the candidate sets that are judged are drawn uniformly in every world.
"""

from __future__ import annotations

from typing import Any, NamedTuple

SIZES = {"users": 400, "videos": 300, "exposures_per_user": 60}
CANDIDATES = 20  # of a decision, and of a request in the world


class Planted(NamedTuple):
    """Why a world is there, and what sets it apart from ``conf/base`` beside its size."""

    reason: str
    overrides: dict[str, Any]

    def parameters(self, seed: int) -> dict[str, Any]:
        """Block ``worlds.kuairand`` of a seed, as far as it differs."""
        return {**SIZES, **self.overrides, "candidates": CANDIDATES, "seed": seed}


WORLDS = {
    "cooperative": Planted(
        "one affinity and one quality move all heads and no head has a level of its own; likes, follows, comments and hates are as "
        "frequent as a coin's heads allow (25 times the real rates, at most 1/2), so they are signs of what moves watch time, too",
        {"affinity_sd": 2.0, "quality_sd": 1.0, "user_sd": 0.0, "video_sd": 0.0, "feedback_rate": 25.0},
    ),
    "independent": Planted(
        "no affinity and no quality: like, follow, comment and hate hang on levels of their own, watch time on the length alone "
        "(click and long view stay rules on play time)",
        {"affinity_sd": 0.0, "quality_sd": 0.0, "user_sd": 1.0, "video_sd": 1.0},
    ),
    "biased": Planted(
        "few videos make most candidates, and a nearly greedy policy shows the best of them: the rest is hardly ever shown",
        {"temperature": 0.02, "popularity_sd": 3.0},
    ),
    "unbiased": Planted(
        "all videos are alike popular, and the policy shows its candidates at random",
        {"temperature": 100.0, "popularity_sd": 0.0},
    ),
}  # fmt: skip
