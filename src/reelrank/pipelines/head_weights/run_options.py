"""What a run of the pipeline is made of: sessions, embedding, sizes of the studies, and what others published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reelrank.options import Options
from reelrank.pipelines.head_weights.options import Method

MainEmbedding = Literal["l2", "unnormalised", "whitened", "category", "heads", "whitened_heads"]
EmbeddingName = MainEmbedding | Literal["text"]
Four = tuple[float, float, float, float]


class RankedSetOptions(Options):
    """Which sessions are ranked, and how their candidates are scored."""

    min_length: int = Field(5, ge=2, description="rows that a session must have [A]")
    sessions: int = Field(
        5000, ge=10, description="sessions of val and of test at most, drawn [METHODS §1.7]"
    )
    requests: int = Field(
        5000, ge=10, description="requests of train, val and test at most, drawn (generated worlds)"
    )
    seed: int = Field(0, ge=0, description="of the draws")
    block_rows: int = Field(65_536, ge=1, description="pairs predicted at once; bounds memory")


class VariantOptions(Options):
    """GV-05, GV-06, GV-07 and GV-11: other searches, embeddings, candidates, sessions."""

    sessions: int = Field(500, ge=10, description="sessions of val and of test in a variant [D]")
    methods: tuple[Method, ...] = Field(
        ("cma", "nelder_mead", "tpe", "cmaes_sampler", "soft_topk"),
        min_length=1,
        description="searches of the hard loss that are compared",
    )
    trials: int = Field(
        200, ge=1, description="directions, Optuna trials and Adam steps of each [S]"
    )
    embeddings: tuple[EmbeddingName, ...] = Field(
        ("l2", "unnormalised", "whitened", "category", "heads", "whitened_heads", "text"),
        min_length=1,
        description="what sets are compared by; text where the source has it",
    )
    temperatures: tuple[float, ...] = Field(
        (0.1, 0.5, 1.0, 2.0, 4.0),
        min_length=1,
        description="noise of planted rankings, sd of the score",
    )
    repetitions: int = Field(3, ge=1, description="planted rankings of each noise")
    lengths: tuple[int, ...] = Field(
        (5, 8, 12), min_length=1, description="least rows of a session"
    )
    depths: tuple[int, ...] = Field((3, 5), description="only the first so many shown items count")
    gaps_s: tuple[int, ...] = Field(
        (900, 1800, 3600), min_length=1, description="longest gaps inside a session, seconds"
    )
    replicates: int = Field(500, ge=20, description="resamples of users for an interval")
    seed: int = Field(0, ge=0, description="of subsamples, planted rankings and resamples")


class PublishedOptions(Options):
    """What the poster and its author's code give, shown beside our numbers."""

    weights: Four = Field(description="w* of complete, long, rewatch, neg [S]")
    category_weights: Four = Field(description="optimum of the category cross-entropy [A]")
    loss_start: float = Field(gt=0, description="embedding loss at the category optimum [A]")
    loss_end: float = Field(gt=0, description="embedding loss at w* [A]")
    category_loss: float = Field(gt=0, description="category cross-entropy at its optimum [A]")
