"""MMRF from its options and a log to a trained policy.

Source: METHODS §4.3 to §4.6, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_rewards import RewardScale
from reelrank.pipelines.mmrf.actors import MMRFActors
from reelrank.pipelines.mmrf.critics import build_critics
from reelrank.pipelines.mmrf.fitting import Fitted
from reelrank.pipelines.mmrf.learning import learn
from reelrank.pipelines.mmrf.options import LearningOptions, ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay
from reelrank.pipelines.mmrf.run_options import MMRFOptions
from reelrank.pipelines.mmrf.updates import ActorCritic
from reelrank.training.device import seed_everything
from reelrank.training.simulator_in_turn import SimulatorInTurn


def fit_mmrf(
    options: MMRFOptions,
    inputs: FeedInputs,
    learning: LearningOptions,
    replay: ReplayOptions,
    *,
    validate_fn: Callable[[nn.Module], Mapping[str, float]],
    work_dir: Path,
    identity: Mapping[str, object],
) -> Fitted:
    """Train actors, critics and, where non-impressions are wanted, the feedback simulator in turn.

    Args:
        options: networks, updates and the simulator.
        inputs: a log, on the device to train on.
        learning: Algorithm 1.
        replay: what the policy learns from; ``non_impressions: none`` needs no simulator.
        validate_fn: see :func:`~reelrank.pipelines.mmrf.learning.learn`.
        work_dir: parent of the run's own folder.
        identity: what the result depends on beside the options: fingerprints of data and code.

    Raises:
        CriticDiverged: a critic left every plausible value.
        ValueError: an agent's response is unknown or never logged, or there is nothing to train on.
    """
    actor, device = options.actor, inputs.rows.item.device
    scale = RewardScale.fit(inputs, actor.agents)
    seed_everything(learning.seed)
    spec = FeedSpec.of(inputs)
    actors = MMRFActors(actor, spec).to(device)
    critics = build_critics(len(actor.agents), options.critic, spec).to(device)
    feedback = None
    if replay.non_impressions != "none":
        feedback = SimulatorInTurn(
            inputs, options.simulator, options.in_turn, options.reward, seed=learning.seed
        )
    learnt = learn(
        ActorCritic(actors, critics, options.update),
        Replay(inputs, scale, replay, actor.encoder.history, feedback),
        learning,
        validate_fn=validate_fn,
        work_dir=work_dir,
        identity={**identity, "model": options.model_dump(mode="json"), "replay": replay.model_dump(mode="json")},
    )  # fmt: skip
    return Fitted(actors, learnt.fit, learnt.conflicts, critics)
