"""One training loop for every model: batches in the order of time, cosine annealing, early stopping, exact resume.

Source: METHODS §1.8. The loop knows nothing of the model: a step function turns a batch into losses, a validation
function turns a model into metrics.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import polars as pl
import torch
from rich.progress import Progress
from torch import Tensor, nn

from reelrank.training.checkpoint import (
    CONFIG_FILE,
    cpu_state,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
    under_prefix,
    with_prefix,
)
from reelrank.training.device import products_in, rng_state, seed_everything, set_rng_state
from reelrank.training.options import TrainOptions

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)
StepFn = Callable[[Model, Tensor, torch.Generator], Mapping[str, Tensor]]
"""Model, rows (B,) and a generator on their device, to losses: the first is minimised, the others are logged."""
MAXIMUM = "_max"  # ending of a logged name whose largest value of an epoch is kept, not the mean


class Companion(Protocol):
    """What learns beside the model and belongs to its state, such as a target network."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors to store."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:  # noqa: ANN401 (nn.Module's)
        """Take back what ``state_dict`` gave."""

    def after_step(self, model: Any, step: int) -> None:  # noqa: ANN401 (each companion knows its model)
        """Called after optimiser step number ``step`` (the first is 1)."""


@dataclass(frozen=True)
class FitResult:
    """What training leaves; the model itself holds the ``best`` weights."""

    best: dict[str, Tensor]
    last: dict[str, Tensor]
    history: pl.DataFrame  # a row per epoch: epoch, step, train_*, val_*, lr, seconds
    best_epoch: int
    resumed_from_step: int  # 0: nothing was resumed


