"""KuaiRec worlds in which the claims on head weights and value models are judged: each plants one property.

Importable with ``claims`` on the path: ``WORLDS["clean"].options(users=100)``. The truth that an estimate is held against is
``options.value_weights``; where it is all 0, or the heads are collinear, there is none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from reelrank.worlds.kuairec_options import WorldOptions

NO_FEEDBACK = dict.fromkeys(
    ("click", "long_view", "like", "follow", "comment", "forward", "hate"), 0.0
)
POSTER = {"complete": 0.22, "long": 0.10, "rewatch": -0.02, "neg": -0.66}  # [S]
BY_VALUE = {"head_weights": NO_FEEDBACK, "value_weights": POSTER, "temperature": 0.04}


class Planted(NamedTuple):
    """Why a world is there, and what sets it apart from the defaults of ``WorldOptions``."""

    reason: str
    overrides: dict[str, Any]

    def options(self, **sizes: Any) -> WorldOptions:
        """Its parameters at some size and seed."""
        return WorldOptions(**(self.overrides | sizes))


WORLDS = {
    "base": Planted("as conf/base: scores vary by about 3 temperatures within a request", BY_VALUE),
    "clean": Planted(
        "30 temperatures: rankings are nearly those of the scores, so a hard top-K is nearly right",
        BY_VALUE | {"temperature": 0.004},
    ),
    "noisy": Planted(
        "half a temperature: rankings are mostly noise, the weights are still there",
        BY_VALUE | {"temperature": 0.25},
    ),
    "identified": Planted(
        "lengths from seconds to minutes part the heads as well as these response curves allow",
        BY_VALUE | {"duration_sd": 1.5},
    ),
    "correlated": Planted(
        "complete and neg mirror each other within a request, yet the four heads are not one scalar",
        BY_VALUE | {"duration_sd": 0.3},
    ),
    "collinear": Planted(
        "one length, one quality: all heads are monotone in the affinity alone, so no order tells their weights apart",
        BY_VALUE | {"duration_sd": 0.0, "quality_sd": 0.0, "affinity_sd": 0.3, "temperature": 0.014},
    ),
    "random": Planted(
        "weights of 0: shown at random, nothing to find and no null to beat",
        BY_VALUE | {"value_weights": dict.fromkeys(POSTER, 0.0)},
    ),
    "collaborative": Planted(
        "strong tastes that no published column shows, but the graph of who watched what does",
        BY_VALUE | {"affinity_sd": 2.0},
    ),
    "published": Planted(
        "neither users nor videos differ but in the videos' length, which is published: a graph has nothing to add",
        BY_VALUE
        | {"affinity_sd": 0.0, "user_sd": 0.0, "quality_sd": 0.0, "video_sd": 0.0, "temperature": 0.004},
    ),
    "exogenous": Planted(
        "sessions disturbed for reasons that nothing before them tells",
        BY_VALUE | {"shock": {"sd": 2.0, "endogenous": 0.0}},
    ),
    "endogenous": Planted(
        "most shocks follow from the local hour, which the features show",
        BY_VALUE | {"shock": {"sd": 2.0, "endogenous": 0.8}},
    ),
}  # fmt: skip
