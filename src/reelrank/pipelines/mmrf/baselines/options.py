"""Sizes and rates of MMRF's baselines; the defaults are the paper preset (METHODS §4.7, Appendix B)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.models.feed_options import FeedEncoderOptions
from reelrank.options import Options
from reelrank.pipelines.mmrf.options import AGENTS, CriticOptions, RateOptions, require_agents


class ResponseWeights(Options):
    """λ_k of one utility Σ_k λ_k r_k of the raw responses [A: TSCAC]; hate is not negated before."""

    click: float = Field(0.1, description="per click")
    like: float = Field(0.1, description="per like")
    follow: float = Field(0.1, description="per follow")
    comment: float = Field(0.1, description="per comment")
    hate: float = Field(-0.1, description="per hate")
    long_view: float = Field(0.0, description="per long view [A: not among TSCAC's]")
    watch_time_10s: float = Field(30.0, description="per 10 s watched, 180 s at most")

    @property
    def in_order(self) -> tuple[float, ...]:
        """(7,) as ``models.feed.RESPONSES``, the last per second."""
        values = list(self.model_dump().values())
        return (*values[:-1], values[-1] / 10)

    @model_validator(mode="after")
    def _not_nothing(self) -> Self:
        if not any(self.in_order):
            raise ValueError("every response weight is 0: nothing to learn from")
        return self


class SupervisedOptions(Options):
    """How a baseline without critics learns; batch size, patience and seed are those of all methods."""

    epochs: int = Field(20, ge=1, description="passes over the train decisions at most [D]")
    lr: float = Field(1e-4, gt=0, description="Adam's first rate, cosine to a hundredth [A: 1e-4]")
    weight_decay: float = Field(1e-5, ge=0, description="L2 term of the gradient [D]")


class BCOptions(SupervisedOptions):
    """Behaviour cloning."""

    hidden: tuple[int, ...] = Field(
        (512, 256, 256), min_length=1, description="widths of the MLP over the state [A]"
    )
    encoder: FeedEncoderOptions = Field(FeedEncoderOptions(), description="state and items")


class FieldOptions(SupervisedOptions):
    """What Wide & Deep and DeepFM share: fields of codes, and sample weights ω_t."""

    lr: float = Field(1e-3, gt=0, description="Adam's first rate, cosine to a hundredth [D]")
    embedding: int = Field(16, ge=1, description="width of a field's embedding [A]")
    hidden: tuple[int, ...] = Field((64, 32), min_length=1, description="widths of the MLP [A]")
    dropout: float = Field(0.2, ge=0, lt=1, description="after each layer of the MLP [A]")
    history: int = Field(50, ge=1, description="last rows whose items' mean is a field [D]")
    weights: ResponseWeights = Field(ResponseWeights(), description="λ of the sample weights")


class WideDeepOptions(FieldOptions):
    """Wide & Deep."""

    buckets: int = Field(
        65_536, ge=2, description="hash buckets of the wide part's crossed codes [D]"
    )


class DeepFMOptions(FieldOptions):
    """DeepFM."""


class LTROptions(SupervisedOptions):
    """Pairwise RankNet, the control of the A/B test."""

    lr: float = Field(1e-3, gt=0, description="Adam's first rate, cosine to a hundredth [D]")
    hidden: tuple[int, ...] = Field(
        (64, 64), min_length=1, description="widths of the scorer [D: MMRF's actors']"
    )
    encoder: FeedEncoderOptions = Field(FeedEncoderOptions(), description="state and items")
    weights: ResponseWeights = Field(ResponseWeights(), description="λ of the utility")
    window: int = Field(
        16, ge=2, description="pairs are shown items of one user, in runs of so many decisions [D]"
    )


class ScorerOptions(Options):
    """Item-wise actors without exchange; as wide as MMRF's, so that methods differ in how they learn [D]."""

    hidden: tuple[int, ...] = Field(
        (64, 64), min_length=2, description="widths of the scorer of [b_t ‖ x_c] [D]"
    )
    encoder: FeedEncoderOptions = Field(FeedEncoderOptions(), description="state and items")


class CriticMethodOptions(Options):
    """What the baselines with critics share."""

    agents: tuple[str, ...] = Field(
        AGENTS, description="responses with a critic each, the main one (watch_time) last [S]"
    )
    actor: ScorerOptions = Field(ScorerOptions(), description="the actors")
    critic: CriticOptions = Field(CriticOptions(), description="a critic per response")
    update: RateOptions = Field(RateOptions(), description="rates")

    @model_validator(mode="after")
    def _known_agents(self) -> Self:
        require_agents(self.agents)
        actor, critic = self.actor.encoder.history, self.critic.encoder.history
        if actor != critic:
            raise ValueError(
                f"actor.encoder.history {actor} and critic.encoder.history {critic} must be equal: they read one batch"
            )
        return self


