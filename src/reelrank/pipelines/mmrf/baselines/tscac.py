"""TSCAC: both stages, one after the other, each resumable. Source: METHODS §4.7."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar, Unpack

import polars as pl
import torch
from torch import nn

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_data import batch
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_rewards import RewardScale
from reelrank.models.registry import register
from reelrank.options import digest
from reelrank.pipelines.mmrf.baselines.constrained import AuxiliaryLearner, ConstrainedLearner
from reelrank.pipelines.mmrf.baselines.networks import ItemScorers, StateValues
from reelrank.pipelines.mmrf.baselines.options import TSCACOptions
from reelrank.pipelines.mmrf.baselines.weighted import (
    WeightedLearner,
    critic_weights,
    main_weights,
)
from reelrank.pipelines.mmrf.critics import build_critics
from reelrank.pipelines.mmrf.fitting import (
    FitArguments,
    Fitted,
    ValidateFn,
    logged_replay,
    method_identity,
)
from reelrank.pipelines.mmrf.learning import learn
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay
from reelrank.training.checkpoint import CONFIG_FILE, load_checkpoint, save_checkpoint
from reelrank.training.device import seed_everything

VALIDATION_DECISIONS = 2048  # of val, on which the constraints are measured
First = TypeVar("First", AuxiliaryLearner, WeightedLearner)
Second = TypeVar("Second", ConstrainedLearner, WeightedLearner)


@register("tscac", TSCACOptions, FeedSpec)
class TSCACPolicy(ItemScorers):
    """The actor of stage 2."""

    def __init__(self, options: TSCACOptions, spec: FeedSpec) -> None:
        super().__init__(1, options.actor, spec)
        self.options = options


def fit_tscac(
    options: TSCACOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    **run: Unpack[FitArguments],
) -> Fitted:
    """Both stages on logged transitions; together they take the epochs that another method has.

    The history has the epochs of both. With ``closed_form`` it shows KL(π‖π_i) and ε_i on val as ``val_kl_<agent>`` and
    ``val_epsilon_<agent>``, and the epoch is chosen by ``val_constrained``: the headline, far lower where a constraint is broken.
    """
    scale = RewardScale.fit(inputs, options.agents)
    transitions = logged_replay(inputs, scale, replay, options.actor.encoder.history)
    run["identity"] = method_identity("tscac", options, replay, run)
    build = _closed_form if options.variant == "closed_form" else _code
    return build(options, inputs, learning, transitions, run)


def _closed_form(
    options: TSCACOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: Replay,
    run: FitArguments,
) -> Fitted:
    device, spec, n = inputs.rows.item.device, FeedSpec.of(inputs), len(options.agents)

    def first() -> AuxiliaryLearner:
        actors = ItemScorers(n, options.actor, spec).to(device)
        return AuxiliaryLearner(actors, StateValues(n, options.critic, spec).to(device), options)

    def second(stage1: AuxiliaryLearner) -> ConstrainedLearner:
        return ConstrainedLearner(TSCACPolicy(options, spec).to(device), stage1, options).to(device)

    def validate(learner: ConstrainedLearner) -> ValidateFn:
        return _constrained(learner, inputs, run["validate_fn"])

    return _two_stages(first, second, validate, options, learning, replay, run)


def _code(
    options: TSCACOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: Replay,
    run: FitArguments,
) -> Fitted:
    device, spec, n = inputs.rows.item.device, FeedSpec.of(inputs), len(options.agents)
    code = options.code

    def first() -> WeightedLearner:
        critics = build_critics(n, options.critic, spec).to(device)
        weights = critic_weights(code.weights, replay.scale)
        return WeightedLearner(TSCACPolicy(options, spec).to(device), critics, weights, options)

    def second(stage1: WeightedLearner) -> WeightedLearner:
        actor = TSCACPolicy(options, spec).to(device)
        actor.take(stage1.actors, 0)
        weights = main_weights(code.main_weight, replay.scale)
        return WeightedLearner(actor, stage1.critics, weights, options, anchor=stage1.actors)

    return _two_stages(first, second, lambda _: run["validate_fn"], options, learning, replay, run)


def _two_stages(
    first: Callable[[], First],
    second: Callable[[First], Second],
    validate: Callable[[Second], ValidateFn],
    options: TSCACOptions,
    learning: LearningOptions,
    replay: Replay,
    run: FitArguments,
) -> Fitted:
    """Stage 1 to its end, kept until stage 2 has ended too."""
    epochs = max(1, round(options.stage1_share * learning.epochs))
    # no validation: which epoch's auxiliaries are best is not the main response's business
    early = learning.model_copy(update={"epochs": epochs, "patience": epochs})
    late = learning.model_copy(update={"epochs": max(1, learning.epochs - epochs)})
    seed_everything(learning.seed)
    stage1 = first()
    kept = run["work_dir"] / f"stage1-{digest(early, run['identity'])}"
    if (kept / CONFIG_FILE).exists():
        tensors, config = load_checkpoint(kept)
        history = pl.DataFrame(config["history"])
    else:
        learnt = learn(
            stage1,
            replay,
            early,
            validate_fn=lambda _: {"stage1": 0.0},
            work_dir=run["work_dir"],
            identity={**run["identity"], "stage": 1},
        )
        stage1.policy.load_state_dict(learnt.fit.last)
        history = learnt.fit.history.drop("val_stage1")
        tensors = stage1.tensors()
        save_checkpoint(kept, tensors, {"history": history.to_dicts()})
    stage1.restore(tensors)
    seed_everything(learning.seed)
    learner = second(stage1)
    learnt = learn(
        learner,
        replay,
        late,
        validate_fn=validate(learner),
        work_dir=run["work_dir"],
        identity={**run["identity"], "stage": 2},
    )
    shutil.rmtree(kept)
    later = learnt.fit.history.with_columns(pl.col("epoch") + epochs, pl.col("update") + epochs * learning.steps)  # fmt: skip
    fit = replace(
        learnt.fit,
        history=pl.concat(
            [history.with_columns(stage=1), later.with_columns(stage=2)], how="diagonal_relaxed"
        ),
        best_epoch=learnt.fit.best_epoch + epochs,
    )
    return Fitted(learner.policy, fit, learnt.conflicts)


def _constrained(
    learner: ConstrainedLearner, inputs: FeedInputs, validate_fn: ValidateFn
) -> ValidateFn:
    """``validate_fn`` with the constraints on val; the headline falls by a thousand per nat of the worst violation."""
    decisions = inputs.decisions
    index = torch.nonzero((decisions.split == 1) & ~decisions.is_rand).squeeze(1)
    index = index[:: max(1, len(index) // VALIDATION_DECISIONS)]
    states = batch(inputs, index, learner.options.actor.encoder.history)

    def validate(policy: nn.Module) -> Mapping[str, float]:
        found = dict(validate_fn(policy))
        constraints = {name: float(v) for name, v in learner.constraints(states).items()}
        excess = max(constraints[f"kl_{a}"] - constraints[f"epsilon_{a}"] for a in learner.agents[:-1])  # fmt: skip
        headline = next(iter(found.values()))
        return {"constrained": headline - 1000.0 * max(0.0, excess), **found, **constraints}

    return validate
