"""What fitting any policy of this system is told, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from torch import Tensor, nn

from reelrank.models.feed import FeedInputs
from reelrank.models.feed_encoder import FeedSpec
from reelrank.models.feed_rewards import RewardScale
from reelrank.options import Options
from reelrank.pipelines.mmrf.options import ReplayOptions
from reelrank.pipelines.mmrf.replay import Replay
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.loop import FitResult

ValidateFn = Callable[[nn.Module], Mapping[str, float]]
"""Metrics of a policy on val decisions; the first is the headline, larger is better."""


class FitArguments(TypedDict):
    """What every fit is told beside its options and data.

    Attributes:
        validate_fn: chooses the epoch, on val decisions only (L9).
        work_dir: where an unfinished run keeps its state, and is taken up again.
        identity: what the result depends on beside the options: fingerprints of data and code.
    """

    validate_fn: ValidateFn
    work_dir: Path
    identity: Mapping[str, object]


@dataclass(frozen=True)
class Fitted:
    """A trained policy.

    Attributes:
        policy: a :class:`~reelrank.models.feed.FeedPolicy` with its best weights, in evaluation mode.
        fit: weights and the history, a row per epoch.
        conflicts: (N, N) mean cosines of the agents' gradients, None for a method without agents.
        critics: MMRF's, as they were when training ended; None for other methods.
    """

    policy: nn.Module
    fit: FitResult
    conflicts: Tensor | None = None
    critics: nn.Module | None = None

    def checkpoint(
        self, name: str, options: Options, spec: FeedSpec, **more: object
    ) -> ModelCheckpoint:
        """Weights, and the config from which ``models.registry`` rebuilds the policy.

        Args:
            name: registered.
            options: what was fitted.
            spec: sizes of the inputs.
            more: anything else that JSON holds.
        """
        config = {
            "name": name,
            "options": options.model_dump(mode="json"),
            "spec": spec.model_dump(mode="json"),
            "parameters": sum(p.numel() for p in self.policy.parameters()),
            "best_epoch": self.fit.best_epoch,
            **more,
        }
        return ModelCheckpoint(config, self.fit.best, self.fit.last)


def method_identity(
    name: str, options: Options, replay: ReplayOptions, run: FitArguments
) -> dict[str, object]:
    """``run``'s identity with the method, its options and the batches."""
    return {
        **run["identity"],
        "name": name,
        "options": options.model_dump(mode="json"),
        "replay": replay.model_dump(mode="json"),
    }


def logged_replay(
    inputs: FeedInputs, scale: RewardScale, options: ReplayOptions, history: int
) -> Replay:
    """Transitions of the log alone: no baseline learns from non-impressions."""
    logged = options.model_copy(update={"non_impressions": "none"})
    return Replay(inputs, scale, logged, history)
