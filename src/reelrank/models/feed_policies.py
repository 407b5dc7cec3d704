"""Trained policies of a feed from their checkpoints, whichever pipeline trained them.

Source: ARCHITECTURE, "who may know whom": what one pipeline makes for another travels as a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reelrank.models import registry


class Checkpoint(Protocol):
    """A :class:`reelrank.training.artifact.ModelCheckpoint`, as far as it is read here."""

    @property
    def config(self) -> Mapping[str, Any]:
        """``name`` (of the registry), ``options``, ``spec`` and ``history``."""
        ...

    @property
    def best(self) -> Mapping[str, Tensor]:
        """State dict of the best epoch."""
        ...


def load_policy(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> nn.Module:
    """The policy of a checkpoint with its best weights, in evaluation mode: a :class:`~reelrank.models.feed.FeedPolicy`.

    Args:
        checkpoint: of any method of ``pipelines.mmrf``.
        device: where it goes.

    Raises:
        KeyError: no pipeline registered the name.
        TypeError: the model ranks no feed.
    """
    config = checkpoint.config
    policy = registry.build(config["name"], config["options"], config["spec"], nn.Module)
    if not callable(getattr(policy, "scores", None)):
        raise TypeError(f"{config['name']!r} has no scores(batch): it is no policy of a feed")
    policy.load_state_dict(dict(checkpoint.best))
    return policy.to(device).eval()


def history_length(checkpoint: Checkpoint) -> int:
    """Rows of history that the policy was trained with, and must be shown.

    Raises:
        KeyError: the checkpoint is none of a feed's policy.
    """
    return int(checkpoint.config["history"])
