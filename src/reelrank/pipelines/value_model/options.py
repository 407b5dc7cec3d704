"""Sizes of the value models; the defaults are METHODS' (§6.4, Appendix C)."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from reelrank.features.heads import HEADS
from reelrank.features.splits import SplitOptions
from reelrank.features.value_features import Group
from reelrank.options import Options
from reelrank.training.options import DeviceName, TrainOptions

NO_CLIPPING = 1e9  # largest norm of the gradient: [A] clips nothing


class EdgeMlpOptions(Options):
    """EdgeMLP: features of user, item and edge in, four logits out."""

    hidden: tuple[int, ...] = Field(
        (128, 128, 64), description="widths of the hidden layers [A: 3 hidden + output]"
    )
    embedding_scale: float = Field(
        8.0, gt=0, description="width of a category's embedding = scale · cardinality^¼ [A]"
    )
    embedding_min: int = Field(4, ge=1, description="least width of an embedding [A]")
    embedding_max: int = Field(32, ge=1, description="largest width of an embedding [A]")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if min(self.hidden, default=0) < 1:
            raise ValueError(f"hidden {self.hidden}: at least one layer, every width ≥ 1")
        return self

    def embedding_dim(self, cardinality: int) -> int:
        """Width of the embedding of a column with that many codes. Source: METHODS §6.3."""
        width = round(self.embedding_scale * math.sqrt(math.sqrt(cardinality)))
        return min(self.embedding_max, max(self.embedding_min, width))


class GnnOptions(EdgeMlpOptions):
    """The same with vectors of user and item from graph convolutions over the train edges."""

    width: int = Field(128, ge=1, description="H: width of node vectors, 64 or 128 [S]")
    layers: int = Field(3, ge=1, description="graph convolutions [S]")
    graph: Literal["honest", "poster_literal"] = Field(
        "honest",
        description="honest: unique train pairs, both directions; poster_literal: user→item edges of all splits with multiplicity [S]",
    )
    test_context: Literal["train", "train_val"] = Field(
        "train",
        description="parts whose pairs are in the honest graph when test is predicted [D: as trained]",
    )


class LogisticOptions(Options):
    """One logistic regression per head."""

    max_iter: int = Field(1000, ge=1, description="iterations of L-BFGS at most [A]")
    c: float = Field(
        1.0, gt=0, description="inverse strength of the L2 penalty [D: scikit-learn's]"
    )
    max_rows: int | None = Field(
        None, ge=1, description="train edges drawn at most; null: all [D: bounds memory]"
    )
    seed: int = Field(0, ge=0, description="seed of that draw")


class FittingOptions(Options):
    """How the networks learn: one "epoch" of the paper is one step [A]."""

    lr: float = Field(1e-3, gt=0, description="Adam's learning rate, constant [A]")
    batch_edges: int | None = Field(
        4096, ge=1, description="train edges drawn for a step [A]; null: all of them, in every step"
    )
    max_steps: int = Field(2000, ge=1, description="steps at most [A]")
    evaluate_every: int = Field(50, ge=1, description="steps between evaluations on val [D]")
    patience: int = Field(20, ge=1, description="evaluations without a better mean AUC [A: 20]")
    seed: int = Field(0, ge=0, description="seed of initialisation and batches")
    checkpoint_every_steps: int = Field(
        500, ge=1, description="steps between checkpoints of an unfinished run, beside evaluations"
    )
    block_rows: int = Field(65_536, ge=1, description="edges predicted at once; bounds memory")
    device: DeviceName = Field("auto", description="auto: CUDA, else CPU")

    @model_validator(mode="after")
    def _evaluations_divide(self) -> Self:
        if self.max_steps % self.evaluate_every:
            raise ValueError(
                f"evaluate_every {self.evaluate_every} must divide max_steps {self.max_steps}"
            )
        return self

    def loop(self) -> TrainOptions:
        """Options of the shared loop, whose epoch is the stretch between two evaluations."""
        return TrainOptions(
            epochs=self.max_steps // self.evaluate_every,
            batch_size=1,
            lr=self.lr,
            lr_min=self.lr,
            weight_decay=0,
            grad_clip=NO_CLIPPING,
            patience=self.patience,
            seed=self.seed,
            checkpoint_every_steps=self.checkpoint_every_steps,
            device=self.device,
        )


Variant = Literal["logistic", "edge_mlp", "gnn_64", "gnn_128"]
Network = Literal["edge_mlp", "gnn_64", "gnn_128"]
HeadAucs = tuple[float, float, float, float]
VARIANTS: tuple[Variant, ...] = ("logistic", "edge_mlp", "gnn_64", "gnn_128")
BASELINES: tuple[Variant, ...] = ("logistic", "edge_mlp")  # models without a graph
GROUPS: tuple[Group, ...] = ("session", "user", "item", "context", "history")


class EdgeOptions(Options):
    """Which interactions are labelled, and which are in the graph."""

    share: float = Field(
        1.0, gt=0, le=1, description="share of interactions with labels, drawn row by row [D]"
    )
    seed: int = Field(0, ge=0, description="seed of that draw")
    graph: Literal["all", "labelled"] = Field(
        "all",
        description="pairs that graphs are made of: of all interactions, or of the labelled ones alone (CPU, METHODS §1.7)",
    )


class ValueModels(Options):
    """Block ``models``: the variants of the system."""

    logistic: LogisticOptions = Field(LogisticOptions(), description="one regression per head")
    edge_mlp: EdgeMlpOptions = Field(EdgeMlpOptions(), description="no graph")
    gnn_64: GnnOptions = Field(GnnOptions(width=64), description="node vectors of width 64 [S]")
    gnn_128: GnnOptions = Field(GnnOptions(width=128), description="of width 128 [S]")

    def of(self, variant: Variant) -> LogisticOptions | EdgeMlpOptions:
        """Options of one variant."""
        options: LogisticOptions | EdgeMlpOptions = getattr(self, variant)
        return options


class EvaluationOptions(Options):
    """How predictions are judged."""

    replicates: int = Field(1000, ge=20, description="resamples of users for an interval")
    bins: int = Field(15, ge=2, description="bins of equal mass of the reliability table [S]")
    seed: int = Field(0, ge=0, description="seed of the resamples")


class StudyOptions(Options):
    """Sizes of GV-01 (other protocols), GV-02, GV-03 and GV-04."""

    fitting: FittingOptions = Field(FittingOptions(), description="of every model of a study")
    replicates: int = Field(500, ge=20, description="resamples of users for an interval")
    last_burst_out: SplitOptions = Field(
        SplitOptions(rule="last_burst_out"), description="honest split beside the headline (GV-01)"
    )
    tiny_random: SplitOptions = Field(
        SplitOptions(rule="tiny_random"),
        description="the published split, and the leak of a random one; sample_share is of the labelled rows",
    )
    protocol_variants: tuple[Variant, ...] = Field(
        VARIANTS, min_length=1, description="models of the other protocols (GV-01)"
    )
    leaks: Literal["gnn_64", "gnn_128"] = Field(
        "gnn_128", description="model that gets the leaks (GV-02); a graph is needed"
    )
    sweeps: Network = Field("gnn_128", description="model of the sweeps (GV-03)")
    learning_rates: tuple[float, ...] = Field(
        (1e-4, 3e-4, 1e-3, 3e-3), min_length=1, description="the report's grid [A]"
    )
    batches: tuple[int, ...] = Field(
        (1024, 2048, 4096, 8192), min_length=1, description="edges of a step: the report's grid [A]"
    )
    ablation: Variant = Field("gnn_128", description="model that loses feature groups (GV-04)")
    groups: tuple[Group, ...] = Field(
        GROUPS, min_length=1, description="groups that are left out in turn (GV-04)"
    )


class TargetAucs(Options):
    """Test AUC by head, in the order complete, long, rewatch, neg; null = not published."""

    logistic: HeadAucs | None = Field(None, description="logistic regression")
    edge_mlp: HeadAucs | None = Field(None, description="EdgeMLP")
    gnn_64: HeadAucs | None = Field(None, description="GNN of width 64")
    gnn_128: HeadAucs | None = Field(None, description="GNN of width 128")

    def of(self, variant: str) -> dict[str, float]:
        """AUC of each head and their ``mean``; empty where nothing is published."""
        aucs: HeadAucs | None = getattr(self, variant)
        if aucs is None:
            return {}
        return {**dict(zip(HEADS, aucs, strict=True)), "mean": sum(aucs) / len(aucs)}


class TargetOptions(Options):
    """What others measured, shown beside our numbers."""

    published: TargetAucs = Field(description="the poster's table [S]")
    author_day_split: TargetAucs = Field(
        description="the author's public code on the calendar-day split [A]"
    )