class ParetoOptions(CriticMethodOptions):
    """Policy gradient towards Pareto stationarity (PDPG): one actor."""

    solver: Literal["min_norm", "code"] = Field(
        "min_norm",
        description="weights by Frank–Wolfe on the simplex, or the author code's projected step [A]",
    )
    unit_gradients: bool = Field(
        False,
        description="solve for gradients of length 1: else a critic that has hardly learnt takes all weight [D]",
    )
    solve_every: int = Field(
        1, ge=1, description="updates between two solutions; each takes a backward pass per agent"
    )
    code_rate: float = Field(1e-10, gt=0, description="solver code: step of the weights [A]")
    code_clip: float = Field(1000.0, gt=0, description="solver code: largest ⟨g, g_i⟩ [A]")


class ClosedFormOptions(Options):
    """TSCAC, stage 2: a tilt of the auxiliary policies by the main advantage."""

    slack: float = Field(
        0.5,
        gt=0,
        description="nats by which KL(π‖π_i) may exceed that of the policies' geometric mean: ε_i [D]",
    )
    multiplier: float = Field(
        1.0, gt=0, description="first λ, the same for all constraints [D; R: 1e-4, other units]"
    )
    dual_rate: float = Field(
        0.1, ge=0, description="step of ln λ per nat of the worst violation; 0 = λ stays [D]"
    )
    bounds: tuple[float, float] = Field((0.05, 100.0), description="smallest and largest λ [D]")
    weight_cap: float = Field(
        10.0, ge=1, description="largest weight of a sample, in means of its batch [D: as NCIS]"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.bounds[0] <= self.bounds[1]:
            raise ValueError(f"bounds {self.bounds}: 0 < smallest ≤ largest")
        return self


class CodeOptions(Options):
    """TSCAC as in its author's code: DDPG with weighted critics, then DDPG near its scores [A]."""

    weights: ResponseWeights = Field(ResponseWeights(), description="λ of stage 1's critics")
    main_weight: float = Field(30.0, gt=0, description="weight of play time (10 s) in stage 2 [A]")
    sigma: float = Field(30.0, gt=0, description="σ of the ratio, in units of `span` [A]")
    span: float = Field(
        149.0, gt=0, description="a score's sigmoid is stretched to 0 … span [A: item index 0–149]"
    )
    kl_coef: float = Field(
        1e-4, ge=0, description="weight of ‖a − a_stage1‖² [A: README 1e-4, file default 10]"
    )


class TSCACOptions(CriticMethodOptions):
    """Two-stage constrained actor–critic; V_i of ``closed_form`` have ``critic``'s encoder and ``value_hidden``."""

    variant: Literal["closed_form", "code"] = Field("closed_form", description="stages 1 and 2")
    stage1_share: float = Field(
        0.375, gt=0, lt=1, description="share of the epochs that stage 1 takes [A: 300 k of 800 k]"
    )
    ratio_cap: float = Field(
        10.0, ge=1, description="closed_form, stage 1: largest π_i/π_b of a sample [D]"
    )
    closed_form: ClosedFormOptions = Field(ClosedFormOptions(), description="stage 2")
    code: CodeOptions = Field(CodeOptions(), description="both stages of variant code")

    @model_validator(mode="after")
    def _constrained(self) -> Self:
        if len(self.agents) < 2:
            raise ValueError("agents: TSCAC needs an auxiliary response beside the main one")
        return self


class MASSAOptions(CriticMethodOptions):
    """Multi-agent soft signal-actor."""

    signal: int = Field(16, ge=1, description="width of z_i [R]")
    signal_hidden: int = Field(64, ge=1, description="hidden width of ζ [D]")
    signal_entropy: float = Field(0.01, ge=0, description="entropy bonus of ζ [R]")

    @model_validator(mode="after")
    def _linear(self) -> Self:
        if self.critic.kind != "linear":
            raise ValueError("critic.kind: MASSA's critics read the signal and are linear")
        return self


class BaselineOptions(Options):
    """All seven."""

    bc: BCOptions = Field(BCOptions(), description="behaviour cloning")
    wide_deep: WideDeepOptions = Field(WideDeepOptions(), description="Wide & Deep")
    deepfm: DeepFMOptions = Field(DeepFMOptions(), description="DeepFM")
    pareto: ParetoOptions = Field(ParetoOptions(), description="PDPG")
    tscac: TSCACOptions = Field(TSCACOptions(), description="two-stage constrained actor–critic")
    massa: MASSAOptions = Field(MASSAOptions(), description="signal actors")
    ltr: LTROptions = Field(LTROptions(), description="RankNet")
