"""Sizes of MT-DQN and its baselines; the defaults are the paper's where it states them (METHODS Appendix C)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.models.options import CorruptionOptions, FusionOptions, TGNNOptions
from reelrank.options import Options


class HeadOptions(Options):
    """The fully connected layers over a state, shared by all trained models."""

    hidden: tuple[int, int] = Field(
        (256, 128), description="widths of the trunk: 3 FC layers to Q [S], 512→256→128→1 [D]"
    )
    value_hidden: int = Field(128, ge=1, description="width of the on-policy value head [D]")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.hidden) < 1:
            raise ValueError(f"hidden {self.hidden}: every width must be ≥ 1")
        return self


class MTDQNOptions(Options):
    """MT-DQN: fusion, temporal graph network, Q-network."""

    fusion: FusionOptions = Field(FusionOptions(), description="cross-modal transformer, Eq. 4–6")
    tgnn: TGNNOptions = Field(TGNNOptions(), description="temporal graph network, Eq. 11")
    head: HeadOptions = Field(HeadOptions(), description="Q-network and the other heads")
    item_graph_state: bool = Field(
        True, description="the item's graph vector h_v is in the state beside f and h_u [D]"
    )
    link_head: bool = Field(False, description="a head for the optional link loss [D]")
    corruption: CorruptionOptions | None = Field(
        None, description="modalities corrupted in training (METHODS §3.5); null: none [D]"
    )

    @model_validator(mode="after")
    def _link_needs_items(self) -> Self:
        if self.link_head and not self.item_graph_state:
            raise ValueError("link_head needs item_graph_state: there is no h_v to link to")
        return self


class SupervisedMTDQNOptions(MTDQNOptions):
    """MT-DQN without reinforcement (MT-02): the same states, ranked by their behaviours."""

    behaviour_weights: tuple[float, float, float] = Field(
        (1.0, 0.5, 0.5), description="score = Σ weight · p over watch, like, share [D]"
    )


class BehaviourMTDQNOptions(MTDQNOptions):
    """MT-DQN whose action is a behaviour (MT-15): Q has a value for each of watch, like, share."""


class ConcatModalOptions(Options):
    """Concat-Modal [S]: mean-pooled modalities, no attention, no graph, supervised heads."""

    d_f: int = Field(256, ge=1, description="width of f = MLP([z_v‖z_a‖z_t]) [D: as MT-DQN]")
    d_user: int = Field(128, ge=1, description="width of the user's static attributes [D: as d_h]")
    attribute_dim: int = Field(8, ge=1, description="width of a static attribute's embedding [D]")
    dropout: float = Field(0.1, ge=0, lt=1, description="on f's hidden layer [D]")
    head: HeadOptions = Field(HeadOptions(), description="the same layers as MT-DQN's")
    behaviour_weights: tuple[float, float, float] = Field(
        (1.0, 0.5, 0.5), description="score = Σ weight · p over watch, like, share [D]"
    )


class VanillaDQNOptions(Options):
    """Vanilla-DQN [S]: ids and the last items, no modalities, no graph."""

    d_id: int = Field(128, ge=1, description="width of an id embedding [D: as d_h]")
    history: int = Field(20, ge=1, description="last items that are averaged [S]")
    head: HeadOptions = Field(HeadOptions(), description="the same 3 FC layers as MT-DQN's [S]")


class PopularityOptions(Options):
    """Train long views per item, with smoothed behaviour rates."""

    smoothing: float = Field(
        20.0, gt=0, description="rows of the overall rate added to each item's own [D]"
    )


class LearningOptions(Options):
    """Targets and losses."""

    gamma: float = Field(0.95, ge=0, lt=1, description="discount γ [S]")
    reward: Literal["composite", "immediate"] = Field(
        "composite",
        description="reward of the Q target: all three parts [S], or r_immediate alone (Vanilla-DQN) [S]",
    )
    r_max: float = Field(
        2.5,
        gt=0,
        description="largest reward: targets are capped at r_max/(1−γ) [D: 2 of r_immediate + λ1 0.3 + λ2 0.2]",
    )
    double: bool = Field(
        False, description="double Q: the trained net chooses, the target net values [S: no]"
    )
    target_update: Literal["hard", "soft"] = Field(
        "hard",
        description="hard: copied every target_every steps; soft: moved by tau each step [D]",
    )
    target_every: int = Field(1000, ge=1, description="steps between copies of the target net [D]")
    tau: float = Field(0.005, gt=0, le=1, description="share of the trained net in a soft step [D]")
    negatives: int = Field(
        20,
        ge=0,
        description="items drawn beside the logged next one for the max, train pop^0.75 [D]",
    )
    huber_delta: float = Field(1.0, gt=0, description="error from which L_DQN is linear [D]")
    link_weight: float = Field(0.1, ge=0, description="weight of the link loss, 1 negative [D]")
    confidence_weight: float = Field(
        0.1,
        ge=0,
        description="weight of L_conf, where the model has confidence and corruption [D: METHODS §3.5]",
    )
    cql_alpha: float = Field(
        0.0, ge=0, description="conservative term against over-estimation offline; 0, 0.1 or 1 [D]"
    )
    block_rows: int = Field(4096, ge=1, description="rows scored at once in validation")

    @property
    def limit(self) -> float:
        """Largest |y|: r_max/(1−γ)."""
        return self.r_max / (1 - self.gamma)


class ListOptions(Options):
    """What counts as one list."""

    list_by: Literal["auto", "session", "user_day"] = Field(
        "auto", description="auto: user_day where the part's median session holds fewer than 2 rows"
    )


class PredictOptions(Options):
    """How much is predicted at once, and of what."""

    block_rows: int = Field(4096, ge=1, description="impressions, list rows or item states at once")
    block_scores: int = Field(
        500_000, ge=1, description="context × item pairs of the catalogue at once; bounds memory"
    )
    contexts: int = Field(
        1000,
        ge=1,
        description="test list starts at which the whole catalogue is ranked, at most [D]",
    )
    top: int = Field(20, ge=1, description="places of the catalogue ranking that are kept")
    item_state_hours: int = Field(
        24,
        ge=1,
        description="item states for the catalogue are made this often, at local midnight [D: as an index in production]",
    )
    seed: int = Field(0, ge=0, description="seed of the sample of contexts")


class EvaluateOptions(Options):
    """How predictions are judged."""

    k: int = Field(5, ge=1, description="length of the ranking that counts [S: NDCG@5]")
    replicates: int = Field(1000, ge=50, description="bootstrap resamples of users [D]")
    seed: int = Field(0, ge=0, description="seed of the resamples")


class SizeOptions(Options):
    """Input sizes that ``describe_sizes`` assumes, before any data is read."""

    n_users: int = Field(ge=1, description="users")
    n_items: int = Field(ge=1, description="items")
    token_lengths: tuple[int, int, int] = Field(description="tokens of visual, audio, text")
    token_dims: tuple[int, int, int] = Field(description="width of a token of visual, audio, text")
    user_cardinalities: tuple[int, ...] = Field(description="codes of each user attribute")
