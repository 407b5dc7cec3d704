"""Parameters of the feedback simulator; apart from the module, so that reading them does not import torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.models.feed_options import WATCH_CAP_S
from reelrank.options import Options


class UserFold(Options):
    """Users that a simulator learns from; which they are depends on the seed and the user alone."""

    share: float = Field(1.0, gt=0, le=1, description="of the users in the fold")
    complement: bool = Field(False, description="the users outside of it instead (§4.8: disjoint)")
    seed: int = Field(0, ge=0, description="of the fold")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.complement and self.share == 1:
            raise ValueError("complement of share 1.0 holds no users: lower share")
        return self


class SimulatorOptions(Options):
    """Sizes and losses of the simulator."""

    d_state: int = Field(128, ge=4, le=4096, description="width of ŝ_t, METHODS §4.6")
    d_id: int = Field(32, ge=1, le=1024, description="item id embedding, METHODS §4.3")
    d_attributes: int = Field(16, ge=1, le=1024, description="item attributes, METHODS §4.3")
    d_context: int = Field(8, ge=1, le=256, description="scenario and hour, each [D]")
    hidden: int = Field(64, ge=4, le=4096, description="hidden units of a predictor [D: h_i's]")
    dropout: float = Field(0.3, gt=0, lt=1, description="of f², also when it predicts")
    context: bool = Field(True, description="heads read scenario and hour [D]")
    uncertainty: Literal["siamese", "rnd"] = Field(
        "siamese", description="rnd: f² is a frozen random target, a third net learns to match it"
    )
    kl: Literal["gaussian", "bernoulli"] = Field(
        "gaussian", description="bernoulli: of the binary heads' probabilities"
    )
    kl_in_loss: Literal["none", "rdrop"] = Field(
        "none", description="rdrop minimises the very disagreement that is the uncertainty"
    )
    rdrop_alpha: float = Field(0.1, ge=0, le=100, description="weight of that term")
    variance_decay: float = Field(0.99, ge=0, lt=1, description="of the running σ_k² [D]")
    watch_cap_s: float = Field(WATCH_CAP_S, gt=0, description="watch time is winsorised here, §4.2")
    window: int = Field(128, ge=1, description="rows that one window predicts [D]")
    warm_up: int = Field(50, ge=0, description="rows read before them; history of §4.3")


class SimulatedRewardOptions(Options):
    """Eq. 6: from prediction and uncertainty to the reward of a non-impression."""

    form: Literal["additive", "multiplicative", "exp"] = Field(
        "additive", description="m + κ·KL, m·(1 + κ·KL), m·exp(κ·KL), m = ½(f¹ + f²)"
    )
    kappa: float = Field(0.1, ge=0, le=100, description="κ")
    cap: float = Field(1.0, gt=0, description="KL counts up to here")
    noise_sd: float = Field(0.0, ge=0, description="sd of noise added to r̂, train sds (MM-09)")
    bias: float = Field(0.0, description="added to r̂, train sds (MM-09)")
