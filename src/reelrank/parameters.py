"""All parameters as one typed tree: an unknown key anywhere, or two values that contradict each other, is refused at once.

Kedro validates the blocks that nodes ask for; a misspelt block name would be nobody's, and pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from reelrank.buckets import EngineOptions
from reelrank.features.histories import HistoryOptions
from reelrank.features.modal import ProxyOptions
from reelrank.features.rewards import R_MAX, RewardOptions
from reelrank.features.splits import SplitOptions
from reelrank.options import Options
from reelrank.pipelines.ingestion.nodes import RawOptions
from reelrank.pipelines.mt_dqn.options import (
    ConcatModalOptions,
    EvaluateOptions,
    LearningOptions,
    ListOptions,
    MTDQNOptions,
    PopularityOptions,
    PredictOptions,
    SizeOptions,
    VanillaDQNOptions,
)
from reelrank.sources.ingest import LogOptions
from reelrank.training.options import TrainOptions
from reelrank.worlds.kuairand import WorldOptions


class KuaiRandParameters(Options):
    """Block ``kuairand``."""

    raw: RawOptions
    ingest: LogOptions
    split: SplitOptions
    history: HistoryOptions
    proxy: ProxyOptions


class WorldParameters(Options):
    """Block ``worlds``."""

    kuairand: WorldOptions


class MTDQNModels(Options):
    """Block ``mt_dqn.models``."""

    mt_dqn: MTDQNOptions
    concat_modal: ConcatModalOptions
    vanilla_dqn: VanillaDQNOptions
    popularity: PopularityOptions


class MTDQNParameters(Options):
    """Block ``mt_dqn``."""

    command: str
    work_dir: str
    reward: RewardOptions
    lists: ListOptions
    learning: LearningOptions
    training: TrainOptions
    models: MTDQNModels
    prediction: PredictOptions
    evaluation: EvaluateOptions
    sizes: SizeOptions

    @model_validator(mode="after")
    def _agree(self) -> Self:
        reward, learning = self.reward, self.learning
        if reward.gamma != learning.gamma:
            raise ValueError(
                f"reward.gamma {reward.gamma} and learning.gamma {learning.gamma} must be equal: set both"
            )
        largest = R_MAX + reward.lambda_retention + reward.lambda_interest
        if learning.r_max < largest - 1e-9:
            raise ValueError(
                f"learning.r_max {learning.r_max} is below the largest reward {R_MAX} + λ1 + λ2 = {largest}"
            )
        if learning.link_weight and not self.models.mt_dqn.link_head:
            raise ValueError(
                "learning.link_weight > 0 needs models.mt_dqn.link_head: true (or set the weight to 0)"
            )
        if self.prediction.top < self.evaluation.k:
            raise ValueError(
                f"prediction.top {self.prediction.top} must be at least evaluation.k {self.evaluation.k}"
            )
        return self


class Parameters(Options):
    """Everything in ``conf/*/parameters`` and on the command line."""

    engine: EngineOptions
    kuairand: KuaiRandParameters
    worlds: WorldParameters
    mt_dqn: MTDQNParameters
    raw_root: str | None = Field(None, description="command line only: folder of official files")
    data_root: str | None = Field(None, description="command line only: folder of all outputs")


def check_parameters(parameters: Mapping[str, Any]) -> list[str]:
    """What is wrong with the parameters, a sentence with its path each; empty when all is well."""
    try:
        Parameters.model_validate(dict(parameters))
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, found['loc'])) or 'parameters'}: {found['msg']} (given: {found['input']!r})"[:400]
            for found in error.errors()
        ]  # fmt: skip
    return []
