"""Algorithm 1: simulator and policy learn in turn, with checkpoints, validation, and a watch over the critics.

Any learner with transitions as its food can be trained by it: MMRF, and the baselines that have critics.
Source: METHODS §4.6, §1.8.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import polars as pl
import torch
from rich.progress import Progress
from torch import Tensor, nn

from reelrank.options import digest
from reelrank.pipelines.mmrf.options import Keep, LearningOptions
from reelrank.pipelines.mmrf.replay import Replay, Transition
from reelrank.training.checkpoint import (
    CONFIG_FILE,
    cpu_state,
    load_checkpoint,
    save_checkpoint,
    under_prefix,
    with_prefix,
)
from reelrank.training.device import rng_state, seed_everything, set_rng_state
from reelrank.training.loop import FitResult

log = logging.getLogger(__name__)
Q_MAX = "q_abs_max"


class Learner(Protocol):
    """What learns from transitions."""

    @property
    def agents(self) -> Sequence[str]:
        """Names of the N critics."""
        ...

    @property
    def gamma(self) -> float:
        """Discount of the critics."""
        ...

    @property
    def policy(self) -> nn.Module:
        """What ranks: validated, and kept."""
        ...

    def update(self, transition: Transition) -> Mapping[str, Tensor]:
        """One step; losses of any shape, and ``q_abs_max``, (N,) the largest |Q| of the batch."""
        ...

    def conflicts(self, transition: Transition) -> Tensor:
        """(N, N) cosines of the agents' gradients."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All that a next update depends on."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        ...


class CriticDiverged(FloatingPointError):
    """A critic left every plausible value; training was stopped.

    Attributes:
        agent: whose critic.
        step: updates that were made.
        checkpoint: folder with the last good state.
    """

    def __init__(self, agent: str, step: int, value: float, limit: float, checkpoint: Path) -> None:
        super().__init__(
            f"critic of {agent} diverged by update {step}: |Q| = {value:.3g}, plausible is up to {limit:.3g}. "
            f"The last good state is kept in {checkpoint}; lower critic_lr or gamma"
        )
        self.agent, self.step, self.checkpoint = agent, step, checkpoint


@dataclass(frozen=True)
class Learnt:
    """What training leaves; the learner's policy holds the weights that are kept.

    Attributes:
        fit: weights of the policy and the history, a row per epoch.
        conflicts: (N, N) mean cosines of the agents' gradients, None where none were taken.
    """

    fit: FitResult
    conflicts: Tensor | None


@dataclass
class _Run:
    """An unfinished run: ``update`` of ``epoch`` is the next one, both from 0; ``is_ready`` after the simulator's pass."""

    learner: Learner
    replay: Replay
    generator: torch.Generator
    epoch: int = 0
    update: int = 0
    is_ready: bool = False
    seconds: float = 0.0
    n_conflicts: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    simulator: dict[str, float] = field(default_factory=dict)  # this epoch's losses
    sums: dict[str, Tensor] = field(default_factory=dict)  # of this epoch's losses
    conflicts: Tensor | None = None

    _COUNTERS = ("epoch", "update", "is_ready", "seconds", "n_conflicts", "history", "simulator")

    def step(self, options: LearningOptions) -> int:
        return self.epoch * options.steps + self.update

    def headline(self) -> str:
        return next(name for name in self.history[-1] if name.startswith("val_"))

    def kept(self, keep: Keep) -> int:
        """The epoch whose weights are kept, from 0: the first with the best validation metric, or the last."""
        if keep == "last":
            return len(self.history) - 1
        return max(range(len(self.history)), key=lambda i: self.history[i][self.headline()])

    def is_done(self, options: LearningOptions) -> bool:
        if not self.history:
            return False
        idle = self.epoch - 1 - self.kept(options.keep)
        return self.epoch >= options.epochs or idle >= options.patience

    def save(self, folder: Path) -> None:
        tensors = with_prefix("learner", self.learner.tensors())
        tensors |= with_prefix("rng", rng_state()) | with_prefix("sums", self.sums)
        tensors["generator"] = self.generator.get_state()
        if self.conflicts is not None:
            tensors["conflicts"] = self.conflicts
        if self.replay.feedback is not None:
            tensors |= with_prefix("feedback", self.replay.feedback.state_dict())
        if self.replay.pool is not None:
            tensors |= {"pool.decision": self.replay.pool[0], "pool.column": self.replay.pool[1]}
        save_checkpoint(folder, tensors, {k: getattr(self, k) for k in self._COUNTERS})

    def restore(self, folder: Path) -> None:
        tensors, counters = load_checkpoint(folder)
        device = self.generator.device
        self.learner.restore(under_prefix("learner", tensors))
        set_rng_state(under_prefix("rng", tensors))
        self.generator.set_state(tensors["generator"])
        self.sums = {k: t.to(device) for k, t in under_prefix("sums", tensors).items()}
        self.conflicts = tensors.get("conflicts")
        if self.replay.feedback is not None:
            self.replay.feedback.load_state_dict(under_prefix("feedback", tensors))
        pool = under_prefix("pool", tensors)
        if pool:
            self.replay.pool = pool["decision"].to(device), pool["column"].to(device)
        for name, value in counters.items():
            setattr(self, name, value)


