"""MT-DQN: transformer fusion, temporal graph network and deep Q-network over short videos."""

from reelrank.pipelines.mt_dqn.pipeline import create_pipeline

__all__ = ["create_pipeline"]
