"""Sizes and rates of MMRF; the defaults are the paper preset (METHODS §4.3–4.6, Appendix C)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.models.feed_options import RESPONSE_NAMES, FeedEncoderOptions
from reelrank.options import Options
from reelrank.training.options import DeviceName

AGENTS: tuple[str, ...] = RESPONSE_NAMES
Keep = Literal["last", "best"]


def require_agents(agents: tuple[str, ...]) -> None:
    """Refuse what is no list of responses that ends with the main one.

    Raises:
        ValueError: an unknown response, one twice, or another one at the end.
    """
    if unknown := [a for a in agents if a not in AGENTS]:
        raise ValueError(f"unknown responses {unknown}: choose from {', '.join(AGENTS)}")
    if len(set(agents)) != len(agents):
        raise ValueError(f"agents {agents}: each response once")
    if agents[-1:] != AGENTS[-1:]:
        raise ValueError(f"agents {agents}: the main agent {AGENTS[-1]} must be the last")


class ActorOptions(Options):
    """The agents' actors. Variants: ``exchange: concat`` is MMRF-CO, ``none`` is independent, one agent is only_N."""

    agents: tuple[str, ...] = Field(
        AGENTS, description="responses with an agent each, the main one (watch_time) last [S]"
    )
    exchange: Literal["attention", "concat", "none"] = Field(
        "attention", description="u_i: shared attention (Eq. 1), W[h_1‖…] (CO), or nothing"
    )
    hidden: int = Field(64, ge=1, description="width of h_i and u_i [D]")
    heads: int = Field(4, ge=1, description="attention heads M [D: MAAC's]")
    head_hidden: int = Field(64, ge=1, description="hidden width of MLP_i in Eq. 2 and 3 [D]")
    encoder: FeedEncoderOptions = Field(FeedEncoderOptions(), description="state and items")

    @model_validator(mode="after")
    def _known_agents(self) -> Self:
        require_agents(self.agents)
        if self.hidden % self.heads:
            raise ValueError(f"heads {self.heads} must divide hidden {self.hidden}")
        return self


class CriticOptions(Options):
    """The agents' critics."""

    kind: Literal["linear", "mlp_set"] = Field(
        "linear", description="linear in relaxed exposure, or a set network over (x_c, a_ic) [D]"
    )
    hidden: tuple[int, int] = Field((128, 64), description="widths of q_i's layers [D]")
    value_hidden: int = Field(64, ge=1, description="width of V_i's layer [D]")
    credit: Literal["set", "item"] = Field(
        "set",
        description="a logged step of K items: set: one step of K-hot/K and their mean reward; item: each item a one-hot step with its own reward, linear critics only [D]",
    )
    encoder: FeedEncoderOptions = Field(
        FeedEncoderOptions(), description="the critics' own encoder, trained by TD only [D]"
    )

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.hidden) < 1:
            raise ValueError(f"hidden {self.hidden}: every width must be ≥ 1")
        if self.credit == "item" and self.kind != "linear":
            raise ValueError(
                f"credit: item needs kind linear, a {self.kind} critic judges sets: set credit: set"
            )
        return self


class RateOptions(Options):
    """One update of critics and actors, whatever the actors are."""

    gamma: float = Field(0.99, ge=0, lt=1, description="discount γ [A: TSCAC]")
    actor_lr: float = Field(1e-4, gt=0, description="Adam's rate of the actors [A]")
    critic_lr: float = Field(1e-3, gt=0, description="Adam's rate of the critics [A]")
    critic_weight_decay: float = Field(1e-2, ge=0, description="L2 term of the critics [A]")
    tau: float = Field(1e-3, gt=0, le=1, description="share of the online weights that a target takes per step [A]")  # fmt: skip
    temperature: float = Field(1.0, gt=0, description="τ of π_i in training [D]")
    entropy: float = Field(
        0.01, ge=0, description="entropy bonus: a linear critic's maximiser is one-hot [D]"
    )
    bc_coef: float = Field(1e-3, ge=0, description="weight of CE(π_N, shown item) [A-like]")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the actors', and of the critics', gradient")  # fmt: skip


class UpdateOptions(RateOptions):
    """One update of MMRF."""

    beta: float = Field(
        1.0, ge=0, description="β of Eq. 4: weight of Q_N's gradient in the other agents [S: 1]"
    )
    logit_penalty: float = Field(1e-3, ge=0, description="weight of mean(logit²) of Eq. 1 [R: MAAC]")  # fmt: skip
    pcgrad: bool = Field(False, description="project conflicting gradients of the shared parameters")  # fmt: skip


class ReplayOptions(Options):
    """What the policy learns from."""

    batch_size: int = Field(512, ge=2, description="transitions of an update [A]")
    non_impressions: Literal["simulated", "negative", "none"] = Field(
        "simulated", description="Eq. 6; negative: a constant (MMRF-NS); none: MMRF-DA"
    )
    rate: float = Field(0.25, gt=0, le=1, description="share of a request's non-impressions that an epoch samples [S]")  # fmt: skip
    sampling: Literal["uniform", "popularity", "hard"] = Field(
        "uniform",
        description="which [S: at random]; popularity: by (train exposures)^0.75, hard: by the policy's own probability (MM-05)",
    )
    negative_reward: float = Field(-0.1, description="r̂ of ``negative``, train sds [S: −0.1]")
    share: float = Field(0.5, gt=0, lt=1, description="share of a batch that is simulated [D]")
    next_state: Literal["simulated", "copy"] = Field(
        "simulated", description="after a non-impression: history with it, or the logged next one"
    )


class LearningOptions(Options):
    """Algorithm 1."""

    epochs: int = Field(10, ge=1, description="E: rounds of simulator and policy [D]")
    steps: int = Field(30_000, ge=1, description="n: updates of an epoch [D]")
    keep: Keep = Field(
        "last",
        description="last: the policy after the last epoch (Algorithm 1); best: of the epoch that ranks the val rows best (§1.8)",
    )
    patience: int = Field(
        5, ge=1, description="with keep best: epochs without a better validation metric"
    )
    check_every: int = Field(
        100, ge=1, description="updates between two looks at the critics and checkpoints"
    )
    divergence: float = Field(
        10.0, gt=1, description="a critic has diverged when |Q| > this · r_max / (1 − γ) [D: §3.11]"
    )
    conflict_every: int = Field(
        500, ge=0, description="updates between two conflict matrices; 0 = none"
    )
    seed: int = Field(0, ge=0, description="seed of initialisation, batches and non-impressions")
    device: DeviceName = Field("auto", description="auto: CUDA, else CPU")
