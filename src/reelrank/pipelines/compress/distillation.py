"""A network learns what its teacher says of the catalogue: KL of the behaviours, squared error of Q.

Item states are those of a batch's first moment and shared by its rows, as in the catalogue's ranking, so that every row is compared on many
videos for the price of a few; the videos are those available at its last, for a log's first moment has none. Source: METHODS §9 MT-06. Shapes: B rows of a batch, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.features.candidates import availability_ts
from reelrank.models import registry
from reelrank.models.inputs import ModelInputs
from reelrank.models.policy import Outputs, RankingModel
from reelrank.options import digest
from reelrank.pipelines.compress.compressed import built
from reelrank.pipelines.compress.options import DistillationOptions, StudentOptions
from reelrank.pipelines.compress.pruning import ZeroKeeper
from reelrank.provenance import code_version
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.device import pick_device, seed_everything
from reelrank.training.loop import Companion, FitResult, fit
from reelrank.training.options import TrainOptions
from reelrank.training.ranking import restore

AGREEMENT = "agreement"  # validation's headline: 1 − q_order
_LEAST = 1e-6  # variance below which a teacher says the same of everything


@dataclass(frozen=True)
class Lesson:
    """What teacher and pupil read.

    Attributes:
        teacher: frozen, in evaluation mode, refreshed.
        inputs: events, items, users.
        items: (n_items,) int64, in order of availability.
        availability: (n_items,) int64, of ``items``, UTC epoch ms.
        options: weights of the losses, sizes.
    """

    teacher: RankingModel
    inputs: ModelInputs
    items: Tensor
    availability: Tensor
    options: DistillationOptions

    @classmethod
    def of(
        cls,
        teacher: ModelCheckpoint,
        tables: Sequence[pl.DataFrame],
        options: DistillationOptions,
        training: TrainOptions,
    ) -> Lesson:
        """The teacher of a checkpoint on ``tables``: events, item_modal, items, users."""
        events, item_modal, items, users = tables
        device = pick_device(training.device)
        inputs = ModelInputs.from_tables(events, item_modal, items, users, device)
        available = torch.tensor(availability_ts(events, items), device=inputs.device)
        order = torch.argsort(available, stable=True)
        model = restore(teacher, inputs).requires_grad_(False)
        return cls(model, inputs, order, available[order], options)

    def candidates(self, ts: Tensor, generator: torch.Generator) -> Tensor:
        """Some videos (C,) that are available at a time, drawn uniformly, with replacement.

        Raises:
            ValueError: there is none.
        """
        n = int(torch.searchsorted(self.availability, ts, right=True))
        if not n:
            raise ValueError(f"no video is available at {int(ts)} ms: check upload times")
        drawn = torch.randint(
            n, (self.options.candidates,), generator=generator, device=self.items.device
        )
        return self.items[drawn]

    def compare(self, model: RankingModel, rows: Tensor, items: Tensor) -> dict[str, Tensor]:
        """Losses of the pupil against the teacher for rows (B,) and videos (C,).

        ``q_order`` is the part of Q's squared error inside a row, which decides the order of the videos, ``q_level`` the part of the rows'
        means; each in variances of the teacher's own.
        """
        stream = self.inputs.stream
        users, ts = stream.user[rows], stream.ts_ms[rows]
        item_ts = ts[:1].expand_as(items)

        def outputs(network: RankingModel) -> Outputs:
            state = network.user_state(self.inputs, users, ts)
            return network.head(state, network.item_state(self.inputs, items, item_ts).unsqueeze(0))

        with torch.no_grad():
            told = outputs(self.teacher)
        said = outputs(model)
        mean, told_mean = (o.q.mean(1, keepdim=True) for o in (said, told))
        return {
            "kl": bernoulli_kl(told.behaviour_logits, said.behaviour_logits, self.options.temperature),
            "q_order": relative_error(said.q - mean, told.q - told_mean),
            "q_level": relative_error(mean, told_mean),
            "reward": relative_error(said.reward, told.reward),
            "value": relative_error(said.value, told.value),
        }  # fmt: skip

    def step(
        self, model: RankingModel, rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Losses of a batch of ``training.loop.fit``; the heads that are only judged stop their gradients themselves."""
        losses = self.compare(model, rows, self.candidates(self.inputs.stream.ts_ms[rows[-1]], generator))  # fmt: skip
        q = losses["q_order"] + losses["q_level"]
        total = self.options.kl_weight * losses["kl"] + self.options.q_weight * q
        return {"loss": total + losses["reward"] + losses["value"], **losses}

    def validate(self, model: RankingModel, rows: Tensor) -> dict[str, float]:
        """How far the pupil agrees on val rows (L9) and the same videos each time."""
        model.refresh(self.inputs)
        generator = torch.Generator(rows.device).manual_seed(0)
        losses = self.compare(model, rows, self.candidates(self.inputs.stream.ts_ms[rows[-1]], generator))  # fmt: skip
        return {AGREEMENT: 1 - float(losses["q_order"]), **{n: float(v) for n, v in losses.items()}}

    def fit(
        self,
        model: RankingModel,
        training: TrainOptions,
        work_dir: Path,
        identity: Mapping[str, object],
        companion: Companion | None = None,
    ) -> FitResult:
        """Train the pupil in place.

        Args:
            model: on the device of the inputs.
            training: length and rates.
            work_dir: where an unfinished run keeps its state.
            identity: what pupil and data are.
            companion: stored and restored with the pupil.

        Raises:
            ValueError: no val row.
        """
        stream = self.inputs.stream
        model.refresh(self.inputs)
        val = torch.nonzero((stream.split == 1) & ~stream.is_rand).squeeze(1)
        if not len(val):
            raise ValueError("no val row to compare teacher and pupil on: more days are needed")
        some = torch.linspace(0, len(val) - 1, min(self.options.validation_rows, len(val)))
        return fit(
            model,
            torch.nonzero(stream.trained_rows()).squeeze(1),
            step_fn=self.step,
            validate_fn=partial(self.validate, rows=val[some.long().to(val.device)]),
            options=training,
            work_dir=work_dir,
            identity={
                **identity,
                "distillation": self.options.model_dump(mode="json"),
                "code": code_version(),
            },
            companion=companion,
            clip_groups=_clip_groups(model),
        )


