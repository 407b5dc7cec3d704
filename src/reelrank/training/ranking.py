"""A ranking model taken back from its checkpoint, whichever pipeline trained it."""

from __future__ import annotations

import torch

from reelrank.models import registry
from reelrank.models.inputs import ModelInputs
from reelrank.models.policy import RankingModel
from reelrank.training.artifact import ModelCheckpoint


def restore(checkpoint: ModelCheckpoint, inputs: ModelInputs) -> RankingModel:
    """The model of a checkpoint with its best weights, on the device of ``inputs``, ready to predict."""
    config = checkpoint.config
    network = registry.build(config["name"], config["options"], config["spec"], RankingModel)
    network.load_state_dict(dict(checkpoint.best))
    network.to(inputs.device).eval()
    with torch.no_grad():
        network.refresh(inputs)
    return network
