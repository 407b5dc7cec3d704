"""What a feed rewards: weights of the value model's heads, and what they leave unexplained (METHODS §6.6, §6.7)."""

from reelrank.pipelines.head_weights.pipeline import create_pipeline

__all__ = ["create_pipeline"]