def bernoulli_kl(told: Tensor, said: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean KL(p ‖ p̂) of independent behaviours from their logits of any one shape, times T², so that T leaves gradients' size."""
    t, s = told / temperature, said / temperature
    p = torch.sigmoid(t)
    kl = p * (F.logsigmoid(t) - F.logsigmoid(s)) + (1 - p) * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return kl.sum(-1).mean() * temperature**2


def relative_error(said: Tensor, told: Tensor) -> Tensor:
    """Mean squared error in variances of ``told``: 0 = the same, 1 = as good as a constant."""
    return F.mse_loss(said, told) / told.var(correction=0).clamp_min(_LEAST)


def distil(
    teacher: ModelCheckpoint,
    lesson: Lesson,
    student: StudentOptions,
    training: TrainOptions,
    work_dir: Path,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """A small network of the teacher's kind that has learnt from it alone; and its history."""
    config = teacher.config
    options = student.of(config["options"])
    seed_everything(training.seed)
    model = registry.build(config["name"], options, config["spec"], RankingModel)
    result = lesson.fit(
        model.to(lesson.inputs.device), training, work_dir, _identity("student", teacher, options)
    )
    own = {**config, "options": options, **_how(training, result)}
    return ModelCheckpoint(own, result.best, result.last), _history("student", result)


def recover(
    variant: str,
    pruned: ModelCheckpoint,
    teacher: ModelCheckpoint,
    lesson: Lesson,
    training: TrainOptions,
    work_dir: Path,
    *,
    keep_zeros: bool,
) -> tuple[ModelCheckpoint, pl.DataFrame]:
    """A pruned network after some more lessons; ``keep_zeros``: weights that are zero stay so."""
    model = built(pruned).to(lesson.inputs.device)
    identity = _identity(variant, teacher, pruned.config["options"])
    result = lesson.fit(
        model, training, work_dir, identity, ZeroKeeper(model) if keep_zeros else None
    )
    own = {**pruned.config, **_how(training, result)}
    return ModelCheckpoint(own, result.best, result.last), _history(variant, result)


def _clip_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The heads that are only judged apart from the rest: in one clipped norm their gradients would scale the others'."""
    named = [({"value", "reward"} & set(name.split(".")), p) for name, p in model.named_parameters()]  # fmt: skip
    groups = ([p for judged, p in named if not judged], [p for judged, p in named if judged])
    return [group for group in groups if group]


def _how(training: TrainOptions, result: FitResult) -> dict[str, Any]:
    return {
        "training": training.model_dump(mode="json"),
        "best_epoch": result.best_epoch,
        "code_version": code_version(),
    }


def _identity(variant: str, teacher: ModelCheckpoint, options: Mapping[str, Any]) -> dict[str, Any]:
    weights = [(name, float(tensor.double().sum())) for name, tensor in sorted(teacher.best.items())]  # fmt: skip
    return {"name": f"compress.{variant}", "options": dict(options), "teacher": digest(weights)}


def _history(variant: str, result: FitResult) -> pl.DataFrame:
    return result.history.select(pl.lit(variant).alias("variant"), pl.all())