def learn(
    learner: Learner,
    replay: Replay,
    options: LearningOptions,
    *,
    validate_fn: Callable[[nn.Module], Mapping[str, float]],
    work_dir: Path,
    identity: Mapping[str, object],
) -> Learnt:
    """Train a learner and leave its policy with the weights that ``options.keep`` asks for.

    A run that was killed continues from its last checkpoint and ends with the weights of an uninterrupted one (bit for bit
    on a CPU with the same number of threads).

    Args:
        learner: fresh weights, built after ``seed_everything(options.seed)``, on the replay's device.
        replay: transitions, and the simulator that learns in turn.
        options: epochs and steps.
        validate_fn: metrics of the policy on validation data only (L9); the first is the headline, larger is better.
        work_dir: parent of the run's own folder, which is removed on success.
        identity: what the result depends on beside ``options``: options of networks, updates and replay, fingerprints.

    Raises:
        CriticDiverged: a critic is not finite, or larger than rewards can add up to.
        ValueError: the validation metric is not a number.
    """
    seed_everything(options.seed)
    device = replay.decisions.device
    run = _Run(learner, replay, torch.Generator(device).manual_seed(options.seed))
    own = options.model_dump(mode="json", exclude={"check_every"})
    folder = work_dir / digest(own, dict(identity))
    if (folder / "last" / CONFIG_FILE).exists():
        run.restore(folder / "last")
        log.info("continuing at update %d from %s", run.step(options), folder)
    resumed_from = run.step(options)
    while not run.is_done(options):
        _epoch(run, options, folder, validate_fn)
    last = cpu_state(learner.policy)
    kept, _ = load_checkpoint(folder / "kept")
    learner.policy.load_state_dict(kept)
    learner.policy.eval()
    # first what a resume looks for: a removal that is cut off leaves nothing to resume from
    (folder / "last" / CONFIG_FILE).unlink()
    shutil.rmtree(folder)
    fit = FitResult(kept, last, pl.DataFrame(run.history), run.kept(options.keep) + 1, resumed_from)
    return Learnt(fit, None if run.conflicts is None else run.conflicts / run.n_conflicts)


def _epoch(
    run: _Run,
    options: LearningOptions,
    folder: Path,
    validate_fn: Callable[[nn.Module], Mapping[str, float]],
) -> None:
    """The rest of an epoch, its validation, and its checkpoints."""
    started = time.monotonic() - run.seconds
    if not run.is_ready:
        if run.replay.feedback is not None:
            run.simulator = dict(run.replay.feedback.fit_pass(run.generator))
            run.replay.sample_non_impressions(run.generator, run.learner.policy)
        run.is_ready = True
        run.save(folder / "last")  # something good to fall back to
    run.learner.policy.train()
    _updates(run, options, folder / "last", started)
    row: dict[str, float] = {"epoch": run.epoch + 1, "update": run.step(options)}
    row |= {f"simulator_{name}": float(v) for name, v in run.simulator.items()}
    row |= _means(run.sums, run.learner.agents, options.steps)
    run.learner.policy.eval()
    with torch.no_grad():
        metrics = validate_fn(run.learner.policy)
    row |= {f"val_{name}": float(v) for name, v in metrics.items()}
    run.history.append(row)
    if not math.isfinite(row[run.headline()]):
        raise ValueError(f"{run.headline()} is not a number: the val split cannot be ranked")
    if run.kept(options.keep) == run.epoch:
        save_checkpoint(folder / "kept", run.learner.policy.state_dict(), {"epoch": run.epoch + 1})
    run.seconds = row["seconds"] = time.monotonic() - started
    run.epoch, run.update, run.is_ready = run.epoch + 1, 0, False
    run.sums, run.simulator = {}, {}
    run.save(folder / "last")
    log.info(" ".join(f"{name}={value:.5g}" for name, value in row.items()))


def _updates(run: _Run, options: LearningOptions, folder: Path, started: float) -> None:
    title = f"epoch {run.epoch + 1}/{options.epochs}"
    largest: Tensor | None = None  # |Q| since the last look
    with Progress(disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(title, total=options.steps, completed=run.update)
        while run.update < options.steps:
            transition = run.replay.sample(run.generator)
            if options.conflict_every and run.step(options) % options.conflict_every == 0:
                found = run.learner.conflicts(transition).cpu()
                run.conflicts = found if run.conflicts is None else run.conflicts + found
                run.n_conflicts += 1
            losses = dict(run.learner.update(transition))
            q_max = losses[Q_MAX]
            largest = q_max if largest is None else torch.maximum(largest, q_max)
            for name, value in losses.items():
                known = run.sums.get(name)
                run.sums[name] = value.detach() if known is None else _gathered(name, known, value)
            run.update += 1
            bar.advance(task)
            if run.update % options.check_every == 0 or run.update == options.steps:
                _require_plausible(run, largest, options, folder)
                largest = None
                if run.update < options.steps:
                    run.seconds = time.monotonic() - started
                    run.save(folder)


def _gathered(name: str, before: Tensor, value: Tensor) -> Tensor:
    """The sum over an epoch's updates; of |Q| the largest."""
    return torch.maximum(before, value) if name == Q_MAX else before + value.detach()


def _require_plausible(run: _Run, largest: Tensor, options: LearningOptions, folder: Path) -> None:
    """Stop a critic that has left what rewards can add up to; NaN is larger than anything."""
    limits = options.divergence * run.replay.scale.largest.clamp_min(1.0) / (1 - run.learner.gamma)
    for agent, value, limit in zip(
        run.learner.agents, largest.tolist(), limits.tolist(), strict=True
    ):
        if not value <= limit:
            raise CriticDiverged(agent, run.step(options), value, limit, folder)


def _means(sums: Mapping[str, Tensor], agents: Sequence[str], n: int) -> dict[str, float]:
    """Means of an epoch's losses, one per agent where a loss has as many."""
    row: dict[str, float] = {}
    for name, total in sums.items():
        values = (total if name == Q_MAX else total / n).flatten().tolist()
        labels = [f"_{a}" for a in agents] if total.dim() else [""]
        row |= {f"train_{name}{label}": v for label, v in zip(labels, values, strict=True)}
    return row