@dataclass
class _Run:
    """An unfinished run; ``batch`` is the next one of ``epoch``, both from 0."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    companion: Companion | None
    clip_groups: Sequence[Sequence[nn.Parameter]]
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)  # of this epoch's losses

    def headline(self) -> str:
        """Name of the metric that decides: the first of the validation."""
        return next(name for name in self.history[-1] if name.startswith("val_"))

    def best(self) -> int:
        """The first epoch with the best validation metric."""
        return max(range(len(self.history)), key=lambda i: self.history[i][self.headline()])

    def is_stale(self, patience: int) -> bool:
        """Whether the last ``patience`` epochs brought nothing better."""
        return bool(self.history) and self.epoch - 1 - self.best() >= patience

    def save(self, folder: Path) -> None:
        tensors = with_prefix("model", self.model.state_dict())
        tensors |= with_prefix("optimiser", optimiser_tensors(self.optimiser))
        tensors |= with_prefix("rng", rng_state())
        tensors |= with_prefix("sums", self.sums)
        tensors["generator"] = self.generator.get_state()
        if self.companion is not None:
            tensors |= with_prefix("companion", self.companion.state_dict())
        counters = {k: getattr(self, k) for k in ("epoch", "batch", "step", "seconds", "history")}
        save_checkpoint(folder, tensors, counters | {"sums": list(self.sums)})

    def restore(self, folder: Path) -> None:
        tensors, counters = load_checkpoint(folder)
        self.model.load_state_dict(under_prefix("model", tensors))
        restore_optimiser(self.optimiser, under_prefix("optimiser", tensors))
        set_rng_state(under_prefix("rng", tensors))
        self.generator.set_state(tensors["generator"])
        if self.companion is not None:
            self.companion.load_state_dict(under_prefix("companion", tensors))
        device = self.generator.device
        self.sums = {name: tensors[f"sums.{name}"].to(device) for name in counters.pop("sums")}
        for name, value in counters.items():
            setattr(self, name, value)


def cosine_lr(step: int, total_steps: int, lr: float, lr_min: float) -> float:
    """Learning rate of step ``step`` (from 0) of ``total_steps``: half a cosine from ``lr`` to ``lr_min``.

    Source: METHODS §3.8 [S: cosine annealing].
    """
    return lr_min + 0.5 * (lr - lr_min) * (1 + math.cos(math.pi * step / total_steps))


def fit(
    model: Model,
    rows: Tensor,
    *,
    step_fn: StepFn[Model],
    validate_fn: Callable[[Model], Mapping[str, float]],
    options: TrainOptions,
    work_dir: Path,
    identity: Mapping[str, object],
    companion: Companion | None = None,
    clip_groups: Sequence[Sequence[nn.Parameter]] | None = None,
    on_epoch: Callable[[Sequence[Mapping[str, float]]], None] | None = None,
) -> FitResult:
    """Train ``model`` in place and leave it with its best weights.

    A run that was killed continues from its last checkpoint, at the batch after it, and ends with the weights of an
    uninterrupted run (bit for bit on a CPU with the same number of threads).

    Args:
        model: on the device to train on.
        rows: (N,) positions to train on, in the order of time, on the same device.
        step_fn: losses of a batch.
        validate_fn: metrics of the model on validation data only (L9); the first is the headline, larger is better.
        options: sizes and rates.
        work_dir: parent of the run's own folder, which is removed on success.
        identity: what the result depends on beside ``options``: model options, fingerprint of the data and of the code.
        companion: stored and restored with the model.
        clip_groups: parameters whose gradients are clipped together; by default all.
        on_epoch: sees the history, a row per epoch, whenever one is added.

    Raises:
        ValueError: Nothing to train on, or a validation metric that is not a number.
        FloatingPointError: A loss that is not finite.
    """
    if not len(rows):
        raise ValueError("no rows to train on: the train split is empty")
    seed_everything(options.seed)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(
        learnt, lr=options.lr, weight_decay=options.weight_decay, fused=True
    )
    generator = torch.Generator(rows.device).manual_seed(options.seed)
    run = _Run(model, optimiser, generator, companion, clip_groups or [learnt])
    folder = options.run_folder(work_dir, identity)
    if (folder / "last" / CONFIG_FILE).exists():
        run.restore(folder / "last")
        log.info("continuing at step %d (epoch %d) from %s", run.step, run.epoch + 1, folder)
    resumed_from = run.step
    log.info("%d rows, %d parameters", len(rows), sum(p.numel() for p in learnt))

    while run.epoch < options.epochs and not run.is_stale(options.patience):
        started = time.monotonic() - run.seconds
        row = _train_epoch(
            run, rows, step_fn, options=options, folder=folder / "last", started=started
        )
        model.eval()
        with torch.no_grad():
            metrics = validate_fn(model)
        row |= {f"val_{name}": float(value) for name, value in metrics.items()}
        run.history.append(row)
        if not math.isfinite(row[run.headline()]):
            raise ValueError(f"{run.headline()} is not a number: the val split cannot be ranked")
        if run.best() == run.epoch:
            save_checkpoint(folder / "best", model.state_dict(), {"epoch": run.epoch + 1})
        run.seconds = row["seconds"] = time.monotonic() - started
        run.epoch, run.batch, run.sums = run.epoch + 1, 0, {}
        run.save(folder / "last")
        log.info(" ".join(f"{name}={value:.5g}" for name, value in row.items()))
        if on_epoch is not None:
            on_epoch(run.history)
    last = cpu_state(model)
    best, _ = load_checkpoint(folder / "best")
    model.load_state_dict(best)
    model.eval()
    # first what a resume looks for: a removal that is cut off leaves nothing to resume from
    (folder / "last" / CONFIG_FILE).unlink()
    shutil.rmtree(folder)
    return FitResult(best, last, pl.DataFrame(run.history), run.best() + 1, resumed_from)


def _train_epoch(
    run: _Run,
    rows: Tensor,
    step_fn: StepFn[Any],
    *,
    options: TrainOptions,
    folder: Path,
    started: float,
) -> dict[str, float]:
    """The rest of an epoch, with checkpoints to ``folder``; returns its row of the history."""
    n_batches = math.ceil(len(rows) / options.batch_size)
    run.model.train()
    for batch in _progress(run.batch, n_batches, f"epoch {run.epoch + 1}/{options.epochs}"):
        lr = cosine_lr(run.step, options.epochs * n_batches, options.lr, options.lr_min)
        chosen = rows[batch * options.batch_size : (batch + 1) * options.batch_size]
        with products_in(options.precision, rows.device):
            losses = step_fn(run.model, chosen, run.generator)
        _update(run, next(iter(losses.values())), lr, options.grad_clip)
        run.step += 1
        run.batch = batch + 1
        if run.companion is not None:
            with products_in(options.precision, rows.device):
                run.companion.after_step(run.model, run.step)
        for name, value in losses.items():
            run.sums[name] = _gathered(name, run.sums.get(name), value.detach())
        if run.step % options.checkpoint_every_steps == 0:
            run.seconds = time.monotonic() - started
            run.save(folder)
    row: dict[str, float] = {"epoch": run.epoch + 1, "step": run.step}
    row |= {
        f"train_{name}": float(total) / (1 if name.endswith(MAXIMUM) else n_batches)
        for name, total in run.sums.items()
    }
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        raise FloatingPointError(
            f"{', '.join(bad)} not finite in epoch {run.epoch + 1}: lower the learning rate"
        )
    lr_next = cosine_lr(run.step, options.epochs * n_batches, options.lr, options.lr_min)
    return row | {"lr": lr_next}


def _gathered(name: str, before: Tensor | None, value: Tensor) -> Tensor:
    """The sum over an epoch's batches, or the largest where the name says so."""
    if before is None:
        return value
    return torch.maximum(before, value) if name.endswith(MAXIMUM) else before + value


def _update(run: _Run, loss: Tensor, lr: float, clip: float) -> None:
    """One step of the optimiser at learning rate ``lr``."""
    for group in run.optimiser.param_groups:
        group["lr"] = lr
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    for parameters in run.clip_groups:
        nn.utils.clip_grad_norm_(parameters, clip)
    run.optimiser.step()


def _progress(first: int, end: int, description: str) -> Iterator[int]:
    """Count from ``first`` to ``end`` under a progress bar; silent where nobody watches."""
    with Progress(disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(description, total=end, completed=first)
        for number in range(first, end):
            yield number
            bar.advance(task)
