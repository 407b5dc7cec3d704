"""Sizes and rates of RUIE and its baselines; defaults are METHODS' (§5, Appendix B and C)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.models.sequence_options import (
    BEHAVIOURS,
    CaserOptions,
    EncoderOptions,
    GRU4RecOptions,
    NextItNetOptions,
    SASRecOptions,
)
from reelrank.options import Options

__all__ = [
    "CaserOptions", "DinOptions", "EncoderOptions", "GRU4RecOptions", "GateOptions", "NextItNetOptions", "PepNetOptions",
    "PopularityOptions", "QOptions", "RewardOptions", "RuieOptions", "SASRecOptions", "StarOptions", "TripletOptions",
]  # fmt: skip


class RewardOptions(Options):
    """Reward of an event: Σ weight · feedback."""

    click: float = Field(1.0, description="weight of a click [S]")
    like: float = Field(3.0, description="weight of a like [S]")
    follow: float = Field(3.0, description="weight of a follow [S]")
    forward: float = Field(2.0, description="weight of a share [S]")

    def weights(self) -> tuple[float, ...]:
        """In the order of ``BEHAVIOURS``."""
        return tuple(getattr(self, name) for name in BEHAVIOURS)


class QOptions(Options):
    """Double Q-learning of the next scenario."""

    gamma: float = Field(0.5, ge=0, lt=1, description="discount [A]")
    head: Literal["linear", "shared_softmax"] = Field(
        "linear",
        description="linear: Q = z, p from a head of its own [D]; shared_softmax: softmax(z) is both [A: the released form]",
    )
    target: Literal["double_q", "history_length", "future_length"] = Field(
        "double_q",
        description="what Q learns: the double-Q target, or log(1 + train events before, or after) in its place (RU-09)",
    )
    weight: float = Field(1.0, ge=0, description="of L_Q; 0 switches reinforcement off")
    scenario_weight: float = Field(
        1.0,
        ge=0,
        description="λ_sc, of the next scenario's cross-entropy [D: else p is never trained]",
    )


class GateOptions(Options):
    """How the Q-signal weighs the contrastive loss."""

    form: Literal["one_minus_p", "inverse_p", "sigmoid_q", "none"] = Field(
        "one_minus_p", description="g = 1/(1−p) [A], 1/p [A: two files], 2σ(Q), or 1"
    )
    attached: bool = Field(False, description="let the loss move the gate [A: released code]")
    clip: tuple[float, float] = Field((1.0, 10.0), description="bounds of g [D]")
    normalise: Literal["scenario", "batch", "none"] = Field(
        "scenario", description="g is divided by its mean within each scenario of the batch [D]"
    )
    epsilon: float = Field(1e-6, gt=0, description="ε of the denominators")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.clip[0] < self.clip[1]:
            raise ValueError(f"clip {self.clip}: two numbers, 0 < low < high")
        return self


class TripletOptions(Options):
    """The contrastive loss between intent, next item and negatives."""

    distance: Literal["cosine", "l2", "dot", "infonce"] = Field(
        "cosine", description="cosine [D], l2 [A: paper-era], dot, infonce [A: present in code]"
    )
    margin: float = Field(0.5, ge=0, description="m; 70 with l2 [A], 0.5 with cosine [D]")
    temperature: float = Field(0.1, gt=0, description="τ of infonce [A]")
    negatives: int = Field(10, ge=1, description="random items per place [A]")
    weight: float = Field(1.0, ge=0, description="of the gated loss")


class RuieOptions(Options):
    """RUIE: backbone, contextual Q estimator, intent."""

    backbone: EncoderOptions = Field(
        NextItNetOptions(), discriminator="name", description="which encoder (RU-12)"
    )
    heads: int = Field(4, ge=1, description="heads of the contextual attention [A]")
    attention: bool = Field(True, description="false: no contextual attention (RU-02)")
    q_hidden: int = Field(32, ge=1, description="hidden width of the Q and p heads [A]")
    intent_hidden: tuple[int, ...] = Field((64, 64), description="hidden widths of the intent [A]")
    softmax_negatives: int | None = Field(
        1024, ge=1, description="items that share a step's softmax [D]; null: all items"
    )
    softmax_weight: float = Field(1.0, ge=0, description="λ_CE [A: 0 paper-era, 1 released]")
    ranks_by: Literal["intent", "backbone"] = Field(
        "intent", description="what ranks items: the intent, or the backbone's output alone"
    )
    q: QOptions = Field(QOptions(), description="double Q-learning")
    gate: GateOptions = Field(GateOptions(), description="the gate")
    triplet: TripletOptions = Field(TripletOptions(), description="the contrastive loss")
    reward: RewardOptions = Field(RewardOptions(), description="what Q learns")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.backbone.dim % self.heads:
            raise ValueError(f"heads {self.heads} must divide backbone.dim {self.backbone.dim}")
        return self


class DinOptions(Options):
    """Deep interest network: attention of each candidate over the history."""

    dim: int = Field(64, ge=1, description="width of item vectors [one protocol]")
    attention_hidden: tuple[int, ...] = Field((256, 256), description="attention MLP [R]")
    hidden: tuple[int, ...] = Field((256, 256), description="MLP of the score [R]")
    negatives: int = Field(4, ge=1, description="random items per event [METHODS §5.6]")


class PepNetOptions(Options):
    """PEPNet: gates of embeddings and of hidden layers by scenario and user."""

    dim: int = Field(64, ge=1, description="width of item vectors [one protocol]")
    user_dim: int = Field(16, ge=1, description="width of a user's vector [D]")
    scenario_dim: int = Field(16, ge=1, description="width of a scenario's vector [D]")
    hidden: tuple[int, ...] = Field((128, 64), description="hidden layers [D]")


class StarOptions(Options):
    """STAR: partitioned norm, and weights shared by the scenarios times weights of their own."""

    dim: int = Field(64, ge=1, description="width of item vectors [one protocol]")
    hidden: tuple[int, ...] = Field((128, 64), description="hidden layers [D]")
    auxiliary_dim: int = Field(
        16, ge=1, description="width of the auxiliary network's scenario vector [D]"
    )
    momentum: float = Field(0.01, gt=0, le=1, description="of the running moments of each scenario")


class PopularityOptions(Options):
    """Train events per item."""

    by_scenario: bool = Field(False, description="count within the request's scenario")
