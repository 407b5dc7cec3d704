"""Sizes of the student, and how networks are distilled, pruned, quantised and timed. Source: METHODS §9 MT-05, MT-06."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from reelrank.options import Options
from reelrank.training.options import TrainOptions

TEACHER = "mt_dqn"  # the variant, as its own pipeline calls it
STUDENT = "student"
SHARES = (30, 50, 70)  # per cent that pruning takes away [S]
MAGNITUDE = tuple(f"magnitude_{share}" for share in SHARES)
STRUCTURED = tuple(f"structured_{share}" for share in SHARES)
INT8 = ("int8", "student_int8")
EXPORTED = {"exported": TEACHER, "student_exported": STUDENT}  # graph: what it was exported from
WHOLE, CACHED = "whole", "whole, f cached"  # what is timed of a call, beside its modules
MODULES = ("fusion", "graph", "heads")
VARIANTS = (STUDENT, *MAGNITUDE, *STRUCTURED, *INT8)


class StudentFusionOptions(Options):
    """What differs from the teacher's fusion."""

    d_model: int = Field(96, ge=4, description="width of a token [S: METHODS MT-06]")
    layers: int = Field(2, ge=1, description="encoder layers [S: METHODS MT-06]")
    heads: int = Field(4, ge=1, description="attention heads [D: METHODS §3.2, small]")
    d_f: int = Field(96, ge=1, description="width of the fused vector f [D]")


class StudentGraphOptions(Options):
    """What differs from the teacher's graph network."""

    d_h: int = Field(96, ge=1, description="width of a node state [D: as d_model]")
    layers: int = Field(1, ge=1, description="temporal attention layers [D]")
    fanout: tuple[int, ...] = Field(
        (10,), description="last events that each layer attends to, top layer first [D]"
    )
    time_dim: int = Field(16, ge=1, description="width of the time encoding [D]")


class StudentHeadOptions(Options):
    """What differs from the teacher's heads."""

    hidden: tuple[int, int] = Field((128, 64), description="widths of the trunk [D]")
    value_hidden: int = Field(64, ge=1, description="width of the on-policy value head [D]")


class StudentOptions(Options):
    """A smaller network of the teacher's kind; what is not named here is the teacher's."""

    fusion: StudentFusionOptions = Field(StudentFusionOptions(), description="transformer")
    tgnn: StudentGraphOptions = Field(StudentGraphOptions(), description="graph network")
    head: StudentHeadOptions = Field(StudentHeadOptions(), description="Q-network, other heads")

    def of(self, teacher: Mapping[str, Any]) -> dict[str, Any]:
        """JSON options of the student of a teacher with these JSON options."""
        own = self.model_dump(mode="json")
        return {**teacher, **{part: {**teacher[part], **own[part]} for part in own}, "link_head": False}  # fmt: skip


class DistillationOptions(Options):
    """What a network learns from its teacher: KL of the behaviours, squared error of Q."""

    temperature: float = Field(1.0, gt=0, description="logits are divided by it in the KL [D]")
    kl_weight: float = Field(1.0, ge=0, description="weight of the behaviours' KL [D]")
    q_weight: float = Field(
        1.0, ge=0, description="weight of Q's squared error, in variances of the teacher's Q [D]"
    )
    candidates: int = Field(
        128, ge=2, description="videos of the catalogue that a batch is compared on [D]"
    )
    validation_rows: int = Field(256, ge=1, description="val rows on which agreement is measured")


class PruningOptions(Options):
    """How a pruned teacher recovers."""

    epochs: int = Field(1, ge=1, description="passes of distillation after the cut [D]")
    lr: float = Field(3e-4, gt=0, description="first learning rate of them [D]")


class QuantisationOptions(Options):
    """What is stored and multiplied in eight bits."""

    parts: tuple[Literal["fusion", "tgnn", "heads"], ...] = Field(
        ("fusion",),
        description="of the network [D: a graph's products have too few rows, rounding costs more than it saves]",
    )
    min_weights: int = Field(
        4096, ge=1, description="linear maps with fewer weights stay float: nothing is gained [D]"
    )


class UntrainedOptions(Options):
    """Sizes whose latency is measured with random weights: time does not depend on what was learnt."""

    fusion: dict[str, int | float | str] = Field(description="the teacher's fusion")
    tgnn: dict[str, int | float | list[int]] = Field(description="the teacher's graph network")
    head: dict[str, int | list[int]] = Field(description="the teacher's heads")
    student: StudentOptions = Field(StudentOptions(), description="and its student")


class LatencyOptions(Options):
    """How latency is measured (MT-05)."""

    requests: int = Field(1000, ge=1, description="timed calls of each cell [S: 1,000]")
    seconds: float = Field(
        10.0, gt=0, description="a cell's calls stop here, its n says how many there were [D]"
    )
    warm_up: int = Field(5, ge=0, description="calls before them")
    batches: tuple[int, ...] = Field((1, 32, 256), description="rows of a call [S]")
    threads: tuple[int, ...] = Field((1, 2), description="CPU threads [S]")
    export: Literal["aot_inductor", "program", "none"] = Field(
        "aot_inductor",
        description="exported graph: compiled by AOTInductor (needs a C++ compiler), as the exported program, or left out",
    )
    published: bool = Field(True, description="time the published widths with random weights, too")
    seed: int = Field(0, ge=0, description="seed of the rows that are called for")


class CompressParameters(Options):
    """Block ``compress``."""

    command: str = Field(description="shown in the report")
    work_dir: str = Field(description="folder of unfinished training runs")
    student: StudentOptions
    distillation: DistillationOptions
    training: TrainOptions
    pruning: PruningOptions
    quantisation: QuantisationOptions
    latency: LatencyOptions
    untrained: UntrainedOptions


class CompressedOptions(Options):
    """A network of another kind, with some of its layers cut or in eight bits; written into checkpoints, not by hand."""

    base: str = Field(description="registered name of the network that was compressed")
    options: dict[str, Any] = Field(description="its options before")
    widths: dict[str, tuple[int, int]] = Field(
        {}, description="inputs and outputs that are left of each linear map that was cut"
    )
    heads: dict[str, int] = Field({}, description="heads left of each attention that was cut")
    int8: tuple[str, ...] = Field((), description="linear maps in eight bits")

    @model_validator(mode="after")
    def _not_nested(self) -> Self:
        if self.base == "mt_dqn_compressed":
            raise ValueError(
                "a compressed network is compressed again by its own options, not wrapped"
            )
        return self
