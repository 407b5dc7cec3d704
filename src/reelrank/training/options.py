"""Parameters of training; torch is not needed to validate them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from reelrank.options import Options, digest

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


class TrainOptions(Options):
    """How long, how fast and how carefully a model learns."""

    epochs: int = Field(20, ge=1, description="passes over the training rows at most [D]")
    batch_size: int = Field(
        200, ge=1, description="consecutive rows of a batch [D: PyG's TGN example]"
    )
    lr: float = Field(1e-4, gt=0, description="Adam's first learning rate [D]")
    lr_min: float = Field(
        1e-6, ge=0, description="learning rate at the end of the cosine [D; cosine is S]"
    )
    weight_decay: float = Field(1e-5, ge=0, description="L2 term added to the gradient [D]")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the whole gradient")
    patience: int = Field(5, ge=1, description="epochs without a better validation metric")
    seed: int = Field(0, ge=0, description="seed of initialisation, dropout and negatives")
    checkpoint_every_steps: int = Field(
        500, ge=1, description="steps between checkpoints of an unfinished run [D]"
    )
    device: DeviceName = Field("auto", description="auto: CUDA, else CPU")
    precision: Precision = Field(
        "float32",
        description="bfloat16: matrix products of a step with factors of half the bits; weights, sums, losses and whatever is evaluated stay float32 [D]",
    )

    def run_folder(self, work_dir: Path, identity: Mapping[str, object]) -> Path:
        """Where an unfinished run keeps its state: what changes the result changes the folder."""
        own = self.model_dump(mode="json", exclude={"checkpoint_every_steps"})
        return work_dir / digest(own, dict(identity))


class InTurnOptions(Options):
    """How the feedback simulator learns between two rounds of the policy (Algorithm 1)."""

    passes: int = Field(1, ge=1, description="over the impressions of train, per round [S: 1]")
    batch_size: int = Field(64, ge=1, description="windows of users' rows [D]")
    lr: float = Field(1e-3, gt=0, description="Adam's rate [D]")
    weight_decay: float = Field(0.0, ge=0, description="L2 term added to the gradient [D]")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the whole gradient")
