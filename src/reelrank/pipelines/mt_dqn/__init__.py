"""MT-DQN: transformer fusion, temporal graph network and deep Q-network over short videos."""

from reelrank.models import homes
from reelrank.pipelines.mt_dqn.pipeline import create_judging, create_pipeline

homes.declare("reelrank.pipelines.mt_dqn.model", "mt_dqn")
homes.declare("reelrank.pipelines.mt_dqn.variants", "mt_dqn_supervised", "mt_dqn_behaviours")
homes.declare("reelrank.pipelines.mt_dqn.baselines", "concat_modal", "vanilla_dqn", "popularity")

__all__ = ["create_judging", "create_pipeline"]
