"""MT-DQN made small and fast: a distilled student, pruned networks, int8, an exported graph. Source: METHODS §9 MT-05, MT-06."""

from reelrank.models import homes
from reelrank.pipelines.compress.options import VARIANTS
from reelrank.pipelines.compress.pipeline import FROM_TEACHER, create_pipeline

homes.declare("reelrank.pipelines.compress.compressed", "mt_dqn_compressed")

__all__ = ["FROM_TEACHER", "VARIANTS", "create_pipeline"]
